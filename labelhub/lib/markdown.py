"""Markdown to safe HTML, on the server.

Two walls, each enough by itself: the renderer takes no raw HTML (it is shown as the text it is),
and what it made passes an allow-list. Answers come from language models and are judged blind, so
nothing in them may reach out of the page: pictures are shown as the characters that were written,
links open apart, tell the other side nothing, and go to http, https or mailto only.

Code and formulas are prepared here as well (highlighting.py, formulas.py): no script in the page
touches an answer. A single line break of an answer stays one, as in the text that is judged.
"""

from __future__ import annotations

import html
import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from labelhub.lib import formulas, highlighting

_TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "a"),
    *("ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td", "span"),
    *formulas.TAGS,
}
_ATTRIBUTES = {"a": {"href"}, "ol": {"start"}, **formulas.ATTRIBUTES}
# Longer texts are shown as they were written: what takes a second for one answer takes four for a
# board. An answer of a model has a few thousand characters.
LONGEST = 50_000
CODE_SECONDS = 0.5  # for the colours of all code of a text; what is left after that stays plain
_CACHED = 512  # texts; a board's answers are read by several annotators and drawn several times
_TAG = re.compile(r'<[^<>"]*(?:"[^"]*"[^<>"]*)*>')
# The page's own headings end at h3: those of a text begin below them, so that the outline holds.
_HEADING_SHIFT = 3


@lru_cache(maxsize=_CACHED)
def render(text: str, *, breaks: bool = True) -> SafeString:
    """Return `text` as HTML that may stand in a page as it is.

    Without `breaks` a single line break is a blank, as in files whose lines are of one length.
    """
    made = _plain_page(text) if len(text) > LONGEST else _renderer(breaks).render(text, {})
    return mark_safe(_cleaner().clean(made))  # noqa: S308 - the allow-list is what makes it safe


@lru_cache(maxsize=_CACHED)
def plain(text: str) -> str:
    """Return `text` as it is read: rendered, without tags. In a browser, the text of the element.

    Marked places in an answer are counted in code points of this.
    """
    return html.unescape(_TAG.sub("", render(text)))


def _plain_page(text: str) -> str:
    return f"<pre><code>{escape(text)}</code></pre>"


@lru_cache(maxsize=1)
def _cleaner() -> nh3.Cleaner:
    return nh3.Cleaner(
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        allowed_classes={"span": highlighting.CLASSES},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


@lru_cache(maxsize=2)
def _renderer(breaks: bool) -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": breaks})
    made.enable(["table", "strikethrough"])
    made.core.ruler.push("lower_headings", _lower_headings)
    made.use(formulas.formulas_plugin)
    made.add_render_rule("image", _image_as_written)
    made.add_render_rule("fence", _code)
    return made


def _lower_headings(state: StateCore) -> None:
    for token in state.tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(6, int(token.tag[1:]) + _HEADING_SHIFT)}"


def _image_as_written(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    source: Any = tokens[index].attrGet("src")
    return escape(f"![{tokens[index].content}]({source})")


def _code(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """A block of code; what stands behind the fence names its language."""
    token = tokens[index]
    words = html.unescape(token.info).split(maxsplit=1)
    until = env.setdefault("colours_until", time.monotonic() + CODE_SECONDS)
    inner = highlighting.highlight(token.content, words[0] if words else "", until=until)
    return f"<pre><code>{inner}</code></pre>\n"
