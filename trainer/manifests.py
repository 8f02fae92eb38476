"""Folders that appear whole or not at all, and manifests: what a folder holds, by size and sha256.

A manifest is written last, so a folder without one is unfinished. The hash of a folder is the hash
of its manifest. A folder is filled under another name beside its place, flushed and renamed; what a
killed process leaves of that, the next one puts in order. Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from trainer import ranks

MANIFEST = "manifest.json"
#: a folder that is being filled, and one that is being replaced, are called .NAME and this
DRAFT, OLD = ".draft", ".old"


def sha256_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(folder: Path) -> list[Path]:
    """Every file below `folder` but its manifest, relative to it, in a fixed order."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder) for path in paths if path != folder / MANIFEST)


def write_manifest(folder: Path) -> Path:
    """Write `folder`/manifest.json over every file of the folder and flush it all to the disk."""
    files = {}
    for relative in files_of(folder):
        path = folder / relative
        flush(path)
        files[relative.as_posix()] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    target = folder / MANIFEST
    target.write_text(json.dumps({"files": files}, indent=1, sort_keys=True) + "\n", "utf-8")
    flush(target)
    flush(folder)
    return target


def verify_manifest(folder: Path) -> list[str]:
    """What is wrong with the folder, a few words each; nothing when all is as it was written."""
    try:
        files = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
        wanted = {name: (int(entry["bytes"]), entry["sha256"]) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST} is missing or unreadable"]
    damage = []
    for name, (size, digest) in wanted.items():
        path = folder / name
        if not path.is_file():
            damage.append(f"{name} is missing")
        elif path.stat().st_size != size:
            damage.append(f"{name} has {path.stat().st_size} bytes instead of {size}")
        elif sha256_file(path) != digest:
            damage.append(f"{name} does not have the sha256 that was recorded")
    return damage


def folder_hash(folder: Path) -> str:
    """The identity of a finished folder: sha256 of its manifest.json."""
    return sha256_file(folder / MANIFEST)


def flush(path: Path) -> None:
    """fsync a file or folder, so that a power cut cannot undo a rename that follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(target: Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a draft folder beside `target`, add a manifest and rename it into place.

    Of several processes of a run only the first does.
    """
    if not ranks.is_main():
        return target
    draft, old = (target.with_name(f".{target.name}{end}") for end in (DRAFT, OLD))
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write(draft)
        write_manifest(draft)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    draft.rename(target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    return target


def discard(target: Path) -> None:
    """Remove a folder, which is gone from its place at once and as a whole."""
    draft = target.with_name(f".{target.name}{DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    target.rename(draft)
    shutil.rmtree(draft, ignore_errors=True)


def recover(*paths: Path) -> None:
    """Put in order what a process that was killed left under these names, drafts and old folders.

    A draft goes. A folder that was to be replaced comes back where the new one is not in its place.
    """
    for path in paths:
        target = path.with_name(path.name.removeprefix(".").removesuffix(OLD))
        if path.name.endswith(OLD) and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path, ignore_errors=True)
