"""Reading aids on the board: scrolling together, one card large, what differs, marked places."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from labelhub.accounts.models import User
from labelhub.lib.markdown import plain
from labelhub.projects.models import Project
from labelhub.prompts.models import Answer
from labelhub.rankings.models import RankingItem
from tests import factories
from tests.e2e.boards import PHONE, Open, eventually, faults
from tests.labelhub.lib.nasty import NASTY

LARGE = ".answer:popover-open"
LONG = "\n\n".join(f"Paragraph {n} " + "of many words " * 12 for n in range(30))


def make(texts: list[str], *members: User, **settings: Any) -> Project:
    """A project with one set of these answers."""
    project = factories.make_project("everyday", annotators=list(members))
    Project.objects.filter(pk=project.pk).update(ask_spans=True, **settings)
    factories.make_answer_set(project, answers=texts, slots=1)
    return project


def start(page: Page) -> None:
    page.goto("/annotate/everyday/next/")
    page.get_by_role("button", name="Start ranking").click()
    expect(page.locator("#board.live")).to_be_visible()
    expect(page.locator(".reading")).to_be_visible()


def card_of(page: Page, text: str) -> Locator:
    """The card that shows this answer, wherever the shuffle put it."""
    answer = Answer.objects.get(text=text)
    return page.locator(f".answer[data-id='{answer.pk}']")


def letter_of(card: Locator) -> str:
    return str(card.get_attribute("data-letter"))


def marked(page: Page, name: str) -> list[str]:
    """The pieces of text that the browser marks under this name, in order."""
    found = page.evaluate(
        """name => [...(CSS.highlights.get(name) ?? [])].map(one => {
          const range = document.createRange();
          range.setStart(one.startContainer, one.startOffset);
          range.setEnd(one.endContainer, one.endOffset);
          return range.toString();
        })""",
        name,
    )
    return list(found)


def select(page: Page, card: Locator, words: str) -> None:
    """Select these words of a card, as a mouse would."""
    card.locator(".prose").evaluate(
        """(root, words) => {
          const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
          for (let node; (node = walker.nextNode());) {
            const at = node.data.indexOf(words);
            if (at >= 0) return getSelection().setBaseAndExtent(node, at, node, at + words.length);
          }
          throw new Error("not there: " + words);
        }""",
        words,
    )


# --- the text itself


@pytest.mark.parametrize("first", range(0, len(NASTY), 9))
def test_the_browser_reads_what_the_server_reads(
    live_server: Any, open_page: Open, ann: User, first: int
) -> None:
    texts = NASTY[first : first + 9]
    texts = texts if len(texts) > 1 else [*texts, "another"]
    make([text.replace("\x00", "") for text in texts], ann)
    page = open_page(ann)
    start(page)
    read = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".answer")].map(
          card => [card.dataset.id, card.querySelector("[data-answer-text]").textContent]))"""
    )
    answers = Answer.objects.in_bulk()
    assert read == {str(pk): plain(answers[pk].text) for pk in answers}


def test_code_and_formulas_are_drawn(live_server: Any, open_page: Open, ann: User) -> None:
    make(["```python\nreturn 1 # one\n```", r"The sum is $\frac{a}{b}$."], ann)
    page = open_page(ann)
    start(page)
    colours = page.evaluate(
        """() => [".k", ".c", ".n"].map(
          name => getComputedStyle(document.querySelector("pre " + name)).color)"""
    )
    assert len(set(colours)) == 3
    fraction, line = page.locator("mfrac").bounding_box(), page.locator("mfrac mi").first
    a = line.bounding_box()
    assert fraction is not None
    assert a is not None
    assert fraction["height"] > 1.8 * a["height"], "one stands above the other"


# --- scrolling together


def test_cards_scroll_together_and_stay_so_after_a_move(
    live_server: Any, open_page: Open, ann: User
) -> None:
    make([LONG, LONG + LONG, "short"], ann)
    page = open_page(ann, viewport={"width": 1600, "height": 900})
    start(page)
    page.keyboard.press("l")
    expect(page.get_by_role("button", name="Scroll together")).to_have_attribute(
        "aria-pressed", "true"
    )
    one, other = card_of(page, LONG), card_of(page, LONG + LONG)
    part = """root => root.scrollTop / (root.scrollHeight - root.clientHeight)"""
    text, second = one.locator(".prose"), other.locator(".prose")
    text.evaluate("root => { root.scrollTop = (root.scrollHeight - root.clientHeight) / 2 }")
    eventually(page, lambda: abs(second.evaluate(part) - 0.5) < 0.01)
    page.keyboard.press(letter_of(other).lower())
    page.wait_for_timeout(300)
    assert abs(text.evaluate(part) - 0.5) < 0.01
    assert abs(second.evaluate(part) - 0.5) < 0.01
    page.reload()
    expect(page.locator("#board.level")).to_be_visible()


