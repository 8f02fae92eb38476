"""Best of n: the best answer wins, and the policy learns the winners and nothing else."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import WORDS, make_tiny, make_tiny_reward, tiny_tokenizer
from tests.trainer import judging
from tests.trainer.judging import DRAWN, run_here
from trainer.config import SpecError
from trainer.data import read_pairs
from trainer.events import RunError, Stopped, read_events
from trainer.manifests import files_of, sha256_file, verify_manifest
from trainer.modeling import chat_ids
from trainer.stages import bestofn
from trainer.types import RunContext

QUICK: dict[str, Any] = {
    "lr": 2e-2, "batch_size": 4, "threads": 1, "lora_r": 4, "checkpoint_every": 2, "answers": 4,
    "max_new_tokens": 6, "heldout_fraction": 0.25,
}  # fmt: skip


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a reward model that likes the word good, and prompts of many words."""
    folder = tmp_path_factory.mktemp("bestofn")
    make_tiny(folder)
    make_tiny_reward(folder)
    lines = [
        {"id": word, "prompt": [{"role": "user", "content": f"I like {word}"}]}
        for word in WORDS[:32]
    ]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def make_run(folder: Path, things: Path, **config: Any) -> Path:
    names = {"policy": "policy", "reward": "reward", "prompts": "prompts.jsonl"}
    inputs = {name: str(things / file) for name, file in names.items()}
    return judging.make_run(folder, "bestofn", inputs, **(QUICK | config))


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / name).read_text("utf-8").splitlines()]


def line(prompt: str, n: int, text: str, score: float) -> dict[str, Any]:
    return {
        "id": f"{prompt}-{n}", "prompt_id": prompt, "text": text, "score": score, "tokens": 2 + n,
        "finished": n == 0,
    }  # fmt: skip


def test_the_best_answer_of_each_prompt_wins() -> None:
    lines = [
        line("p", 0, "one", 0.1), line("p", 1, "two", 0.7), line("p", 2, "three", 0.7),
        line("q", 0, "", 0.9), line("q", 1, "four", -2.0), line("q", 2, "five", -3.0),
        line("r", 0, "", 0.0), line("r", 1, "", 0.0), line("r", 2, "", 0.0),
    ]  # fmt: skip
    assert [one["id"] for one in bestofn.choose(lines)] == ["p-1", "q-1"]


def test_the_figures_are_those_worked_by_hand() -> None:
    lines = [
        line("p", 0, "one", 1.0), line("p", 1, "two", 3.0),
        line("q", 0, "one", -1.0), line("q", 1, "two", -2.0),
    ]  # fmt: skip
    found = bestofn.figures(lines, bestofn.choose(lines), 2)
    assert found["mean_score"] == 0.25  # (1 + 3 − 1 − 2) / 4
    assert found["best_score"] == 1.0  # (3 − 1) / 2
    assert found["gain"] == 0.75
    assert found["kl_bound"] == pytest.approx(0.693147 - 0.5, abs=1e-6)  # log 2 − 1/2
    assert found["length"] == 2.5
    assert found["eos_rate"] == 0.5


