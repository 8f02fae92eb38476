"""An ensemble of heads on one trunk: how it learns, what it leaves, what its disagreement says."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import make_tiny, make_tiny_encoder, make_tiny_reward
from tests.trainer.judging import (
    StopAt,
    events_of,
    gradients,
    largest_of,
    make_run,
    ranking_lines,
    read_lines,
    run_here,
    same_gradients,
    write_lines,
)
from trainer.config import RewardConfig
from trainer.data import Ranking, read_rankings, split_by_prompt
from trainer.events import RunError, Stopped
from trainer.manifests import files_of, sha256_file, verify_manifest
from trainer.reports import ensemble_report
from trainer.scoring import Normalisation
from trainer.stages import reward
from trainer.stages.reward import bootstrap_shares, ensemble_loss

QUICK: dict[str, Any] = {
    "lr": 1e-2, "lora_r": 4, "epochs": 2, "rankings_per_step": 8, "token_budget": 256,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def learned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three heads on 120 rankings."""
    return train(tmp_path_factory.mktemp("learned"), base, ranking_lines(120), ensemble=3, epochs=4)


def train(folder: Path, base: Path, lines: list[dict[str, Any]], **config: Any) -> Path:
    path = write_lines(folder / "data" / "rankings.jsonl", lines)
    inputs = {"base": base, "rankings": path}
    run_here(make_run(folder, "reward", inputs, **(QUICK | config)))
    return folder


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return found


def order(*ranks: int) -> Ranking:
    """A ranking of answers to one and the same prompt."""
    ids = tuple(str(n) for n in range(len(ranks)))
    messages = ({"role": "user", "content": "how was the tea"},)
    return Ranking(messages, ids, ids, ranks, (0.0,) * (max(ranks) - 1))


# how it learns


def test_the_loss_is_the_mean_over_the_heads_of_what_each_weighs_for_itself() -> None:
    """−log σ(1) = log(1 + 1/e) = 0.313262 and −log σ(0) = log 2 = 0.693147;
    (2 · 0.313262 + ½ · 0.693147) / 2 = 0.486549."""
    scores = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = ensemble_loss(RewardConfig(), scores, [order(1, 2)], torch.tensor([[2.0, 0.5]]))
    assert loss.item() == pytest.approx(0.486549, abs=1e-5)


def test_a_head_that_weighs_a_ranking_with_0_learns_nothing_from_it() -> None:
    scores = torch.zeros(2, 2, requires_grad=True)
    ensemble_loss(RewardConfig(), scores, [order(1, 2)], torch.tensor([[1.0, 0.0]])).backward()
    # d/ds −log σ(s₁ − s₂) = −½ at s₁ = s₂, halved by the mean over two heads
    assert scores.grad is not None
    assert scores.grad.tolist() == [[-0.25, 0.0], [0.25, 0.0]]


