"""Models as the trainer uses them: loading, conversations as tokens, batches, log-probabilities.

Choices
- One model in memory: the policy is a frozen base with a low-rank adapter (adapters.py), the
  reference is the same with it off.
- Any transformers decoder: nothing here is a second implementation of a network. Linear layers,
  attention, feed-forward blocks and norms are swapped for faster twins that compute the same
  (adapters.py, packing.py, blocks.py), each tried against the original first.
- The language-model head runs only where an answer token is predicted, and its gradient is formed
  in the forward pass, so that no (tokens, vocabulary) tensor outlives a chunk.
- Only safetensors, no code from model folders, nothing from the network.
Non-goals: tensor parallelism, quantised bases.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from trainer.events import RunError, is_out_of_memory
from trainer.kernels import (
    LEAN,
    LeanNorm,
    TokenLogprob,
    norm_epsilon,
)
from trainer.placement import Placement
from trainer.types import Batch, Lower, Message, padded

logging.disable_progress_bar()


# --- loading ------------------------------------------------------------------------------------


def check_model_folder(path: Path) -> None:
    """Refuse what is no safetensors model folder, or one that wants to run code of its own."""
    config = path / "config.json"
    if not config.is_file():
        raise RunError(
            f"{path} is no model folder (it has no config.json); name a transformers model."
        )
    try:
        body = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise RunError(f"{config} is damaged ({error}); restore it.") from None
    if not list(path.glob("*.safetensors")):
        raise RunError(
            f"{path} has no safetensors weights; other formats can run code: convert them first."
        )
    if "auto_map" in body:
        raise RunError(f"{path} asks to run code of its own (auto_map); such models are refused.")


def _load(kind: Any, path: Path, placement: Placement, **settings: Any) -> tuple[Any, list[str]]:
    """from_pretrained without network, pickles and code; also the names of missing weights."""
    check_model_folder(path)
    try:
        model, info = kind.from_pretrained(
            str(path),
            dtype=placement.dtype,
            attn_implementation="eager",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **settings,
        )
    except Exception as error:
        pass_on_lack_of_memory(error)
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"The model in {path} cannot be loaded ({reason}); restore or replace it."
        ) from error
    model.eval()  # dropout stays off: log-probabilities must be those of the sampler
    model.requires_grad_(False)
    model.to(placement.device)
    quicken(model)
    return model, sorted(info["missing_keys"])


def pass_on_lack_of_memory(error: Exception) -> None:
    """Raise it again if it is one: that says nothing about a model, and tried again it may go."""
    if is_out_of_memory(error):
        raise error


@torch.no_grad()
def quicken(model: PreTrainedModel) -> None:
    """Use the lean kernels for attention and norms where they give what the model's own code gives.

    Found by trying on a few tokens: an architecture that computes something else keeps its own.
    """
    if model.device.type != "cpu":
        model.set_attn_implementation("sdpa")
        return
    ids, mask = probe(model)

    def states() -> Tensor:
        with first_of_each_kind(model):
            found: Tensor = trunk(model)(input_ids=ids, attention_mask=mask).last_hidden_state
        return found[mask.bool()]

    own = states()
    norms = [(norm, norm.forward) for norm in model.modules() if _quicken_norm(norm)]
    if not same(states(), own):
        for norm, _ in norms:
            del norm.forward
    before = model.config._attn_implementation
    model.set_attn_implementation(LEAN)
    try:
        right = same(states(), own)
    except (NotImplementedError, RuntimeError, ValueError, TypeError, KeyError) as error:
        pass_on_lack_of_memory(error)
        right = False
    if not right:
        model.set_attn_implementation(before)


def _quicken_norm(norm: nn.Module) -> bool:
    """Give an RMSNorm the lean forward pass while its weight is frozen; False for other layers."""
    epsilon = norm_epsilon(norm)
    if epsilon is None:
        return False
    plain = norm.forward

    def forward(x: Tensor) -> Tensor:
        weight = cast(Tensor, norm.weight)  # of now: another may be loaded
        if weight.requires_grad:
            return plain(x)
        if torch.is_grad_enabled():
            return LeanNorm.apply(x, weight, epsilon)
        found: Tensor = LeanNorm.forward(None, x, weight, epsilon)
        return found

    norm.forward = forward
    return True


def probe(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """A few tokens in two rows, the second one padded, and their mask."""
    ids = torch.arange(16, device=model.device).view(2, 8) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return ids, mask


def first_of_each_kind(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within, the model ends behind the first layers that show every kind of layer.

    What holds in one layer holds in all of its kind, and to try it in every one of them would take
    half a second of a run's start. A kind is what a layer is made of and what the configuration
    calls it. A model that keeps its layers elsewhere than Llama stays whole: it may count on how
    many there are (XLM has several lists that belong together).
    """
    try:
        owner, name = layers_of(model)
    except RunError:
        return contextlib.nullcontext()
    layers = getattr(owner, name)
    called = getattr(model.config, "layer_types", None) or [""] * len(layers)
    if owner is not trunk(model) or name != "layers" or len(called) != len(layers):
        return contextlib.nullcontext()
    kinds = [
        (word, type(layer), *map(type, layer.children()))
        for word, layer in zip(called, layers, strict=True)
    ]
    return _other_stack(owner, name, layers[: max(map(kinds.index, kinds)) + 1])


