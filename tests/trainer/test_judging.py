"""Reward models that PPO asks about texts: encoders, and decoders with words of their own."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import make_tiny, make_tiny_encoder, make_tiny_reward, tiny_tokenizer, write_prompts
from tests.trainer.judging import events_of, make_run, ranking_lines, run_here, write_lines
from tests.trainer.test_ppo import QUICK as PPO_QUICK
from tests.trainer.test_ppo import hashes
from trainer import episodes, scoring
from trainer.events import RunError, Stopped
from trainer.judging import Reader, judge_texts, keep_states
from trainer.stages import ppo
from trainer.trials import text_of
from trainer.types import Batch

QUICK: dict[str, Any] = PPO_QUICK | {"steps": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a reward model with its words, the same with a word more, and an encoder."""
    folder = tmp_path_factory.mktemp("models")
    make_tiny(folder)
    other = shutil.copytree(make_tiny_reward(folder), folder / "other words")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["moon"])
    tokenizer.save_pretrained(str(other))
    make_tiny_encoder(folder / "encoder", scores=True)
    scale = {"mean": 0.25, "std": 0.5}
    (folder / "encoder" / "normalisation.json").write_text(json.dumps(scale))
    write_prompts(folder / "prompts.jsonl")
    return folder


def ppo_run(folder: Path, models: Path, reward: str, second: str = "", **config: Any) -> Path:
    inputs = {
        "policy": models / "policy",
        "reward": models / reward,
        "prompts": models / "prompts.jsonl",
        **({"second": models / second} if second else {}),
    }
    return make_run(folder, "ppo", inputs, **(QUICK | config))


@torch.no_grad()
def score_of(path: Path, question: str, text: str) -> float:
    """What plain transformers makes of an answer, normalised."""
    tokenizer = AutoTokenizer.from_pretrained(str(path))
    model = AutoModelForSequenceClassification.from_pretrained(str(path), dtype=torch.float32)
    scale = json.loads((path / "normalisation.json").read_text())
    if tokenizer.chat_template:
        message = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"]
        end = tokenizer.eos_token_id
    else:
        asked = tokenizer(f"user: {question}\n\nassistant:")["input_ids"]
        end = tokenizer.sep_token_id
    ids = [*asked, *tokenizer(text, add_special_tokens=False)["input_ids"], end]
    raw = float(model(input_ids=torch.tensor([ids])).logits[0, 0])
    return (raw - scale["mean"]) / scale["std"]


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> list[episodes.Rollout]:
    """Every rollout of the stage, as it comes."""
    found: list[episodes.Rollout] = []
    roll_out = episodes.roll_out

    def keep(*rest: Any) -> episodes.Rollout:
        found.append(roll_out(*rest))
        return found[-1]

    monkeypatch.setattr(ppo, "roll_out", keep)
    return found


@pytest.mark.parametrize("reward", ["encoder", "other words"])
def test_every_answer_gets_the_score_of_its_text(
    reward: str, models: Path, tmp_path: Path, rollouts: list[episodes.Rollout]
) -> None:
    run = ppo_run(tmp_path / "run", models, reward, answers_per_prompt=2)
    report = run_here(run)
    (_, second, _) = rollouts
    chosen = episodes.choose_prompts(8, ppo.PPOConfig(**QUICK | {"answers_per_prompt": 2}), 3, 1)
    lines = (models / "prompts.jsonl").read_text().splitlines()
    questions = [json.loads(line)["prompt"][0]["content"] for line in lines]
    asked = [questions[number] for number in chosen] + questions[:2]  # the fixed ones behind
    tokenizer = AutoTokenizer.from_pretrained(str(models / "policy"))
    wanted = [
        score_of(models / reward, asked[answer.prompt], text_of(tokenizer, answer.ids))
        for answer in second.answers
    ]
    assert len({round(score, 4) for score in wanted}) > 3
    assert second.score.tolist() == pytest.approx(wanted, abs=1e-4)
    metrics = events_of(run, "metric")
    assert metrics[1]["reward"] == pytest.approx(sum(wanted[:8]) / 8, abs=1e-4)
    assert (metrics[0]["kl"], metrics[0]["ratio_first"]) == (0.0, 1.0)
    assert report["critic"] == "policy"  # its states can be read token by token
    (shown,) = [event for event in events_of(run, "sample") if event["step"] == 1]
    assert [one["score"] for one in shown["samples"]] == pytest.approx(wanted[8:], abs=1e-4)