def test_adapters_learn_each_from_its_own_loss_as_a_part_of_the_whole_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One ranking of weight 2 of the four in the step, which two members count once and thrice.

    −log σ(0) = log 2 and its slopes are ∓½: times 2·1/4 for the first and 2·3/4 for the second.
    """
    first = torch.tensor([[0.0], [0.0]], requires_grad=True)
    second = torch.tensor([[5.0], [5.0]], requires_grad=True)
    said = iter([second, first])  # the first is worn last, and stays in the model
    monkeypatch.setattr(reward, "training_scores", lambda *_: next(said))
    fit: Any = SimpleNamespace(model=torch.nn.Module(), config=RewardConfig(), learners=[{}, {}])
    rankings = [dataclasses.replace(order(1, 2), weight=2.0)]
    batch: Any = None
    loss, scores = reward.learn(fit, batch, rankings, torch.tensor([[1.0, 3.0]]), 4)
    assert loss == pytest.approx(math.log(2) * (0.5 + 1.5) / 2)
    assert scores.tolist() == [[0.0, 5.0], [0.0, 5.0]]
    assert first.grad is not None
    assert second.grad is not None
    assert first.grad.tolist() == [[-0.25], [0.25]]
    assert second.grad.tolist() == [[-0.75], [0.75]]


def test_every_head_counts_all_rankings_once_on_average() -> None:
    shares = bootstrap_shares(500, 4, seed=7)
    assert shares.mean(0).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-5)
    assert (shares > 0).all()
    # exponential numbers of mean 1 have standard deviation 1; 500 of them tell it to some 10 %
    assert shares.std(0).tolist() == pytest.approx([1, 1, 1, 1], abs=0.3)
    together = torch.corrcoef(shares.T) - torch.eye(4)
    assert together.abs().max() < 0.2  # 4.5 standard errors of 1/√500


def test_the_draw_follows_from_the_seed_alone() -> None:
    assert torch.equal(bootstrap_shares(9, 3, seed=1), bootstrap_shares(9, 3, seed=1))
    assert not torch.equal(bootstrap_shares(9, 3, seed=1), bootstrap_shares(9, 3, seed=2))
    assert torch.equal(bootstrap_shares(9, 1, seed=1), torch.ones(9, 1))


def test_it_learns_a_planted_preference(learned: Path) -> None:
    report = report_of(learned)
    assert report["pair_accuracy"] > 0.7
    assert min(report["ensemble"]["pair_accuracy"]) > 0.6


def test_it_refuses_a_model_that_has_no_single_linear_head(tmp_path: Path) -> None:
    path = make_tiny_encoder(tmp_path / "encoder")
    with pytest.raises(RunError, match=r"config\.ensemble_kind to lora"):
        train(tmp_path / "run", path, ranking_lines(8), ensemble=2)


# weights of rankings


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "out" / "model.safetensors")


def test_a_ranking_of_weight_2_is_the_ranking_twice(base: Path, tmp_path: Path) -> None:
    """All rankings in each step, so that who shares a step with whom plays no part."""
    config = {"rankings_per_step": 16, "heldout_fraction": 0.0, "epochs": 3}
    # Clipped to one length, gradients of another scale would be the same.
    config |= {"grad_clip": 0.0, "checkpoint_every": 1, "keep_checkpoints": 9}
    lines = ranking_lines(11)
    heavy = train(tmp_path / "heavy", base, [*lines[:10], lines[10] | {"weight": 2}], **config)
    twice = train(tmp_path / "twice", base, [*lines, lines[10]], **config)
    plain = train(tmp_path / "plain", base, lines, **config)
    one, other, less = map(gradients, (heavy, twice, plain))
    same_gradients(one, other)
    apart = {name: one[name] - less[name] for name in one}
    assert largest_of(apart) > 1e-2 * largest_of(one)
    # Adam divides by the size of a gradient, so rounding in a small one moves its weight further.
    found = weights(heavy)
    for name, tensor in weights(twice).items():
        assert torch.allclose(tensor, found[name], atol=2e-5), name  # they are 4e-6 apart


def test_a_ranking_of_weight_0_is_as_if_it_were_not_there(base: Path, tmp_path: Path) -> None:
    lines = ranking_lines(24)
    noisy = [line | {"weight": 0.0} if n % 3 == 0 else line for n, line in enumerate(lines)]
    quiet = [line for n, line in enumerate(lines) if n % 3]
    one = train(tmp_path / "noisy", base, noisy, epochs=1)
    other = train(tmp_path / "quiet", base, quiet, epochs=1)
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name
    assert report_of(one)["train_rankings"] == report_of(other)["train_rankings"]
    assert report_of(one)["rankings"] == report_of(other)["rankings"]


# what it leaves


@torch.no_grad()
def plain_scores(folder: Path, rankings: list[Ranking]) -> tuple[list[float], torch.Tensor]:
    """Score and members of each answer, by transformers alone and the weights in the folder."""
    out = folder / "out"
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    model = AutoModelForSequenceClassification.from_pretrained(str(out))
    heads = load_file(out / "ensemble.safetensors")["weight"]
    scores, members = [], []
    for ranking in rankings:
        for text in ranking.texts:
            turns = [*ranking.messages, {"role": "assistant", "content": text}]
            ids = torch.tensor([tokenizer.apply_chat_template(turns, return_dict=False)])
            scores.append(model(input_ids=ids).logits[0, 0].item())
            members.append(heads @ model.model(input_ids=ids).last_hidden_state[0, -1])
    return scores, torch.stack(members)


def test_transformers_alone_reads_the_mean_of_the_members(learned: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(str(learned / "out"))
    assert model.config.num_labels == 1
    _, heldout = split_by_prompt(read_rankings(learned / "data" / "rankings.jsonl"), 0.2)
    scores, members = plain_scores(learned, heldout[:4])
    assert members.shape == (16, 3)
    assert members.mean(1).tolist() == pytest.approx(scores, abs=1e-4)
    assert members.std(1).min() > 0.01  # they are not one head three times
    scale = json.loads((learned / "out" / "normalisation.json").read_text())
    lines = {x["id"]: x for x in read_lines(learned / "out" / "heldout_scores.jsonl")}
    for answer, score, own in zip(
        [one for ranking in heldout[:4] for one in ranking.answer_ids], scores, members, strict=True
    ):
        normal = (torch.tensor([score, *own.tolist()]) - scale["mean"]) / scale["std"]
        found = [lines[answer]["score"], *lines[answer]["members"]]
        assert found == pytest.approx(normal.tolist(), abs=1e-3)


def test_in_bfloat16_the_mean_of_the_members_is_still_the_head(base: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", base, ranking_lines(16), ensemble=4, dtype="bfloat16", epochs=1)
    head = weights(run)["score.weight"]
    members = load_file(run / "out" / "ensemble.safetensors")["weight"]
    assert (head.dtype, members.dtype) == (torch.bfloat16, torch.float32)
    assert torch.allclose(members.mean(0), head[0].float(), rtol=0, atol=1e-6)


def test_the_manifest_covers_the_heads(learned: Path) -> None:
    assert "ensemble.safetensors" in {path.name for path in (learned / "out").iterdir()}
    assert not verify_manifest(learned / "out")
    assert "3 heads" in (learned / "out" / "README.md").read_text()


def test_one_head_leaves_nothing_of_the_kind(base: Path, tmp_path: Path) -> None:
    run = train(tmp_path / "run", base, ranking_lines(12), epochs=1)
    assert not (run / "out" / "ensemble.safetensors").exists()
    assert "ensemble" not in report_of(run)
    assert set(read_lines(run / "out" / "heldout_scores.jsonl")[0]) == {"id", "score"}


def test_the_report_tells_spread_and_accuracy_of_the_members() -> None:
    """Two members; raw scores (mean, one, other) of the three answers of a ranking 1 < 2 < 3.

    Differences of the pairs (1,2), (1,3), (2,3): mean 1, 2, 1; one 2, 5, 3; other 0, −1, −1.
    Their deviations over two members are half the distance: 1, 3, 2, mean 2, by the scale of 2: 1.
    Right: the mean 3 of 3, one 3 of 3, the other ½ (equal scores) of 3. Probabilities: .88 and .50,
    .99 and .27, .95 and .27, so the members disagree least about the first and most about the
    second pair; one pair lies above the middle one.
    """
    outputs = [[[2.0, 5.0, -1.0], [1.0, 3.0, -1.0], [0.0, 0.0, 0.0]]]
    report = ensemble_report([order(1, 2, 3)], outputs, Normalisation(7.0, 2.0), 2)
    assert report["members"] == 2
    assert report["spread"] == pytest.approx(1.0)
    assert report["pair_accuracy"] == pytest.approx([1.0, 1 / 6])
    assert {name: part["pairs"] for name, part in report["by_disagreement"].items()} == {
        "less": 2,
        "more": 1,
    }


def test_scores_far_apart_are_no_disagreement_about_the_order() -> None:
    """Of the one pair the members say 9 and 5, both all but sure, and the mean is right; of the
    other 1 and −2, and the mean is wrong."""
    calm = [[7.0, 9.0, 5.0], [0.0, 0.0, 0.0]]
    torn = [[-0.5, 1.0, -2.0], [0.0, 0.0, 0.0]]
    report = ensemble_report([order(1, 2), order(1, 2)], [calm, torn], Normalisation(), 2)
    shares = {name: part["pair_accuracy"] for name, part in report["by_disagreement"].items()}
    assert shares == {"less": 1.0, "more": 0.0}


def test_without_held_out_pairs_it_says_nothing() -> None:
    report = ensemble_report([], [], Normalisation(), 2)
    assert report == {
        "members": 2, "spread": None, "pair_accuracy": [None, None], "by_disagreement": {}
    }  # fmt: skip


def test_an_ensemble_can_be_trained_further(learned: Path, tmp_path: Path) -> None:
    lines = ranking_lines(16, seed=1)
    gentle = {"epochs": 1, "lr": 1e-6}
    before = load_file(learned / "out" / "ensemble.safetensors")["weight"]
    same = train(tmp_path / "same", learned / "out", lines, ensemble=3, **gentle)
    after = load_file(same / "out" / "ensemble.safetensors")["weight"]
    assert torch.allclose(before, after, atol=1e-4)
    fewer = train(tmp_path / "fewer", learned / "out", lines, ensemble=2, **gentle)
    mean = before.mean(0).expand(2, -1)  # with another number each begins as the one head
    assert torch.allclose(
        mean, load_file(fewer / "out" / "ensemble.safetensors")["weight"], atol=1e-4
    )


# members that are adapters


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three adapters on 120 rankings."""
    folder = tmp_path_factory.mktemp("adapters")
    return train(folder, base, ranking_lines(120), ensemble=3, ensemble_kind="lora", epochs=3)