def same(found: Tensor, wanted: Tensor) -> bool:
    """Whether two ways to compute states agree up to the rounding of their number format."""
    slack = 0.05 if wanted.dtype == torch.bfloat16 else 1e-3
    error = (found.float() - wanted.float()).square().mean().sqrt()
    return bool(error <= slack * wanted.float().square().mean().sqrt())


def load_policy(path: Path, placement: Placement) -> PreTrainedModel:
    """A causal language model, frozen, with eager attention (the fused one is slow backwards on a
    CPU).
    """
    model, missing = _load(AutoModelForCausalLM, path, placement)
    if missing:
        raise RunError(
            f"{path} is no whole language model: it has no {missing[0]}; name another model."
        )
    return model


def load_reward(
    path: Path,
    placement: Placement,
    *,
    fresh_head: bool = False,
    pad_token_id: int | None = None,
    layers: int = 0,
) -> PreTrainedModel:
    """A model with one score as its output, frozen; `fresh_head` takes a base that has none.

    With `layers` only so many of its first layers are kept.
    """
    settings: dict[str, Any] = {} if pad_token_id is None else {"pad_token_id": pad_token_id}
    if layers:
        settings |= first_layers(path, layers)
    model, missing = _load(
        AutoModelForSequenceClassification, path, placement, num_labels=1, **settings
    )
    if missing and not fresh_head:
        raise RunError(
            f"{path} is no reward model: it has no {missing[0]}; give the out/ of a reward run."
        )
    return model


def layers_in(path: Path) -> int:
    """How many layers a model has of which the first ones can be kept; 0: it says nothing of it."""
    count = settings_of(path).get("num_hidden_layers")
    return count if isinstance(count, int) else 0


def first_layers(path: Path, layers: int) -> dict[str, Any]:
    """Settings that load only the first layers of a model."""
    count = layers_in(path)
    if layers > count:
        raise RunError(
            f"The base has {count or 'no stack of'} layers, so not "
            f"the first {layers} of them can be kept; lower config.layers or set it to 0."
        )
    settings: dict[str, Any] = {"num_hidden_layers": layers}
    types = settings_of(path).get("layer_types")
    if isinstance(types, list):
        settings["layer_types"] = types[:layers]
    return settings


def settings_of(path: Path) -> dict[str, Any]:
    """The model's config.json."""
    check_model_folder(path)
    body: dict[str, Any] = json.loads((path / "config.json").read_text("utf-8"))
    return body


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; padding must differ from end-of-text, or ends would be
    masked away.

    An encoder's tokenizer knows no end of a text; there the separator ends an answer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path), trust_remote_code=False, local_files_only=True
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"The tokenizer in {path} cannot be loaded ({reason}); restore it."
        ) from error
    if tokenizer.eos_token_id is None and tokenizer.sep_token_id is not None:
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.eos_token_id is None:
        raise RunError(f"The tokenizer in {path} has no end-of-text token; set its eos_token.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise RunError(
            f"The tokenizer in {path} pads with its end-of-text token or not at all; "
            "register the model first (`python -m trainer prepare`), which mends that."
        )
    return tokenizer


# --- conversations as tokens --------------------------------------------------------------------


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """A prompt as the model wants to see it, up to where its answer begins.

    The model's own chat template is used. A tokenizer without one gets lines “role: text” and an
    open “assistant:”.
    """
    if tokenizer.chat_template:
        ids = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        return [int(token) for token in ids]
    lines = [f"{message['role']}: {message['content']}" for message in messages]
    return list(tokenizer("\n\n".join([*lines, "assistant:"]))["input_ids"])


