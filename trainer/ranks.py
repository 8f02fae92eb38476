"""Which of several processes this one is, by RANK and WORLD_SIZE of a launcher. Needs no torch.

`accelerate launch` and torchrun start the same command several times. Process 0 alone writes:
events, checkpoints, results. A process that was started by hand is alone and is process 0.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
#: how weights are split, whatever else a configuration says: by version 2 of FSDP, layer for layer,
#: each process reading the whole model and keeping its part where it computes
FSDP = {
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",  # the trainer has a setting of its own
}
#: the same by DeepSpeed; number formats are the trainer's choice
ZERO = {
    "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3",
    "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
    "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto",
    "ACCELERATE_GRADIENT_CLIPPING": "auto",
    "ACCELERATE_MIXED_PRECISION": "no",
}
#: what a configuration may not decide: the model knows its layers, and a file of DeepSpeed's own
#: would take the place of the settings above
DECIDED = ("FSDP_TRANSFORMER_CLS_TO_WRAP", "ACCELERATE_DEEPSPEED_CONFIG_FILE")


def world() -> int:
    """How many processes work on the run."""
    return int(os.environ["WORLD_SIZE"]) if "RANK" in os.environ else 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def local_rank() -> int:
    """Its number on this machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world() > 1 else 0


def local_world() -> int:
    """How many processes of the run are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world()))) if world() > 1 else 1


def is_main() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def splits() -> bool:
    """Whether the launcher asks for weights that are split over the processes (FSDP or ZeRO)."""
    return world() > 1 and (_asked("ACCELERATE_USE_FSDP") or splits_by_zero())


def splits_by_zero() -> bool:
    """Whether DeepSpeed is to split them (ZeRO), which it does in a way of its own."""
    return world() > 1 and _asked("ACCELERATE_USE_DEEPSPEED")


def settle_splitting() -> None:
    """Let transformers' Trainer split weights in our way, whatever a configuration says."""
    if splits():
        os.environ.update(ZERO if splits_by_zero() else FSDP)
        for name in DECIDED:
            os.environ.pop(name, None)


def _asked(wish: str) -> bool:
    return os.environ.get(wish, "").lower() == "true"


def end_with_launcher() -> None:
    """Ask the kernel (Linux) to end this process when its launcher is killed.

    A launcher starts each process in a session of its own, where a signal to its group would not
    find it.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class AgreedStop(threading.Event):
    """A wish to stop that every process sees at the same step: set here, true when all agreed.

    A signal reaches each process at a moment of its own; one that left alone would leave the others
    waiting for its gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self._agreed = False

    def agree(self, any_of: Callable[[bool], bool]) -> None:
        """Ask the others, by a function that says whether any process wants to stop."""
        self._agreed = any_of(super().is_set())

    def is_set(self) -> bool:
        return self._agreed
