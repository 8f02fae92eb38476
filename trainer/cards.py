"""The model card that lies beside every weight: what it is, what it was made of, how well it does.

One shape for all stages, after Mitchell et al. (2019): what it is, figures with their intervals,
data, parents, settings, software, limits. What a stage alone knows it hands over as words; what a
spec tells is read here, so that no card can forget it.

Choices
- Data and parents carry the sha256 of what was read: a file's own, a folder's manifest's.
- Of the settings only those that differ from the defaults are written; the rest is in settings.md.
- A card depends on the run alone, not on the clock or the place: equal runs give equal cards.
Needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from trainer.config import MANNER, InputValue, Spec
from trainer.manifests import MANIFEST, files_of, folder_hash, sha256_file
from trainer.types import RunContext

#: what the numbers of a model depend on
SOFTWARE = ("torch", "transformers", "tokenizers", "peft", "trl")


@dataclass(frozen=True)
class Card:
    """What a stage tells of its result, in sentences of Markdown."""

    title: str
    about: str  # what was done
    figures: Sequence[str]  # one finding each, with its interval
    use: str  # how it is loaded, what lies beside it
    limits: str  # what the figures do not say, what it must not be used for


def write_card(context: RunContext, folder: Path, card: Card) -> None:
    """Write folder/README.md."""
    (folder / "README.md").write_text(text_of(context, card), "utf-8")


def text_of(context: RunContext, card: Card) -> str:
    """The whole card."""
    spec = context.spec
    data: list[tuple[str, Path]] = []
    parents: list[tuple[str, Path]] = []
    for role in spec.inputs:
        path = context.input(role)
        (parents if is_model(path) else data).append((role, path))
    parts = [
        f"# {card.title}\n\n{card.about}",
        _section("Figures", "\n".join(f"- {one}" for one in card.figures)),
        _section("How to use it", card.use),
        _section("Limits", card.limits),
        _section("Data", _table(("input", "file", "rows", "sha256"), map(_data_row, data))),
        _section(
            "Parents",
            _table(
                ("role", "name", "sha256"),
                ((role, parent_name(spec, role), hash_of(path)) for role, path in parents),
            ),
        ),
        _section("Settings", settings_words(spec)),
        _section("Software", software_words(spec)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def with_interval(value: float | None, ci95: Sequence[float] | None, form: str = ".3f") -> str:
    """`0.630 (95 % interval 0.590 to 0.670)`; without an interval the figure alone."""
    if value is None:
        return "not known"
    around = f" (95 % interval {ci95[0]:{form}} to {ci95[1]:{form}})" if ci95 else ""
    return f"{value:{form}}{around}"


def parent_name(spec: Spec, role: str) -> str:
    """What the parent of this role is called: its registered name, else the path as it was given.

    `parents` of a spec made by hand may be anything; {role: name} is what LabelHub writes.
    """
    named = spec.parents.get(role) if isinstance(spec.parents, Mapping) else None
    return named if isinstance(named, str) else _given(spec.inputs[role])


def _given(value: InputValue) -> str:
    return value if isinstance(value, str) else value["path"]


def is_model(path: Path) -> bool:
    """Whether an input is weights (or a tokenizer) and no data."""
    known = ("config.json", "adapter_config.json", "tokenizer_config.json")
    return path.is_dir() and any((path / name).is_file() for name in known)


def hash_of(path: Path) -> str:
    """sha256 of a file, or of a folder: of its manifest, else of the hashes of its files."""
    if path.is_file():
        return sha256_file(path)
    if (path / MANIFEST).is_file():
        return folder_hash(path)
    found = hashlib.sha256()
    for relative in files_of(path):
        found.update(f"{relative.as_posix()}\0{sha256_file(path / relative)}\n".encode())
    return found.hexdigest()


def rows_of(path: Path) -> str:
    """Lines that hold something, in a .jsonl file; of a folder how many files it has."""
    if path.is_dir():
        return f"{len(files_of(path))} files"
    if path.suffix != ".jsonl":
        return "–"
    with path.open("rb") as stream:
        return str(sum(1 for line in stream if line.strip()))


def settings_words(spec: Spec) -> str:
    """The seed, and the settings that are not the defaults."""
    changed = {name: value for name, value in spec.config.changed().items() if name not in MANNER}
    rest = (
        f"`{json.dumps(changed, ensure_ascii=False, sort_keys=True)}`"
        if changed
        else "all others are the defaults"
    )
    return f"Stage `{spec.stage}`, seed {spec.seed}; {rest}."


def software_words(spec: Spec) -> str:
    """Versions of what computed it."""
    found = [f"Python {platform.python_version()}"]
    for name in SOFTWARE:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    if spec.code_version:
        found.append(f"trainer {spec.code_version}")
    return ", ".join(found) + "."


def _data_row(item: tuple[str, Path]) -> tuple[str, ...]:
    role, path = item
    return role, f"`{path.name}`", rows_of(path), hash_of(path)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [" | ".join(str(cell) for cell in row) for row in rows]
    if not lines:
        return ""
    rule = "|".join("---" for _ in head)
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {line} |" for line in lines)])