#: the lines that `chat_ids` makes for a tokenizer without a template, as a template
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def keep_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without a chat template one that renders what `chat_ids` makes: whoever
    loads the model then asks it as it was taught.
    """
    if tokenizer.chat_template:
        return
    begins = list(tokenizer("a")["input_ids"])[:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + PLAIN_TEMPLATE


def answer_ids(tokenizer: PreTrainedTokenizerBase, text: str, window: int) -> list[int]:
    """An answer and its one end-of-text; one too long for the window loses its tail."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids[: window - 2], tokenizer.eos_token_id]


def conversation_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: list[int], text: str, window: int
) -> tuple[list[int], list[int]]:
    """Prompt and answer; what is too long loses the start of its prompt first."""
    answer = answer_ids(tokenizer, text, window)
    return prompt[-(window - len(answer)) :], answer


def judged_ids(prompt_ids: Sequence[int], answer_ids: Sequence[int], eos: int) -> list[int]:
    """What a reward model reads: prompt, answer and exactly one end-of-text token, also when it was
    cut.

    The score is read at that last token, so that it always stands at the same kind of place.
    """
    answer = list(answer_ids)
    return [*prompt_ids, *(answer if answer and answer[-1] == eos else [*answer, eos])]


def stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Tokens that end an answer."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    more = named if isinstance(named, list) else [named]
    return {token for token in [tokenizer.eos_token_id, *more] if token is not None}


def check_room(names: Sequence[str], ids: Sequence[Sequence[int]], new: int, window: int) -> None:
    """Refuse a prompt that leaves no room for its answer, by its name."""
    for name, tokens in zip(names, ids, strict=True):
        if len(tokens) + new > window:
            raise RunError(
                f"The prompt “{name}” has {len(tokens)} tokens, which with {new} new ones is more "
                f"than the model's {window}; shorten it or lower config.max_new_tokens."
            )


def longest_context(model: PreTrainedModel) -> int:
    """Tokens that fit into the model's window."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


# --- batches ------------------------------------------------------------------------------------


def collate(
    rows: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]],
    pad: int,
    device: torch.device | str = "cpu",
    own: Sequence[int] | None = None,
) -> Batch:
    """A Batch from rows of (prompt tokens, [answer tokens, …]), the answers in that order.

    `own` says for each answer how many of its tokens the policy wrote, where the rest was put
    behind for the reward model: the mask covers only those.
    """
    length = padded(max(len(prompt) + sum(map(len, answers)) for prompt, answers in rows))
    count = sum(len(answers) for _, answers in rows)
    sizes = [len(answer) for _, answers in rows for answer in answers]
    counts = sizes if own is None else list(own)
    width = max(counts)
    ids = torch.full((len(rows), length), pad)
    positions = torch.zeros((len(rows), length), dtype=torch.long)
    segments = torch.full((len(rows), length), -1)
    source = torch.zeros((count, width), dtype=torch.long)
    target = torch.full((count, width), pad)
    mask = torch.zeros((count, width), dtype=torch.bool)
    last = torch.zeros(count, dtype=torch.long)
    n = 0
    for b, (prompt, answers) in enumerate(rows):
        head = len(prompt)
        ids[b, :head] = torch.tensor(prompt)
        positions[b, :head] = torch.arange(head)
        segments[b, :head] = 0
        at = head
        for number, answer in enumerate(answers, 1):
            size = len(answer)
            written = counts[n]
            ids[b, at : at + size] = torch.tensor(answer)
            target[n, :written] = ids[b, at : at + written]
            positions[b, at : at + size] = torch.arange(head, head + size)
            segments[b, at : at + size] = number
            # The first token is predicted at the end of the prompt, each other one at its
            # predecessor.
            source[n, 0] = b * length + head - 1
            source[n, 1:written] = torch.arange(at, at + written - 1) + b * length
            mask[n, :written] = True
            last[n] = b * length + at + size - 1
            at, n = at + size, n + 1
    parts = [ids, positions, segments, source, target, mask, last]
    ids, positions, segments, source, target, mask, last = (part.to(device) for part in parts)
    return Batch(ids, positions, segments, source, target, mask, last)


def attention_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """(b, t) for plain rows; (b, 1, t, t) to be added to scores where answers share a prompt."""
    if int(segments.max()) <= 1:
        return (segments >= 0).long()
    t = segments.shape[1]
    earlier = torch.ones((t, t), dtype=torch.bool, device=segments.device).tril()
    ours, theirs = segments[:, :, None], segments[:, None, :]
    seen = earlier & ((theirs == 0) | (theirs == ours))
    # Padding is its own segment, -1: it sees itself, so no row of the softmax is empty.
    shut = torch.zeros(seen.shape, dtype=dtype, device=segments.device)
    return shut.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def trunk(model: PreTrainedModel) -> nn.Module:
    """The network without its head."""
    body: nn.Module = getattr(model, model.base_model_prefix)
    return body


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The last hidden states, (b, t, d)."""
    body = trunk(model)
    settings: dict[str, Any] = {}
    if "position_ids" in inspect.signature(body.forward).parameters:
        settings["position_ids"] = batch.positions
    if "use_cache" in inspect.signature(body.forward).parameters:
        settings["use_cache"] = False
    mask = attention_mask(batch.segments, next(body.parameters()).dtype)
    with _above(model, batch.lower):
        states = body(input_ids=batch.ids, attention_mask=mask, **settings).last_hidden_state
    result: Tensor = states
    return result


