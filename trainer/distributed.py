"""Several processes as one: what they tell one another. Alone, everything here does nothing.

Choices
- Every process has all the data and makes the same plan; of each optimiser step it computes its own
  share, and gradients, losses and counts are summed. So a step is the same step whatever the number
  of processes, up to the order of additions.
- Sums, never means: a loss is divided by the step's whole count before it goes backwards.
- What is cheap (rewards, advantages, metrics) every process computes for all, so that the code of a
  stage reads as if it were alone; what is dear (passes over a model) is shared.
- Process 0 alone writes; the others wait for it where it does.
Non-goals: tensor and pipeline parallelism.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from trainer import ranks
from trainer.types import RunContext

T = TypeVar("T")
S = TypeVar("S", bound=Any)

#: how long a process waits for the others: process 0 may be writing much to a slow disk
PATIENCE = datetime.timedelta(hours=2)
#: numbers of gradient that are summed at once
BUCKET = 2**24


def begin(device: str) -> None:
    """Meet the other processes, before anything is computed on that device (a setting's value)."""
    if ranks.world() > 1 and not dist.is_initialized():
        cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        dist.init_process_group("cuda:nccl,cpu:gloo" if cuda else "gloo", timeout=PATIENCE)


def end() -> None:
    """Part from them when all have come this far."""
    if dist.is_initialized():
        barrier()
        dist.destroy_process_group()


def barrier() -> None:
    """Wait for the others."""
    if dist.is_initialized():
        dist.barrier()


def own(items: S) -> S:
    """This process's share of some work (a sequence, or the rows of a tensor): every n-th item."""
    share: S = items[ranks.rank() :: ranks.world()]
    return share


def total(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over the processes.

    Of a tensor that each process filled in its own places, the sum is the whole.
    """
    if ranks.world() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def sums(numbers: Sequence[float]) -> list[float]:
    """Each number's sum over the processes."""
    if ranks.world() == 1:
        return list(numbers)
    together = torch.tensor(numbers, dtype=torch.float64)
    dist.all_reduce(together)
    found: list[float] = together.tolist()
    return found


def gather(items: Sequence[T]) -> list[T]:
    """Everybody's items, dealt out by `own`, in the order in which they stood before."""
    if ranks.world() == 1:
        return list(items)
    parts: list[Any] = [None] * ranks.world()
    dist.all_gather_object(parts, list(items))
    return [part[at] for at in range(max(map(len, parts))) for part in parts if at < len(part)]


def from_main(find: Callable[[], T]) -> T:
    """What process 0 finds, for all: files may look different to them."""
    if ranks.world() == 1:
        return find()
    found: list[Any] = [find() if ranks.is_main() else None]
    dist.broadcast_object_list(found)
    return found[0]


def anyone(wish: bool) -> bool:
    """Whether any process wishes it."""
    return bool(sums([float(wish)])[0])


def agree_to_stop(context: RunContext) -> bool:
    """Between two steps: from here on all processes know whether one was asked to stop.

    True where several of them are to stop now; one alone looks whenever it likes.
    """
    if not isinstance(context.stop, ranks.AgreedStop):
        return False
    context.stop.agree(anyone)
    return context.stop.is_set()


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Sum each gradient over the processes; one that had nothing to learn from adds 0.

    A weight that got no gradient in any of them stays without: an optimiser passes it over.
    """
    if ranks.world() == 1:
        return
    learned = list(parameters)
    there = sums([float(parameter.grad is not None) for parameter in learned])
    learned = [parameter for parameter, count in zip(learned, there, strict=True) if count]
    for parameter in learned:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets(learned):
        gradients = [parameter.grad for parameter in bucket if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Neighbours of one number format, some millions of numbers together."""
    bucket: list[torch.nn.Parameter] = []
    for parameter in parameters:
        size = sum(one.numel() for one in bucket) + parameter.numel()
        if bucket and (size > BUCKET or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
