"""The key-value cache of sampling: roomy, and where it can be with a prompt once for its answers.

Choices
- Keys and values stand whole in memory, wider than they are filled: products over a part of a
  tensor would copy it first, which costs more than the unused places.
- Where every attention block is a lean one (blocks.py), the keys of a prompt are not repeated for
  its K answers: decoding.py attends to them where they are.
- The columns are the same in both forms: the prompt's, padded on the left; the answer's; room.
Non-goals: caches of a sliding window, which stay transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from trainer.decoding import LANES, attend, blocks, lines

#: places by which a cache grows, a multiple of LANES
ROOM = 32
#: a prompt without answers is dropped when so many of the rows would go: dropping copies the rest
SPARE = 0.25


class WideLayer(DynamicLayer):
    """A layer that is wider than it is filled: a new token is written, not concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.filled = 0

    def get_seq_length(self) -> int:
        """Tokens in the cache."""
        return self.filled

    def keep(self, order: Tensor, moved: Tensor) -> None:
        """Keep the rows `order`; of these only the places `moved` do not stand there already."""
        for name in ("keys", "values"):
            whole = getattr(self, name)
            whole[moved] = whole[order[moved]]
            setattr(self, name, whole[: len(order)])


class RoomyLayer(WideLayer):
    """A layer of which the whole width is attended to, the mask hiding what is not filled."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Keys and values (b, h, t, d) of the new tokens go in; those of the whole width come out.

        The first call, which reads the prompts, gives back what it got.
        """
        begin, self.filled = self.filled, self.filled + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        if self.filled > self.keys.shape[-2]:
            self.widen(torch.arange(len(self.keys), device=self.keys.device))
        self.keys[:, :, begin : self.filled] = key_states
        self.values[:, :, begin : self.filled] = value_states
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How wide the keys will be after so many more tokens, and where they begin."""
        wanted = self.filled + query_length
        if not self.is_initialized:
            return wanted, 0
        width = self.keys.shape[-2]
        return (width if wanted <= width else _roomy(wanted)), 0

    def widen(self, rows: Tensor) -> None:
        """Make room, taking these rows, in this order; a row may come several times."""
        self.keys, self.values = (self._wider(old, rows) for old in (self.keys, self.values))

    def _wider(self, old: Tensor, rows: Tensor) -> Tensor:
        _, h, t, d = old.shape
        # Unused places are hidden, but 0 · NaN would show through.
        wide = old.new_zeros((len(rows), h, _roomy(max(self.filled, t)), d))
        wide[:, :, :t] = old[rows]
        return wide

    def fill(self, parts: Sequence[RoomyLayer], order: Tensor) -> None:
        """Take over what several caches hold, the shorter ones filled up on the left; of all their
        rows those of `order`.
        """
        self.lazy_initialization(parts[0].keys, parts[0].values)
        self.filled = max(part.filled for part in parts)
        for name in ("keys", "values"):
            each = [getattr(part, name) for part in parts]
            wide = [pad(one, (0, 0, self.filled - one.shape[-2], 0)) for one in each]
            setattr(self, name, torch.cat(wide)[order])


class SharedLayer(WideLayer):
    """A layer that has the prompts once for all of their answers, and the answers' own tokens.

    It takes and gives one token at a time, in the form in which decoding.py wants them.
    """

    def __init__(self, read: RoomyLayer, at: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(read.keys, read.values)
        self.far = self.filled = read.filled
        self.prompt_keys, self.prompt_values = blocks(read.keys), lines(read.values)
        self.at = at  # (b,) prompt of each answer
        _, h, _, d = read.keys.shape
        room = read.keys.new_zeros((len(at), h, ROOM, d))
        self.keys, self.values = blocks(room), lines(room)

    def update(self, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Nobody asks: only lean attention meets this layer, and it calls `attend`."""
        raise NotImplementedError("prompts that are shared are attended to by lean blocks alone")

    def attend(
        self, heads: Tensor, turns: tuple[Tensor, Tensor], mask: Tensor | None, scale: float
    ) -> Tensor:
        """Attention of one new token of each answer, whose queries, keys and values (b, 1, h, d)
        go in; (b, h, d) comes out. The mask is (b, 1, 1, t + T).
        """
        new = self.filled - self.far
        if new == self.values.shape[2]:
            self.keys = pad(self.keys, (0, 0, 0, 0, 0, ROOM // LANES))
            self.values = pad(self.values, (0, 0, 0, ROOM))
        self.filled += 1
        cos, sin = turns
        return attend(
            heads[:, 0],
            (cos[:, 0], sin[:, 0]),
            heads.new_zeros((len(heads), self.far + self.values.shape[2]), dtype=torch.float32)
            if mask is None
            else _plain(mask),
            (self.prompt_keys, self.prompt_values, self.at),
            (self.keys, self.values),
            new,
            scale,
        )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How wide the keys will be after so many more tokens, and where they begin."""
        return self.far + _roomy(self.filled + query_length - self.far - 1), 0

    def ask(self, at: Tensor, stay: Tensor | None) -> None:
        """Other prompts for the answers, of those that `stay`; None for all that there are."""
        self.at = at
        if stay is not None:
            self.prompt_keys, self.prompt_values = self.prompt_keys[stay], self.prompt_values[stay]


@lru_cache(maxsize=1)
def _plain(mask: Tensor) -> Tensor:
    """The mask as float32 (b, t + T); the same tensor comes to every layer of a pass."""
    return mask[:, 0, 0].float().contiguous()


def _roomy(wanted: int) -> int:
    """Room for so many tokens and for some more."""
    return (wanted // ROOM + 1) * ROOM


def new_cache(model: PreTrainedModel) -> DynamicCache:
    """The model's own kind of cache, its ordinary layers replaced by roomy ones."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def roomy_layers(cache: DynamicCache) -> list[RoomyLayer]:
    """All layers, if every one is roomy; else none."""
    found = [layer for layer in cache.layers if isinstance(layer, RoomyLayer)]
    return found if len(found) == len(cache.layers) else []


def share_prompts(cache: DynamicCache, at: Tensor) -> None:
    """A row for each answer, at its prompt (b,), in a cache of roomy layers that has read the
    prompts.
    """
    cache.layers = [SharedLayer(layer, at) for layer in roomy_layers(cache)]


def repeat_rows(cache: DynamicCache, rows: Tensor) -> None:
    """Take these rows of every layer of the cache, a row perhaps several times, and make room."""
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.widen(rows)
        else:
            layer.batch_select_indices(rows)


def keep_rows(cache: DynamicCache, order: Tensor) -> None:
    """Keep these rows of every layer of the cache, in this order, few of which have to move."""
    moved = (order != torch.arange(len(order), device=order.device)).nonzero()[:, 0]
    for layer in cache.layers:
        if isinstance(layer, WideLayer):
            layer.keep(order, moved)
        else:
            layer.batch_select_indices(order)
    shared = [layer for layer in cache.layers if isinstance(layer, SharedLayer)]
    if shared:
        at, stay = fewer_prompts(shared[0].at[order], len(shared[0].prompt_keys))
        for layer in shared:
            layer.ask(at, stay)


def fewer_prompts(at: Tensor, prompts: int) -> tuple[Tensor, Tensor | None]:
    """The prompt of each answer (b,) as it is to be named, and which of so many prompts stay; None
    for all, as long as few can go.
    """
    stay, renamed = at.unique(return_inverse=True)
    return (at, None) if len(stay) > (1 - SPARE) * prompts else (renamed, stay)


def close_ranks(stays: Sequence[bool]) -> list[int]:
    """The rows that stay, in an order that moves few of them: the last ones fill the gaps."""
    count = sum(stays)
    late = [row for row in range(count, len(stays)) if stays[row]]
    return [row if stays[row] else late.pop() for row in range(count)]
