"""The stages evaluate and score: what they report, and that they agree with the reward stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny, make_tiny_reward, write_prompts
from tests.trainer.judging import (
    DRAWN,
    StopAt,
    events_of,
    make_run,
    ranking_lines,
    read_lines,
    run_here,
    write_lines,
)
from trainer.config import SpecError
from trainer.data import DataError, read_rankings
from trainer.events import RunError, Stopped
from trainer.manifests import verify_manifest


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """policy/, another/ and reward/, which likes the word good."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny(folder)
    (folder / "second").mkdir()
    make_tiny(folder / "second", seed=1)
    make_tiny_reward(folder)
    write_prompts(folder / "prompts.jsonl", count=6)
    return folder


# a reward model


def test_a_reward_report_has_the_keys_of_the_contract(models: Path, tmp_path: Path) -> None:
    rankings = write_lines(tmp_path / "heldout.jsonl", ranking_lines(30))
    inputs = {"reward": models / "reward", "rankings": rankings}
    run = make_run(tmp_path / "run", "evaluate", inputs)
    returned = run_here(run)
    report = json.loads((run / "out" / "report.json").read_text())
    assert report == returned
    assert {"pair_accuracy", "ci95", "pairs", "length_baseline"} <= set(report)
    assert report["ci95"][0] <= report["pair_accuracy"] <= report["ci95"][1]
    assert (report["rankings"], report["prompts"]) == (30, 30)
    assert not verify_manifest(run / "out")
    (metric,) = events_of(run, "metric")
    assert metric["pair_accuracy"] == report["pair_accuracy"]


def test_a_reward_that_likes_good_finds_what_people_like(models: Path, tmp_path: Path) -> None:
    """The annotators like good and dislike bad; the model knows half of that."""
    rankings = write_lines(tmp_path / "heldout.jsonl", ranking_lines(40))
    inputs = {"reward": models / "reward", "rankings": rankings}
    report = run_here(make_run(tmp_path / "run", "evaluate", inputs))
    assert report["ci95"][0] > 0.5
    assert report["kendall_tau_b"] > 0.2


def test_it_counts_pairs_rankings_and_prompts(models: Path, tmp_path: Path) -> None:
    """1 2 2 has two untied pairs and one tie; the second line repeats the first's prompt."""
    lines = ranking_lines(2, answers=3)
    for line in lines:
        line["ranks"] = dict(zip(line["ranks"], (1, 2, 2), strict=True))
        line["prompt"] = lines[0]["prompt"]
    rankings = write_lines(tmp_path / "heldout.jsonl", lines)
    inputs = {"reward": models / "reward", "rankings": rankings}
    report = run_here(make_run(tmp_path / "run", "evaluate", inputs))
    assert (report["pairs"], report["tied_pairs"]) == (4, 2)
    assert (report["rankings"], report["prompts"]) == (2, 1)


def test_broken_rankings_are_named(models: Path, tmp_path: Path) -> None:
    lines = ranking_lines(2)
    lines[1]["ranks"] = {}
    rankings = write_lines(tmp_path / "heldout.jsonl", lines)
    inputs = {"reward": models / "reward", "rankings": rankings}
    with pytest.raises(DataError, match=r"heldout\.jsonl:2: 'ranks' leaves out"):
        run_here(make_run(tmp_path / "run", "evaluate", inputs))


def test_a_language_model_is_no_reward_model(models: Path, tmp_path: Path) -> None:
    rankings = write_lines(tmp_path / "heldout.jsonl", ranking_lines(2))
    inputs = {"reward": models / "policy", "rankings": rankings}
    with pytest.raises(RunError, match="is no reward model"):
        run_here(make_run(tmp_path / "run", "evaluate", inputs))


# scores


def answers_of(path: Path) -> list[dict[str, Any]]:
    return [
        {"id": answer, "prompt_id": "p", "prompt": list(one.messages), "text": text}
        for one in read_rankings(path)
        for answer, text in zip(one.answer_ids, one.texts, strict=True)
    ]


