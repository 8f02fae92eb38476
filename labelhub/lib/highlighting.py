"""Code in markdown with its words told apart, as CSS classes: no colour is written here.

Only the languages of the list below: each was tried with text that makes bad patterns slow. Some
take quadratic time on odd code; whoever calls says until when it may take, and what is not done by
then is shown plain. So it is where a lexer would change the text: that never happens.
"""

from __future__ import annotations

import time
from functools import cache

from django.utils.html import escape
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import (
    Comment,
    Error,
    Generic,
    Keyword,
    Literal,
    Name,
    Number,
    Operator,
    String,
    Text,
    _TokenType,
)

LONGEST = 8_000  # characters of code that are looked at; longer code is shown plain

LANGUAGES = {
    *("bash", "sh", "shell", "zsh", "powershell", "bat", "dockerfile", "docker"),
    *("c", "cpp", "c++", "csharp", "c#", "cs", "java", "kotlin", "scala", "swift", "go", "golang"),
    *("rust", "rs", "dart", "objective-c", "haskell", "hs", "lua", "perl", "php", "r", "ruby"),
    *("rb", "julia", "python", "py", "python3", "pycon", "javascript", "js", "jsx"),
    *("typescript", "ts", "tsx", "json", "html", "xml", "css", "scss", "sql", "mysql", "graphql"),
    *("yaml", "yml", "toml", "ini", "diff", "tex", "latex", "nginx"),
}
_SAME = {"tsx": "typescript", "jsx": "javascript"}
_CLASS = {
    Comment: "c",
    Comment.Preproc: "k",
    Keyword: "k",
    Keyword.Type: "t",
    Operator.Word: "k",
    Name.Builtin: "b",
    Name.Function: "f",
    Name.Class: "t",
    Name.Decorator: "f",
    Name.Exception: "t",
    Name.Tag: "k",
    Name.Attribute: "f",
    Name.Constant: "n",
    Literal: "s",
    String: "s",
    Number: "n",
    Generic.Inserted: "ins",
    Generic.Deleted: "del",
    Generic.Heading: "k",
    Generic.Subheading: "k",
    Generic.Prompt: "c",
    Generic.Output: "c",
}
CLASSES = set(_CLASS.values())


def highlight(code: str, language: str, *, until: float) -> str:
    """Return the code as escaped HTML with <span class=…> around what has a colour.

    `until` is a time of `time.monotonic()`.
    """
    lexer = _lexer(language.lower()) if len(code) <= LONGEST else None
    pieces = _pieces(lexer, code, until) if lexer else None
    if pieces is None or "".join(text for _name, text in pieces) != code:
        return escape(code)
    return "".join(_span(name, text) for name, text in _joined(pieces))


def _pieces(lexer: Lexer, code: str, until: float) -> list[tuple[str, str]] | None:
    """Class and text of each piece; None if it took too long."""
    pieces = []
    for _at, kind, text in lexer.get_tokens_unprocessed(code):
        if time.monotonic() > until:
            return None
        pieces.append((_class(kind), text))
    return pieces


@cache
def _lexer(language: str) -> Lexer | None:
    if language not in LANGUAGES:
        return None
    options = {"startinline": True} if language == "php" else {}
    return get_lexer_by_name(_SAME.get(language, language), **options)


def _class(kind: _TokenType) -> str:
    while kind not in _CLASS and kind.parent is not None and kind not in (Text, Error):
        kind = kind.parent
    return _CLASS.get(kind, "")


def _joined(pieces: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one class as one piece: a tenth of the tags, the same text."""
    joined: list[tuple[str, str]] = []
    for name, text in pieces:
        if joined and joined[-1][0] == name:
            joined[-1] = (name, joined[-1][1] + text)
        else:
            joined.append((name, text))
    return joined


def _span(name: str, text: str) -> str:
    return f'<span class="{name}">{escape(text)}</span>' if name else escape(text)