def test_the_winner_has_the_highest_score_and_scores_are_the_reward_models(
    things: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", things)
    report = run_here(folder)
    answers = lines_of(folder, "answers.jsonl")
    assert len(answers) == 32 * 4
    assert all(line.items() >= DRAWN.items() for line in answers)
    # The toy reward model gives the share of the word good among all tokens, times a constant:
    # two answers with the same number of tokens are in the order of their number of goods.
    for one in answers:
        for other in answers:
            if one["prompt_id"] == other["prompt_id"] and one["tokens"] == other["tokens"]:
                goods = one["text"].split().count("good") - other["text"].split().count("good")
                if one["finished"] == other["finished"] and goods > 0:
                    assert one["score"] > other["score"]
    best: dict[str, float] = {}
    for one in answers:
        if one["text"]:
            best[one["prompt_id"]] = max(best.get(one["prompt_id"], -math.inf), one["score"])
    winners = {one["prompt_id"]: one["score"] for one in answers if one["winner"]}
    assert winners == best
    pairs = read_pairs(folder / "out" / "pairs.jsonl")
    assert len(pairs) == len(winners) == report["winners"]
    assert report["mean_score"] == pytest.approx(sum(a["score"] for a in answers) / 128)
    assert report["best_score"] == pytest.approx(sum(best.values()) / len(best))
    assert report["kl_bound"] == pytest.approx(math.log(4) - 0.75)
    assert "Beirami" in report["kl_bound_source"]


def test_the_policy_comes_to_like_what_wins(things: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", things, answers=16, epochs=8)
    report = run_here(folder)
    assert report["heldout_prompts"] > 0
    assert report["score_after"] > report["score_before"]
    assert report["kl"] > 0
    assert verify_manifest(folder / "out") == []
    AutoModelForCausalLM.from_pretrained(str(folder / "out"))
    assert AutoTokenizer.from_pretrained(str(folder / "out")).chat_template
    assert "at most 1.835 nats" in (folder / "out" / "README.md").read_text(
        "utf-8"
    )  # log 16 − ¹⁵⁄₁₆


def test_the_loss_is_that_of_the_winners_tokens_alone(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[tuple[list[int], list[int]]] = []
    make_fit = bestofn.make_fit

    def remember(context: Any, place: Any, pad: int, rows: Any) -> Any:
        learned.extend(rows)
        return make_fit(context, place, pad, rows)

    monkeypatch.setattr(bestofn, "make_fit", remember)
    folder = make_run(tmp_path / "run", things, batch_size=64, heldout_fraction=0.0)
    run_here(folder)
    model = AutoModelForCausalLM.from_pretrained(str(things / "policy"))
    tokenizer = tiny_tokenizer()
    winners = [one for one in lines_of(folder, "answers.jsonl") if one["winner"]]
    total, count = 0.0, 0
    for winner, (prompt, answer) in zip(winners, learned, strict=True):
        assert prompt == chat_ids(tokenizer, winner["prompt"])
        assert tokenizer.decode(answer, skip_special_tokens=True).strip() == winner["text"]
        with torch.no_grad():
            scores = model(torch.tensor([[*prompt, *answer]])).logits.log_softmax(-1)[0]
        said = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        total -= sum(float(scores[at, answer[i]]) for i, at in enumerate(said))
        count += len(answer)
    losses = [event["loss"] for event in read_events(folder) if "loss" in event]
    assert losses == [pytest.approx(total / count, abs=1e-4)]


def test_micro_batches_of_any_size_give_the_same_steps(things: Path, tmp_path: Path) -> None:
    losses, norms = {}, {}
    for micro in (1, 4, 8):
        folder = make_run(
            tmp_path / str(micro), things, batch_size=8, micro_batch_size=micro, lr=1e-3
        )
        report = run_here(folder)
        assert report["train_prompts"] % 4, "the last step must hold a part of a micro batch"
        steps = [event for event in read_events(folder) if "loss" in event]
        losses[micro] = [event["loss"] for event in steps]
        norms[micro] = [event["grad_norm"] for event in steps]
    assert len(losses[1]) > 2
    for micro in (1, 4):
        assert losses[micro] == pytest.approx(losses[8], abs=1e-5)
        # Adam's steps are as long whatever divides the gradient: its length before them tells.
        assert norms[micro] == pytest.approx(norms[8], rel=1e-5)


def test_only_what_the_adapter_sits_on_moves(things: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", things)
    run_here(folder)
    old = load_file(things / "policy" / "model.safetensors")
    new = load_file(folder / "out" / "model.safetensors")
    assert old.keys() == new.keys()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {name for name in old if "proj" in name}


@pytest.mark.parametrize(("kind", "place"), [("checkpoint", 8), ("metric", 35)])
def test_stopped_in_either_phase_and_resumed_is_bit_for_bit_the_undisturbed_run(
    kind: str, place: int, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 prompts, 8 at a time: a checkpoint of step 8 is of the first phase, step 35 learns."""
    straight = make_run(tmp_path / "straight", things, write_batch=8)
    run_here(straight)
    broken = make_run(tmp_path / "broken", things, write_batch=8)
    stop = threading.Event()
    emit = RunContext.emit

    def stop_there(self: RunContext, said: str, step: int | None = None, **data: Any) -> None:
        emit(self, said, step, **data)
        if (said, step) == (kind, place):
            stop.set()

    monkeypatch.setattr(RunContext, "emit", stop_there)
    with pytest.raises(Stopped, match="Stopped after"):
        run_here(broken, stop)
    monkeypatch.undo()
    assert not (broken / "out").exists()
    run_here(broken)
    names = [one for one in files_of(straight / "out") if one.suffix in (".safetensors", ".jsonl")]
    assert len(names) == 4
    for name in names:
        assert sha256_file(straight / "out" / name) == sha256_file(broken / "out" / name), name


def test_what_does_not_fit_is_refused(things: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="give a multiple of"):
        run_here(make_run(tmp_path / "micro", things, micro_batch_size=3))
    with pytest.raises(RunError, match=r"lower config.max_new_tokens"):
        run_here(make_run(tmp_path / "long", things, max_new_tokens=128))
