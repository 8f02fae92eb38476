"""Refuse inline code in templates: a strict content security policy would not run it anyway.

Forbidden: <script> without src, <style>, style="…", on…="…", javascript: addresses. Allowed:
blocks of data (type="application/json") and import maps with a nonce.
Prints path:line: reason; exits 1 if there is any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
# Django's own brackets may hold < and >, comments anything. Both are blanked, line ends kept.
COMMENTS = re.compile(r"{#.*?#}|{%\s*comment\b.*?%}.*?{%\s*endcomment\s*%}|<!--.*?-->", re.DOTALL)
DJANGO = re.compile(r"{%.*?%}|{{.*?}}", re.DOTALL)
TAG = re.compile(r"<([a-zA-Z][\w-]*)((?:\"[^\"]*\"|'[^']*'|[^'\">])*)>", re.DOTALL)
ATTRIBUTE = re.compile(r"([^\s\"'=<>/]+)\s*(?:=\s*(\"[^\"]*\"|'[^']*'|[^\s\"'>]+))?", re.DOTALL)


def problems(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, reason) for everything inline in one template."""
    plain = DJANGO.sub(_value, COMMENTS.sub(_blank, text))
    for tag in TAG.finditer(plain):
        line = plain.count("\n", 0, tag.start()) + 1
        attributes = {name.lower(): value.strip("\"'") for name, value in ATTRIBUTE.findall(tag[2])}
        for reason in _reasons(tag[1].lower(), attributes):
            yield line, reason


def _reasons(tag: str, attributes: dict[str, str]) -> Iterator[str]:
    if tag == "style":
        yield "<style> belongs into a file under static/css/"
    if tag == "script" and "src" not in attributes and not _is_data(attributes):
        yield "an inline <script> belongs into a module under static/js/"
    for name, value in attributes.items():
        if name == "style":
            yield "style=… belongs into a class"
        if re.fullmatch(r"on[a-z]+", name):
            yield f"{name}=… belongs into a module under static/js/"
        if value.strip().lower().startswith("javascript:"):
            yield f"{name} holds a javascript: address"


def _is_data(attributes: dict[str, str]) -> bool:
    kind = attributes.get("type", "")
    return kind == "application/json" or (kind == "importmap" and "nonce" in attributes)


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _value(match: re.Match[str]) -> str:
    """{{ … }} stands for some text, {% … %} for nothing; neither may open or close a tag."""
    lines = "\n" * match[0].count("\n")
    return ("x" if match[0].startswith("{{") else " ") + lines


def main() -> int:
    """Check every template."""
    found = [
        f"{file.relative_to(TEMPLATES.parent)}:{line}: {reason}"
        for file in sorted(TEMPLATES.rglob("*.html"))
        for line, reason in problems(file.read_text())
    ]
    sys.stdout.writelines(f"{problem}\n" for problem in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
