"""Markdown is shown as it was meant, and nothing in it can act or reach out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from labelhub.lib import formulas, highlighting, markdown
from labelhub.lib.markdown import plain, render
from tests.labelhub.lib.nasty import NASTY


def test_it_renders_what_answers_are_made_of() -> None:
    html = render(
        "**bold** and *thin*\n\n- one\n- two\n\n1. first\n\n`code`\n\n```python\nx < 1\n```"
    )
    for piece in (
        "<strong>bold</strong>",
        "<em>thin</em>",
        "<li>one</li>",
        "<ol>",
        "<code>code</code>",
        '<pre><code>x &lt; <span class="n">1</span>\n</code></pre>',
    ):
        assert piece in html


def test_a_table_is_a_table() -> None:
    assert "<td>1</td>" in render("| a |\n|---|\n| 1 |")


def test_a_line_break_stays_one() -> None:
    assert render("one\ntwo") == "<p>one<br>\ntwo</p>\n"


def test_a_line_break_of_a_file_with_lines_of_one_length_is_a_blank() -> None:
    assert render("one\ntwo", breaks=False) == "<p>one\ntwo</p>\n"


def test_a_list_that_begins_at_three_says_so() -> None:
    assert '<ol start="3">' in render("3. three")


def test_headings_begin_below_those_of_the_page() -> None:
    assert render("# Title") == "<h4>Title</h4>\n"
    assert render("###### Smallest") == "<h6>Smallest</h6>\n"


@pytest.mark.parametrize(
    "written",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<iframe src='https://evil.example'></iframe>",
        "<b onclick='go()'>click</b>",
        "text <style>body{display:none}</style>",
    ],
)
def test_raw_html_is_shown_as_text(written: str) -> None:
    html = render(written)
    assert "&lt;" in html
    for tag in ("<script", "<img", "<iframe", "<b", "<style"):
        assert f"{tag} " not in html
        assert f"{tag}>" not in html


@pytest.mark.parametrize("target", ["javascript:alert(1)", "data:text/html,x", "vbscript:x"])
def test_a_link_that_would_act_goes_nowhere(target: str) -> None:
    assert "href" not in render(f"[click]({target})")


def test_a_link_opens_apart_and_tells_nothing() -> None:
    html = render("[here](https://example.org/a)")
    assert 'href="https://example.org/a"' in html
    assert 'target="_blank"' in html
    assert 'rel="noopener noreferrer nofollow"' in html


def test_a_picture_is_shown_as_it_was_written_and_never_loaded() -> None:
    html = render("![a cat](https://evil.example/pixel.png)")
    assert html == "<p>![a cat](https://evil.example/pixel.png)</p>\n"


def test_a_picture_cannot_smuggle_html_in_its_words() -> None:
    assert "<script" not in render('![<script>alert(1)</script>](x "y")')


# --- as it is read


def test_plain_is_the_text_without_its_markup() -> None:
    assert plain("**Two** words, `a < b` &amp; [a link](https://example.org)") == (
        "Two words, a < b & a link\n"
    )


def test_plain_counts_what_code_and_formulas_show() -> None:
    assert plain("```python\nx = 1\n```") == "x = 1\n\n"
    assert plain("$x^2$ is 4") == "x2 is 4\n"


@pytest.mark.parametrize("text", NASTY)
def test_plain_is_what_an_html_reader_reads(text: str) -> None:
    reader = _Reader()
    reader.feed(render(text))
    reader.close()
    assert plain(text) == "".join(reader.text)


class _Reader(HTMLParser):
    """The text of HTML as Python's own parser reads it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data)


# --- code


def test_code_gets_classes_and_no_colours() -> None:
    html = render("```python\nreturn 'a'  # why\n```")
    assert '<span class="k">return</span> <span class="s">\'a\'</span>' in html
    assert '<span class="c"># why</span>' in html
    assert "style" not in html


def test_code_of_an_unknown_language_is_shown_plain() -> None:
    assert render("```brainfuck\n+[->+<]\n```") == "<pre><code>+[-&gt;+&lt;]\n</code></pre>\n"


@pytest.mark.parametrize("language", sorted(highlighting.LANGUAGES))
def test_highlighting_changes_no_character(language: str) -> None:
    code = "\n\n\t<a b='c'> # /* \ufeff \"x\\\n$y = @z; \\begin{q} ]]> \u4e2d 1e5 </script>  \n\n"
    html = highlighting.highlight(code, language, until=time.monotonic() + 60)
    reader = _Reader()
    reader.feed(html.replace("\r", ""))
    reader.close()
    assert "".join(reader.text) == code
    assert set(re.findall(r"<[^>]+>", html)) <= {
        "</span>",
        *(f'<span class="{name}">' for name in highlighting.CLASSES),
    }


@pytest.mark.parametrize(
    "info",
    ['python"><script>alert(1)</script>', "python onclick=alert(1)", "html", "'", "&quot;><b>"],
)
def test_code_cannot_act(info: str) -> None:
    html = render(f"```{info}\n</code></pre><script>alert(1)</script>\n```")
    assert "<script" not in html
    assert "onclick" not in html
    assert html.count("</code></pre>") == 1


# --- formulas


@pytest.mark.parametrize("written", ["$x^2$", r"\(x^2\)"])
def test_a_formula_in_a_line_is_mathml(written: str) -> None:
    assert render(f"See {written}.") == (
        '<p>See <math display="inline" alttext="x^2">'
        "<mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>.</p>\n"
    )


@pytest.mark.parametrize(
    "written", ["$$x$$", r"\[x\]", "$$\nx\n$$", "\\[\nx\n\\]", "- $$x$$", "> $$\n> x\n> $$"]
)
def test_a_formula_of_its_own_is_displayed(written: str) -> None:
    html = render(written)
    assert '<math display="block" alttext="x">' in html
    assert "$" not in html
    assert "[" not in html