class _Enough(Exception):
    """Ends a forward pass in the middle: the layers that were wanted have run."""


def layers_of(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """The module that holds the stack of layers, and the stack's name in it."""
    count = model.config.num_hidden_layers
    for owner in trunk(model).modules():
        for name, child in owner.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return owner, name
    raise RunError(f"{type(model).__name__} has no stack of {count} layers to choose from.")


@torch.no_grad()
def with_lower(model: PreTrainedModel, batch: Batch, depth: int) -> Batch:
    """The batch with what the first `depth` layers make of it, so that no later pass repeats them.

    Right only while no adapter sits in those layers.
    """
    if depth == 0:
        return batch
    return batch._replace(lower=Lower(depth, lower_result(model, batch, depth)))


def lower_result(model: PreTrainedModel, batch: Batch, depth: int) -> Any:
    """What the last of the first `depth` layers returns."""
    owner, name = layers_of(model)
    found: list[Any] = []

    def take(_layer: nn.Module, _inputs: Any, result: Any) -> None:
        found.append(result)
        raise _Enough

    handle = getattr(owner, name)[depth - 1].register_forward_hook(take)
    try:
        hidden_states(model, batch)
    except _Enough:
        return found[0]
    finally:
        handle.remove()
    raise RunError(f"Layer {depth} of {type(model).__name__} was not reached.")


class _Below(nn.Module):
    """Stands for a layer whose result is known; answers questions about it as the layer would."""

    def __init__(self, layer: nn.Module, result: Any) -> None:
        super().__init__()
        self.__dict__["layer"], self.__dict__["result"] = layer, result

    def forward(self, *_: Any, **__: Any) -> Any:
        return self.__dict__["result"]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["layer"], name)


@contextlib.contextmanager
def _above(model: PreTrainedModel, lower: Lower | None) -> Iterator[None]:
    """Within, the model starts above the layers whose result is known."""
    if lower is None:
        yield
        return
    owner, name = layers_of(model)
    stack = getattr(owner, name)
    below = [_Below(layer, lower.result) for layer in stack[: lower.depth]]
    with _other_stack(owner, name, [*below, *stack[lower.depth :]]):
        yield


@contextlib.contextmanager
def _other_stack(owner: nn.Module, name: str, layers: Iterable[nn.Module]) -> Iterator[None]:
    """Within, these layers stand where `layers_of` found the model's own."""
    stack = getattr(owner, name)
    setattr(owner, name, nn.ModuleList(layers))
    try:
        yield
    finally:
        setattr(owner, name, stack)


