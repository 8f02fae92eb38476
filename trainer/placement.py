"""Where a stage computes and in which number format, and whether there is the memory for it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trainer import memory, ranks
from trainer.config import Spec
from trainer.events import RunError
from trainer.types import RunContext

#: below this many parameters a CPU gains nothing from bfloat16
SMALL_MODEL = 20_000_000


class Placement(NamedTuple):
    """Where a model computes and in which number format."""

    device: torch.device
    dtype: torch.dtype


def start(context: RunContext, model: Path | int, resumed_from: int | None = None) -> Placement:
    """Choose device, number format and threads for a stage, and say so in its `started` event;
    refuses a run for which there is not enough memory.

    `model` is a folder, or the number of parameters of a model that does not exist yet.
    """
    config = context.spec.config
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) - 1))
    torch.set_num_threads(config.threads or threads)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device, model)
    numbers = str(dtype).removeprefix("torch.")
    room = free_memory(device, config)
    needs = memory.check(context.spec, context.folder, numbers, device.type, room)
    torch.manual_seed(context.spec.seed)
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    context.emit(
        "started",
        attempt=context.attempt,
        pid=os.getpid(),
        stage=context.spec.stage,
        threads=torch.get_num_threads(),
        dtype=numbers,
        device=str(device),
        needs_mib=needs,
        resumed_from=resumed_from,
    )
    return Placement(device, dtype)


def free_memory(device: torch.device, config: Any) -> int | None:
    """Bytes that this process may have on a device for itself; None where that is not known.

    vLLM takes its share of a whole GPU at its start, whatever it needs of it.
    """
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        share = config.engine_memory if getattr(config, "engine", "") == "vllm" else 0.0
        return max(0, free - int(share * whole))
    own = memory.free_memory()
    return None if own is None else own // ranks.local_world()


def memory_table(spec: Spec, folder: Path) -> str:
    """What a run will need, part by part, and what is free where it would run."""
    device = choose_device(spec.config.device)
    dtype = choose_dtype(spec.config.dtype, device, memory.main_model(spec, folder))
    numbers = str(dtype).removeprefix("torch.")
    found = memory.estimate(spec, folder, numbers, device.type)
    return memory.as_table(found, free_memory(device, spec.config))


def choose_device(name: str) -> torch.device:
    """The device of that name; `auto` takes the first CUDA device when there is one."""
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", ranks.local_rank())
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"config.device is “{name}”, which cannot be used here ({reason}); choose auto or cpu."
        ) from None
    return device


def choose_dtype(name: str, device: torch.device, model: Path | int) -> torch.dtype:
    """`auto`: bfloat16 where it is faster: on a GPU, or on a CPU that is good at it for a model of
    some size.
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16
    count = model if isinstance(model, int) else parameter_count(model)
    quick = device.type == "cpu" and count > SMALL_MODEL and quick_at_bfloat16()
    return torch.bfloat16 if quick else torch.float32


def quick_at_bfloat16() -> bool:
    """Whether this CPU multiplies matrices faster in bfloat16 than in float32.

    With AMX, or with AMD's AVX512-BF16. Intel's takes longer than float32 (docs/log.md,
    2026-11-29), so that is what its processors get where a virtual machine hides AMX.
    """
    able = torch.cpu.get_capabilities()
    if able.get("amx_bf16"):
        return True
    return bool(able.get("avx512_bf16")) and "intel" not in str(able.get("cpu_name")).lower()


def parameter_count(path: Path) -> int:
    """Numbers in a model folder's safetensors files, read from their headers alone."""
    return sum(math.prod(shape) for _, shape in memory.tensor_shapes(path))
