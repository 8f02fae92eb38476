"""The key-value cache of sampling: roomy, and where it can be with a prompt once for its answers.

Choices
- Keys and values stand whole in memory, wider than they are filled: products over a part of a
  tensor would copy it first, which costs more than the unused places.
- Where every attention block is a lean one (blocks.py), the keys of a prompt are not repeated for
  its K answers: they are read from memory once a step, by products of K times the rows (Juravsky et
  al. 2024, Hydragen). Answers that have ended leave their seat empty.
- The columns are the same in both forms: the prompt's, padded on the left; the answer's; room.
Non-goals: caches of a sliding window, which stay transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

#: places by which a cache grows
ROOM = 32
#: a prompt without answers is dropped when so many of the rows would go: dropping copies the rest
SPARE = 0.25


@dataclass(frozen=True, eq=False)
class Seats:
    """Where the answers sit: `many` seats at each of `prompts`."""

    prompts: int
    many: int
    at: Tensor  # (b,) prompt of each answer
    place: Tensor  # (b,) its seat there

    @cached_property
    def full(self) -> bool:
        """Whether every seat is taken, in the answers' order."""
        order = self.at * self.many + self.place
        everyone = torch.arange(self.prompts * self.many, device=order.device)
        return torch.equal(order, everyone)

    def sit(self, rows: Tensor) -> Tensor:
        """(b, …) by answer as (prompts, many, …) by seat; 0 where nobody sits."""
        if self.full:
            return rows.unflatten(0, (self.prompts, self.many))
        seats = rows.new_zeros((self.prompts, self.many, *rows.shape[1:]))
        seats[self.at, self.place] = rows
        return seats

    def rise(self, seats: Tensor) -> Tensor:
        """`sit` undone."""
        if self.full:
            return seats.flatten(0, 1)
        return seats[self.at, self.place]

    def keep(self, order: Tensor) -> tuple[Seats, Tensor | None]:
        """With these answers, in this order; and the prompts that stay, None for all."""
        at, place = self.at[order], self.place[order]
        stay, renamed = at.unique(return_inverse=True)
        if len(stay) > (1 - SPARE) * self.prompts:
            return Seats(self.prompts, self.many, at, place), None
        return Seats(len(stay), self.many, renamed, place), stay


def seats_for(many: Sequence[int], device: torch.device) -> Seats:
    """So many answers to each prompt, in their order."""
    at = [prompt for prompt, count in enumerate(many) for _ in range(count)]
    place = [seat for count in many for seat in range(count)]
    return Seats(
        len(many), max(many), torch.tensor(at, device=device), torch.tensor(place, device=device)
    )


class Shared(NamedTuple):
    """What a layer knows of the prompts: keys and values (prompts, h, t, d), and who sits where."""

    keys: Tensor
    values: Tensor
    seats: Seats


class RoomyLayer(DynamicLayer):
    """A layer that is wider than it is filled: a new token is written, not concatenated, and the
    whole width is attended to, the mask hiding what is not filled.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filled = 0
        self.shared: Shared | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Keys and values (b, h, t, d) of the new tokens go in; those of the whole width come out,
        without the prompts where these are shared.

        The first call, which reads the prompts, gives back what it got.
        """
        begin, self.filled = self.filled, self.filled + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        new = slice(begin - self._apart, self.filled - self._apart)
        if new.stop > self.keys.shape[-2]:
            self.widen(torch.arange(len(self.keys), device=self.keys.device))
        self.keys[:, :, new] = key_states
        self.values[:, :, new] = value_states
        return self.keys, self.values

    @property
    def _apart(self) -> int:
        """Columns that stand apart, as they are shared."""
        return 0 if self.shared is None else self.shared.keys.shape[-2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How wide the keys will be after so many more tokens, and where they begin."""
        wanted = self.filled + query_length
        if not self.is_initialized:
            return wanted, 0
        own, width = wanted - self._apart, self.keys.shape[-2]
        return self._apart + (width if own <= width else _roomy(own)), 0

    def get_seq_length(self) -> int:
        """Tokens in the cache."""
        return self.filled

    def widen(self, rows: Tensor) -> None:
        """Make room, taking these rows, in this order; a row may come several times."""
        self.keys, self.values = (self._wider(old, rows) for old in (self.keys, self.values))

    def _wider(self, old: Tensor, rows: Tensor) -> Tensor:
        _, h, t, d = old.shape
        # Unused places are hidden, but 0 · NaN would show through.
        wide = old.new_zeros((len(rows), h, _roomy(max(self.filled - self._apart, t)), d))
        wide[:, :, :t] = old[rows]
        return wide

    def share(self, seats: Seats) -> None:
        """From here on what was read belongs to the prompts, and each answer has its own tokens."""
        self.shared = Shared(self.keys, self.values, seats)
        _, h, _, d = self.keys.shape
        room = (len(seats.at), h, ROOM, d)
        self.keys, self.values = self.keys.new_zeros(room), self.values.new_zeros(room)

    def fill(self, parts: Sequence[RoomyLayer], order: Tensor) -> None:
        """Take over what several caches hold, the shorter ones filled up on the left; of all their
        rows those of `order`.
        """
        self.lazy_initialization(parts[0].keys, parts[0].values)
        self.filled = max(part.filled for part in parts)
        for name in ("keys", "values"):
            each = [getattr(part, name) for part in parts]
            wide = [
                torch.nn.functional.pad(one, (0, 0, self.filled - one.shape[-2], 0)) for one in each
            ]
            setattr(self, name, torch.cat(wide)[order])

    def keep(self, order: Tensor, moved: Tensor) -> None:
        """Keep the rows `order`; of these only the places `moved` do not stand there already."""
        for name in ("keys", "values"):
            whole = getattr(self, name)
            whole[moved] = whole[order[moved]]
            setattr(self, name, whole[: len(order)])

    def reseat(self, seats: Seats, prompts: Tensor | None) -> None:
        """Other seats, at these prompts; None for all that there are."""
        if self.shared is not None:
            keys, values = self.shared.keys, self.shared.values
            if prompts is not None:
                keys, values = keys[prompts], values[prompts]
            self.shared = Shared(keys, values, seats)


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


def share_prompts(cache: DynamicCache, seats: Seats) -> None:
    """A row for each answer, in a cache of roomy layers that has read the prompts."""
    for layer in roomy_layers(cache):
        layer.share(seats)


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
        if isinstance(layer, RoomyLayer):
            layer.keep(order, moved)
        else:
            layer.batch_select_indices(order)
    shared = next((layer.shared for layer in roomy_layers(cache)), None)
    if shared is not None:
        seats, prompts = shared.seats.keep(order)
        for layer in roomy_layers(cache):
            layer.reseat(seats, prompts)


def close_ranks(stays: Sequence[bool]) -> list[int]:
    """The rows that stay, in an order that moves few of them: the last ones fill the gaps."""
    count = sum(stays)
    late = [row for row in range(count, len(stays)) if stays[row]]
    return [row if stays[row] else late.pop() for row in range(count)]