@torch.no_grad()
def share_lower(model: PreTrainedModel, other: PreTrainedModel, depth: int, pad: int) -> bool:
    """Let `other` use the very layers of `model` below `depth` if it has the same ones.

    So it is with a reward model whose adapter sat on the top layers of the policy's base: what the
    lower layers give is then computed, and kept in memory, once for both.
    """
    if depth == 0 or model.device != other.device or type(trunk(model)) is not type(trunk(other)):
        return False
    (owner, name), (other_owner, other_name) = layers_of(model), layers_of(other)
    ours, theirs = getattr(owner, name), getattr(other_owner, other_name)
    if name != other_name or len(ours) != len(theirs):
        return False
    stack = next(path for path, module in trunk(model).named_modules() if module is ours)
    upper = tuple(f"{stack}.{layer}." for layer in range(depth, len(ours)))
    one, two = (
        {key: value for key, value in trunk(m).state_dict().items() if not key.startswith(upper)}
        for m in (model, other)
    )
    if one.keys() != two.keys() or not all(equal(one[key], two[key]) for key in one):
        return False
    probe = [token % model.config.vocab_size for token in range(8)]
    batch = collate([(probe, [[1, 2]])], pad, model.device)
    try:
        results = [lower_result(m, batch, depth) for m in (model, other)]
    except (RunError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        pass_on_lack_of_memory(error)
        return False
    tensors = [result[0] if isinstance(result, tuple) else result for result in results]
    if not torch.equal(*tensors):
        return False
    for layer in range(depth):
        theirs[layer] = ours[layer]
    return True


def equal(one: Tensor, other: Tensor) -> bool:
    """Same format, shape and numbers."""
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


@torch.no_grad()
def splits(model: PreTrainedModel, prompt: Sequence[int], pad: int, depth: int) -> bool:
    """Whether going on above `depth` layers gives exactly the whole pass, found by trying."""
    batch = collate([(prompt, [list(prompt)])], pad, model.device)
    try:
        halves = hidden_states(model, with_lower(model, batch, depth))
    except (RunError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        pass_on_lack_of_memory(error)
        return False
    return torch.equal(halves, hidden_states(model, batch))


def shares_prompts(
    model: PreTrainedModel, prompt: Sequence[int], pad: int, longest: int | None = None
) -> bool:
    """Whether this architecture gives answers packed behind one prompt the same states as alone.

    Found by trying: models that ignore masks or positions (recurrent ones, for example) do not.
    A sliding window is not drawn into the mask, so `longest`, the tokens of the longest prompt with
    its answer, must fit into it.
    """
    window = getattr(model.config, "sliding_window", None)
    if window and (longest is None or longest > window):
        return False
    device = next(model.parameters()).device
    answers = [list(prompt[:3]), list(prompt[1:4]) or [prompt[0]]]
    if not all(answers):
        return False
    together = collate([(prompt, answers)], pad, device)
    apart = collate([(prompt, [answer]) for answer in answers], pad, device)
    with torch.no_grad(), first_of_each_kind(model):
        try:
            packed_states = pick(hidden_states(model, together), together)
        except (RuntimeError, ValueError, TypeError) as error:
            pass_on_lack_of_memory(error)
            return False
        plain_states = pick(hidden_states(model, apart), apart)
    return same(packed_states, plain_states)


def pick(hidden: Tensor, batch: Batch) -> Tensor:
    """The states that predict the answers' tokens, (N, d) in the order of `batch.mask`."""
    return hidden.reshape(-1, hidden.shape[-1])[batch.source[batch.mask]]


# --- log-probabilities --------------------------------------------------------------------------


def response_logprobs(
    model: PreTrainedModel,
    batch: Batch,
    temperature: float,
    *,
    with_entropy: bool = False,
    states: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each answer token at the sampling temperature, (n, w), 0 on padding.

    With them the entropy of each distribution, or zeros where it was not asked for. `states` are
    the model's own at the answers' tokens (`pick`) where they are known already.
    """
    if states is None:
        states = pick(hidden_states(model, batch), batch)
    token = batch.target[batch.mask]
    logprob, entropy = token_logprobs(model, states, token, temperature, with_entropy=with_entropy)
    empty = torch.zeros(batch.mask.shape, device=states.device)
    return empty.masked_scatter(batch.mask, logprob), empty.masked_scatter(batch.mask, entropy)


def token_logprobs(
    model: PreTrainedModel,
    states: Tensor,
    token: Tensor,
    temperature: float,
    *,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """(N,) log-probability of `token` and entropy of the distribution at each (N, d) state."""
    head = model.get_output_embeddings()
    if plain_head(model) and isinstance(head, nn.Linear) and not head.weight.requires_grad:
        found: tuple[Tensor, Tensor] = TokenLogprob.apply(
            states, head.weight, head.bias, token, temperature, with_entropy
        )
        return found
    logprobs = (logits_of(model, states).float() / temperature).log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(1, token[:, None])[:, 0], entropy.detach()


def plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are the head's output as it is."""
    config = model.config
    names = ("final_logit_softcapping", "logit_scale", "logits_scaling")
    return all(getattr(config, name, None) in (None, 1, 1.0) for name in names)


def logits_of(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Logits of (…, d) states, with the soft cap or scale of the families that have one."""
    config = model.config
    logits: Tensor = model.get_output_embeddings()(states)
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        logits = torch.tanh(logits / cap) * cap
    scale = getattr(config, "logit_scale", None)  # Cohere multiplies
    if scale:
        logits = logits * scale
    divisor = getattr(config, "logits_scaling", None)  # Granite divides
    return logits / divisor if divisor else logits
