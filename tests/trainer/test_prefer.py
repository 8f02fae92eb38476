"""Preferences without a critic: the right loss, the right advantage, and a policy that follows."""

from __future__ import annotations

import itertools
import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import WORDS, make_tiny, make_tiny_reward, tiny_tokenizer, write_prompts
from tests.trainer import judging
from tests.trainer.judging import run_here, write_lines
from trainer.config import SpecError
from trainer.data import Ranking
from trainer.events import RunError, Stopped, read_events
from trainer.manifests import files_of, sha256_file, verify_manifest
from trainer.modeling import chat_ids
from trainer.stages import prefer
from trainer.types import RunContext

#: TRL still asks transformers by a name that is going away
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

QUICK: dict[str, Any] = {
    "lr": 1e-2, "batch_size": 8, "threads": 1, "lora_r": 4, "checkpoint_every": 4,
    "max_new_tokens": 6,
}  # fmt: skip
#: enough answers that some of them hold the word that the reward model likes
MANY: dict[str, Any] = {"batch_size": 32, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, rankings that like the word good, a reward model that does, and prompts."""
    folder = tmp_path_factory.mktemp("prefer")
    make_tiny(folder)
    make_tiny_reward(folder)
    write_prompts(folder / "prompts.jsonl")
    write_lines(folder / "rankings.jsonl", [ranking(word) for word in WORDS[6:30]])
    return folder


def ranking(word: str, *, weight: float = 1.0) -> dict[str, Any]:
    """Two ties between four answers: good is liked, bad is not, two others stand between."""
    texts = {"a": f"{word} is bad", "b": f"{word} is good", "c": "we see", "d": "they see"}
    return {
        "prompt": [{"role": "user", "content": f"I like {word}"}],
        "answers": [{"id": name, "text": text} for name, text in texts.items()],
        "ranks": {"b": 1, "c": 2, "d": 2, "a": 3},
        "weight": weight,
    }


def make_run(folder: Path, things: Path, **config: Any) -> Path:
    inputs = {"policy": str(things / "policy")}
    if config.get("method") == "rloo":
        inputs |= {"reward": str(things / "reward"), "prompts": str(things / "prompts.jsonl")}
        config = MANY | config
    else:
        inputs["rankings"] = str(things / "rankings.jsonl")
    return judging.make_run(folder, "prefer", inputs, **(QUICK | config))


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["kind"] == kind]


def moved(things: Path, folder: Path) -> set[str]:
    """Which weights differ from the policy's."""
    old = load_file(things / "policy" / "model.safetensors")
    new = load_file(folder / "out" / "model.safetensors")
    assert old.keys() == new.keys()
    return {name for name in old if not torch.equal(old[name], new[name])}


def one_ranking(ranks: tuple[int, ...], weight: float = 1.0) -> Ranking:
    texts = ("tea", "cat", "dog", "sun")[: len(ranks)]
    message = {"role": "user", "content": "what"}
    gaps = (0.0,) * (max(ranks) - 1)
    return Ranking((message,), texts, texts, ranks, gaps, weight=weight)


def named(choices: list[prefer.Choice]) -> list[tuple[str, str]]:
    tokenizer = tiny_tokenizer()
    return [
        (
            tokenizer.decode(one.better, skip_special_tokens=True),
            tokenizer.decode(one.worse, skip_special_tokens=True),
        )
        for one in choices
    ]


# --- dpo --------------------------------------------------------------------------------------


def test_a_ranking_gives_all_its_untied_pairs() -> None:
    found = prefer.choices_of(tiny_tokenizer(), [one_ranking((2, 1, 2, 3))], 64, False)
    assert named(found) == [("cat", "tea"), ("tea", "sun"), ("cat", "dog"), ("cat", "sun"),
                            ("dog", "sun")]  # fmt: skip


def test_a_ranking_gives_only_its_best_against_its_worst() -> None:
    found = prefer.choices_of(tiny_tokenizer(), [one_ranking((2, 1, 2, 3))], 64, True)
    assert named(found) == [("cat", "sun")]


def test_weights_have_mean_one_over_the_pairs() -> None:
    rankings = [one_ranking((1, 2), 3.0), one_ranking((1, 2), 1.0)]
    found = prefer.choices_of(tiny_tokenizer(), rankings, 64, False)
    assert [one.weight for one in found] == [1.5, 0.5]


def test_what_is_too_long_loses_the_start_of_its_prompt_for_both_answers() -> None:
    tokenizer = tiny_tokenizer()
    (whole,) = prefer.choices_of(tokenizer, [one_ranking((1, 2))], 64, False)
    (cut,) = prefer.choices_of(tokenizer, [one_ranking((1, 2))], 4, False)
    assert len(whole.prompt) == 4
    assert cut.prompt == whole.prompt[-2:]
    assert (cut.better, cut.worse) == (whole.better, whole.worse)


def test_before_the_first_step_the_implicit_rewards_are_nothing(
    things: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", things)
    run_here(folder)
    first = events(folder, "metric")[0]
    assert first["margin"] == first["reward_better"] == first["reward_worse"] == 0.0
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_loss_is_that_of_independent_forward_passes(things: Path, tmp_path: Path) -> None:
    """After a step with all pairs: −log σ(β (log ratio of better − log ratio of worse))."""
    straight = make_run(
        tmp_path / "two", things, batch_size=200, epochs=2, warmup=0.0, lr=1e-2, beta=0.3,
        heldout_fraction=0.0,
    )  # fmt: skip
    run_here(straight)
    shorter = make_run(
        tmp_path / "one", things, batch_size=200, epochs=1, warmup=0.0, lr=1e-2, beta=0.3,
        heldout_fraction=0.0,
    )  # fmt: skip
    run_here(shorter)
    policy = AutoModelForCausalLM.from_pretrained(str(shorter / "out"))
    base = AutoModelForCausalLM.from_pretrained(str(things / "policy"))
    losses = []
    for line in map(json.loads, (things / "rankings.jsonl").read_text().splitlines()):
        ratios = {
            one["id"]: said(policy, line, one["text"]) - said(base, line, one["text"])
            for one in line["answers"]
        }
        for better, worse in ("ba", "bc", "bd", "ca", "da"):
            margin = 0.3 * (ratios[better] - ratios[worse])
            losses.append(math.log1p(math.exp(-margin)))
    wanted = sum(losses) / len(losses)
    assert abs(wanted - math.log(2)) > 0.01
    assert events(straight, "metric")[1]["loss"] == pytest.approx(wanted, abs=1e-5)


def said(model: Any, line: dict[str, Any], text: str) -> float:
    """Log-probability of an answer with its end, from plain transformers alone."""
    tokenizer = tiny_tokenizer()
    prompt = chat_ids(tokenizer, line["prompt"])
    answer = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        scores = model(torch.tensor([[*prompt, *answer]])).logits.double().log_softmax(-1)[0]
    return sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


def test_dpo_learns_what_people_like_and_reports_it(things: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", things, epochs=3)
    report = run_here(folder)
    assert report["pair_accuracy"] == 1.0
    assert report["pairs"] > 0
    assert report["margin"] > 0
    assert verify_manifest(folder / "out") == []
    assert "held-out pairs" in (folder / "out" / "README.md").read_text("utf-8")
    AutoModelForCausalLM.from_pretrained(str(folder / "out"))
    assert AutoTokenizer.from_pretrained(str(folder / "out")).chat_template


@pytest.mark.parametrize("method", sorted(prefer.METHODS))
def test_only_what_the_adapter_sits_on_moves(method: str, things: Path, tmp_path: Path) -> None:
    adapted = make_run(tmp_path / "lora", things, method=method)
    run_here(adapted)
    everything = set(load_file(things / "policy" / "model.safetensors"))
    assert moved(things, adapted) == {name for name in everything if "proj" in name}
    whole = make_run(tmp_path / "full", things, method=method, lora=False)
    run_here(whole)
    assert moved(things, whole) == everything
    assert not (whole / "out" / "adapter").exists()


def test_a_ranking_of_weight_two_counts_as_the_ranking_twice(things: Path, tmp_path: Path) -> None:
    results = []
    for name, lines in {
        "weighted": [ranking("tea", weight=2.0), ranking("cat"), ranking("dog", weight=0.0)],
        "twice": [ranking("tea"), ranking("tea"), ranking("cat")],
        "once": [ranking("tea"), ranking("cat")],
    }.items():
        inputs = tmp_path / f"of {name}"
        inputs.mkdir()
        (inputs / "policy").symlink_to(things / "policy")
        write_lines(inputs / "rankings.jsonl", lines)
        folder = make_run(tmp_path / name, inputs, batch_size=64, heldout_fraction=0.0)
        run_here(folder)
        results.append(events(folder, "metric")[0]["grad_norm"])
    weighted, twice, once = results
    assert weighted == pytest.approx(twice, rel=1e-5)
    assert abs(once - twice) > 1e-3 * twice


def test_micro_batches_of_any_size_give_the_same_steps(things: Path, tmp_path: Path) -> None:
    losses, norms = {}, {}
    for micro in (1, 4, 8):
        folder = make_run(tmp_path / str(micro), things, micro_batch_size=micro, lr=1e-3)
        report = run_here(folder)
        assert report["train_pairs"] % 4, "the last step must hold a part of a micro batch"
        losses[micro] = [event["loss"] for event in events(folder, "metric")]
        norms[micro] = [event["grad_norm"] for event in events(folder, "metric")]
    for micro in (1, 4):
        assert losses[micro] == pytest.approx(losses[8], abs=1e-5)
        # Adam's steps are as long whatever divides the gradient: its length before them tells.
        assert norms[micro] == pytest.approx(norms[8], rel=1e-5)


# --- rloo -------------------------------------------------------------------------------------


def test_the_advantage_is_the_score_minus_the_mean_of_the_others(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[float], list[float]]] = []
    whole = prefer.RLOO._generate_and_score_completions

    def remember(self: Any, inputs: Any) -> Any:
        output = whole(self, inputs)
        rewards = list(self._logs["rewards"]["reward_model"])
        seen.append((rewards, list(self._logs["advantages"])))
        return output

    monkeypatch.setattr(prefer.RLOO, "_generate_and_score_completions", remember)
    run_here(make_run(tmp_path / "run", things, method="rloo", steps=3, kl_coef=0.0))
    assert len(seen) == 3
    for scores, advantages in seen:
        assert len(scores) == 32
        assert max(scores) > min(scores)
        for group in (range(first, first + 4) for first in range(0, 32, 4)):
            for n in group:
                others = [scores[other] for other in group if other != n]
                assert advantages[n] == pytest.approx(scores[n] - sum(others) / 3, abs=1e-5)


def test_the_kl_is_taken_from_the_score_before_the_others_are(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Advantages of the second step, with the KL of each answer from independent passes."""
    seen: list[Any] = []
    whole = prefer.RLOO._generate_and_score_completions

    def remember(self: Any, inputs: Any) -> Any:
        output = whole(self, inputs)
        shifts = []
        for row, one in zip(self.written, inputs, strict=True):
            ids = chat_ids(tiny_tokenizer(), one["prompt"])
            shifts.append(difference(self.opened.model, base, ids, row))
        scores = list(self._logs["rewards"]["reward_model"])
        seen.append((scores, shifts, list(self._logs["advantages"])))
        return output

    def write_down(self: Any, *inputs: Any) -> Any:
        self.written = single(self, *inputs)
        return self.written

    base = AutoModelForCausalLM.from_pretrained(str(things / "policy"))
    single = prefer.RLOO._generate_single_turn
    monkeypatch.setattr(prefer.RLOO, "_generate_and_score_completions", remember)
    monkeypatch.setattr(prefer.RLOO, "_generate_single_turn", write_down)
    folder = make_run(
        tmp_path / "run", things, method="rloo", steps=2, warmup=0.0, kl_coef=0.5, lr=0.1
    )
    run_here(folder)
    kls = [event["kl"] for event in events(folder, "metric")]
    assert kls[0] == 0.0
    scores, shifts, advantages = seen[1]
    assert kls[1] == pytest.approx(sum(shifts) / 32, abs=1e-3)
    assert max(map(abs, shifts)) > 0.1
    shaped = [score - 0.5 * shift for score, shift in zip(scores, shifts, strict=True)]
    for group in (range(first, first + 4) for first in range(0, 32, 4)):
        for n in group:
            others = [shaped[other] for other in group if other != n]
            assert advantages[n] == pytest.approx(shaped[n] - sum(others) / 3, abs=1e-3)


def difference(model: Any, base: Any, prompt: list[int], answer: list[int]) -> float:
    """log π − log π_ref of an answer."""
    found = []
    for one in (model, base):
        with torch.no_grad():
            logits = one(input_ids=torch.tensor([[*prompt, *answer]])).logits
        scores = logits.double().log_softmax(-1)[0]
        found.append(sum(float(scores[len(prompt) - 1 + i, t]) for i, t in enumerate(answer)))
    return found[0] - found[1]


def test_rloo_learns_what_the_reward_model_likes_and_reports_it(
    things: Path, tmp_path: Path
) -> None:
    folder = make_run(
        tmp_path / "run", things, method="rloo", steps=20, batch_size=32, answers=8,
        heldout_fraction=0.25,
    )  # fmt: skip
    report = run_here(folder)
    assert report["score_after"] > report["score_before"]
    assert report["gain"] == pytest.approx(report["score_after"] - report["score_before"])
    assert report["kl"] > 0
    assert report["episodes"] == 640
    rewards = [event["reward"] for event in events(folder, "metric")]
    assert sum(rewards[-5:]) > sum(rewards[:5])
    (first, *others) = events(folder, "sample")
    assert [event["step"] for event in others] == [6, 11, 16]
    assert {"prompt_id", "prompt", "text", "score"} == set(first["samples"][0])
    AutoModelForCausalLM.from_pretrained(str(folder / "out"))
    assert "held-out prompts" in (folder / "out" / "README.md").read_text("utf-8")


def test_rloo_with_micro_batches_of_any_size_takes_the_same_steps(
    things: Path, tmp_path: Path
) -> None:
    norms = {}
    for micro in (8, 32):
        folder = make_run(
            tmp_path / str(micro), things, method="rloo", steps=4, micro_batch_size=micro, lr=1e-3
        )
        run_here(folder)
        norms[micro] = [event["grad_norm"] for event in events(folder, "metric")]
    assert min(norms[8]) > 0
    assert norms[8] == pytest.approx(norms[32], rel=1e-5)


# --- both -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(prefer.METHODS))
def test_stopped_and_resumed_is_bit_for_bit_the_undisturbed_run(
    method: str, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"method": method, "steps": 6}
    straight = make_run(tmp_path / "straight", things, **settings)
    run_here(straight)
    broken = make_run(tmp_path / "broken", things, **settings)
    stop = threading.Event()
    emit = RunContext.emit

    def stop_at_step_three(
        self: RunContext, kind: str, step: int | None = None, **data: Any
    ) -> None:
        emit(self, kind, step, **data)
        if kind == "metric" and step == 3:
            stop.set()

    monkeypatch.setattr(RunContext, "emit", stop_at_step_three)
    with pytest.raises(Stopped, match=r"Stopped after step \d of"):
        run_here(broken, stop)
    monkeypatch.undo()
    assert not (broken / "out").exists()
    run_here(broken)
    assert min(event["grad_norm"] for event in events(straight, "metric")) > 0
    names = [name for name in files_of(straight / "out") if name.suffix == ".safetensors"]
    assert len(names) == 2
    for name in names:
        assert sha256_file(straight / "out" / name) == sha256_file(broken / "out" / name), name


def test_a_loss_that_is_no_number_ends_the_run_unsaved(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run", things, checkpoint_every=1)
    steps = itertools.count(1)
    whole = prefer.DPO.compute_loss

    def broken(self: Any, *inputs: Any, **named: Any) -> Any:
        loss = whole(self, *inputs, **named)
        return loss * math.nan if next(steps) == 2 else loss

    monkeypatch.setattr(prefer.DPO, "compute_loss", broken)
    with pytest.raises(RunError, match="is no number any more at step 2: take a lower config"):
        run_here(folder)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_1"]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"micro_batch_size": 3}, "give a multiple of"),
        ({"method": "rloo", "answers": 3}, r"give a multiple of config.answers \(3\)"),
        ({"method": "rloo", "max_new_tokens": 128}, r"lower config.max_new_tokens"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(
    config: dict[str, Any], sentence: str, things: Path, tmp_path: Path
) -> None:
    with pytest.raises((RunError, SpecError), match=sentence):
        run_here(make_run(tmp_path / "run", things, **config))


def test_rankings_that_are_all_ties_are_refused(things: Path, tmp_path: Path) -> None:
    (tmp_path / "policy").symlink_to(things / "policy")
    tie = ranking("tea") | {"ranks": dict.fromkeys("abcd", 1)}
    write_lines(tmp_path / "rankings.jsonl", [tie, ranking("cat", weight=0.0)])
    with pytest.raises(RunError, match="that has a weight is one single tie"):
        run_here(make_run(tmp_path / "run", tmp_path, heldout_fraction=0.0))


def test_the_inputs_of_the_other_method_are_refused(things: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", things)
    spec = json.loads((folder / "spec.json").read_text())
    spec["config"]["method"] = "rloo"
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(SpecError, match="the method rloo misses the input reward, prompts"):
        run_here(folder)
    spec["inputs"] |= {"reward": str(things / "reward"), "prompts": str(things / "prompts.jsonl")}
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(SpecError, match="the method rloo does not read the input rankings"):
        run_here(folder)
