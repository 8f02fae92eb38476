"""Starts and watches trainer processes. The one door of labelhub to the trainer.

How one run is watched (`watch`):
1. Take a lease on the run; a living lease means that another watcher is at it: go away.
2. End what an earlier watcher's death may have left behind.
3. Write the run folder: spec.json and the data that the stage reads.
4. Start `python -m trainer run FOLDER` (in several processes by `accelerate launch`, where that is
   asked for) as a process group of its own.
5. Until it exits: carry its event lines into the database, renew the lease, pass on a wish to stop.
6. Write down how it ended.

The attempt number fences: whoever lost the lease stops its trainer and writes nothing more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery.signals import worker_shutting_down
from django.conf import settings
from django.db import OperationalError, connection
from django.utils.translation import gettext

from labelhub.lib.errors import Refused
from labelhub.lib.guard import guarded
from labelhub.prompts.models import Answer, Prompt
from labelhub.prompts.queries import answer_lines, prompt_lines
from labelhub.runs import progress
from labelhub.runs.folder import KEPT, read_lines, run_folder, write_lines
from labelhub.runs.models import Run, RunInput
from labelhub.runs.queries import snapshot_lines
from labelhub.runs.rules import EXIT_FAILED, EXIT_STOPPED
from trainer.config import CONFIGS, TEXT_NAMES, SpecError, data_dir, input_kind, parse_spec
from trainer.events import read_events
from trainer.manifests import folder_hash, write_manifest

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
# After a polite SIGTERM the trainer may still have to write a checkpoint.
GRACE_SECONDS = 20.0
CHUNK = 1 << 20

_shutting_down = threading.Event()


@worker_shutting_down.connect
def _remember_shutdown(**_: Any) -> None:
    _shutting_down.set()


# --- what the trainer knows about its stages


@dataclass(frozen=True)
class Knob:
    """One setting of a stage."""

    name: str
    kind: str  # int, float, bool or str
    default: Any
    about: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...]


@dataclass(frozen=True)
class StageFacts:
    """What a stage reads and what can be set."""

    stage: str
    about: str
    needs: tuple[tuple[str, ...], ...]  # sets of inputs; one of them must be complete
    may_use: tuple[str, ...]
    kinds: dict[str, str]  # what each input is, in the order in which they are named
    knobs: tuple[Knob, ...]


def stage_facts(stage: str) -> StageFacts:
    """One stage as the trainer describes it."""
    config = CONFIGS[stage]
    names = dict.fromkeys([name for names in config.needs for name in names])
    names |= dict.fromkeys(config.may_use)
    return StageFacts(
        stage=stage,
        about=(config.__doc__ or "").split("\n")[0],
        needs=config.needs,
        may_use=config.may_use,
        kinds={name: input_kind(stage, name) for name in names},
        knobs=tuple(_knob(item) for item in dataclasses.fields(config)),
    )


def _knob(item: dataclasses.Field[Any]) -> Knob:
    bounds = {name: item.metadata[name] for name in ("about", "low", "high", "choices")}
    return Knob(name=item.name, kind=str(item.type), default=item.default, **bounds)


def named_texts() -> dict[str, Path]:
    """The texts that have a name and lie on this machine."""
    places = {name: data_dir() / name for name in TEXT_NAMES}
    return {name: folder for name, folder in places.items() if folder.is_dir()}


def seal_folder(folder: Path) -> str:
    """Write the manifest of a finished folder; returns the folder's hash."""
    write_manifest(folder)
    return folder_hash(folder)


def check_config(stage: str, config: dict[str, Any]) -> None:
    """Refuse settings that the trainer would refuse."""
    try:
        CONFIGS[stage].from_json(config)
    except SpecError as error:
        raise _refused(error) from None


def check_spec(stage: str, config: dict[str, Any], inputs: list[str], seed: int) -> None:
    """Refuse before anything is queued what the trainer would refuse: settings, missing inputs."""
    names = dict.fromkeys(inputs, "checked later")
    try:
        parse_spec({"stage": stage, "config": config, "inputs": names, "seed": seed})
    except SpecError as error:
        raise _refused(error) from None


def settings_for(stage: str, inputs: Collection[str]) -> dict[str, Any] | None:
    """The settings with which a stage reads these inputs, as few as can be; None: with none."""
    choices = [{knob.name: one} for knob in stage_facts(stage).knobs for one in knob.choices]
    for config in ({}, *choices):
        with contextlib.suppress(Refused):
            check_spec(stage, config, list(inputs), 0)
            return config
    return None


