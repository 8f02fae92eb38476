"""Sampling answers: one loop over the model's own forward pass with its key-value cache.

Choices
- A prompt is read once for its K answers; prompts of similar length go together; an answer that has
  ended leaves the batch.
- Each token is drawn by inverse CDF from one uniform number that belongs to (answer seed, token
  index), so an answer does not depend on who shares its batch (up to the rounding of the kernels).
- Repetition penalty, temperature, top-k, top-p and min-p are those of transformers' logits
  processors, in their order. The log-probability is the model's own at the sampling temperature,
  before the penalty and the cuts, from the pass that the token was drawn from.
- How keys and values are kept, cache.py says.
Non-goals: beam search, speculative decoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from trainer.blocks import lean_throughout
from trainer.cache import (
    close_ranks,
    keep_rows,
    new_cache,
    repeat_rows,
    roomy_layers,
    share_prompts,
)
from trainer.events import Diverged
from trainer.modeling import logits_of, trunk
from trainer.types import Sampled, Sampling

#: tokens whose weights are summed at once when one is drawn
BLOCK = 256
#: weights that are looked at together: they should fit into a cache
NEAR = 2**19
#: likeliest tokens that top-p looks at before it sorts the whole vocabulary
LIKELY = 1024
#: said when there is nothing to draw from
SPOILT = (
    "The policy's logits are no number any more: if it is in training, take a lower config.lr and "
    "a new run folder; else its weights are damaged: restore them."
)
#: tokens that could be read in the time that one more pass through the model costs
PASS = 64


def answer_seed(run_seed: int, *names: str | int) -> int:
    """A seed of 63 bits from the run's seed and the answer's name."""
    text = "\x1f".join([str(run_seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniforms(seeds: Sequence[int], index: int) -> Tensor:
    """One number in [0, 1) for each answer seed at this token index (splitmix64), float64."""
    with np.errstate(over="ignore"):
        z = np.array(seeds, dtype=np.uint64) + np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def draw(
    logits: Tensor, u: Tensor, sampling: Sampling, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A token for each row of (b, V) logits by the inverse CDF at u in [0, 1), and its
    log-probability.

    `seen` (b, V) marks what stands in the text already, for the repetition penalty. Temperature 0
    takes the likeliest token and gives its log-probability at temperature 1.
    """
    many = max(1, NEAR // logits.shape[1])
    parts = [
        _draw_near(
            logits[at : at + many],
            u[at : at + many],
            sampling,
            None if seen is None else seen[at : at + many],
        )
        for at in range(0, len(logits), many)
    ]
    tokens, logprobs = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(logprobs)


def _draw_near(
    logits: Tensor, u: Tensor, sampling: Sampling, seen: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`draw` for a few rows."""
    greedy = sampling.temperature == 0
    heat = 1.0 if greedy else sampling.temperature
    scores = logits.to(torch.float32, copy=True)
    if heat != 1.0:
        scores /= heat
    top = scores.amax(-1, keepdim=True)
    if not bool(torch.isfinite(top).all()):
        raise Diverged(SPOILT)
    wanted = scores if seen is None else penalised(scores, seen, sampling.repetition_penalty)
    if greedy:
        token = wanted.argmax(-1)
    elif seen is not None:
        wanted = (wanted - wanted.amax(-1, keepdim=True)).exp_()
    weights = scores.sub_(top).exp_()  # (b, V), not normalised
    if not greedy:
        own = weights if seen is None else wanted
        token = invert(cut(own, sampling.top_k, sampling.top_p, sampling.min_p), u)
    score = logits.gather(1, token[:, None]).float() / heat - top
    return token, score[:, 0] - weights.sum(-1).log()


def penalised(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Scores (b, V) with those of the tokens seen made smaller (Keskar et al. 2019, CTRL): divided
    by the penalty where positive, multiplied by it where negative.
    """
    return torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


def cut(weights: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Zero all but the likeliest tokens: of (b, V) weights at most top_k, of these the fewest that
    reach the share top_p, of these the ones that weigh at least min_p times the heaviest.

    Nucleus sampling: Holtzman et al. 2020; min-p: Nguyen et al. 2024.
    """
    if top_k > 0 or top_p < 1.0:
        ordered, places, total = _likeliest(weights, top_k, top_p)
        # A token stays when what stands before it has not reached the share yet: at least one
        # always stays.
        before = (ordered.cumsum(-1) - ordered) / total
        weights = torch.zeros_like(weights).scatter_(1, places, ordered * (before < top_p))
    if min_p > 0.0:
        weights = weights * (weights >= min_p * weights.amax(-1, keepdim=True))
    return weights


def _likeliest(weights: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor, Tensor]:
    """(b, n) heaviest weights, the heaviest first, and their places; (b, 1) the sum that top-p is a
    share of. They are enough to find the nucleus in.
    """
    if top_k > 0:
        ordered, places = weights.topk(min(top_k, weights.shape[1]), dim=-1)
        return ordered, places, ordered.sum(-1, keepdim=True)
    total = weights.sum(-1, keepdim=True)
    if weights.shape[1] > LIKELY:
        ordered, places = weights.topk(LIKELY, dim=-1)
        if bool((ordered.sum(-1, keepdim=True) >= top_p * total).all()):
            return ordered, places, total
    ordered, places = torch.sort(weights, dim=-1, descending=True, stable=True)
    return ordered, places, total


def invert(weights: Tensor, u: Tensor) -> Tensor:
    """The first token whose cumulative weight exceeds u times the total; never one of weight 0.

    The block of tokens is found first and then the token in it: one pass over the vocabulary
    instead of a running sum.
    """
    whole = weights.shape[1] // BLOCK * BLOCK
    sums = weights[:, :whole].view(len(weights), -1, BLOCK).sum(-1)
    if whole < weights.shape[1]:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], dim=1)
    ladder = sums.double().cumsum(-1)
    mark = u.to(ladder.device)[:, None] * ladder[:, -1:]
    block = step_on(ladder, mark)
    before = torch.where(block > 0, ladder.gather(1, (block - 1).clamp(min=0)), 0.0)
    places = block * BLOCK + torch.arange(BLOCK, device=weights.device)
    inside = weights.gather(1, places.clamp(max=weights.shape[1] - 1)).double()
    inside[places >= weights.shape[1]] = 0.0
    return (block * BLOCK + step_on(inside.cumsum(-1), mark - before))[:, 0]


def step_on(ladder: Tensor, mark: Tensor) -> Tensor:
    """(b, 1) index of the first rung above the mark; the last one if rounding leaves none."""
    found = torch.searchsorted(ladder, mark, right=True)
    top = torch.searchsorted(ladder, ladder[:, -1:].contiguous(), right=False)
    return torch.minimum(found, top)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop: Iterable[int],
    pad: int,
    batch_size: int = 64,
    after_batch: Callable[[int], None] = lambda done: None,
) -> list[Sampled]:
    """Answers to each prompt, one for each of its seeds, in the order of `prompts` and then of
    `seeds`.

    `stop` are the tokens that end an answer; the one that does is part of it. `after_batch` hears
    how many answers are done; it may raise to break off.
    """
    enders = torch.tensor(sorted(stop), dtype=torch.long)
    answers: dict[tuple[int, int], Sampled] = {}
    for batch in batches(prompts, seeds, batch_size):
        rows = _sample_batch(
            model,
            [prompts[index] for index, _ in batch],
            [[seeds[index][n] for n in ns] for index, ns in batch],
            sampling,
            (enders, pad),
        )
        names = [(index, n) for index, ns in batch for n in ns]
        for (index, n), (ids, logprobs, finished) in zip(names, rows, strict=True):
            answers[index, n] = Sampled(index, n, seeds[index][n], ids, logprobs, finished)
        after_batch(len(answers))
    return [answers[index, n] for index in range(len(prompts)) for n in range(len(seeds[index]))]


def batches(
    prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], batch_size: int
) -> list[list[tuple[int, list[int]]]]:
    """Prompts of similar length together, at most `batch_size` answers in all: [(prompt, its
    answers' numbers)].
    """
    found: list[list[tuple[int, list[int]]]] = []
    room = 0
    for index in sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index)):
        left = list(range(len(seeds[index])))
        while left:
            if room == 0:
                found.append([])
                room = batch_size
            found[-1].append((index, left[:room]))
            taken = len(left[:room])
            left, room = left[taken:], room - taken
    return found


def _sample_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    marks: tuple[Tensor, int],
) -> list[tuple[list[int], list[float], bool]]:
    """(tokens, log-probabilities, finished) of each answer of one batch; `marks` are the tokens
    that end an answer and the one that pads.
    """
    device = next(model.parameters()).device
    enders, pad = marks[0].to(device), marks[1]
    logits, cache, read = _read_prompts(model, prompts, pad)
    # (b,) prompt of each answer
    repeat = torch.tensor([row for row, many in enumerate(seeds) for _ in many], device=device)
    if roomy_layers(cache) and lean_throughout(model):
        share_prompts(cache, repeat)
    else:
        repeat_rows(cache, repeat)
    logits, seen = logits[repeat], _seen(prompts, logits, sampling, repeat)
    # (b, t) what may be attended to, the tokens to come included: the cache says how far it is
    mask = torch.nn.functional.pad(read, (0, sampling.max_new_tokens), value=1)[repeat]
    place = read.sum(-1)[repeat]  # (b,) position of the next token in its own conversation
    flat_seeds = [seed for many in seeds for seed in many]
    alive = list(range(len(flat_seeds)))
    found: list[tuple[list[int], list[float], bool]] = [([], [], False) for _ in alive]
    for index in range(sampling.max_new_tokens):
        u = uniforms([flat_seeds[row] for row in alive], index)
        token, logprob = draw(logits, u, sampling, seen)
        ended = torch.isin(token, enders).tolist()
        for row, value, p, end in zip(alive, token.tolist(), logprob.tolist(), ended, strict=True):
            tokens, logprobs, _ = found[row]
            found[row] = (tokens, logprobs, end)
            tokens.append(value)
            logprobs.append(p)
        if index + 1 == sampling.max_new_tokens or all(ended):
            break
        if seen is not None:
            seen.scatter_(1, token[:, None], True)
        if any(ended):
            order = close_ranks([not end for end in ended])
            alive = [alive[row] for row in order]
            keep = torch.tensor(order, device=device)
            keep_rows(cache, keep)
            token, mask, place = token[keep], mask[keep], place[keep]
            seen = None if seen is None else seen[keep]
        known = mask[:, : read.shape[1] + index + 1]
        logits = _next_logits(model, token[:, None], known, place[:, None], cache)
        place = place + 1
    return found


def _seen(
    prompts: Sequence[Sequence[int]], logits: Tensor, sampling: Sampling, repeat: Tensor
) -> Tensor | None:
    """(b, V) True where a token stands in the prompt of the row; None when nobody asks."""
    if sampling.repetition_penalty == 1.0:
        return None
    seen = torch.zeros((len(prompts), logits.shape[1]), dtype=torch.bool, device=logits.device)
    for row, prompt in enumerate(prompts):
        seen[row, torch.tensor(prompt, device=logits.device)] = True
    return seen[repeat]


def _read_prompts(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int
) -> tuple[Tensor, DynamicCache, Tensor]:
    """Logits after each prompt (b, V), the cache, and the mask (b, t); padded on the left.

    Prompts of different length are read in several parts, so that less padding is read.
    """
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    whole = new_cache(model)
    layers = roomy_layers(whole) if device.type == "cpu" else []
    parts = by_length([len(prompt) for prompt in prompts]) if layers else []
    if len(parts) < 2:
        return _read_part(model, prompts, pad)
    found = [_read_part(model, [prompts[row] for row in part], pad) for part in parts]
    order = torch.tensor([row for part in parts for row in part], device=device)
    back = order.argsort()
    masks = [torch.nn.functional.pad(mask, (longest - mask.shape[1], 0)) for _, _, mask in found]
    for number, layer in enumerate(layers):
        layer.fill([cache.layers[number] for _, cache, _ in found], back)
    return torch.cat([logits for logits, _, _ in found])[back], whole, torch.cat(masks)[back]


def by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Rows in parts of similar length, so that padded tokens and PASS for each part are fewest."""
    rows = sorted(range(len(lengths)), key=lambda row: lengths[row])
    # cost of the first j rows, and where their last part begins
    best: list[tuple[int, int]] = [(0, 0)]
    for j in range(1, len(rows) + 1):
        cost = [(best[i][0] + (j - i) * lengths[rows[j - 1]] + PASS, i) for i in range(j)]
        best.append(min(cost))
    parts, end = [], len(rows)
    while end:
        begin = best[end][1]
        parts.append(rows[begin:end])
        end = begin
    return parts[::-1]


def _read_part(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int
) -> tuple[Tensor, DynamicCache, Tensor]:
    """`_read_prompts` in one pass."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad, device=device)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, longest - len(prompt) :] = 1
    cache = new_cache(model)
    places = (mask.cumsum(-1) - 1).clamp_(min=0)
    return _next_logits(model, ids, mask, places, cache), cache, mask


def _next_logits(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, places: Tensor, cache: DynamicCache
) -> Tensor:
    """Logits after the last of `ids` (b, t), (b, V); the cache grows by t."""
    states = trunk(model)(
        input_ids=ids,
        attention_mask=mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state[:, -1]
    return logits_of(model, states)
