"""Reading rankings, prompts and answers; weak orders as pairs; splits; batches."""

import dataclasses
import json
from collections import Counter
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from trainer.data import (
    DataError,
    Ranking,
    length_buckets,
    pairs_of,
    read_answers,
    read_prompts,
    read_rankings,
    split_by_prompt,
)


def line(**changes: Any) -> dict[str, Any]:
    """A good line of rankings.jsonl, with changes."""
    good = {
        "prompt": [{"role": "user", "content": "How was the soup?"}],
        "answers": [{"id": "a", "text": "Good."}, {"id": "b", "text": "Bad."}],
        "ranks": {"a": 1, "b": 2},
        "annotator": "ann",
        "weight": 1.0,
    }
    return {**good, **changes}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def ranking(*ranks: int, prompt: str = "?", gaps: tuple[float, ...] = ()) -> Ranking:
    steps = max(ranks) - 1
    return Ranking(
        messages=({"role": "user", "content": prompt},),
        answer_ids=tuple(f"a{n}" for n in range(len(ranks))),
        texts=tuple(f"answer {n}" for n in range(len(ranks))),
        ranks=ranks,
        gaps=gaps or (0.0,) * steps,
    )


# rankings.jsonl


def test_a_ranking_is_read_with_its_ranks_beside_its_answers(tmp_path: Path) -> None:
    answers = [{"id": name, "text": name.upper()} for name in "abc"]
    path = write(
        tmp_path / "rankings.jsonl",
        line(answers=answers, ranks={"c": 1, "a": 2, "b": 2}, gaps=["much"], weight=0.5),
    )
    (read,) = read_rankings(path)
    assert read.answer_ids == ("a", "b", "c")
    assert read.texts == ("A", "B", "C")
    assert read.ranks == (2, 2, 1)
    assert read.gaps == (3.0,)
    assert (read.annotator, read.weight) == ("ann", 0.5)


def test_annotator_weight_and_gaps_may_be_left_out(tmp_path: Path) -> None:
    short = {key: value for key, value in line().items() if key not in ("annotator", "weight")}
    (read,) = read_rankings(write(tmp_path / "rankings.jsonl", short))
    assert (read.annotator, read.weight, read.gaps) == ("", 1.0, (0.0,))


def test_ranks_with_holes_keep_their_order(tmp_path: Path) -> None:
    answers = [{"id": name, "text": ""} for name in "abcd"]
    path = write(
        tmp_path / "r.jsonl", line(answers=answers, ranks={"a": 1, "b": 3, "c": 3, "d": 7})
    )
    assert read_rankings(path)[0].ranks == (1, 2, 2, 3)


