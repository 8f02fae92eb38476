"""A reward model at work: conversations in, one number for each answer out.

Choices
- One encoding per answer: prompt as the policy sees it + answer + one end-of-text token, where the
  score is read. Answers of one prompt may share its encoding in one row, where that gives the same
  numbers, which is tried out once per model.
- A raw score is the model's own output, log-odds between two answers. The normalised score has mean
  0 and standard deviation 1 on the answers that it was fitted to; both numbers lie in
  `normalisation.json` beside the weights.
- Models whose score is one linear layer on the last token (all decoders) are read here, in float32.
  Any other architecture is asked through its own forward pass.
- The heads of an ensemble share one trunk, so all of them cost one forward pass. They lie in
  `ensemble.safetensors`; the model's own head is their mean, which scores as the mean of their
  scores does, since heads are linear.
- An ensemble of adapters costs a pass each. The model itself is the first member; what the others
  differ by lies in `members/1` and so on, each an adapter with a head that peft puts on the model.
Not here: training (stages/reward.py), what PPO adds to a score (rewards.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.adapters import write_adapter_config
from trainer.data import Messages, length_buckets
from trainer.events import RunError
from trainer.kernels import PackedLinear
from trainer.modeling import (
    chat_ids,
    collate,
    hidden_states,
    judged_ids,
    load_reward,
    load_tokenizer,
    longest_context,
    shares_prompts,
)
from trainer.packing import packed
from trainer.placement import Placement
from trainer.types import Batch

NORMALISATION = "normalisation.json"
ENSEMBLE = "ensemble.safetensors"
MEMBERS = "members"

Number = TypeVar("Number", float, Tensor)
Row = tuple[list[int], list[list[int]]]  # prompt tokens, tokens of each answer with its end


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Mean and standard deviation of the raw scores of the reference answers.

    With `temperature` a raw difference becomes a probability: σ((r_i − r_j) / temperature).
    """

    mean: float = 0.0
    std: float = 1.0
    temperature: float = 1.0

    def apply(self, raw: Number) -> Number:
        return (raw - self.mean) / self.std

    def write(self, folder: Path) -> None:
        (folder / NORMALISATION).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")


def fit_normalisation(raw: Sequence[float]) -> Normalisation:
    """Mean 0 and standard deviation 1 on these scores; equal scores keep their scale."""
    values = torch.tensor(raw, dtype=torch.float64)
    std = values.std(correction=0).item()
    return Normalisation(values.mean().item(), std if std > 0 else 1.0)


def read_normalisation(folder: Path) -> Normalisation:
    """What `write` left; scores of a model from elsewhere, which has none, stay as they are."""
    path = folder / NORMALISATION
    if not path.exists():
        return Normalisation()
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        mean, std = float(body["mean"]), float(body["std"])
        temperature = float(body.get("temperature", 1.0))
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{path} is damaged; restore the reward model from its run.") from None
    if not (math.isfinite(mean) and 0 < std < math.inf and 0 < temperature < math.inf):
        raise RunError(f"{path} holds no usable mean and std; train the reward model again.")
    return Normalisation(mean, std, temperature)


@dataclass
class Judge:
    """A reward model with all it needs to give scores."""

    model: Any
    tokenizer: Any
    normalisation: Normalisation
    max_length: int
    members: nn.Linear | None = None  # the heads of an ensemble, d → M
    adapters: Sequence[Member] = ()  # or its further members, beside the model itself

    @property
    def size(self) -> int:
        """Members of the ensemble; 0 for a model that is none."""
        if self.members is not None:
            return int(self.members.out_features)
        return len(self.adapters) + 1 if self.adapters else 0

    def row(self, messages: Messages, texts: Sequence[str]) -> Row:
        """Tokens of a prompt and of its answers, each closed by end-of-text."""
        return encode(self.tokenizer, messages, texts)


def load_judge(path: Path, placement: Placement, max_length: int) -> Judge:
    """Open the out/ of a reward run, or any transformers model with one score."""
    tokenizer = load_tokenizer(path)
    model = load_reward(path, placement, pad_token_id=tokenizer.pad_token_id)
    window = min(max_length, longest_context(model))
    return Judge(
        model,
        tokenizer,
        read_normalisation(path),
        window,
        read_members(path, score_head(model)),
        read_adapters(path, model),
    )


def make_members(head: Any, count: int) -> nn.Linear:
    """As many heads of the shape of this one, side by side, in float32; each equal to it."""
    members = nn.Linear(head.in_features, count, bias=head.bias is not None)
    members = members.to(head.weight.device)
    with torch.no_grad():
        members.weight.copy_(head.weight.float().expand(count, -1))
        if head.bias is not None:
            members.bias.copy_(head.bias.float().expand(count))
    return members


def write_members(members: nn.Linear, folder: Path) -> None:
    """Keep the heads beside the model: weight (M, d), bias (M,) where there is one."""
    state = {name: tensor.detach().cpu() for name, tensor in members.state_dict().items()}
    save_file(state, folder / ENSEMBLE, metadata={"format": "pt"})