def test_the_score_stage_agrees_with_the_reward_stage(models: Path, tmp_path: Path) -> None:
    training = write_lines(tmp_path / "training.jsonl", ranking_lines(12))
    heldout = write_lines(tmp_path / "heldout.jsonl", ranking_lines(5, seed=4))
    inputs = {"base": models / "policy", "rankings": training, "heldout": heldout}
    reward = make_run(tmp_path / "reward", "reward", inputs, epochs=1, lora_r=2)
    run_here(reward)
    answers = write_lines(tmp_path / "answers.jsonl", answers_of(heldout))
    score = make_run(tmp_path / "score", "score", {"reward": reward / "out", "answers": answers})
    run_here(score)
    found = {line["id"]: line["score"] for line in read_lines(score / "out" / "scores.jsonl")}
    wanted = {x["id"]: x["score"] for x in read_lines(reward / "out" / "heldout_scores.jsonl")}
    assert found == pytest.approx(wanted, abs=1e-4)
    assert list(found) == [line["id"] for line in read_lines(answers)]


def test_a_score_does_not_depend_on_its_company(models: Path, tmp_path: Path) -> None:
    lines = answers_of(write_lines(tmp_path / "rankings.jsonl", ranking_lines(6)))
    scores = []
    for name, some in (("all", lines), ("few", lines[3:5])):
        path = write_lines(tmp_path / f"{name}.jsonl", some)
        run = make_run(tmp_path / name, "score", {"reward": models / "reward", "answers": path})
        run_here(run)
        scores.append({x["id"]: x["score"] for x in read_lines(run / "out" / "scores.jsonl")})
    for name, score in scores[1].items():
        assert score == pytest.approx(scores[0][name], abs=1e-5)


# a policy


def test_a_policy_does_not_differ_from_itself(models: Path, tmp_path: Path) -> None:
    report = evaluate(models, tmp_path / "run", models / "policy")
    assert (report["kl"], report["kl_ci95"]) == (0.0, [0.0, 0.0])
    assert (report["gain"], report["ci95_of_gain"]) == (0.0, [0.0, 0.0])
    assert report["policy"] == report["reference"]


def test_another_policy_differs(models: Path, tmp_path: Path) -> None:
    report = evaluate(models, tmp_path / "run", models / "second" / "policy")
    assert report["kl"] > 1.0  # two random models have little in common
    assert report["kl_ci95"][0] > 0
    assert report["gain"] == pytest.approx(report["score_after"] - report["score_before"])
    low, high = report["ci95_of_gain"]
    assert low <= report["gain"] <= high
    assert (report["prompts"], report["answers"]) == (6, 12)


def test_both_models_answers_are_kept_with_their_scores(models: Path, tmp_path: Path) -> None:
    report = evaluate(models, tmp_path / "run", models / "second" / "policy")
    lines = read_lines(tmp_path / "run" / "out" / "answers.jsonl")
    assert [line["model"] for line in lines] == ["policy"] * 12 + ["reference"] * 12
    assert len({line["id"] for line in lines}) == 24
    assert all(line.items() >= DRAWN.items() for line in lines)
    by_model = {
        name: [line["score"] for line in lines if line["model"] == name]
        for name in ("policy", "reference")
    }
    assert sum(by_model["policy"]) / 12 == pytest.approx(report["score_after"])
    assert sum(by_model["reference"]) / 12 == pytest.approx(report["score_before"])
    seeds = {name: [x["seed"] for x in lines if x["model"] == name] for name in by_model}
    assert seeds["policy"] == seeds["reference"]


def evaluate(
    models: Path,
    folder: Path,
    policy: Path,
    more: dict[str, Path] | None = None,
    **config: Any,
) -> dict[str, Any]:
    inputs = {
        "policy": policy,
        "reference": models / "policy",
        "reward": models / "reward",
        "prompts": models / "prompts.jsonl",
    } | (more or {})
    settings = {"answers": 2, "max_new_tokens": 6} | config
    return run_here(make_run(folder, "evaluate", inputs, **settings))


def test_a_longer_frontier_leaves_the_comparison_as_it_was(models: Path, tmp_path: Path) -> None:
    """The further answers have seeds of their own; the first ones are those of a run without."""
    second = models / "second" / "policy"
    short = evaluate(models, tmp_path / "short", second, dtype="float32")
    long = evaluate(models, tmp_path / "long", second, dtype="float32", frontier=5)
    for name in ("gain", "kl", "score_before", "win_rate", "wins", "losses"):
        assert long[name] == pytest.approx(short[name], abs=1e-5), name
    assert [point["n"] for point in long["frontier"]["points"]] == [1, 2, 4, 5]
    lines = read_lines(tmp_path / "long" / "out" / "answers.jsonl")
    others = [line["score"] for line in lines if line["model"] == "reference"]
    assert len(others) == 6 * 5
    best = [max(others[at : at + 5]) for at in range(0, 30, 5)]
    assert long["frontier"]["points"][-1]["score"] == pytest.approx(sum(best) / 6)