def test_an_answer_may_come_back_in_another_line_but_not_in_the_same(tmp_path: Path) -> None:
    assert len(read_rankings(write(tmp_path / "r.jsonl", line(), line(annotator="ben")))) == 2
    twice = [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]
    with pytest.raises(DataError, match=r"r\.jsonl:1: answer 'a' stands twice"):
        read_rankings(write(tmp_path / "r.jsonl", line(answers=twice)))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ({"prompt": "How?"}, "'prompt' must be a list of messages"),
        ({"prompt": []}, "'prompt' must be a list of messages"),
        ({"prompt": [{"role": "robot", "content": "?"}]}, 'role "robot" is unknown'),
        ({"prompt": [{"role": "user", "content": 7}]}, "role and content"),
        ({"prompt": [{"role": "assistant", "content": "!"}]}, "must end with the user's"),
        ({"answers": {"a": "x"}}, "'answers' must be a list of objects"),
        ({"answers": [{"id": "a", "text": "x"}]}, "at least two"),
        ({"answers": [{"id": "a"}, {"id": "b", "text": ""}]}, "'text' must be text, not null"),
        ({"answers": [{"id": "", "text": ""}, {"id": "b", "text": ""}]}, "'id' must be a name"),
        ({"ranks": [1, 2]}, "'ranks' must be an object"),
        ({"ranks": {"a": 1}}, "leaves out answer 'b'"),
        ({"ranks": {"a": 1, "b": 2, "c": 3}}, "names 'c', which is not among the answers"),
        ({"ranks": {"a": 0, "b": 1}}, "the rank of 'a' is 0: ranks are whole numbers from 1"),
        ({"ranks": {"a": True, "b": 2}}, "the rank of 'a' is true"),
        ({"ranks": {"a": 1.5, "b": 2}}, "the rank of 'a' is 1.5"),
        ({"weight": -1}, "'weight' is -1: it must be a number from 0"),
        ({"weight": "much"}, "'weight' is \"much\""),
        ({"annotator": ["ann"]}, "'annotator' must be a name"),
        ({"gaps": [1, 2]}, "'gaps' must be a list of 1"),
        ({"gaps": ["hugely"]}, 'gap "hugely" is unknown: use slightly, clearly, much'),
    ],
)
def test_a_broken_line_is_refused_with_file_and_line(
    tmp_path: Path, broken: dict[str, Any], sentence: str
) -> None:
    path = write(tmp_path / "rankings.jsonl", line(), line(**broken))
    with pytest.raises(DataError) as refusal:
        read_rankings(path)
    assert str(refusal.value).startswith(f"{path}:2: ")
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\n  \n", "is empty"),
        (b"\n{half", ":2: not valid JSON"),
        (b"[1]\n", ":1: the line must be a JSON object"),
        (b'{"prompt": "\xff"}\n', ":1: not UTF-8"),
    ],
)
def test_a_file_that_is_no_json_lines_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "rankings.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        read_rankings(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl is not there"):
        read_rankings(tmp_path / "none.jsonl")


# prompts.jsonl and answers.jsonl


def test_prompts_and_answers_are_read(tmp_path: Path) -> None:
    prompt = line()["prompt"]
    (read,) = read_prompts(write(tmp_path / "prompts.jsonl", {"id": "p1", "prompt": prompt}))
    assert (read.id, read.messages) == ("p1", tuple(prompt))
    record = {"id": "p1-0", "prompt_id": "p1", "prompt": prompt, "text": "Good.", "tokens": [5]}
    (answer,) = read_answers(write(tmp_path / "answers.jsonl", record))
    assert (answer.id, answer.messages, answer.text) == ("p1-0", tuple(prompt), "Good.")


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    record = {"id": "p1", "prompt": line()["prompt"]}
    with pytest.raises(DataError, match=r":2: id 'p1' stands in line 1 too"):
        read_prompts(write(tmp_path / "prompts.jsonl", record, record))


# pairs


def weak_orders(k: int) -> list[tuple[int, ...]]:
    """Every way to rank k answers with ties: rank tuples without holes."""
    return [
        ranks
        for ranks in product(range(1, k + 1), repeat=k)
        if set(ranks) == set(range(1, max(ranks) + 1))
    ]


def test_there_are_75_weak_orders_of_four_answers() -> None:
    assert len(weak_orders(4)) == 75


@pytest.mark.parametrize("ranks", weak_orders(4))
def test_every_weak_order_of_four_answers_becomes_its_six_pairs(ranks: tuple[int, ...]) -> None:
    pairs = pairs_of([ranking(*ranks)])
    better, worse = pairs.better.tolist(), pairs.worse.tolist()
    assert Counter(frozenset(pair) for pair in zip(better, worse, strict=True)) == Counter(
        frozenset(pair) for pair in combinations(range(4), 2)
    )
    for i, j, tied, distance in zip(
        better, worse, pairs.tied.tolist(), pairs.distance.tolist(), strict=True
    ):
        assert tied == (ranks[i] == ranks[j])
        assert distance == ranks[j] - ranks[i] >= 0


