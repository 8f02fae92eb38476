"""Text is made ready: cleaned, copies dropped and others spared, some held out, tokenized."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from tests.tiny import WORDS
from trainer.corpus import (
    Document,
    clean,
    clean_text,
    drop_exact,
    drop_near,
    hold_out,
    jaccard,
    make_tokenizer,
    read_texts,
    run_hashes,
)
from trainer.data import DataError
from trainer.events import RunError

CHINESE = "话说大宋仁宗天子在位，嘉佑三年三月三日五更三点，天子驾坐紫宸殿，受百官朝贺。"


def documents(*texts: str) -> list[Document]:
    return [Document(f"a.txt:{number}", text) for number, text in enumerate(texts, start=1)]


def texts_of(found: list[Document]) -> list[str]:
    return [one.text for one in found]


def words(count: int, seed: int) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


# reading


def test_a_text_file_is_paragraphs_lines_or_one_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"one\ntwo\r\n\r\n \nthree\n")
    assert read_texts(file, "paragraphs") == [
        Document("a.txt:1", "one\ntwo"),
        Document("a.txt:5", "three"),
    ]
    assert texts_of(read_texts(file, "lines")) == ["one", "two", "", " ", "three", ""]
    assert texts_of(read_texts(file, "files")) == ["one\ntwo\n\n \nthree\n"]


def test_a_folder_is_read_in_the_order_of_names_with_other_files_left_out(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.jsonl").write_text('{"text": "fourth\\n\\nstill"}\n\n{"text": "fifth"}')
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first"))
    (tmp_path / "NOTES.md").write_text("not this")
    found = read_texts(tmp_path, "paragraphs")
    assert texts_of(found) == ["first", "second", "fourth\n\nstill", "fifth"]
    assert found[3].where == "sub/c.jsonl:3"


def test_a_collection_is_a_document_a_record(tmp_path: Path) -> None:
    poems = [{"title": "x", "paragraphs": ["one", "two"]}, {"content": ["three"]}, {"text": "four"}]
    (tmp_path / "poems.json").write_text(json.dumps(poems))
    (tmp_path / "manifest.json").write_text('{"files": {}}')
    found = read_texts(tmp_path, "paragraphs")
    assert texts_of(found) == ["one\ntwo", "three", "four"]
    assert found[1].where == "poems.json:2"


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("a.txt", b"good\nb\xffd", "a.txt:2: not UTF-8 text"),
        ("a.txt.gz", b"no gzip", "cannot be read"),
        ("a.jsonl", b'{"text": "x"}\n{"body": "y"}', "a.jsonl:2: 'text' must be text, not null"),
        ("a.json", b'[{"text": "x"}, {"title": "y"}]', "a.json, record 2: it has no text or"),
        ("a.json", b'[{"text": ["x", 3]}]', "a.json, record 1"),
        ("a.json", b'["x"]', "a.json, record 1"),
        ("a.json", b'[\n{"text": ', "a.json:2: not JSON"),
        ("a.pdf", b"x", "is no .jsonl, .txt, .txt.gz, .json file"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(
    name: str, body: bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(DataError, match=sentence):
        read_texts(tmp_path / name, "paragraphs")


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no .jsonl, .txt, .txt.gz, .json file"):
        read_texts(tmp_path, "paragraphs")


# cleaning


def test_cleaning_composes_letters_and_drops_control_characters() -> None:
    assert clean_text("\ufeffCafe\u0301\x00 \x1bnoir  \r\n\tnow\n\n\n\nend \n") == (
        "Caf\u00e9 noir\n\tnow\n\nend"
    )


def test_cleaning_leaves_joined_emoji_chinese_and_indents_alone() -> None:
    text = f"def f():\n    return '👩‍👩‍👧'  # {CHINESE}\u3000好"
    assert clean_text(text) == text


def test_documents_of_nothing_go() -> None:
    assert texts_of(clean(documents(" \n", "a", "\x00", ""))) == ["a"]


# copies


def test_exact_copies_are_found_whatever_their_case_width_and_blanks() -> None:
    found, copies = drop_exact(documents("The sea.", "the  SEA.\n", "The sun.", "Ｔｈｅ sea."))
    assert texts_of(found) == ["The sea.", "The sun."]
    assert copies.count == 2
    assert copies.characters == len("the  SEA.\n") + len("Ｔｈｅ sea.")
    assert copies.examples[0] == {
        "dropped": "a.txt:2",
        "kept": "a.txt:1",
        "similarity": 1.0,
        "dropped_text": "the  SEA.\n",
        "kept_text": "The sea.",
    }


def test_similarity_is_the_share_of_common_runs_of_five_words() -> None:
    """Seven words have three runs; another last word changes one: 2 of 4 are common."""
    one, other = run_hashes("a b c d e f g"), run_hashes("A b, c d e f h!")
    assert len(one) == len(other) == 3
    assert jaccard(one, other) == 0.5


def test_near_copies_are_found_and_texts_of_their_own_are_spared() -> None:
    """A changed word in the middle of 100 costs 5 of 96 runs: 91 common of 101 are .90."""
    own = [words(100, seed) for seed in range(20)]
    planted = [[*some[:50], "PLANTED", *some[51:]] for some in own[:8]]
    # Three changed words cost 15 runs: 81 common of 111 are .73, alike but a text of its own.
    related = [
        [word if n % 30 else "CHANGED" for n, word in enumerate(some, 5)] for some in own[8:]
    ]
    everything = documents(*(" ".join(some) for some in [*own, *planted, *related]))
    found, copies = drop_near(everything, 0.8)
    assert texts_of(found) == [" ".join(some) for some in [*own, *related]]
    assert copies.count == 8
    assert {one["similarity"] for one in copies.examples} == {round(91 / 101, 3)}
    assert [one["kept"] for one in copies.examples] == [f"a.txt:{n}" for n in range(1, 9)]


def test_chinese_near_copies_are_found_by_their_characters() -> None:
    long = "".join(CHINESE[n:] + CHINESE[:n] for n in (0, 7, 19))
    other = "贾雨村风尘怀闺秀，甄士隐梦幻识通灵。此开卷第一回也，作者自云曾历过一番梦幻之后。" * 2
    found, copies = drop_near(documents(long, other, long.replace("驾坐", "正坐", 1)), 0.8)
    assert texts_of(found) == [long, other]
    assert copies.count == 1


def test_a_threshold_of_one_looks_for_exact_copies_alone() -> None:
    both = documents("a b c d e f", "a b c d e f!")
    assert drop_near(both, 1.0)[0] == both
    assert drop_near(both, 0.99)[1].count == 1


# holding out


def test_what_is_held_out_follows_from_each_document_alone() -> None:
    everything = documents(*(f"text number {n}" for n in range(400)))
    training, heldout = hold_out(everything, 0.25)
    assert 70 <= len(heldout) <= 130  # 100 ± 3.5 standard deviations of √(400 · ¼ · ¾) = 8.7
    assert sorted(texts_of(training + heldout)) == sorted(texts_of(everything))
    again, out = hold_out(everything[:100], 0.25)
    assert set(texts_of(out)) <= set(texts_of(heldout))
    assert set(texts_of(again)) <= set(texts_of(training))


def test_no_side_stays_empty_where_there_are_two_documents() -> None:
    two = documents("one", "two")
    assert [len(side) for side in hold_out(two, 1e-9)] == [1, 1]
    assert [len(side) for side in hold_out(two, 0.9)] == [1, 1]
    assert hold_out(two, 0) == (two, [])
    assert hold_out(two[:1], 0.5) == (two[:1], [])


# tokens


def test_the_tokenizer_gives_back_any_text() -> None:
    tokenizer = make_tokenizer([" ".join(words(400, 0)), CHINESE * 3], 300)
    assert len(tokenizer) == 300
    for text in (
        CHINESE,
        "Emoji 👩‍👩‍👧 🇨🇳 ok",
        "def f(x):\n\treturn {'a': x ** 2}  # ∑\n",
        "  two blanks, never seen: ŵǿɍð ",
    ):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_it_makes_words_of_either_script_that_it_has_seen() -> None:
    tokenizer = make_tokenizer(["sun " * 50, "天子" * 50], 270)
    assert tokenizer.tokenize(" sun") == ["Ġsun"]
    assert len(tokenizer("天子")["input_ids"]) < len("天子".encode()) / 2


def test_its_chat_template_closes_each_answer_with_the_end_and_padding_is_another() -> None:
    tokenizer = make_tokenizer([" ".join(words(400, 0))], 280)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    turns = [{"role": "user", "content": "tea"}, {"role": "assistant", "content": "warm"}]
    asked = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>tea<|assistant|>"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == f"{asked}warm<|end|>"


def test_too_little_text_for_a_vocabulary_is_refused_with_the_size_that_it_gives() -> None:
    with pytest.raises(RunError, match=r"too little for config.vocabulary = 4000: it gives only 2"):
        make_tokenizer(["warm tea"], 4000)


def test_the_line_of_a_json_document_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"text": "x"}) + "\nnonsense\n")
    with pytest.raises(DataError, match=r"a.jsonl:2: not valid JSON"):
        read_texts(file, "paragraphs")