def _refused(error: SpecError) -> Refused:
    """The trainer's sentence in the reader's language, with the setting or input it is about."""
    words = gettext(error.words)
    sentence = words % error.values if error.values else words
    about = {"setting": error.setting, "role": error.role}
    return Refused(
        sentence.removeprefix("spec.json: "),
        status=400,
        code="invalid",
        **{name: said for name, said in about.items() if said},
    )


def watch(run_id: int) -> str | None:
    """Run the trainer for one run until it ends; returns the state it ended in."""
    run = None if _shutting_down.is_set() else progress.take_lease(run_id)
    if run is None:
        return None
    end_leftover(run)
    if run.state == Run.State.STOPPING:
        return progress.end_run(run, code=75)
    try:
        folder = prepare_folder(run)
        process = start_trainer(run, folder)
    except (OSError, Refused) as error:
        progress.fail_run(run, f"The run could not be started: {error}.")
        return Run.State.FAILED
    if not progress.mark_running(run, process.pid):
        end_process(process)
        return progress.end_run(run, code=75)
    try:
        return _follow(run, folder, process)
    finally:
        end_process(process)  # does nothing when it has exited already


def _follow(run: Run, folder: Path, process: subprocess.Popen[bytes]) -> str | None:
    """Steps 5 and 6 of the module's text."""
    offset = _resume_offset(run)
    asked_to_stop = 0.0
    while True:
        code = exit_code(process, folder)
        try:
            offset = _carry_events(run, folder / "events.jsonl", offset)
            if code is not None:
                return progress.end_run(run, code=code)
            state = progress.renew_lease(run)
        except OperationalError as error:
            # The trainer goes on without us: its events wait in the file.
            log.warning("Run %s: the database does not answer (%s); trying again.", run.pk, error)
            connection.close()
            time.sleep(4 * POLL_SECONDS)
            continue
        if state is None:
            log.warning("Run %s: another watcher took over from attempt %s.", run.pk, run.attempt)
            return None
        if (state == Run.State.STOPPING or _shutting_down.is_set()) and not asked_to_stop:
            asked_to_stop = time.monotonic()
            _signal_group(process.pid, signal.SIGTERM)
        if asked_to_stop and time.monotonic() - asked_to_stop > 6 * GRACE_SECONDS:
            _signal_group(process.pid, signal.SIGKILL)  # the last checkpoint still stands
        time.sleep(POLL_SECONDS)


def _resume_offset(run: Run) -> int:
    """Read again from the last stored event: nothing is lost, and nothing is stored twice."""
    last = run.events.order_by("offset").last()
    return last.offset if last else 0


def _carry_events(run: Run, path: Path, offset: int) -> int:
    """Carry the new whole lines of events.jsonl into the database; returns the next offset."""
    if not path.is_file():
        return offset
    with path.open("rb") as stream:
        stream.seek(offset)
        while chunk := stream.read(CHUNK):
            lines, end = progress.parse_lines(chunk, offset)
            if not lines:
                break
            progress.record_events(run, lines)
            offset = end
            stream.seek(offset)
    return offset


# --- the folder


def prepare_folder(run: Run) -> Path:
    """Write what the trainer reads. The same content is written again at every attempt."""
    folder = run_folder(run.pk)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    links = list(run.inputs.select_related("run", "version", "snapshot", "corpus", "source"))
    inputs: dict[str, Any] = {link.role: _input(folder, link) for link in links}
    for role, rows in _data_rows(run):
        inputs[role] = _data_file(folder, role, rows)
    spec = {
        "stage": run.stage,
        "config": run.config,
        "inputs": inputs,
        "seed": run.seed,
        "parents": {link.role: link.version.name for link in links if link.version},
    }
    _write_once(folder / "spec.json", json.dumps(spec, indent=1, ensure_ascii=False))
    return folder


def _input(folder: Path, link: RunInput) -> Any:
    """What spec.json says about one input; lines and reports are written into the folder."""
    if link.version is not None:
        return {"path": link.version.folder, "sha256": link.version.sha256}
    if link.corpus is not None:
        return {"path": link.corpus.folder, "sha256": link.corpus.sha256}
    if link.snapshot is not None:
        return _data_file(folder, link.role, snapshot_lines(link.snapshot))
    if link.source is not None and input_kind(link.run.stage, link.role) == "answers":
        return _data_file(
            folder, link.role, read_lines(run_folder(link.source.pk) / KEPT["answers.jsonl"])
        )
    report = json.dumps(link.source.report if link.source else {}, ensure_ascii=False)
    _write_once(folder / "data" / f"{link.role}.json", report)
    return f"data/{link.role}.json"


