"""What people bring or pick for runs to learn from: pairs to fine-tune on, and raw text.

Choices
- Pairs are a snapshot: picked from rankings (ideal answers, or the answers put first), which are
  frozen with it, or read from a file. Nothing is kept of a file of which one line is wrong.
- A text is checked while it is copied (UTF-8, sizes, JSON lines) and lies in a folder of its own
  with a manifest; the folder appears whole or not at all.
- Nobody names a path on the server through a page or the API: folders are for who has a shell.
"""

from __future__ import annotations

import codecs
import gzip
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.prompts.actions import checked_messages, read_line
from labelhub.prompts.models import Prompt
from labelhub.prompts.rules import is_storable, messages_hash
from labelhub.rankings.actions import freeze
from labelhub.rankings.queries import usable_rankings
from labelhub.runs import launcher
from labelhub.runs.actions import seal
from labelhub.runs.folder import kept_file, read_lines
from labelhub.runs.models import Corpus, Run, Snapshot, SnapshotFile, SnapshotItem
from labelhub.runs.queries import snapshot_lines

# Names of files that hold text, as the trainer knows them.
TEXT_ENDINGS: Final = (".txt", ".txt.gz", ".jsonl", ".json")
# Text of one corpus, unpacked. Pretraining here reads it whole.
MOST_TEXT = 512 * 1024 * 1024
MOST_FILES = 200
_CHUNK = 1 << 20


# --- pairs


@transaction.atomic
def take_pairs(*, project: Project, kind: str, by: User | None) -> Snapshot:
    """Freeze the project's ideal answers, or the answers that rankings put first, as pairs.

    From the same rankings as a reward model learns from, so neither held-out prompts nor known
    rankings go in, and where a reviewer decided, only the decision does.
    """
    if kind not in (Snapshot.Kind.IDEAL, Snapshot.Kind.BEST):
        raise Refused(_("Pairs come from “ideal” or “best”."), status=400)
    rankings = usable_rankings(project)
    if kind == Snapshot.Kind.IDEAL:
        rankings = rankings.exclude(ideal_answer="")
    # Locked first: a correction that is on its way ends before, or finds its ranking frozen.
    locked = rankings.select_for_update(no_key=True, of=("self",))
    ids = list(locked.order_by("pk").values_list("pk", flat=True))
    snapshot = Snapshot.objects.create(project=project, kind=kind, count=0, created_by=by)
    SnapshotItem.objects.bulk_create(
        [SnapshotItem(snapshot=snapshot, ranking_id=pk) for pk in ids], batch_size=500
    )
    if next(iter(snapshot_lines(snapshot)), None) is None:
        raise Refused(
            _("Nobody wrote an ideal answer yet.")
            if kind == Snapshot.Kind.IDEAL
            else _("There is no ranking yet that puts an answer first.")
        )
    freeze(ids)
    return seal(snapshot, by)


@transaction.atomic
def import_pairs(*, project: Project, lines: Iterable[str | bytes], by: User | None) -> Snapshot:
    """Keep pairs from a file: {"prompt": text or messages, "answer": text} a line.

    All of them or none, since a snapshot never changes. A held-out prompt is refused: no stage may
    learn what to answer to it.
    """
    held_out = _held_out(project)
    kept = []
    for number, line in enumerate(lines, start=1):
        try:
            pair = _pair(line, held_out)
        except Refused as refusal:
            raise Refused(
                _("Line %(number)d: %(why)s") % {"number": number, "why": refusal.message},
                status=400,
            ) from None
        if pair is not None:
            kept.append(pair)
    if not kept:
        raise Refused(_("There is no pair in it: write one object a line."), status=400)
    return _keep(Snapshot(project=project, kind=Snapshot.Kind.FILE), kept, by)


@transaction.atomic
def take_winners(*, run: Run, by: User | None) -> Snapshot:
    """Keep the winners of a best-of-n run as pairs; those to prompts held out since stay out."""
    path = kept_file(run.pk, "pairs.jsonl")
    if run.stage != Run.Stage.BESTOFN or run.state != Run.State.FINISHED or path is None:
        raise Refused(_("Only a finished run of the best of n has winners."))
    held_out = _held_out(run.project)
    pairs = [
        {"prompt": line["prompt"], "answer": line["answer"]}
        for line in read_lines(path)
        if messages_hash(line["prompt"]) not in held_out
    ]
    if not pairs:
        raise Refused(_("All prompts of this run are held out now, so nothing may learn from it."))
    winners = Snapshot(project=run.project, kind=Snapshot.Kind.WINNERS, source=run)
    return _keep(winners, pairs, by)


def _held_out(project: Project) -> set[str]:
    """Hashes of the prompts to which no stage may learn what to answer."""
    found = Prompt.objects.filter(project=project, held_out=True)
    return set(found.values_list("sha256", flat=True))


def _keep(snapshot: Snapshot, pairs: list[dict[str, Any]], by: User | None) -> Snapshot:
    """A new snapshot with these pairs, which no ranking stands for."""
    snapshot.count, snapshot.created_by = len(pairs), by
    snapshot.save()
    lines = "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    SnapshotFile.objects.create(snapshot=snapshot, text=lines)
    return seal(snapshot, by)


def _pair(line: str | bytes, held_out: set[str]) -> dict[str, Any] | None:
    """The pair in a line; None for a blank one."""
    record = read_line(line)
    if record is None:
        return None
    said = record.get("prompt")
    messages = checked_messages(
        [{"role": "user", "content": said}] if isinstance(said, str) else said
    )
    if messages_hash(messages) in held_out:
        raise Refused(_("This prompt is held out, no stage trains on it: leave the line out."))
    answer = record.get("answer")
    if not isinstance(answer, str) or not answer.strip() or not is_storable(answer):
        raise Refused(_("“answer” must be text that is not empty."))
    return {"prompt": messages, "answer": answer}