def read_members(folder: Path, head: Any) -> nn.Linear | None:
    """What `write_members` left, None for a model with one head."""
    path = folder / ENSEMBLE
    if not path.exists():
        return None
    try:
        state = load_file(path)
        members = make_members(head, len(state["weight"]))
        members.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, AttributeError, TypeError, RuntimeError):
        raise RunError(
            f"{path} does not fit the model beside it; restore the reward model from its run."
        ) from None
    return members.requires_grad_(False)


# members that are adapters ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Member:
    """What one member of an ensemble differs by from the model that it is put on."""

    low: dict[str, tuple[Tensor, Tensor]]  # layer → A (r, in), B (out, r); ΔW = B A
    whole: dict[str, Tensor]  # weights outside the trunk, which it has of its own


@contextmanager
@torch.no_grad()
def speaking(model: Any, member: Member) -> Iterator[None]:
    """Within, the model is this member: W + B A in the model's number format, and its own head."""
    own: list[tuple[nn.Parameter, Tensor]] = []

    def put(name: str, tensor: Tensor) -> None:
        parameter = model.get_parameter(name)
        own.append((parameter, parameter.data))
        parameter.data = tensor.to(parameter.device, parameter.dtype)

    for layer, (a, b) in member.low.items():
        weight = model.get_parameter(f"{layer}.weight")
        delta = b.to(weight.device) @ a.to(weight.device)
        turned = isinstance(model.get_submodule(layer), Conv1D)  # keeps (in, out)
        put(f"{layer}.weight", weight.float() + (delta.T if turned else delta))
    for name, tensor in member.whole.items():
        put(name, tensor)
    try:
        yield
    finally:
        for parameter, tensor in own:
            parameter.data = tensor


def write_adapters(members: Sequence[Member], model: Any, folder: Path) -> None:
    """Keep the further members beside the model, each as peft loads it on that model."""
    heads = sorted({name.split(".")[0] for member in members for name in member.whole})
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    for number, member in enumerate(members, 1):
        place = folder / MEMBERS / str(number)
        place.mkdir(parents=True)
        state = {}
        for layer, (a, b) in member.low.items():
            state[f"base_model.model.{layer}.lora_A.weight"] = a.contiguous()
            state[f"base_model.model.{layer}.lora_B.weight"] = b.contiguous()
        for name, tensor in member.whole.items():
            state[f"base_model.model.{name}"] = tensor.contiguous()
        save_file(state, place / "adapter_model.safetensors", metadata={"format": "pt"})
        write_adapter_config(
            place,
            task_type="SEQ_CLS",
            r=len(next(iter(member.low.values()))[0]),
            targets=list(member.low),
            modules_to_save=heads,
            fan_in_fan_out=transposed,
        )


def read_adapters(folder: Path, model: Any) -> list[Member]:
    """What `write_adapters` left, nothing for a model that stands alone."""
    members = []
    number = 1
    while (folder / MEMBERS / str(number)).is_dir():
        path = folder / MEMBERS / str(number) / "adapter_model.safetensors"
        try:
            members.append(_member(load_file(path), model))
        except (SafetensorError, OSError, KeyError, AttributeError, RuntimeError):
            raise RunError(
                f"{path} does not fit the model beside it; restore the reward model from its run."
            ) from None
        number += 1
    return members


