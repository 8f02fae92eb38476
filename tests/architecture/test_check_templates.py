"""The check that keeps templates free of inline code finds it, and nothing else."""

from __future__ import annotations

import pytest

from scripts.check_templates import problems


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<script>go()</script>", "an inline <script> belongs into a module under static/js/"),
        ('<p style="color: red">', "style=… belongs into a class"),
        ("<p STYLE=color>", "style=… belongs into a class"),
        ('<a onclick="go()">', "onclick=… belongs into a module under static/js/"),
        ("<style>p {}</style>", "<style> belongs into a file under static/css/"),
        ('<a href=" JavaScript:go()">', "href holds a javascript: address"),
        ('<b {% if a > b %}class="x"{% endif %} onfocus="{{ f }}">', "onfocus=… belongs"),
        ('<script type="importmap">{}</script>', "an inline <script> belongs"),
        ('<script type="text/javascript" nonce="{{ n }}">go()</script>', "an inline <script>"),
    ],
)
def test_it_finds(text: str, reason: str) -> None:
    ((line, said),) = problems(f"<main>\n{text}")
    assert line == 2
    assert said.startswith(reason)


@pytest.mark.parametrize(
    "text",
    [
        '<script type="module" src="{% static \'js/board.js\' %}"></script>',
        '<script type="importmap" nonce="{{ csp_nonce }}">{}</script>',
        '<script type="application/json" id="figures">{}</script>',
        "{# <script>not drawn</script> #}",
        '{% comment "why" %}<p style="">{% endcomment %}',
        '<!-- <p onclick=""> -->',
        '<p class="style on" data-on="1" title="a style=b onclick=c > d">',
        "<p>style=1 onclick=2</p>",
        '<input name="once" value="{{ value|default:"onclick=1" }}">',
    ],
)
def test_it_leaves_alone(text: str) -> None:
    assert list(problems(text)) == []