def test_a_second_reward_model_reads_the_same_answers(models: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    other = make_tiny_reward(tmp_path / "models", likes="bad")
    report = evaluate(
        models, tmp_path / "run", models / "second" / "policy", {"second": other}, frontier=4
    )
    lines = read_lines(tmp_path / "run" / "out" / "answers.jsonl")
    own = [line["second_score"] for line in lines if line["model"] == "policy"]
    assert report["second"]["score_after"] == pytest.approx(sum(own) / len(own))
    for line in lines:
        if "bad" not in line["text"].split() and "good" not in line["text"].split():
            assert line["second_score"] == pytest.approx(line["score"])
    assert {"second", "second_ci95"} <= set(report["frontier"]["points"][0])
    assert {point["n"] for point in report["frontier"]["points"]} == {1, 2, 4}


def test_a_training_is_drawn_against_its_kl(models: Path, tmp_path: Path) -> None:
    history = [{"step": n, "kl": float(n), "reward": n**0.5} for n in range(1, 5)]
    (tmp_path / "report.json").write_text(json.dumps({"stage": "ppo", "history": history}))
    more = {"history": tmp_path / "report.json"}
    report = evaluate(models, tmp_path / "run", models / "policy", more)
    assert [point["kl"] for point in report["history"]["reward"]["points"]] == [1, 2, 3, 4]
    fit = report["history"]["reward"]["fit"]
    assert (fit["alpha"], fit["beta"]) == pytest.approx((1.0, 0.0), abs=1e-9)
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(RunError, match="is no report of a PPO run"):
        evaluate(models, tmp_path / "other", models / "policy", more)


def test_a_test_of_a_reward_model_refuses_what_it_does_not_read(
    models: Path, tmp_path: Path
) -> None:
    rankings = write_lines(tmp_path / "heldout.jsonl", ranking_lines(2))
    inputs = {"reward": models / "reward", "rankings": rankings, "second": models / "reward"}
    with pytest.raises(SpecError, match="the input second is not read"):
        run_here(make_run(tmp_path / "run", "evaluate", inputs))


def test_the_kl_is_that_of_the_answers_themselves(models: Path, tmp_path: Path) -> None:
    """Recomputed with transformers alone for every answer of the policy."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    second = models / "second" / "policy"
    report = evaluate(models, tmp_path / "run", second)
    tokenizer = AutoTokenizer.from_pretrained(str(second))
    both = [AutoModelForCausalLM.from_pretrained(str(p)) for p in (second, models / "policy")]
    differences = []
    for line in read_lines(tmp_path / "run" / "out" / "answers.jsonl"):
        if line["model"] == "policy":
            turns = line["prompt"]
            prompt = tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False
            )
            answer = tokenizer(line["text"])["input_ids"]
            if len(answer) + line["finished"] != line["tokens"]:
                continue  # special tokens inside an answer are not in its text
            answer += [tokenizer.eos_token_id] * line["finished"]
            ours, theirs = (logprob(model, prompt, answer) for model in both)
            differences.append((line, ours - theirs))
            assert line["logprob"] == pytest.approx(ours, abs=1e-3)
    assert differences
    if len(differences) == 12:
        mean = sum(value for _, value in differences) / 12
        assert report["kl"] == pytest.approx(mean, abs=1e-3)


@torch.no_grad()
def logprob(model: Any, prompt: list[int], answer: list[int]) -> float:
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
    return float(sum(logits[at, token] for at, token in zip(places, answer, strict=True)))


def test_a_stopped_evaluation_says_so_and_keeps_nothing(models: Path, tmp_path: Path) -> None:
    inputs = {
        "policy": models / "policy",
        "reference": models / "policy",
        "reward": models / "reward",
        "prompts": models / "prompts.jsonl",
    }
    run = make_run(tmp_path / "run", "evaluate", inputs, max_new_tokens=4)
    with pytest.raises(Stopped, match="begin anew"):
        run_here(run, StopAt(1))
    assert not (run / "out").exists()
    run_here(run)
    assert (run / "out" / "report.json").exists()


def test_a_prompt_without_room_for_its_answer_is_refused(models: Path, tmp_path: Path) -> None:
    inputs = {
        "policy": models / "policy",
        "reference": models / "policy",
        "reward": models / "reward",
        "prompts": models / "prompts.jsonl",
    }
    with pytest.raises(RunError, match="The prompt “p0” has"):
        run_here(make_run(tmp_path / "run", "evaluate", inputs, max_new_tokens=126))