def test_a_displayed_formula_needs_no_empty_line_before_it_and_is_no_list() -> None:
    html = render("So:\n$$\na\n- b\n= c\n$$\nwhere a is b.")
    assert "<li>" not in html
    assert "<h" not in html
    assert html.startswith("<p>So:</p>\n<p><math")
    assert html.endswith("<p>where a is b.</p>\n")


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10.",
        "It costs $5, or 10$ with tax.",
        "$5-$10",
        "US$20 to AU$30",
        "$3/month, so 30$ a year",
        "价格为$5到8$之间",
        "$HOME/bin:$PATH",
        "a $ b $ c",
        "$$",
        "only one $",
        r"\$5 and \$6",
        "$1.5k or 2$ more",
    ],
)
def test_money_stays_text(text: str) -> None:
    assert render(text) == f"<p>{text.replace(chr(92), '')}</p>\n"


@pytest.mark.parametrize("text", ["$2x + 3$", r"$3 \text{ cm}$", "$10^5$", "$n$th", "$x$的值"])
def test_numbers_and_words_beside_a_formula_leave_it_one(text: str) -> None:
    assert "<math" in render(text)


def test_dollars_in_code_are_code() -> None:
    assert render("`$x$`") == "<p><code>$x$</code></p>\n"


@pytest.mark.parametrize(
    "written",
    [
        r"$\nosuchthing{x}$",
        r"\(x^{a}^{b}\)",
        r"$\left( x$",
        r"$\def\a{\a\a}\a$",
        r"$\newcommand{\a}{b}\a$",
        r"$\begin{nosuch} x$",
        "$" + "{" * 60 + "x" + "}" * 60 + "$",
    ],
)
def test_a_formula_that_is_not_understood_is_shown_as_written(written: str) -> None:
    assert render(written) == f"<p><code>{written}</code></p>\n"
    assert plain(written) == f"{written}\n"


def test_lines_of_a_formula_that_is_not_understood_stay_lines() -> None:
    written = "$$\n\\nosuchthing\n$$"
    assert render(written) == f"<pre><code>{written}</code></pre>"


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>alert(1)</script>}",
        r"\text{<img src=x onerror=alert(1)>}",
        r"\href{javascript:alert(1)}{x}",
        r"\style{background:url(https://evil.example)}{x}",
        r"\class{x}{y} \cssId{z}{w}",
        r"\color{red;background:url(https://evil.example)}{x}",
        r"\text{&lt;script&gt;}",
        r"\mathrm{\"onmouseover=alert(1)}",
        r"\operatorname{<b>}",
        r"\unicode{x3c}script>",
        "x</mi></math><script>alert(1)</script>",
        r'x" onclick="alert(1)',
    ],
)
def test_a_formula_cannot_act(latex: str) -> None:
    html = render(f"${latex}$")
    for tag, attributes in _tags(html):
        assert tag in {"p", "code", "br", *formulas.TAGS}
        assert not {name for name in attributes if name not in _allowed(tag)}
    assert "url(" not in re.sub(r' alttext="[^"]*"|<code>.*?</code>', "", html)


def _allowed(tag: str) -> set[str]:
    return formulas.ATTRIBUTES.get(tag, set())


def _tags(html: str) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attrs: found.append((tag, [n for n, _ in attrs]))  # type: ignore[method-assign]
    reader.feed(html)
    return found


# --- and in good time

_BOMBS = {
    "brackets": "[",
    "pictures": "![",
    "emphasis": "*a_",
    "quotes": "> ",
    "lists": "\n- a",
    "dollars": "$",
    "formulas": "$a$ ",
    "open formulas": r"\(",
    "open blocks": "\\[\n",
    "open dollar blocks": "$$\n",
    "ticks": "``a`",
    "links": "[a][",
}


@pytest.mark.parametrize("piece", _BOMBS.values(), ids=_BOMBS)
def test_a_bomb_of_markdown_takes_its_time_and_no_more(piece: str) -> None:
    assert _seconds(lambda: render(piece * (markdown.LONGEST // len(piece)))) < 10


@pytest.mark.parametrize(
    "piece", ["{", "x^", r"\frac", r"\left(", r"\begin{matrix}", r"\sqrt[", "'", r"\hat", "&"]
)
def test_a_bomb_of_a_formula_takes_its_time_and_no_more(piece: str) -> None:
    latex = (piece * formulas.LONGEST)[: formulas.LONGEST]
    assert _seconds(lambda: formulas.mathml(latex, display=True)) < 2


def test_a_huge_formula_stays_as_it_was_written() -> None:
    text = "$" + "x+" * formulas.LONGEST + "x$"
    assert "<math" not in render(text)
    assert plain(text) == f"{text}\n"


def test_many_formulas_are_shown_as_code_in_the_end() -> None:
    html = render(" ".join(["$" + "x" * 1000 + "$"] * 25))
    assert formulas.MOST == 20 * 1000
    assert html.count("<math") == 20
    assert html.count("<code>$x") == 5


def test_slow_code_is_shown_plain() -> None:
    code = "int a;\n" * 50
    assert highlighting.highlight(code, "c", until=time.monotonic() - 1) == code


def test_a_text_beyond_all_measure_is_shown_as_it_was_written() -> None:
    text = "**a** " * markdown.LONGEST
    assert plain(text) == text
    assert render(text).startswith("<pre><code>**a** ")


def _seconds(work: Callable[[], object]) -> float:
    """Of this process's own work: neighbours do not count."""
    start = time.process_time()
    work()
    return time.process_time() - start
