"""Questions, languages, skills and invitations, without a database."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from labelhub.projects.rules import (
    INSTRUCTGPT_ATTRIBUTES,
    BadList,
    attribute_lines,
    checked_attributes,
    checked_languages,
    checked_skills,
    invitation_hash,
    invitation_state,
    key_of,
    new_invitation_secret,
    parse_attributes,
    parse_names,
    ready_attributes,
)

NOON = datetime(2026, 5, 1, 12, 0)


def test_the_ready_questions_are_the_eleven_of_instructgpt() -> None:
    assert len(INSTRUCTGPT_ATTRIBUTES) == 11
    every = ready_attributes(key for key, _label in INSTRUCTGPT_ATTRIBUTES)
    assert checked_attributes(every) == every


def test_ready_questions_come_in_their_own_order_and_unknown_ones_not_at_all() -> None:
    assert [one["key"] for one in ready_attributes(["hallucination", "nonsense"])] == [
        "hallucination"
    ]
    chosen = ready_attributes(["moral_judgment", "fails_instruction"])
    assert [one["key"] for one in chosen] == ["fails_instruction", "moral_judgment"]


def test_a_question_is_a_line() -> None:
    assert parse_attributes("Too long\n\n  tone:   Unfriendly  tone \n") == [
        {"key": "too_long", "label": "Too long"},
        {"key": "tone", "label": "Unfriendly tone"},
    ]


def test_only_a_word_that_can_be_a_key_is_read_as_one() -> None:
    assert parse_attributes("Tone: is it friendly?") == [
        {"key": "tone_is_it_friendly", "label": "Tone: is it friendly?"}
    ]


def test_a_label_without_latin_letters_gets_a_key_that_stays() -> None:
    assert key_of("语气不友好") == key_of("语气不友好")
    assert key_of("语气不友好") != key_of("语气友好")
    assert parse_attributes("tone：语气不友好") == [{"key": "tone", "label": "语气不友好"}]


def test_questions_survive_their_way_into_the_form_and_back() -> None:
    typed = parse_attributes("Too long\n语气不友好\nTone: is it friendly?")
    assert parse_attributes(attribute_lines(typed)) == typed


@pytest.mark.parametrize(
    ("attributes", "reason", "number"),
    [
        ("text", "no_list", None),
        ([{"key": "a", "label": "A"}, "b"], "no_object", 2),
        ([{"key": "a", "label": "A", "more": 1}], "no_object", 1),
        ([{"key": "A b", "label": "A"}], "bad_key", 1),
        ([{"key": "a" * 41, "label": "A"}], "bad_key", 1),
        ([{"key": 3, "label": "A"}], "bad_key", 1),
        ([{"key": "a", "label": ""}], "bad_label", 1),
        ([{"key": "a", "label": "x" * 81}], "bad_label", 1),
        ([{"key": "a", "label": "two\nlines"}], "bad_label", 1),
        ([{"key": "a", "label": "A"}, {"key": "a", "label": "B"}], "twice", 2),
        ([{"key": f"k{n}", "label": "A"} for n in range(31)], "too_many", None),
    ],
)
def test_questions_that_cannot_be_kept(attributes: object, reason: str, number: int | None) -> None:
    with pytest.raises(BadList) as refused:
        checked_attributes(attributes)
    assert refused.value.reason == reason
    assert refused.value.values.get("number") == number


def test_names_are_parted_by_commas_of_both_kinds_and_stand_once() -> None:
    assert parse_names(" medicine, law，medicine、 civil  law ;\n") == [
        "medicine", "law", "civil law"
    ]  # fmt: skip
    assert parse_names(" , ") == []


def test_languages_are_codes() -> None:
    assert checked_languages(["en", "zh-Hans", "en"]) == ["en", "zh-Hans"]
    for bad in ("English please", "e", "zh_CN", "x-y-z-way-too-long"):
        with pytest.raises(BadList, match="bad_language"):
            checked_languages([bad])


def test_a_skill_is_one_line_that_a_prompt_can_carry() -> None:
    assert checked_skills(["medicine", "医学"]) == ["medicine", "医学"]
    for bad in ("x" * 41, "a\x00b", ""):
        with pytest.raises(BadList, match="bad_skill"):
            checked_skills([bad])
    with pytest.raises(BadList, match="too_many"):
        checked_skills([f"skill {n}" for n in range(31)])


def test_two_secrets_are_never_the_same_and_only_the_hash_is_short() -> None:
    one, other = new_invitation_secret(), new_invitation_secret()
    assert one != other
    assert len(one) >= 43, "256 bits"
    assert invitation_hash("abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize(
    ("used", "revoked", "later", "state"),
    [
        (0, None, 0, "open"),
        (1, None, 59, "open"),
        (1, None, 60, "expired"),
        (2, None, 0, "used"),
        (0, NOON, 0, "revoked"),
        (2, NOON, 99, "revoked"),
    ],
)
def test_the_state_of_an_invitation_for_two_and_an_hour(
    used: int, revoked: datetime | None, later: int, state: str
) -> None:
    told = invitation_state(
        now=NOON + timedelta(minutes=later),
        expires=NOON + timedelta(hours=1),
        seats=2,
        used=used,
        revoked=revoked,
    )
    assert told == state
