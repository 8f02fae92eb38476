r"""Formulas in markdown: $…$, $$…$$, \(…\) and \[…\], turned into MathML, which needs no script.

Two rules for markdown-it: one for formulas inside a paragraph, one for those that have lines of
their own (there a line such as "- b" is part of the formula, not a list). What only looks like a
formula stays text: sums of money above all. What cannot be converted is shown as it was written, as
code. Every search ends after LONGEST characters, so that no text takes more than linear time.

Not here: macros (a text could define one that grows without end), numbered equations, and bare
environments without delimiters.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from django.utils.html import escape
from latex2mathml import exceptions
from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

LONGEST = 2_000  # characters of one formula
MOST = 20_000  # characters of all formulas of one text; those after it are shown as code
DEEPEST = 40  # braces and environments inside each other

_CLOSING = {"$$": "$$", "$": "$", r"\(": r"\)", r"\[": r"\]"}
_DISPLAY = {"$$", r"\["}
# An amount, then words: "$5 and 10$", "$3/month, or 30$", "$5 到 8$". A command after the number
# (as in "$3 \text{ cm}$") makes it a formula.
_MONEY = re.compile(
    r"\d[\d.,]*\s?[kKmMbB]?[\s,;:.!?/–-]*(?:(?<![A-Za-z\\])[A-Za-z]{2,}+(?!\()|[\u3000-\u9fff])"
)
# What may follow "$n$" without a space: "$n$th", "$x$s".
_ENDING = re.compile(r"(?:th|st|nd|rd|s)\b")
_DEFINITION = re.compile(
    r"\\(?:(?:re|provide)?newcommand|(?:re)?newenvironment|[egx]?def|let|DeclareMathOperator)\b"
)
_OPENING = re.compile(r"\{|\\left\b|\\begin\b")
# The converter tells what it does not understand by any of these.
_FAILURES: tuple[type[Exception], ...] = (
    *(e for e in vars(exceptions).values() if isinstance(e, type) and issubclass(e, Exception)),
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    *(AssertionError, StopIteration),
)

TAGS = {
    *("math", "mrow", "mi", "mn", "mo", "ms", "mtext", "mspace", "mfrac", "msqrt", "mroot"),
    *("msub", "msup", "msubsup", "munder", "mover", "munderover", "mmultiscripts", "mprescripts"),
    *("mtable", "mtr", "mtd", "mstyle", "mpadded", "mphantom", "menclose", "none"),
}
_SPACING = {"width", "height", "depth", "lspace", "voffset"}
ATTRIBUTES = {
    "math": {"display", "alttext"},
    "mi": {"mathvariant"},
    "mn": {"mathvariant"},
    "mtext": {"mathvariant"},
    "mo": {
        *("stretchy", "fence", "form", "largeop", "movablelimits", "accent", "separator"),
        *("minsize", "maxsize", "mathvariant", "lspace", "rspace"),
    },
    "mspace": {"width", "height", "depth"},
    "mfrac": {"linethickness"},
    "mover": {"accent"},
    "munder": {"accentunder"},
    "mtable": {"columnalign", "rowspacing", "columnspacing", "columnlines", "rowlines"},
    "mtd": {"columnalign"},
    "mstyle": {"displaystyle", "scriptlevel"},
    "mpadded": _SPACING,
    "menclose": {"notation"},
}


def formulas_plugin(md: MarkdownIt) -> None:
    """Teach the parser formulas; for `MarkdownIt.use`."""
    md.inline.ruler.before("escape", "formula", _inline)
    md.block.ruler.before(
        "fence", "formula", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]}
    )
    md.add_render_rule("formula", _render)


# --- finding them


def _inline(state: StateInline, silent: bool) -> bool:
    opening = _opening(state.src, state.pos)
    if opening is None:
        return False
    found = _formula(state.src, state.pos, opening, state.posMax)
    if found is None:
        return False
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = found, opening
    state.pos += len(opening) + len(found) + len(_CLOSING[opening])
    return True


def _opening(text: str, at: int) -> str | None:
    return next((one for one in _CLOSING if text.startswith(one, at)), None)


def _formula(text: str, at: int, opening: str, limit: int) -> str | None:
    """The formula between `opening` at `at` and its closing delimiter; None if there is none."""
    start, closing = at + len(opening), _CLOSING[opening]
    end = _find(text, closing, start, min(limit, start + LONGEST + len(closing)))
    if end < 0:
        return None
    body = text[start:end]
    if not body.strip() or (opening == "$" and not _is_formula(text, at, end, limit)):
        return None
    return body


def _find(text: str, closing: str, start: int, limit: int) -> int:
    r"""Where `closing` stands; a "\$" is a character of the formula, not its end."""
    at = text.find(closing, start, limit)
    while at > 0 and closing[0] == "$" and _is_escaped(text, at, start):
        at = text.find(closing, at + 1, limit)
    return at


def _is_escaped(text: str, at: int, start: int) -> bool:
    before = at
    while before > start and text[before - 1] == "\\":
        before -= 1
    return (at - before) % 2 == 1


def _is_formula(text: str, at: int, end: int, limit: int) -> bool:
    """Whether single dollars enclose a formula; money, prices in a row and paths do not."""
    body = text[at + 1 : end]
    if body[0].isspace() or body[-1].isspace() or "\n\n" in body or _MONEY.match(body):
        return False
    if at > 0 and text[at - 1].isascii() and text[at - 1].isalnum():
        return False  # US$5
    after = text[end + 1 : min(limit, end + 5)]
    if not after or not (after[0].isascii() and after[0].isalnum()):
        return True
    return bool(_ENDING.match(after))


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """A formula that begins and ends with a line: "$$", some lines, "$$"."""
    at = state.bMarks[first] + state.tShift[first]
    opening = _opening(state.src, at)
    if opening not in _DISPLAY or opening is None or state.is_code_block(first):
        return False
    lines: list[str] = []
    length = 0
    for line in range(first, last):
        start = state.bMarks[line] + (state.tShift[line] if line == first else 0)
        text = state.src[start : state.eMarks[line]]
        text = text[len(opening) :] if line == first else text
        if line > first and (not text.strip() or state.sCount[line] < state.blkIndent):
            return False
        length += len(text) + 1
        if length > LONGEST or (line > first and text.lstrip().startswith(r"\[")):
            return False
        end = _find(text, _CLOSING[opening], 0, len(text))
        if end >= 0:
            return _end_block(state, (first, line), opening, [*lines, text], end, silent)
        lines.append(text)
    return False


def _end_block(
    state: StateBlock,
    span: tuple[int, int],
    opening: str,
    lines: list[str],
    end: int,
    silent: bool,
) -> bool:
    """Make the token, unless something follows on the last line: then it is part of a sentence."""
    rest = lines[-1][end + len(opening) :]
    body = "\n".join([*lines[:-1], lines[-1][:end]])
    if rest.strip() or not body.strip():
        return False
    if silent:
        return True
    state.line = span[1] + 1
    token = state.push("formula", "math", 0)
    token.block, token.map = True, [span[0], state.line]
    token.content, token.markup = body, opening
    return True


# --- showing them


def _render(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    token = tokens[index]
    written = f"{token.markup}{token.content}{_CLOSING[token.markup]}"
    made = None
    if _within_budget(env, len(token.content)):
        made = mathml(token.content, display=token.markup in _DISPLAY)
    if made is None:
        code = f"<code>{escape(written)}</code>"
        made = f"<pre>{code}</pre>" if token.block and "\n" in written else code
    return f"<p>{made}</p>\n" if token.block and not made.startswith("<pre>") else made


def _within_budget(env: MutableMapping[str, Any], length: int) -> bool:
    """Count the characters of the text's formulas; False once there are too many."""
    env["formulas"] = env.get("formulas", 0) + length
    return bool(env["formulas"] <= MOST)


