"""Markdown to safe HTML, on the server.

Two walls, each enough by itself: the renderer takes no raw HTML (it is shown as the text it is),
and what it made passes an allow-list. Answers come from language models and are judged blind, so
nothing in them may reach out of the page: pictures are shown as the characters that were written,
links open apart, tell the other side nothing, and go to http, https or mailto only.

Not here: highlighting, mathematics. A single line break stays one, as in the text that is judged.
"""

from __future__ import annotations

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

_TAGS = {
    *("p", "br", "hr", "em", "strong", "s", "code", "pre", "blockquote", "a"),
    *("ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_ATTRIBUTES = {"a": {"href"}, "ol": {"start"}}
# The page's own headings end at h3: those of a text begin below them, so that the outline holds.
_HEADING_SHIFT = 3


def render(text: str) -> SafeString:
    """Return `text` as HTML that may stand in a page as it is."""
    html = nh3.clean(
        _renderer().render(text),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    return mark_safe(html)  # noqa: S308 - the allow-list above is what makes it safe


@lru_cache(maxsize=1)
def _renderer() -> MarkdownIt:
    made = MarkdownIt("commonmark", {"html": False, "breaks": True})
    made.enable(["table", "strikethrough"])
    made.core.ruler.push("lower_headings", _lower_headings)
    made.add_render_rule("image", _image_as_written)
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
