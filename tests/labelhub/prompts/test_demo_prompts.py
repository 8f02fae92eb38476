"""The demo prompts that ship with the product: well formed, plentiful, varied and all different.

Likeness is difflib's ratio 2·M/T over normalised text (M = matching characters, T = characters
of both texts). Two texts of lengths a < b can reach at most 2a/(a + b), so a text need only be
compared with those of nearly its own length: that keeps the whole check under a second.
"""

import json
import unicodedata
from bisect import bisect_right
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path
from statistics import median
from typing import Any

import pytest

FIXTURES = Path(__file__).resolve().parents[3] / "labelhub" / "prompts" / "fixtures"
LIKENESS_LIMIT = 0.9
Row = dict[str, Any]


def load(name: str) -> list[Row]:
    text = (FIXTURES / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


ENGLISH = load("demo_prompts.en.jsonl")
CHINESE = load("demo_prompts.zh.jsonl")
EVERY = ENGLISH + CHINESE


def whole_text(row: Row) -> str:
    return "\n".join(message["content"] for message in row["prompt"])


def normalised(text: str) -> str:
    """Letters and digits only, one width, one case: punctuation must not hide a repetition."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in folded).split())


def near_duplicates(texts: list[str], limit: float = LIKENESS_LIMIT) -> list[tuple[str, str]]:
    """Pairs at least `limit` alike; only texts whose lengths allow it are compared at all."""
    ordered = sorted((normalised(text) for text in texts), key=len)
    lengths = [len(text) for text in ordered]
    longest_partner = (2 - limit) / limit  # from 2a / (a + b) >= limit, as b / a
    found = []
    for i, short in enumerate(ordered):
        # difflib caches its second sequence, so the text that stays is set once.
        matcher = SequenceMatcher(b=short, autojunk=False)
        end = bisect_right(lengths, lengths[i] * longest_partner)
        for other in ordered[i + 1 : end]:
            matcher.set_seq1(other)
            if matcher.quick_ratio() >= limit and matcher.ratio() >= limit:
                found.append((short, other))
    return found


def is_han(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def test_the_likeness_check_finds_a_reworded_prompt_and_spares_a_different_one() -> None:
    # "how was your evening" (20) and "how was your evenings" (21): 2·20/41 = .976.
    assert near_duplicates(["How was your evening?", "How was your evenings"]) == [
        ("how was your evening", "how was your evenings")
    ]
    # "abcdefghij" and "abcdefghiZ" share 9 of 10 letters: 2·9/20 = .9, at the limit.
    assert near_duplicates(["abcdefghij", "abcdefghiZ"]) != []
    assert near_duplicates(["abcdefgh", "abcdefgZ"]) == []  # 2·7/16 = .875
    assert near_duplicates(["How was your evening?", "How did the soup taste?"]) == []


def test_there_are_enough_prompts_in_each_language() -> None:
    assert len(ENGLISH) >= 230
    assert len(CHINESE) >= 84


def test_each_line_has_exactly_the_four_fields() -> None:
    assert {tuple(sorted(row)) for row in EVERY} == {("id", "language", "prompt", "topic")}


@pytest.mark.parametrize(
    ("rows", "language", "prefix"), [(ENGLISH, "en", "en"), (CHINESE, "zh-hans", "zh")]
)
def test_ids_count_up_in_their_language(rows: list[Row], language: str, prefix: str) -> None:
    assert [row["id"] for row in rows] == [f"{prefix}-{i:03d}" for i in range(1, len(rows) + 1)]
    assert {row["language"] for row in rows} == {language}


def test_a_topic_is_one_word_and_no_two_prompts_share_it() -> None:
    for rows in (ENGLISH, CHINESE):
        topics = Counter(row["topic"] for row in rows)
        assert [topic for topic, n in topics.items() if n > 1] == []
        assert [topic for topic in topics if len(topic.split()) != 1] == []


def test_a_prompt_alternates_from_user_to_user() -> None:
    for row in EVERY:
        roles = [message["role"] for message in row["prompt"]]
        assert len(roles) % 2 == 1, f"{row['id']} does not end with the user's turn"
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))], row["id"]


def test_a_message_has_a_role_and_some_tidy_text() -> None:
    for row in EVERY:
        for message in row["prompt"]:
            assert set(message) == {"role", "content"}, row["id"]
            assert message["content"], row["id"]
            assert message["content"] == message["content"].strip(), row["id"]


def test_no_prompt_is_repeated_exactly_or_nearly() -> None:
    assert len({whole_text(row) for row in EVERY}) == len(EVERY)
    assert near_duplicates([whole_text(row) for row in EVERY]) == []


def test_english_prompts_are_written_in_latin_letters() -> None:
    letters = {c for row in ENGLISH for c in whole_text(row) if c.isalpha()}
    assert [c for c in letters if not unicodedata.name(c).startswith("LATIN")] == []


def test_chinese_prompts_are_simplified_with_chinese_punctuation() -> None:
    traditional = set("們這個說給還沒嗎麼來對時會過學寫從難書話點買賣車門問間題樣愛幾歲貓關開")
    for row in CHINESE:
        text = whole_text(row)
        assert sum(map(is_han, text)) > 0.7 * len(text), row["id"]
        assert not set(text) & traditional, row["id"]
        assert not set(text) & set(',?!;:"'), row["id"]


def test_english_lengths_run_from_a_few_words_to_a_paragraph() -> None:
    words = [len(whole_text(row).split()) for row in ENGLISH]
    assert 8 <= median(words) <= 16
    assert sum(6 <= n <= 20 for n in words) > len(words) / 2
    assert min(words) <= 5
    assert sum(n >= 25 for n in words) >= 10
    assert max(words) <= 60


def test_chinese_lengths_run_from_a_short_line_to_a_paragraph() -> None:
    characters = [len(whole_text(row)) for row in CHINESE]
    assert min(characters) <= 12
    assert sum(n >= 40 for n in characters) >= 6
    assert max(characters) <= 120


def test_some_prompts_are_conversations() -> None:
    assert sum(len(row["prompt"]) > 1 for row in ENGLISH) >= 12
    assert sum(len(row["prompt"]) > 1 for row in CHINESE) >= 4


def test_prompts_open_in_many_ways() -> None:
    openings = Counter(tuple(normalised(whole_text(row)).split()[:3]) for row in ENGLISH)
    assert openings.most_common(1)[0][1] <= 4, openings.most_common(3)
    first_words = Counter(opening[0] for opening in openings.elements())
    assert first_words.most_common(1)[0][1] <= len(ENGLISH) * 0.15, first_words.most_common(3)