def mathml(latex: str, *, display: bool) -> str | None:
    """Return the formula as MathML, or None if it is not understood."""
    if _DEFINITION.search(latex) or len(_OPENING.findall(latex)) > 8 * DEEPEST:
        return None
    if _depth(latex) > DEEPEST:
        return None
    try:
        tree = convert_to_element(latex.strip(), display="block" if display else "inline")
    except _FAILURES:
        return None
    if not _is_understood(tree):
        return None
    tree.attrib["alttext"] = " ".join(latex.split())
    return _html(tree)


def _depth(latex: str) -> int:
    """How deep the formula may nest, at most: what opens and has not closed yet."""
    depth = deepest = 0
    for match in re.finditer(r"\\left\b|\\begin\b|\\right\b|\\end\b|\\.|[{}]", latex, re.S):
        piece = match.group()
        if piece in {"{", r"\left", r"\begin"}:
            depth += 1
            deepest = max(deepest, depth)
        elif piece in {"}", r"\right", r"\end"}:
            depth = max(0, depth - 1)
    return deepest


def _is_understood(tree: Element) -> bool:
    r"""An unknown command comes back as its own name, with the backslash."""
    return not any(
        (node.text or "").startswith("\\") for node in tree.iter() if node.tag in {"mi", "mo"}
    )


def _html(node: Element) -> str:
    """Serialise; the converter writes characters as references, everything else is escaped."""
    attributes = "".join(f' {name}="{escape(value)}"' for name, value in node.attrib.items())
    inner = escape(_resolved(node.text or "")) + "".join(_html(child) for child in node)
    return f"<{node.tag}{attributes}>{inner}</{node.tag}>"


def _resolved(text: str) -> str:
    return re.sub(r"&#x([0-9A-Fa-f]{1,6});", lambda m: _character(int(m[1], 16)), text)


def _character(code: int) -> str:
    return chr(code) if code < 0x110000 and not 0xD800 <= code < 0xE000 else "\ufffd"