def test_adapters_learn_and_say_what_they_think(adapters: Path) -> None:
    own = report_of(adapters)["ensemble"]
    assert (own["members"], own["kind"]) == (3, "lora")
    assert min(own["pair_accuracy"]) > 0.6
    assert own["spread"] > 0.05
    assert own["pair_accuracy"][0] == report_of(adapters)["pair_accuracy"]  # the first is the model
    assert "members/1" in (adapters / "out" / "README.md").read_text()
    assert not verify_manifest(adapters / "out")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
@torch.no_grad()
def test_transformers_and_peft_alone_read_every_member(adapters: Path) -> None:
    from peft import PeftModel

    out = adapters / "out"
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    _, heldout = split_by_prompt(read_rankings(adapters / "data" / "rankings.jsonl"), 0.2)
    scale = json.loads((out / "normalisation.json").read_text())
    lines = {x["id"]: x for x in read_lines(out / "heldout_scores.jsonl")}
    for number in range(3):
        model = AutoModelForSequenceClassification.from_pretrained(str(out))
        if number:
            model = PeftModel.from_pretrained(model, str(out / "members" / str(number)))
        for ranking in heldout[:3]:
            for answer, text in zip(ranking.answer_ids, ranking.texts, strict=True):
                turns = [*ranking.messages, {"role": "assistant", "content": text}]
                ids = torch.tensor([tokenizer.apply_chat_template(turns, return_dict=False)])
                raw = model(input_ids=ids).logits[0, 0].item()
                wanted = (raw - scale["mean"]) / scale["std"]
                assert lines[answer]["members"][number] == pytest.approx(wanted, abs=1e-3)
                if not number:
                    assert lines[answer]["score"] == lines[answer]["members"][0]