def _member(state: dict[str, Tensor], model: Any) -> Member:
    low: dict[str, tuple[Tensor, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for key in sorted(state):
        name = key.removeprefix("base_model.model.")
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            model.get_submodule(layer)
            low[layer] = (state[key], state[key.replace("lora_A", "lora_B")])
        elif not name.endswith(".lora_B.weight"):
            model.get_parameter(name)
            whole[name] = state[key]
    return Member(low, whole)


# rows ---------------------------------------------------------------------------------------------


def encode(tokenizer: Any, messages: Messages, texts: Sequence[str]) -> Row:
    """Tokens of a prompt and of its answers, each closed by one end-of-text token."""
    prompt = chat_ids(tokenizer, messages)
    end = tokenizer.eos_token_id
    answers = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return prompt, [judged_ids([], answer, end) for answer in answers]


def fit_window(row: Row, max_length: int) -> list[Row]:
    """One row with all answers if each fits behind the whole prompt, else one row an answer, cut.

    A prompt loses its start; an answer longer than the window loses its start too, never its end.
    """
    prompt, answers = row
    if len(prompt) + max(map(len, answers)) <= max_length:
        return [row]
    cut = []
    for answer in answers:
        room = max(1, max_length - len(answer))
        kept = prompt[-room:]
        cut.append((kept, [answer[-(max_length - len(kept)) :]]))
    return cut


def split(row: Row) -> list[Row]:
    """The same answers, each behind its own copy of the prompt."""
    prompt, answers = row
    return [(prompt, [answer]) for answer in answers]


def width(row: Row) -> int:
    """Tokens of a row."""
    return len(row[0]) + sum(map(len, row[1]))


def can_share(model: Any, rows: Sequence[Row], pad: int) -> bool:
    """Whether answers may stand together behind one prompt in this model."""
    if score_head(model) is None:
        return False
    prompt = next((prompt for prompt, _ in rows if len(prompt) >= 4), None)
    return prompt is not None and shares_prompts(model, prompt, pad)


def score_head(model: Any) -> Any:
    """The linear layer (or its packed twin) that scores the last token's state; None: no such."""
    head = getattr(model, "score", None)
    if isinstance(head, nn.Linear | PackedLinear) and head.out_features == 1:
        return head
    return None


def batch_scores(model: Any, batch: Batch, pad: int) -> Tensor:
    """Raw scores of a batch's answers in their order, (n,) float32."""
    head = score_head(model)
    if head is None:
        mask = (batch.segments >= 0).long()
        # It counts positions by itself: padding must not reach beyond those that it knows.
        width = int(mask.sum(1).max())
        own: Tensor = model(input_ids=batch.ids[:, :width], attention_mask=mask[:, :width]).logits[
            :, 0
        ]
        return own.float()
    return head_scores(head, last_states(model, batch))[:, 0]


def last_states(model: Any, batch: Batch) -> Tensor:
    """The states at which the answers are scored, (n, d) float32."""
    hidden = hidden_states(model, batch)
    return hidden.reshape(-1, hidden.shape[-1])[batch.last].float()


def head_scores(head: Any, states: Tensor) -> Tensor:
    """What one or more heads make of the states, (n, heads) float32."""
    bias = None if head.bias is None else head.bias.float()
    return nn.functional.linear(states, head.weight.float(), bias)


def batch_outputs(model: Any, batch: Batch, pad: int, members: nn.Linear | None) -> Tensor:
    """Raw scores of a batch's answers and behind them those of each member, (n, 1 + M)."""
    if members is None:
        return batch_scores(model, batch, pad)[:, None]
    states = last_states(model, batch)
    return torch.cat([head_scores(score_head(model), states), head_scores(members, states)], dim=1)


@torch.no_grad()
def score_rows(
    model: Any,
    rows: Sequence[Row],
    *,
    pad: int,
    token_budget: int,
    members: nn.Linear | None = None,
    after_batch: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[int, Tensor]]:
    """(number of the row, raw scores of its answers (n, 1 + M)), shortest rows first.

    The first column is the model's score, the others are the members' of an ensemble.
    `after_batch` hears how many rows are done; it may raise to stop.
    """
    device = next(model.parameters()).device
    done = 0
    with packed(model, rows=token_budget, norms=False):
        for bucket in length_buckets([width(row) for row in rows], token_budget):
            chosen = [rows[index] for index in bucket]
            scores = batch_outputs(model, collate(chosen, pad, device), pad, members)
            parts = scores.split([len(answers) for _, answers in chosen])
            yield from zip(bucket, parts, strict=True)
            done += len(bucket)
            after_batch(done)


def score_answers(
    judge: Judge,
    asked: Sequence[tuple[Messages, Sequence[str]]],
    *,
    token_budget: int,
    after_batch: Callable[[int], None] = lambda done: None,
) -> list[list[float]]:
    """Raw scores of answers to prompts, in the order given."""
    found = judge_answers(judge, asked, token_budget=token_budget, after_batch=after_batch)
    return [scores[:, 0].tolist() for scores in found]


def score_line(
    answer_id: str, output: Sequence[float], normalisation: Normalisation
) -> dict[str, Any]:
    """A line of scores.jsonl from an answer's raw scores: its own, then those of the members."""
    score, *members = (normalisation.apply(raw) for raw in output)
    return {"id": answer_id, "score": score} | ({"members": members} if members else {})


def judge_answers(
    judge: Judge,
    asked: Sequence[tuple[Messages, Sequence[str]]],
    *,
    token_budget: int,
    after_batch: Callable[[int], None] = lambda done: None,
) -> list[Tensor]:
    """Raw scores of answers to prompts, in the order given, with the members': (K, 1 + M) each.

    Every answer has a row of its own: its score depends on nothing but itself, up to rounding.
    """
    rows: list[Row] = []
    for messages, texts in asked:
        for cut in fit_window(judge.row(messages, texts), judge.max_length):
            rows.extend(split(cut))
    if not rows:
        return []
    passes: list[AbstractContextManager[None]] = [
        nullcontext(),
        *(speaking(judge.model, member) for member in judge.adapters),
    ]
    columns = []
    for number, as_member in enumerate(passes):

        def after(done: int, before: int = number * len(rows)) -> None:
            after_batch((before + done) // len(passes))

        with as_member:
            found = dict(
                score_rows(
                    judge.model,
                    rows,
                    pad=judge.tokenizer.pad_token_id,
                    token_budget=token_budget,
                    members=judge.members,
                    after_batch=after,
                )
            )
        columns.append(torch.cat([found[index] for index in range(len(rows))]).cpu())
    if judge.adapters:  # the model itself is the first member
        columns.insert(0, columns[0])
    scores = torch.cat(columns, dim=1)
    return list(scores.split([len(texts) for _, texts in asked]))
