"""`python -m trainer run FOLDER` runs one stage; `python -m trainer estimate FOLDER` says how much
memory it will need; `python -m trainer prepare NAME_OR_PATH DEST` makes a base model; `python -m
trainer export FOLDER DEST --to openrlhf|verl` writes a run as a job for another trainer.

Exit codes: 0 finished, 1 failed (the last event says why), 75 stopped and resumable. Running a
folder again resumes.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from trainer import ranks
from trainer.config import Spec, SpecError, load_spec
from trainer.events import (
    Busy,
    EventWriter,
    Heartbeat,
    Quiet,
    RunError,
    Stopped,
    held,
    is_out_of_memory,
    read_events,
)
from trainer.manifests import recover, verify_manifest
from trainer.terminal import Spoken
from trainer.types import RunContext, refuse_other_spec

FINISHED, FAILED, STOPPED = 0, 1, 75
DISK_FULL = (
    "The disk is full, so nothing could be saved; earlier checkpoints are kept: "
    "free some space, then run the folder again to go on from the last one."
)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer", description="Run one training stage."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the stage of FOLDER/spec.json, or resume it")
    run.add_argument("folder", type=Path)
    prepare = commands.add_parser("prepare", help="make a base model folder")
    prepare.add_argument("source", metavar="NAME_OR_PATH")
    prepare.add_argument("dest", type=Path)
    estimate = commands.add_parser("estimate", help="say how much memory the run will need")
    estimate.add_argument("folder", type=Path)
    export = commands.add_parser("export", help="write a run as a job for another trainer")
    export.add_argument("folder", type=Path)
    export.add_argument("dest", type=Path)
    export.add_argument("--to", choices=("openrlhf", "verl"), required=True)
    options = parser.parse_args(arguments)
    if options.command == "export":
        return tell(
            lambda: export_run(options.folder.resolve(), options.dest.resolve(), options.to)
        )
    if options.command == "prepare":
        return tell(lambda: prepare_base(options.source, options.dest.resolve()))
    if options.command == "estimate":
        return tell(lambda: tell_estimate(options.folder.resolve()))
    return run_folder(options.folder.resolve())


def tell(command: Callable[[], None]) -> int:
    """Run a command of the terminal; what goes wrong becomes a sentence on stderr."""
    try:
        command()
    except Exception as error:  # noqa: BLE001 - the last line of defence: everything becomes a sentence
        if not isinstance(error, RunError | SpecError):
            traceback.print_exc()
        sys.stderr.write(explain(error)[1] + "\n")
        return FAILED
    return FINISHED


def prepare_base(source: str, dest: Path) -> None:
    """Make or copy a base model folder: the one command that may ask the hub."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    set_environment(threads=0)
    importlib.import_module("trainer.bases").prepare(source, dest)


def export_run(folder: Path, dest: Path, target: str) -> None:
    """Write a run folder's data and settings as a job for OpenRLHF or verl."""
    set_environment(threads=1)
    importlib.import_module("trainer.export").export(folder, dest, target)


def tell_estimate(folder: Path) -> None:
    """Print what a run folder's run will hold in memory, part by part."""
    spec = load_spec(folder)
    set_environment(spec.config.threads)
    sys.stdout.write(importlib.import_module("trainer.placement").memory_table(spec, folder) + "\n")


def run_folder(folder: Path) -> int:
    """Run or resume the stage of a run folder; every way out leaves a last event that says how it
    went, but one: where another process is at the folder, the events are that one's.
    """
    if not folder.is_dir():
        sys.stderr.write(f"There is no run folder {folder}; check the path.\n")
        return FAILED
    stop = threading.Event() if ranks.world() == 1 else ranks.AgreedStop()
    _stop_on_signal(stop)
    try:
        with held(folder) if ranks.is_main() else contextlib.nullcontext():
            return _run_held(folder, stop)
    except Busy as busy:
        sys.stderr.write(f"{busy}\n")
        return FAILED
    except OSError as error:  # not even the events can be written
        return _fail(folder, error)


def _run_held(folder: Path, stop: threading.Event) -> int:
    """The same in a folder that is this process's own."""
    begun = time.monotonic()
    try:
        if ranks.is_main():
            recover(*folder.glob(".out.*"), *folder.glob("checkpoints/.*"))
        events = _writer(folder)
        spec = load_spec(folder)
        set_environment(spec.config.threads)
        part = _meet(spec)
        if is_finished(folder, spec):
            return FINISHED
        try:
            report = _run_stage(folder, spec, events, stop)
        except Stopped as halt:
            events.emit("stopped", message=str(halt) or "The run was stopped and can be resumed.")
            part()
            return STOPPED
        seconds = round(time.monotonic() - begun, 1)
        events.emit("finished", report=report, seconds=seconds, spec=spec.identity())
        part()
    except BaseException as error:  # noqa: BLE001 - the last line of defence: everything becomes a sentence
        return _fail(folder, error)
    return FINISHED


def _writer(folder: Path) -> EventWriter:
    """Who writes the events of this process; at a terminal it tells them, too."""
    if not ranks.is_main():
        return Quiet()
    return Spoken(folder, sys.stderr) if sys.stderr.isatty() else EventWriter(folder)


