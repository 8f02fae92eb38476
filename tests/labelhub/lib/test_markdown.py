"""Markdown is shown as it was meant, and nothing in it can act or reach out."""

from __future__ import annotations

import pytest

from labelhub.lib.markdown import render


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
        "<pre><code>x &lt; 1\n</code></pre>",
    ):
        assert piece in html


def test_a_table_is_a_table() -> None:
    assert "<td>1</td>" in render("| a |\n|---|\n| 1 |")


def test_a_line_break_stays_one() -> None:
    assert render("one\ntwo") == "<p>one<br>\ntwo</p>\n"


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
