"""Sampling answers: one loop over the model's own forward pass with its key-value cache.

Choices
- A prompt is read once and its cache repeated for its K answers; prompts of similar length go
  together; an answer that has ended leaves the batch.
- Each token is drawn by inverse CDF from one uniform number that belongs to (answer seed, token
  index), so an answer does not depend on who shares its batch (up to the rounding of the kernels).
- The log-probability is that of the distribution at the sampling temperature, before top-p and
  top-k, from the pass that the token was drawn from.
Non-goals: beam search, speculative decoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from trainer.modeling import logits_of, trunk
from trainer.types import Sampled

#: tokens whose weights are summed at once when one is drawn
BLOCK = 256


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
    logits: Tensor, u: Tensor, temperature: float, top_p: float = 1.0, top_k: int = 0
) -> tuple[Tensor, Tensor]:
    """A token for each row of (b, V) logits by the inverse CDF at u in [0, 1), and its
    log-probability.

    Temperature 0 takes the likeliest token and gives its log-probability at temperature 1.
    """
    scores = logits.to(torch.float32, copy=True)
    if temperature > 0 and temperature != 1.0:
        scores /= temperature
    scores -= scores.amax(-1, keepdim=True)
    weights = scores.exp()  # (b, V), not normalised
    total = weights.sum(-1)
    greedy = temperature == 0
    token = scores.argmax(-1) if greedy else invert(nucleus(weights, top_p, top_k), u)
    return token, scores.gather(1, token[:, None])[:, 0] - total.log()


def nucleus(weights: Tensor, top_p: float, top_k: int) -> Tensor:
    """Zero all but the likeliest tokens: at most top_k, the fewest that reach the share top_p."""
    if top_k <= 0 and top_p >= 1.0:
        return weights
    ordered, places = torch.sort(weights, dim=-1, descending=True, stable=True)
    share = ordered.cumsum(-1) / ordered.sum(-1, keepdim=True)
    # A token stays when what stands before it has not reached the share yet: at least one always
    # stays.
    keep = (share - ordered / ordered.sum(-1, keepdim=True)) < top_p
    if top_k > 0:
        keep[:, top_k:] = False
    return torch.zeros_like(weights).scatter_(1, places, ordered * keep)


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


class _RoomyLayer(DynamicLayer):
    """A layer of key-value cache with room for what is still to come: a new token is written, not
    concatenated.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.filled = 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._reserve(key_states, value_states)
        end = self.filled + key_states.shape[-2]
        self.wide_keys[..., self.filled : end, :] = key_states
        self.wide_values[..., self.filled : end, :] = value_states
        self._show(end)
        return self.keys, self.values

    def _reserve(self, key_states: Tensor, value_states: Tensor) -> None:
        shape = (*key_states.shape[:-2], key_states.shape[-2] + self.room)
        self.wide_keys = key_states.new_zeros((*shape, key_states.shape[-1]))
        self.wide_values = value_states.new_zeros((*shape, value_states.shape[-1]))

    def _show(self, end: int) -> None:
        self.filled = end
        self.keys, self.values = self.wide_keys[..., :end, :], self.wide_values[..., :end, :]

    def choose(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        self.wide_keys = self.wide_keys.index_select(0, rows)
        self.wide_values = self.wide_values.index_select(0, rows)
        self._show(self.filled)


def new_cache(model: PreTrainedModel, room: int) -> DynamicCache:
    """The model's own kind of cache, its ordinary layers replaced by ones with `room` for new
    tokens.
    """
    cache = DynamicCache(config=model.config)
    cache.layers = [
        _RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def choose_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Keep these rows of every layer of the cache."""
    for layer in cache.layers:
        if isinstance(layer, _RoomyLayer):
            layer.choose(rows)
        else:
            layer.batch_select_indices(rows)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    *,
    stop: Iterable[int],
    pad: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    batch_size: int = 64,
    after_batch: Callable[[int], None] = lambda done: None,
) -> list[Sampled]:
    """Answers to each prompt, one for each of its seeds, in the order of `prompts` and then of
    `seeds`.

    `stop` are the tokens that end an answer; the one that does is part of it. `after_batch` hears
    how many answers are done; it may raise to break off.
    """
    enders = torch.tensor(sorted(stop))
    answers: dict[tuple[int, int], Sampled] = {}
    for batch in batches(prompts, seeds, batch_size):
        rows = _sample_batch(
            model,
            [prompts[index] for index, _ in batch],
            [[seeds[index][n] for n in ns] for index, ns in batch],
            (enders, pad, max_new_tokens, temperature, top_p, top_k),
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
    settings: tuple[Tensor, int, int, float, float, int],
) -> list[tuple[list[int], list[float], bool]]:
    """(tokens, log-probabilities, finished) of each answer of one batch."""
    enders, pad, max_new_tokens, temperature, top_p, top_k = settings
    device = next(model.parameters()).device
    enders = enders.to(device)
    logits, cache, mask = _read_prompts(model, prompts, pad, max_new_tokens)
    repeat = torch.tensor([row for row, many in enumerate(seeds) for _ in many], device=device)
    choose_rows(cache, repeat)
    logits, mask = logits[repeat], mask[repeat]
    flat_seeds = [seed for many in seeds for seed in many]
    alive = list(range(len(flat_seeds)))
    tokens: list[list[int]] = [[] for _ in alive]
    logprobs: list[list[float]] = [[] for _ in alive]
    finished = [False] * len(alive)
    place = mask.sum(-1)  # (b,) position of the next token in its own conversation
    for index in range(max_new_tokens):
        u = uniforms([flat_seeds[row] for row in alive], index)
        token, logprob = draw(logits, u, temperature, top_p, top_k)
        ended = torch.isin(token, enders)
        for row, value, p, end in zip(
            alive, token.tolist(), logprob.tolist(), ended.tolist(), strict=True
        ):
            tokens[row].append(value)
            logprobs[row].append(p)
            finished[row] = end
        if index + 1 == max_new_tokens or bool(ended.all()):
            break
        if bool(ended.any()):
            stay = (~ended).nonzero()[:, 0]
            choose_rows(cache, stay)
            token, mask, place = token[stay], mask[stay], place[stay]
            alive = [row for row in alive if not finished[row]]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = _next_logits(model, token[:, None], mask, place[:, None], cache)
        place = place + 1
    return list(zip(tokens, logprobs, finished, strict=True))


def _read_prompts(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad: int, room: int
) -> tuple[Tensor, DynamicCache, Tensor]:
    """Logits after each prompt (b, V), the cache with room for the answers, and the mask (b, t);
    padded on the left.
    """
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad, device=device)
    mask = torch.zeros((len(prompts), longest), dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, longest - len(prompt) :] = 1
    cache = new_cache(model, room)
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