def test_ties_are_counted_right_over_all_weak_orders() -> None:
    """By hand: 24 orders without tie (0 tied pairs), 36 with one tied pair, 6 with two pairs tied
    (2 tied pairs), 8 with three answers tied (3), 1 all tied (6)."""
    tied = Counter(int(pairs_of([ranking(*ranks)]).tied.sum()) for ranks in weak_orders(4))
    assert tied == {0: 24, 1: 36, 2: 6, 3: 8, 6: 1}


def test_pairs_of_several_rankings_point_into_their_own_answers() -> None:
    pairs = pairs_of([ranking(2, 1), ranking(1, 1, 2)])
    assert pairs.better.tolist() == [1, 2, 2, 3]
    assert pairs.worse.tolist() == [0, 3, 4, 4]
    assert pairs.tied.tolist() == [False, True, False, False]
    assert pairs.ranking.tolist() == [0, 1, 1, 1]


def test_the_gap_of_a_pair_is_the_sum_of_the_steps_between_its_ranks() -> None:
    pairs = pairs_of([ranking(3, 1, 2, gaps=(1.0, 3.0))])
    gaps = {
        (i, j): gap
        for i, j, gap in zip(
            pairs.better.tolist(), pairs.worse.tolist(), pairs.gap.tolist(), strict=True
        )
    }
    assert gaps == {(1, 2): 1.0, (2, 0): 3.0, (1, 0): 4.0}


# splits and batches


def test_pairs_carry_the_weight_of_their_ranking() -> None:
    both = [dataclasses.replace(ranking(1, 2), weight=one) for one in (0.5, 2.0)]
    assert pairs_of(both).weight.tolist() == [0.5, 2.0]


def test_no_prompt_is_on_both_sides_of_the_split() -> None:
    rankings = [ranking(1, 2, prompt=f"question {n % 50}") for n in range(200)]
    training, heldout = split_by_prompt(rankings, 0.2)
    asked = [{r.messages[0]["content"] for r in side} for side in (training, heldout)]
    assert len(training) + len(heldout) == 200
    assert not asked[0] & asked[1]
    assert 3 <= len(asked[1]) <= 20  # 50 prompts, one in five on average


def test_a_prompt_stays_held_out_when_others_join() -> None:
    few = [ranking(1, 2, prompt=f"question {n}") for n in range(40)]
    more = few + [ranking(1, 2, prompt=f"later {n}") for n in range(40)]
    _, heldout = split_by_prompt(few, 0.2)
    _, later = split_by_prompt(more, 0.2)
    assert heldout
    assert all(one in later for one in heldout)


def test_two_prompts_are_enough_for_a_split_and_one_prompt_trains() -> None:
    for fraction in (0.01, 0.9):
        both = [ranking(1, 2, prompt="one"), ranking(1, 2, prompt="two")]
        training, heldout = split_by_prompt(both, fraction)
        assert len(training) == len(heldout) == 1
    training, heldout = split_by_prompt(both[:1], 0.5)
    assert (len(training), len(heldout)) == (1, 0)
    assert split_by_prompt(both, 0.0) == (both, [])


def test_a_bucket_is_full_when_one_more_row_would_pass_the_budget() -> None:
    # sorted 9 16 17 24, padded to 16 16 24 24: two rows of 16 are 32 tokens; 3 · 24 are 72
    assert length_buckets([16, 9, 24, 17], 47) == [[1, 0], [3], [2]]
    assert length_buckets([16, 9, 24, 17], 71) == [[1, 0], [3, 2]]
    assert length_buckets([16, 9, 24, 17], 72) == [[1, 0, 3], [2]]


def test_buckets_hold_every_index_once_and_respect_the_budget() -> None:
    lengths = [5, 30, 7, 6, 31, 5, 90]
    buckets = length_buckets(lengths, 64)
    assert buckets == [[0, 5, 3, 2], [1, 4], [6]]
    for bucket in buckets:
        longest = max(lengths[n] for n in bucket)
        assert len(bucket) == 1 or len(bucket) * longest <= 64