def _data_rows(run: Run) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    """The lines of the prompts and answers that a run names by their numbers."""
    for role, ids in run.data.items():
        if ids and input_kind(run.stage, role) == "prompts":
            yield role, prompt_lines(Prompt.objects.filter(pk__in=ids).order_by("pk"))
        elif ids:
            answers = Answer.objects.filter(pk__in=ids).select_related("answer_set__prompt")
            yield role, answer_lines(answers.order_by("pk"))


def _data_file(folder: Path, role: str, rows: Iterator[dict[str, Any]]) -> str:
    """Write the lines once: a later attempt reads what the first one read."""
    path = folder / "data" / f"{role}.jsonl"
    if not path.exists():
        write_lines(path, rows)
    return f"data/{role}.jsonl"


def _write_once(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


# --- the process


def start_trainer(run: Run, folder: Path) -> subprocess.Popen[bytes]:
    """Start the trainer as its own process group; it ends, with a checkpoint, when we die."""
    with (folder / "trainer.log").open("ab") as trainer_log:
        return subprocess.Popen(
            guarded(trainer_command(folder), on_parent_death=signal.SIGTERM, nice=5),
            cwd=settings.BASE_DIR,
            env=trainer_environment(int(run.config.get("threads") or 0)),
            stdin=subprocess.DEVNULL,
            stdout=trainer_log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def trainer_command(folder: Path) -> list[str]:
    """What a person would type to do the same by hand."""
    words = ["-m", "trainer", "run", str(folder)]
    if settings.ACCELERATE_CONFIG is None:
        return [sys.executable, *words]
    several = ["accelerate.commands.launch", "--config_file", str(settings.ACCELERATE_CONFIG)]
    return [sys.executable, "-m", *several, *words]


def exit_code(process: subprocess.Popen[bytes], folder: Path) -> int | None:
    """What the trainer exited with; None while it runs.

    Accelerate's launcher exits with 1 whatever its processes did; the last event tells a run that
    was stopped from one that failed.
    """
    code = process.poll()
    if code != EXIT_FAILED or settings.ACCELERATE_CONFIG is None:
        return code
    kinds = [event.get("kind") for event in read_events(folder)]
    return EXIT_STOPPED if kinds and kinds[-1] == "stopped" else code


def trainer_environment(threads: int) -> dict[str, str]:
    """The child's environment: where models are, how many threads, and no secrets.

    One core is left to the pages: OpenMP threads that wait for each other beside a busy process
    lose a time slice at every barrier, which makes two threads slower than one.
    """
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
    ours = ("LABELHUB_MODELS", "LABELHUB_DATA", "LABELHUB_MEMORY_CHECK")
    prefixes = ("HF_", "NCCL_", "TORCH", "PYTORCH_", "OPENBLAS_", *ours)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith(prefixes)
    }
    count = str(threads or max(1, (os.cpu_count() or 2) - 1))
    return environment | {
        "LABELHUB_MODELS": str(settings.MODELS_DIR),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(settings.BASE_DIR),
    }


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End the trainer's whole group: politely, then for certain."""
    if process.poll() is not None:
        return
    _signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def end_leftover(run: Run) -> None:
    """End the process group that a dead watcher recorded, if it is still this run's trainer."""
    group = run.process_group
    if not group:
        return
    for sign, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + seconds
        while _is_trainer_of(group, run_folder(run.pk)):
            _signal_group(group, sign)
            if time.monotonic() > until:
                break
            time.sleep(0.2)


def _is_trainer_of(pid: int, folder: Path) -> bool:
    """Whether `pid` is alive and works on this folder; process ids are used again by others."""
    ps = shutil.which("ps")
    proc = Path(f"/proc/{pid}/cmdline")
    if proc.parent.parent.joinpath("self").exists():
        try:
            words = proc.read_bytes().split(b"\0")
        except OSError:
            return False
        return str(folder).encode() in words
    if ps is None:
        return False
    shown = subprocess.run(
        [ps, "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return str(folder) in shown.stdout


def _signal_group(group: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, sign)


# --- bases


def prepare_base(source: str, name: str) -> Path:
    """Make a base model's folder under var/models with the trainer's own code; returns it."""
    folder = Path(settings.MODELS_DIR) / name
    if (folder / "manifest.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "prepare", source, str(folder)],
        cwd=settings.BASE_DIR,
        env=trainer_environment(0),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Refused(progress.last_words(done.stderr) or f"The model {source} could not be made.")
    return folder
