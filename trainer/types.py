"""The things that stages hand to one another within the trainer, and the numbers that the estimate
of memory shares with what it estimates. Needs no torch at run time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trainer.config import Spec, resolve_path
from trainer.events import EventWriter, Heartbeat, RunError, Stopped

if TYPE_CHECKING:
    from torch import Tensor

Message = dict[str, str]  # {"role": "user" | "assistant" | "system", "content": text}

#: label of a token that a loss passes over
IGNORED = -100
#: rows that go through the language-model head at once
HEAD_ROWS = 256
#: entries of the vocabulary that TRL's head takes at once on a CPU
TILE = 8192
#: from this many layers on a network is deep: only its top third is adapted by default
DEEP = 9


def padded(length: int) -> int:
    """The width of a batch whose longest row has so many tokens: an eighth more at most.

    Each width is a shape of its own, for which a CPU's library prepares its products anew and keeps
    what it prepared; a reward run on real conversations took a ninth more time and memory when
    batches were as wide as their longest row. So there are eight widths between a power of two and
    the next, and below 64 the multiples of 8.
    """
    unit = max(8, 1 << max(0, length.bit_length() - 4))
    return -(-length // unit) * unit


def adapted_depth(layers: int, lora_layers: int) -> int:
    """Layers below the adapter: 0 adapts the top third of a deep network and all of a flat one."""
    if lora_layers:
        return max(layers - lora_layers, 0)
    return 0 if layers < DEEP else layers - layers // 3


def refuse_other_spec(spec: Spec, written_by: Mapping[str, Any] | None, what: str, do: str) -> None:
    """Refuse to use what another spec than this one wrote; `do` says what can be done instead."""
    if written_by is None:
        raise RunError(
            f"{what} does not say of which spec.json it is, as those of earlier versions of the "
            f"trainer: {do}."
        )
    changes = spec.changes_since(written_by)
    if changes:
        raise RunError(f"{what} was written by another spec.json ({'; '.join(changes)}): {do}.")


@dataclass
class RunContext:
    """What a stage needs to know of its surroundings: the only link to the outside."""

    folder: Path
    spec: Spec
    events: EventWriter
    heartbeat: Heartbeat
    attempt: int = 1
    stop: threading.Event = field(default_factory=threading.Event)

    def emit(self, kind: str, step: int | None = None, **data: Any) -> None:
        """Write one event."""
        self.events.emit(kind, step, **data)

    def input(self, name: str) -> Path:
        """The file or folder of an input, checked; a name such as `tiny` is made on first use."""
        return resolve_path(self.spec.inputs[name], self.folder)

    def should_stop(self) -> bool:
        """Whether somebody asked the run to stop (SIGTERM): save, then raise `events.Stopped`."""
        return self.stop.is_set()

    def leave_if_asked(self, done: int = 0) -> None:
        """Between two batches of work that needs no saving: leave when somebody asked for it, how
        much of it ever is done.
        """
        if self.should_stop():
            raise Stopped("Stopped outside training; what was trained is saved.")

    def progress(self, share: float) -> None:
        """Tell how much of the stage is done, from 0 to 1."""
        self.heartbeat.progress(share)

    @property
    def out(self) -> Path:
        """Where the finished result lies."""
        return self.folder / "out"


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: each setting as transformers' logits processors define it, in the
    order penalty, temperature, top-k, top-p, min-p.
    """

    max_new_tokens: int
    temperature: float = 1.0  # 0 takes the likeliest token
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


class Sampled(NamedTuple):
    """One answer as the sampler wrote it."""

    prompt: int  # index of its prompt in the list that was given
    n: int  # 0 … answers_per_prompt - 1
    seed: int
    ids: list[int]  # tokens, the end-of-text token included when there is one
    logprobs: list[float]  # of each token at the sampling temperature, before penalty and cuts
    finished: bool  # False when it was cut at the longest length

    @property
    def logprob(self) -> float:
        """Log-probability of the whole answer in nats."""
        return float(sum(self.logprobs))


class Batch(NamedTuple):
    """Rows of one prompt with one or more answers behind it, padded on the right.

    The answers of a row share its prompt: each sees the prompt and itself, not its neighbours, and
    counts its positions from the end of the prompt. n answers, w tokens in the longest.
    """

    ids: Tensor  # (b, t) tokens
    positions: Tensor  # (b, t) place in its own conversation
    segments: Tensor  # (b, t) 0 on the prompt, 1, 2 … on its answers, -1 on padding
    source: Tensor  # (n, w) flat index into (b·t) of the position that predicts the token
    target: Tensor  # (n, w) the answers' tokens, the end-of-text token included
    mask: Tensor  # (n, w) True on answer tokens
    last: Tensor  # (n,) flat index into (b·t) of the last token of the answer
    lower: Lower | None = None  # what the layers below the adapter make of the rows


class Lower(NamedTuple):
    """What a model's first `depth` layers give: the same for policy and reference, step by step."""

    depth: int
    result: Any  # what the last of them returned, as it was


class Shape(NamedTuple):
    """A network; the encoder's feed-forward part has two matrices for three, each half as wide
    again.
    """

    width: int
    inner: int
    layers: int
    heads: int

    @property
    def parameters(self) -> int:
        """Weights of all layers' matrices."""
        return self.layers * (4 * self.width**2 + 3 * self.width * self.inner)


SHAPES = {
    "1m": Shape(128, 384, 5, 4),
    "5m": Shape(256, 704, 6, 4),
    "15m": Shape(384, 1024, 8, 6),
    "60m": Shape(640, 1728, 12, 10),
    "135m": Shape(768, 2048, 19, 12),
}


class Stopwatch:
    """Seconds by part of the work, for the metrics."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name = ""
        self._since = time.perf_counter()

    def start(self, name: str) -> None:
        """Time what follows under `name`; what ran before is added to its own name."""
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now

    def metrics(self, names: Sequence[str] | None = None) -> dict[str, float]:
        """Seconds so far as metric values `seconds_NAME`."""
        self.start(self._name)
        wanted = self.seconds if names is None else names
        return {f"seconds_{name}": round(self.seconds.get(name, 0.0), 3) for name in wanted}
