"""What a prompt must look like, when two are the same, and how they are drawn."""

from __future__ import annotations

import pytest

from labelhub.prompts.rules import (
    BadMessages,
    canonical,
    draw,
    is_storable,
    messages_hash,
    storable,
    text_hash,
    validate_messages,
)


def said(*contents: str, first: str = "user") -> list[dict[str, str]]:
    """Turns of user and assistant; `first` may be system, which stands before the turns."""
    roles = ["user", "assistant"] * len(contents)
    if first == "system":
        roles.insert(0, "system")
    return [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]


def test_a_question_is_a_prompt() -> None:
    assert validate_messages(said("Why?")) == [{"role": "user", "content": "Why?"}]


def test_a_conversation_ends_with_the_user() -> None:
    assert len(validate_messages(said("Why?", "Because.", "Really?"))) == 3
    assert len(validate_messages(said("Be brief.", "Why?", first="system"))) == 2


def test_text_is_kept_in_one_form() -> None:
    messages = [{"role": "user", "content": "  Cafe\u0301?\r\nYes\rNo  ", "name": "x"}]
    assert validate_messages(messages) == [{"role": "user", "content": "Café?\nYes\nNo"}]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (None, "no_list"),
        ([], "no_list"),
        ({"role": "user", "content": "Why?"}, "no_list"),
        (["Why?"], "no_object"),
        ([{"role": "human", "content": "Why?"}], "role"),
        ([{"content": "Why?"}], "role"),
        ([{"role": "user"}], "empty"),
        ([{"role": "user", "content": " \n"}], "empty"),
        ([{"role": "user", "content": ["Why?"]}], "empty"),
        ([{"role": "user", "content": "a\x00b"}], "characters"),
        ([{"role": "user", "content": "half \ud83d"}], "characters"),
        (said("Why?", "Because."), "last"),
        (said("Be brief.", first="system"), "last"),
        (said("Why?")[:1] * 2, "turn"),
        ([*said("Why?"), {"role": "system", "content": "Be brief."}], "turn"),
        (said("Why?", "Because.")[1:], "turn"),
        (said("x" * 50_001), "too_long"),
        (said(*["x"] * 101), "too_many"),
    ],
)
def test_what_is_no_prompt(messages: object, reason: str) -> None:
    with pytest.raises(BadMessages) as bad:
        validate_messages(messages)
    assert bad.value.reason == reason


def test_the_number_of_a_bad_message_is_told() -> None:
    with pytest.raises(BadMessages) as bad:
        validate_messages([*said("Be brief.", "Why?", first="system"), {"role": "user"}])
    assert bad.value.values["number"] == 3


def test_the_same_conversation_has_the_same_text_whatever_the_order_of_keys() -> None:
    one = [{"role": "user", "content": "为什么？"}]
    other = [{"content": "为什么？", "role": "user"}]
    assert canonical(one) == canonical(other) == '[{"content":"为什么？","role":"user"}]'


def test_the_hash_is_that_of_the_trainer() -> None:
    from trainer.data import prompt_hash

    messages = said("Why?", "Because.", "为什么？")
    assert messages_hash(messages) == prompt_hash(tuple(messages))


def test_the_hash_of_a_text_is_sha256() -> None:
    # printf abc | sha256sum
    assert text_hash("abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_what_a_model_wrote_is_made_storable() -> None:
    assert storable("a\x00b\ud83dc") == "a\ufffdb\ufffdc"
    assert storable("fine 🙂") == "fine 🙂"
    assert not is_storable("a\x00")


def test_draw_takes_those_used_least() -> None:
    assert set(draw({1: 2, 2: 0, 3: 1, 4: 0}, 3, seed=0)) == {2, 3, 4}
    assert set(draw({1: 2, 2: 0, 3: 1, 4: 0}, 2, seed=9)) == {2, 4}


def test_draw_depends_on_the_seed_and_on_nothing_else() -> None:
    uses = dict.fromkeys(range(100), 0)
    backwards = dict.fromkeys(range(99, -1, -1), 0)
    assert draw(uses, 10, seed=1) == draw(backwards, 10, seed=1)
    assert draw(uses, 10, seed=1) != draw(uses, 10, seed=2)


def test_draw_gives_what_there_is() -> None:
    assert sorted(draw({1: 0, 2: 0}, 5, seed=0)) == [1, 2]
    assert draw({1: 0}, 0, seed=0) == []