def test_score_gives_what_the_run_itself_found(adapters: Path, tmp_path: Path) -> None:
    _, heldout = split_by_prompt(read_rankings(adapters / "data" / "rankings.jsonl"), 0.2)
    lines = [
        {"id": answer, "prompt": list(ranking.messages), "text": text}
        for ranking in heldout
        for answer, text in zip(ranking.answer_ids, ranking.texts, strict=True)
    ]
    answers = write_lines(tmp_path / "answers.jsonl", lines)
    run = make_run(tmp_path / "run", "score", {"reward": adapters / "out", "answers": answers})
    assert run_here(run)["members"] == 3
    wanted = {x["id"]: x["members"] for x in read_lines(adapters / "out" / "heldout_scores.jsonl")}
    for line in read_lines(run / "out" / "scores.jsonl"):
        assert line["members"] == pytest.approx(wanted[line["id"]], abs=1e-4)


def test_the_first_adapter_learns_as_if_it_were_alone(base: Path, tmp_path: Path) -> None:
    """With every ranking counting once for each member, the company of others changes nothing."""

    def ones(rankings: int, members: int, seed: int) -> torch.Tensor:
        return torch.ones(rankings, members)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reward, "bootstrap_shares", ones)
        lines = ranking_lines(16)
        several = train(tmp_path / "several", base, lines, ensemble=2, ensemble_kind="lora")
    alone = train(tmp_path / "alone", base, lines)
    for name, tensor in weights(alone).items():
        assert torch.equal(tensor, weights(several)[name]), name


# stopping and going on


def hashes(folder: Path) -> dict[str, str]:
    out = folder / "out"
    return {str(path): sha256_file(out / path) for path in files_of(out)}