# --- one card large


def test_a_card_is_read_large_and_focus_returns(
    live_server: Any, open_page: Open, ann: User
) -> None:
    make([LONG, "two", "three"], ann)
    page = open_page(ann)
    start(page)
    page.keyboard.press("v")
    expect(page.locator("#said")).to_contain_text("Pick a card first")
    page.keyboard.press("b")
    b, c = page.locator(".answer[data-letter=B]"), page.locator(".answer[data-letter=C]")
    page.keyboard.press("v")
    expect(page.locator(f"{LARGE}[data-letter=B]")).to_be_visible()
    page.keyboard.press("a")
    expect(page.locator(".answer.placed")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(page.locator(f"{LARGE}[data-letter=C]")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(LARGE)).to_have_count(0)
    expect(b).to_be_focused()
    expect(c).to_be_visible()
    page.get_by_role("button", name="Read A large").click()
    expect(page.locator(f"{LARGE}[data-letter=A]")).to_be_visible()
    page.keyboard.press("v")
    expect(page.get_by_role("button", name="Read A large")).to_be_focused()
    page.keyboard.press("a")
    expect(page.locator(".answer.placed")).to_have_count(2)


# --- what differs


def test_words_that_differ_are_marked_in_both(live_server: Any, open_page: Open, ann: User) -> None:
    one, other = "The **cat** sat on the mat.", "The dog sat on a mat."
    make([one, other, "Nothing alike"], ann)
    page = open_page(ann)
    start(page)
    before = page.locator("#board").inner_text()
    first, second = sorted(letter_of(card_of(page, text)) for text in (one, other))
    page.keyboard.press("w")
    expect(page.locator("#said")).to_contain_text("Which two cards?")
    page.keyboard.press(first.lower())
    page.keyboard.press(second.lower())
    expect(page.locator(".verdict")).to_contain_text(f"{first} and {second} share 67% of their")
    assert sorted(marked(page, "differs")) == ["a", "cat", "dog", "the"]
    expect(page.locator(".answer.placed")).to_have_count(0)
    assert page.locator("#board").inner_text() == before, "the page itself is untouched"
    page.keyboard.press(first.lower())
    expect(page.locator(".answer.placed")).to_have_count(1)
    assert sorted(marked(page, "differs")) == ["a", "cat", "dog", "the"]
    page.keyboard.press("w")
    assert marked(page, "differs") == []


def test_chinese_is_compared_word_by_word(live_server: Any, open_page: Open, ann: User) -> None:
    make(["今天下雨，我们去公园。", "今天下雨，我们去学校。"], ann)
    page = open_page(ann)
    start(page)
    page.get_by_role("button", name="What differs").click()
    expect(page.locator(".verdict")).to_contain_text("A and B share")
    assert sorted(marked(page, "differs")) == ["公园", "学校"]


def test_an_old_browser_says_that_it_cannot_mark(
    live_server: Any, open_page: Open, ann: User
) -> None:
    make(["one", "two"], ann)
    page = open_page(ann)
    page.add_init_script("delete window.Highlight")
    start(page)
    page.keyboard.press("w")
    expect(page.locator(".verdict")).to_have_text("This browser is too old to mark differences.")


# --- marked places


def test_selected_text_is_marked_noted_and_stored(
    live_server: Any, open_page: Open, ann: User
) -> None:
    good, bad = "A 𝒳 **truly fine** answer", "A wrong one"
    make([good, bad], ann)
    page = open_page(ann)
    start(page)
    one, other = card_of(page, good), card_of(page, bad)
    select(page, one, "truly fine")
    one.get_by_role("toolbar").get_by_role("button", name="Good").click()
    select(page, other, " wrong ")
    other.get_by_role("toolbar").get_by_role("button", name="Bad").click()
    other.get_by_label("Why “wrong” is marked").fill("it is not so")
    assert marked(page, "marked-good") == ["truly fine"]
    assert marked(page, "marked-bad") == ["wrong"]
    expect(one.locator(".marks")).to_contain_text("truly fine")
    page.reload()
    expect(page.locator("#board.live .mark")).to_have_count(2)
    assert marked(page, "marked-good") == ["truly fine"]
    page.keyboard.press(letter_of(one).lower())
    page.keyboard.press("Enter")
    page.wait_for_url("**/next/")
    stored = {item.answer.text: item.spans for item in RankingItem.objects.all()}
    # "A 𝒳 " are four code points, though five units of the browser
    assert stored[good] == [
        {"start": 4, "end": 14, "quote": "truly fine", "tag": "good", "note": ""}
    ]
    assert stored[bad] == [
        {"start": 2, "end": 7, "quote": "wrong", "tag": "bad", "note": "it is not so"}
    ]


def test_a_mark_can_be_taken_away(live_server: Any, open_page: Open, ann: User) -> None:
    make(["one two three", "four five six"], ann)
    page = open_page(ann)
    start(page)
    card = card_of(page, "one two three")
    for word in ("one", "three"):
        select(page, card, word)
        card.get_by_role("button", name="Good").click()
    card.get_by_role("button", name="Remove the mark on “one”").click()
    assert marked(page, "marked-good") == ["three"]
    expect(card.get_by_role("button", name="Remove the mark on “three”")).to_be_focused()
    field = card.locator("input[name^=spans-]")
    assert [span["quote"] for span in json.loads(field.input_value())] == ["three"]


def test_marking_works_by_keyboard_alone(live_server: Any, open_page: Open, ann: User) -> None:
    make(["alpha beta gamma delta", "other", "third"], ann)
    page = open_page(ann)
    start(page)
    card = card_of(page, "alpha beta gamma delta")
    letter = letter_of(card)
    for key in (letter.lower(), "m"):
        page.keyboard.press(key)
    expect(page.locator("#said")).to_contain_text(f"{letter}: “alpha”.")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#said")).to_have_text("“beta”")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator("#said")).to_contain_text("beta gamma")
    page.keyboard.press("m")
    expect(card.get_by_role("button", name="Good")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_have_text(f"{letter}: “beta gamma” is marked as bad.")
    expect(card).to_be_focused()
    page.keyboard.press("ArrowRight")  # the keys are the board's again
    assert marked(page, "marked-bad") == ["beta gamma"]
    page.keyboard.press("m")
    page.keyboard.press("Escape")
    expect(card.get_by_role("toolbar")).to_be_hidden()


def test_a_selection_that_exists_is_extended_by_shift_and_arrows(
    live_server: Any, open_page: Open, ann: User
) -> None:
    make(["alpha beta", "other", "third"], ann)
    page = open_page(ann)
    start(page)
    card = card_of(page, "alpha beta")
    page.keyboard.press(letter_of(card).lower())
    select(page, card, "alpha bet")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("m")
    page.keyboard.press("Enter")
    assert marked(page, "marked-good") == ["alpha beta"]


def test_marks_are_made_in_the_large_card_and_last_through_moves(
    live_server: Any, open_page: Open, ann: User
) -> None:
    make(["alpha beta", "other", "third"], ann)
    page = open_page(ann)
    start(page)
    card = card_of(page, "alpha beta")
    for key in (letter_of(card).lower(), "v", "m", "m", "Enter", "Escape"):
        page.keyboard.press(key)
    expect(page.locator(LARGE)).to_have_count(0)
    assert marked(page, "marked-good") == ["alpha"]
    for key in "abcz":
        page.keyboard.press(key)
    assert marked(page, "marked-good") == ["alpha"]


def test_a_selection_across_two_cards_offers_nothing(
    live_server: Any, open_page: Open, ann: User
) -> None:
    make(["alpha beta", "other", "third"], ann)
    page = open_page(ann)
    start(page)
    page.evaluate(
        """() => {
          const [a, b] = document.querySelectorAll("[data-answer-text] p");
          getSelection().setBaseAndExtent(a.firstChild, 1, b.firstChild, 2);
        }"""
    )
    page.keyboard.press("m")
    expect(page.locator("#said")).to_contain_text("Pick a card first, or select text in one.")
    expect(page.get_by_role("toolbar", name="Mark the selected text")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_a_phone_scrolls_nowhere_sideways(
    live_server: Any, open_page: Open, ann: User, scheme: str
) -> None:
    code = "```python\ndef f(x): return 'a' # no\n```\n\n$$\\sum_{i=1}^{n} " + "x_i + " * 60 + "1$$"
    make([LONG, "alpha beta", code], ann)
    page = open_page(ann, color_scheme=scheme, **PHONE)
    start(page)
    card = card_of(page, "alpha beta")
    for key in ("l", letter_of(card).lower(), "m", "m", "Enter"):
        page.keyboard.press(key)
    select(page, card, "beta")
    assert faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("v")
    page.wait_for_timeout(300)
    assert faults(page) == []