def test_a_verdict_on_texts_is_normalised_and_stands_at_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mean 1, deviation 2; of three answers the last and the first are asked about."""
    raw = [torch.tensor([[3.0, 5.0, 7.0]]), torch.tensor([[-1.0, 1.0, 3.0]])]
    monkeypatch.setattr(scoring, "judge_answers", lambda *_, **named: raw)
    judge: Any = SimpleNamespace(
        model=torch.nn.Linear(1, 1), size=2, normalisation=scoring.Normalisation(1.0, 2.0)
    )
    verdict = judge_texts(Reader(judge, 64), [(2, (), "a"), (0, (), "b")], 3, lambda: None)
    assert verdict.score.tolist() == [-1.0, 0.0, 1.0]
    assert verdict.members is not None
    assert verdict.members.tolist() == [[0.0, 1.0], [0.0, 0.0], [2.0, 3.0]]


def test_the_states_of_an_answer_are_kept_at_its_tokens() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch = Batch(*[torch.zeros(0)] * 5, mask, torch.zeros(0))
    features = torch.zeros(3, 4, 1)
    keep_states(features, torch.tensor([2, 0]), batch, torch.tensor([[1.0], [2.0], [3.0]]))
    assert features[..., 0].tolist() == [[3, 0, 0, 0], [0, 0, 0, 0], [1, 2, 0, 0]]


def test_the_same_model_says_the_same_of_tokens_and_of_texts(
    models: Path, tmp_path: Path, rollouts: list[episodes.Rollout]
) -> None:
    """As second reward model beside itself; answers that show tokens without a text aside."""
    run_here(ppo_run(tmp_path / "run", models, "reward", second="other words", steps=1))
    first = rollouts[0]
    assert first.second is not None
    whole = [
        number
        for number, answer in enumerate(first.answers[:8])
        if not set(answer.ids[:-1]) & {0, 1, 2} and answer.ids[-1] not in (0, 2)
    ]
    assert len(whole) >= 4
    tokens, texts = first.score[:8][whole], first.second[whole]
    torch.testing.assert_close(tokens, texts, rtol=0, atol=1e-5)


def test_a_policy_learns_what_an_asked_model_likes(models: Path, tmp_path: Path) -> None:
    run = ppo_run(
        tmp_path / "run", models, "other words", steps=8, episodes_per_step=64, lr=1e-2,
        max_new_tokens=8, kl_coef=0.01, kl_budget=0.0, samples=0,
    )  # fmt: skip
    report = run_here(run)
    assert report["score_after"] > report["score_before"] + 0.5


def test_an_ensemble_of_an_encoder_speaks_member_by_member(models: Path, tmp_path: Path) -> None:
    """Fitted by the stage reward: the encoder and another adapter on it."""
    rankings = write_lines(tmp_path / "rankings.jsonl", ranking_lines(8))
    base = make_tiny_encoder(tmp_path / "base")
    settings = {"ensemble": 2, "ensemble_kind": "lora", "epochs": 1, "heldout_fraction": 0.0}
    fitted = make_run(tmp_path / "fit", "reward", {"base": base, "rankings": rankings}, **settings)
    run_here(fitted)
    shutil.copytree(models / "policy", tmp_path / "policy")
    shutil.copy(models / "prompts.jsonl", tmp_path)
    run = ppo_run(tmp_path / "run", tmp_path, "fit/out", steps=1, pessimism=0.5)
    run_here(run)
    (metric,) = events_of(run, "metric")
    assert metric["member_spread"] > 0
    assert metric["member_min"] < metric["reward"]


def test_stopped_and_resumed_it_ends_in_the_same_bytes(models: Path, tmp_path: Path) -> None:
    straight = ppo_run(tmp_path / "straight", models, "encoder", steps=4)
    halved = ppo_run(tmp_path / "halved", models, "encoder", steps=4)
    run_here(straight)

    class AtStepTwo(threading.Event):
        def is_set(self) -> bool:
            return len(events_of(halved, "metric")) == 2

    with pytest.raises(Stopped, match="Stopped after 2 of 4 steps"):
        run_here(halved, AtStepTwo())
    run_here(halved)
    assert hashes(halved / "out") == hashes(straight / "out")


def test_a_critic_that_needs_its_states_is_refused(models: Path, tmp_path: Path) -> None:
    run = ppo_run(tmp_path / "run", models, "encoder", critic="adapter")
    with pytest.raises(RunError, match=r"reads texts .* so config\.critic cannot be adapter"):
        run_here(run)
