"""Several processes as one: what they tell one another. Alone, everything here does nothing.

Choices
- Every process has all the data and makes the same plan; of each optimiser step it computes its own
  share, and gradients, losses and counts are summed. So a step is the same step whatever the number
  of processes, up to the order of additions.
- Sums, never means: a loss is divided by the step's whole count before it goes backwards.
- What is cheap (rewards, advantages, metrics) every process computes for all, so that the code of a
  stage reads as if it were alone; what is dear (passes over a model) is shared.
- Process 0 alone writes; the others wait for it where it does.
- Where the launcher asks for FSDP, weights are split while they learn (sharding.py); alone, and
  without that wish, nothing of it is imported.
Non-goals: tensor and pipeline parallelism.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def idle_passes(passes: int) -> int:
    """How many more passes than this process's another one makes through split weights.

    They are whole only while all ask for them, so whoever has less to learn makes idle passes.
    """
    if not ranks.splits():
        return 0
    most = torch.tensor(passes)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most) - passes


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

    A weight that got no gradient in any of them stays without: an optimiser passes it over. The
    gradients of split weights are sums already.
    """
    if ranks.world() == 1:
        return
    learned = [parameter for parameter in parameters if not is_split(parameter)]
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


def clip_gradients(parameters: Iterable[torch.nn.Parameter], limit: float) -> float:
    """Scale the summed gradients down to a norm of `limit` together; returns the norm before.

    Of split ones each process adds the squares of its part; whole ones are the same everywhere.
    """
    learned = [parameter for parameter in parameters if parameter.grad is not None]
    if not any(map(is_split, learned)):
        return torch.nn.utils.clip_grad_norm_(learned, limit).item()
    gradients: list[tuple[Tensor, bool]] = []
    for parameter in learned:
        gradient: Any = parameter.grad
        parted = is_split(gradient)
        gradients.append((gradient.to_local() if parted else gradient, parted))
    squares = [0.0, 0.0]
    for gradient, parted in gradients:
        squares[parted] += gradient.double().square().sum().item()
    norm = math.sqrt(squares[False] + sums([squares[True]])[0])
    for gradient, _ in gradients:
        gradient.mul_(min(1.0, limit / (norm + 1e-6)))
    return norm


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


# --- split weights --------------------------------------------------------------------------------


def is_split(tensor: Tensor) -> bool:
    """Whether this process holds only its part of the tensor (a DTensor, or DeepSpeed's weight)."""
    return hasattr(tensor, "full_tensor") or hasattr(tensor, "ds_tensor")


def _sharding() -> Any:
    """What can split weights; costs an import, so only who needs it asks for it."""
    return importlib.import_module("trainer.sharding")


def split(
    model: Any, optimizer: torch.optim.Optimizer, learners: Sequence[dict[str, torch.nn.Parameter]]
) -> None:
    """Split the weights over the processes, if the launcher asks for it (sharding.split)."""
    if ranks.splits():
        _sharding().split(model, optimizer, learners)


def join(
    model: Any, optimizer: torch.optim.Optimizer, learners: Sequence[dict[str, torch.nn.Parameter]]
) -> Any:
    """The model with whole weights, to be measured and written (sharding.join)."""
    return _sharding().join(model, optimizer, learners) if ranks.splits() else model


def whole(model: Any) -> contextlib.AbstractContextManager[None]:
    """Within, all weights are in every process (sharding.whole)."""
    found: contextlib.AbstractContextManager[None] = (
        _sharding().whole(model) if ranks.splits() else contextlib.nullcontext()
    )
    return found


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """What this process holds of a whole tensor that belongs to the weight `like`."""
    found: Tensor = _sharding().part_of(tensor, like) if is_split(like) else tensor
    return found


def split_frozen(model: Any, accelerator: Any) -> None:
    """Split a model that learns nothing beside one that does (sharding.split_frozen)."""
    if ranks.splits() and not ranks.splits_by_zero():
        _sharding().split_frozen(model, accelerator)


def zero() -> Any:
    """What DeepSpeed's weights need (trainer/zero.py); only there where it splits them."""
    return importlib.import_module("trainer.zero")


def own_piece(tensor: Tensor, size: int) -> Tensor:
    """This process's piece of the flattened tensor, cut into pieces of that size, the last of which
    is filled up with zeros: DeepSpeed's way to split.
    """
    flat = tensor.flatten()
    flat = torch.nn.functional.pad(flat, (0, size * ranks.world() - flat.numel()))
    return flat[ranks.rank() * size :][:size]


def whole_tensor(tensor: Tensor) -> Tensor:
    """The tensor as one process alone would have it, for every process; all ask for it together."""
    given: Any = tensor
    if hasattr(tensor, "ds_tensor"):
        given = zero().whole(tensor)
    elif is_split(tensor):
        given = given.detach().full_tensor()
    found: Tensor = given
    return found


def whole_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as one process alone would have them; process 0 gets them, the others none."""
    found = {}
    for name, tensor in tensors.items():
        given = whole_tensor(tensor)  # all take part
        if ranks.is_main():
            found[name] = given.cpu() if is_split(tensor) else given
    return found