def _meet(spec: Spec) -> Callable[[], None]:
    """Join the other processes of the run, if a launcher started several; returns how to part."""
    if ranks.world() == 1:
        return lambda: None
    ranks.end_with_launcher()
    if ranks.splits_by_zero() and not spec.config.can_split_by_zero:
        raise RunError(
            f"The stage “{spec.stage}” with these settings cannot be launched with weights that "
            "are split by DeepSpeed (ZeRO); use a configuration of FSDP2 or DDP. It can split them "
            "in sft with config.method full or freeze, and in prefer and bestofn with config.lora "
            "false."
        )
    if ranks.splits_by_zero() and importlib.util.find_spec("deepspeed") is None:
        raise RunError(
            "DeepSpeed is not installed: install it (pip install deepspeed), or use a "
            "configuration of FSDP2 or DDP."
        )
    if ranks.splits() and not spec.config.can_split:
        raise RunError(
            f"The stage “{spec.stage}” with these settings holds its whole model in each process, "
            "so it cannot be launched with weights that are split (FSDP); use a DDP configuration. "
            "Split weights can learn in pretrain, in sft with config.method full or freeze, and in "
            "reward, prefer and bestofn with config.lora false."
        )
    ranks.settle_splitting()
    distributed = load("trainer.distributed")
    distributed.begin(spec.config.device)
    end: Callable[[], None] = distributed.end
    return end


def _run_stage(
    folder: Path, spec: Spec, events: EventWriter, stop: threading.Event
) -> dict[str, Any]:
    """Import only the stage that is asked for, and run it under a heartbeat."""
    attempt = 1 + sum(event.get("kind") == "started" for event in read_events(folder))
    with Heartbeat(events) as heartbeat:
        context = RunContext(folder, spec, events, heartbeat, attempt=attempt, stop=stop)
        stage = load(f"trainer.stages.{spec.stage}")
        report: dict[str, Any] = stage.run(context)
    return report


def load(name: str) -> ModuleType:
    """Import a module of ours and all that it needs, torch and transformers above all.

    Looking for garbage among some thousand modules finds none and takes a fifth of the time; what
    they are made of stays, so that no later search goes over it either.
    """
    if name in sys.modules:
        return sys.modules[name]
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()


def _fail(folder: Path, error: BaseException) -> int:
    """Say in one sentence what went wrong; the traceback goes to trainer.log, and to stderr where
    nobody foresaw the error or there is no log.
    """
    trace = "".join(traceback.format_exception(error))
    code, sentence = explain(error)
    logged = ranks.is_main() and _keep_failure(folder, trace, code, sentence)
    if code == "unexpected" or not logged:
        sys.stderr.write(f"{trace}\n")
    sys.stderr.write(f"{sentence}\n")
    return FAILED


def _keep_failure(folder: Path, trace: str, code: str, sentence: str) -> bool:
    """Whether the folder could take the failure's event and traceback: the disk may be full."""
    try:
        EventWriter(folder).emit("failed", code=code, message=sentence)
        with (folder / "trainer.log").open("a", encoding="utf-8") as log:
            log.write(trace)
    except OSError:
        return False
    return True


def is_finished(folder: Path, spec: Spec) -> bool:
    """Whether this very spec was run to its end here and its result is still whole."""
    done = [event for event in read_events(folder) if event.get("kind") == "finished"]
    if not done or verify_manifest(folder / "out"):
        return False
    what = f"The finished result in {folder}"
    refuse_other_spec(spec, done[-1].get("spec"), what, "use a new run folder")
    return True


def set_environment(threads: int) -> None:
    """Settings that must stand before torch is imported."""
    wanted = threads or max(1, (os.cpu_count() or 1) - 1)
    if not threads and os.environ.get("OMP_NUM_THREADS", "").isdigit():
        wanted = int(os.environ["OMP_NUM_THREADS"])
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(wanted)
    # Threads that spin while they wait for a core taken by a neighbour slow a run down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    # PyTorch and oneDNN keep what they prepared for each shape of a product, a thousand of them.
    # Texts have other lengths in every batch, so that grew to a multiple of what the model takes.
    # With 64 PPO, whose passes come back to the same batches, was a quarter slower; not with 256.
    os.environ.setdefault("LRU_CACHE_CAPACITY", "256")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def _stop_on_signal(stop: threading.Event) -> None:
    """SIGTERM and Ctrl-C ask the stage to finish its micro-step, save and leave."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)


def explain(error: BaseException) -> tuple[str, str]:
    """One of `FAILURES`, and one sentence for a person: what happened and what to do."""
    text = " ".join(str(error).split())
    lowered = text.lower()
    if isinstance(error, (RunError, SpecError)):
        return "spec" if isinstance(error, SpecError) else error.code, text
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "disk", DISK_FULL
    if any(words in lowered for words in ("no space left", "disk quota", "file too large")):
        return "disk", DISK_FULL  # safetensors reports it as its own kind of error
    if is_out_of_memory(error):
        return (
            "memory",
            "The machine ran out of memory; free some and run the folder again to go on, or take a "
            "lower config.token_budget or config.batch_size, or a smaller model, in a new folder.",
        )
    if isinstance(error, json.JSONDecodeError):
        return "data", f"An input file is not valid JSON ({text}); mend or export it again."
    if isinstance(error, PermissionError):
        return "permission", f"The trainer may not use {error.filename}; give it the right to."
    name = type(error).__name__
    return "unexpected", f"The stage failed unexpectedly ({name}: {text[:300]}); see trainer.log."


if __name__ == "__main__":
    sys.exit(main())
