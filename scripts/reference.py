"""Write what is made out of `trainer/config.py`: docs/settings.md, the reference of the trainer's
settings, and labelhub/runs/words.py, where the texts of the settings wait for translation.

.venv/bin/python scripts/reference.py    (a test fails when the page is behind the code)
"""

from __future__ import annotations

import ast
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trainer.config import CONFIGS, StageConfig  # noqa: E402 - the path above comes first

PAGE = ROOT / "docs" / "settings.md"
WORDS = ROOT / "labelhub" / "runs" / "words.py"
CONFIG = ROOT / "trainer" / "config.py"
WORDS_HEAD = '''\
"""What the trainer says about stages, settings and mistakes in them, to be found for translation.

Written by `scripts/reference.py` from `trainer/config.py`; do not edit.
"""

# ruff: noqa: E501 - a text is one line
# fmt: off
from __future__ import annotations

from typing import Final

from django.utils.translation import gettext_noop as _

WORDS: Final = ('''
HEAD = """\
# Settings of the trainer's stages

Written by `scripts/reference.py` from `trainer/config.py`; do not edit. A setting goes into
`config` of a `spec.json`; what is left out has its default. An unknown name or value is
refused by name.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(section(config) for config in CONFIGS.values())])


def section(config: type[StageConfig]) -> str:
    """One stage: what it is, what it reads, its settings."""
    needs = " or ".join(" + ".join(f"`{name}`" for name in names) for names in config.needs)
    may_use = ", ".join(f"`{name}`" for name in config.may_use)
    lines = [f"## {config.stage}", "", (config.__doc__ or "").split("\n")[0], ""]
    lines.append(f"Inputs: {needs}{'; may use ' + may_use if may_use else ''}.")
    lines += ["", "| setting | default | bounds | meaning |", "|---|---|---|---|"]
    lines += [row(item) for item in dataclasses.fields(config)]
    return "\n".join(lines) + "\n"


def row(item: dataclasses.Field[object]) -> str:
    """One setting."""
    about = item.metadata
    bounds = ", ".join(str(choice) for choice in about["choices"])
    low, high = about["low"], about["high"]
    if low is not None and high is not None:
        bounds = f"{low} to {high}"
    elif low is not None:
        bounds = f"at least {low}"
    return f"| `{item.name}` | {json.dumps(item.default)} | {bounds} | {about['about']} |"


def words() -> str:
    """A module that names every text of the settings, so that they are found for translation."""
    texts = [(config.__doc__ or "").split("\n")[0] for config in CONFIGS.values()]
    for config in CONFIGS.values():
        texts += [item.metadata["about"] for item in dataclasses.fields(config)]
    texts += refusals(ast.parse(CONFIG.read_text(encoding="utf-8")))
    lines = [f"    _({json.dumps(text, ensure_ascii=False)})," for text in dict.fromkeys(texts)]
    return "\n".join([WORDS_HEAD, *lines, ")", ""])


def refusals(node: ast.AST) -> Iterator[str]:
    """The sentences that refuse settings and inputs; what an f-string makes is not among them."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str) and node.value.startswith("spec.json: "):
            yield node.value
    elif not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from refusals(child)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    WORDS.write_text(words(), encoding="utf-8")