# --- text


@dataclass(frozen=True)
class TextFile:
    """One file to bring in: its name tells what is in it."""

    name: str
    stream: IO[bytes]


def add_corpus(
    *, project: Project | None, name: str, files: Iterable[TextFile], by: User | None
) -> Corpus:
    """Copy, check and register text; without a project it is for every project of the house."""
    name = name.strip()
    if not name or len(name) > 80 or "/" in name or not name.isprintable():
        raise Refused(_("Give the text a name of 1 to 80 characters without “/”."), status=400)
    taken = _("There is a text named “%(name)s” already: choose another name.") % {"name": name}
    if Corpus.objects.filter(project=project, name=name).exists():
        raise Refused(taken)
    root = Path(settings.VAR) / "corpora"
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=".new-", dir=root))
    folder = root / building.name.removeprefix(".new-")
    try:
        count, size = _copy(files, building)
        sha256 = launcher.seal_folder(building)
        building.chmod(0o755)
        with transaction.atomic():
            corpus = Corpus.objects.create(
                project=project, name=name, folder=str(folder), sha256=sha256, files=count,
                size=size, created_by=by,
            )  # fmt: skip
            audit(by=by, action="corpus.add", target=corpus, name=name, sha256=sha256, size=size)
            building.rename(folder)
    except IntegrityError:  # somebody took the name in the meantime
        raise Refused(taken) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return corpus


def texts_at_hand() -> list[str]:
    """The texts that have a name and lie on this machine, but were not brought yet."""
    brought = Corpus.objects.filter(project=None).values_list("name", flat=True)
    return [name for name in launcher.named_texts() if name not in set(brought)]


def bring_named(name: str, by: User | None) -> Corpus:
    """Copy one of them, for every project."""
    folder = launcher.named_texts().get(name)
    if folder is None:
        raise Refused(
            _("There is no text “%(name)s” on this machine: set LABELHUB_DATA to where it lies.")
            % {"name": name},
            status=404,
        )
    return add_corpus(project=None, name=name, files=text_files_of(folder), by=by)


def text_files_of(folder: Path) -> Iterator[TextFile]:
    """The text files of a folder on this machine, or the one file that `folder` is."""
    paths = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    for path in paths:
        if path.name.endswith(TEXT_ENDINGS):
            with path.open("rb") as stream:
                inner = path.relative_to(folder) if folder.is_dir() else path.name
                yield TextFile(str(inner).replace("/", "-"), stream)


def _copy(files: Iterable[TextFile], folder: Path) -> tuple[int, int]:
    """Copy the files into a folder; returns how many there are and the bytes of their text."""
    count = size = 0
    for file in files:
        count += 1
        name = Path(file.name).name
        if not name.endswith(TEXT_ENDINGS) or name.startswith(".") or len(name) > 200:
            raise Refused(
                _("“%(name)s” is no %(endings)s file.")
                % {"name": name[:80], "endings": ", ".join(TEXT_ENDINGS)},
                status=400,
            )
        target = folder / name
        if target.exists():
            raise Refused(_("Two files are named “%(name)s”.") % {"name": name}, status=400)
        if count > MOST_FILES:
            raise Refused(_("More than %(n)d files: join some.") % {"n": MOST_FILES}, status=400)
        packed = 0
        with target.open("wb") as out:
            while chunk := file.stream.read(_CHUNK):
                packed += len(chunk)
                if packed > MOST_TEXT:
                    raise _too_long()
                out.write(chunk)
        size += _checked_size(target, MOST_TEXT - size)
    if not count or not size:
        raise Refused(
            _("There is no text in it: bring %(endings)s files.")
            % {"endings": ", ".join(TEXT_ENDINGS)},
            status=400,
        )
    return count, size


def _too_long() -> Refused:
    words = _("It holds more than %(limit)d MiB of text: bring less.")
    return Refused(words % {"limit": MOST_TEXT // 1024**2}, status=413)


def _checked_size(path: Path, allowed: int) -> int:
    """The bytes of a file's text, unpacked; refuses what is too long or not what its name says."""
    decode, size = codecs.getincrementaldecoder("utf-8")().decode, 0
    jsonl = path.name.endswith(".jsonl")
    try:
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as stream:
            lines = stream if jsonl else iter(lambda: stream.read(_CHUNK), b"")
            for number, part in enumerate(lines, start=1):
                size += len(part)
                if size > allowed:
                    raise _too_long()
                decode(part)
                if jsonl and part.strip():
                    _check_document(path.name, number, part)
            decode(b"", final=True)
        if path.name.endswith(".json"):
            _check_collection(path)
    except UnicodeDecodeError:
        raise Refused(
            _("%(name)s is not UTF-8 text: save it as UTF-8.") % {"name": path.name}, status=400
        ) from None
    except (OSError, EOFError, zlib.error):
        raise Refused(
            _("%(name)s cannot be unpacked: pack it with gzip again.") % {"name": path.name},
            status=400,
        ) from None
    return size


def _check_collection(path: Path) -> None:
    """A .json file is a list of records; which of their fields are text the trainer says."""
    try:
        records = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        records = None
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise Refused(
            _("%(name)s: write a list of objects, one for each text.") % {"name": path.name},
            status=400,
        )


def _check_document(name: str, number: int, line: bytes) -> None:
    """A line of a .jsonl text is an object with a text."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise Refused(
            _('%(name)s, line %(number)d: write {"text": "…"}, one object a line.')
            % {"name": name, "number": number},
            status=400,
        )