@pytest.mark.parametrize("kind", ["heads", "lora"])
def test_it_resumes_bit_for_bit(base: Path, tmp_path: Path, kind: str) -> None:
    config = QUICK | {"ensemble": 3, "checkpoint_every": 2, "heldout_fraction": 0.01}
    config |= {"ensemble_kind": kind, "head_start": False}
    straight, halted = (
        make_run(
            tmp_path / name,
            "reward",
            {"base": base, "rankings": write_lines(tmp_path / "r.jsonl", ranking_lines(24))},
            **config,
        )
        for name in ("straight", "halted")
    )
    run_here(straight)
    with pytest.raises(Stopped, match=r"after [1-5] of 6 steps"):
        run_here(halted, StopAt(3))
    saved = max((halted / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    kept = load_file(saved / "state.safetensors")
    if kind == "heads":
        assert kept["model.members.weight"].shape == (3, 32)
    else:
        assert {"model.score.weight", "model.member_2.score.weight"} <= set(kept)
    run_here(halted)
    assert [event["step"] for event in events_of(halted, "metric")] == [1, 2, 3, 4, 5, 6]
    assert hashes(halted) == hashes(straight)


# scoring


@pytest.fixture
def double(tmp_path: Path) -> Path:
    """A reward model that likes “good”: the mean of a head twice as keen and one that sleeps."""
    path = make_tiny_reward(tmp_path, likes="good")
    head = torch.zeros(2, 32)
    head[0, 0] = 2.0
    save_file({"weight": head}, path / "ensemble.safetensors")
    (path / "normalisation.json").write_text('{"mean": 1.0, "std": 0.5}')
    return path


def score(folder: Path, reward: Path) -> Path:
    prompt = [{"role": "user", "content": "how was the tea"}]
    texts = ["good good tea", "bad tea"]
    lines = [{"id": f"a{n}", "prompt": prompt, "text": text} for n, text in enumerate(texts)]
    answers = write_lines(folder / "answers.jsonl", lines)
    run_here(make_run(folder, "score", {"reward": reward, "answers": answers}))
    return folder


def test_scores_come_with_those_of_the_members(double: Path, tmp_path: Path) -> None:
    """raw = (mean, 2 · mean, 0) → normalised (raw − 1) / ½, so the members are 2 s + 2 and −2."""
    run = score(tmp_path / "run", double)
    lines = read_lines(run / "out" / "scores.jsonl")
    assert [line["id"] for line in lines] == ["a0", "a1"]
    assert lines[0]["score"] > lines[1]["score"]
    for line in lines:
        wanted = [2 * line["score"] + 2, -2.0]
        assert line["members"] == pytest.approx(wanted, abs=1e-4)
    report = report_of(run)
    assert report["members"] == 2
    # two members lie as far from their mean as the score lies from −2
    spread = sum(line["score"] + 2 for line in lines) / 2
    assert report["member_spread"] == pytest.approx(spread, abs=1e-4)
    assert report["normalisation"] == {"mean": 1.0, "std": 0.5, "temperature": 1.0}


def test_a_model_with_one_head_has_scores_alone(tmp_path: Path) -> None:
    run = score(tmp_path / "run", make_tiny_reward(tmp_path))
    assert all(set(line) == {"id", "score"} for line in read_lines(run / "out" / "scores.jsonl"))
    assert "members" not in report_of(run)


def test_an_evaluation_looks_at_the_members_too(learned: Path, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "heldout.jsonl", ranking_lines(12, seed=4))
    run_here(make_run(tmp_path, "evaluate", {"reward": learned / "out", "rankings": lines}))
    report = report_of(tmp_path)
    assert report["ensemble"]["members"] == 3
    assert math.isclose(
        sum(part["pairs"] for part in report["ensemble"]["by_disagreement"].values()),
        report["pairs"],
    )


def test_heads_that_do_not_fit_the_model_are_refused(double: Path, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 5)}, double / "ensemble.safetensors")
    with pytest.raises(RunError, match=r"ensemble\.safetensors does not fit"):
        score(tmp_path / "run", double)
    save_file({"heads": torch.zeros(2, 32)}, double / "ensemble.safetensors")
    with pytest.raises(RunError, match=r"ensemble\.safetensors does not fit"):
        score(tmp_path / "other", double)
