"""The reward stage as a whole: it learns, resumes bit for bit, and its result stands on its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    LlamaForCausalLM,
)

from tests.tiny import make_tiny, make_tiny_encoder, tiny_tokenizer
from tests.trainer.judging import (
    StopAt,
    events_of,
    make_run,
    ranking_lines,
    read_lines,
    run_here,
    write_lines,
)
from trainer.config import RewardConfig, SpecError
from trainer.data import DataError, pairs_of, read_rankings, split_by_prompt
from trainer.events import RunError, Stopped
from trainer.manifests import files_of, sha256_file, verify_manifest
from trainer.stages import reward

QUICK: dict[str, Any] = {
    "lr": 1e-2, "lora_r": 4, "epochs": 3, "rankings_per_step": 8, "token_budget": 256,
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def learned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on 120 rankings."""
    folder = tmp_path_factory.mktemp("learned")
    lines = write_lines(folder / "data" / "rankings.jsonl", ranking_lines(120))
    run_here(make_run(folder, "reward", {"base": base, "rankings": lines}, **QUICK))
    return folder


def small_run(folder: Path, base: Path, count: int = 24, **config: Any) -> Path:
    lines = write_lines(folder / "data" / "rankings.jsonl", ranking_lines(count))
    inputs = {"base": base, "rankings": lines}
    return make_run(folder, "reward", inputs, **({**QUICK, "epochs": 1} | config))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForSequenceClassification.from_pretrained(str(folder / "out"))
    return dict(model.state_dict())


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return found


# what it learns


def test_it_learns_a_planted_preference(learned: Path) -> None:
    report = report_of(learned)
    assert report["ci95"][0] > 0.5
    assert report["pair_accuracy"] > 0.75
    assert report["pair_accuracy"] > report["length_baseline"]
    assert report["kendall_tau_b"] > 0.4


def test_the_loss_falls_and_every_step_says_so(learned: Path) -> None:
    metrics = events_of(learned, "metric")
    report = report_of(learned)
    steps = 3 * math.ceil(report["train_rankings"] / 8)
    assert [event["step"] for event in metrics] == list(range(1, steps + 1))
    assert {event["total"] for event in metrics} == {steps}
    losses = [event["loss"] for event in metrics]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])
    rates = [event["lr"] for event in metrics]
    assert max(rates) == rates[1]  # a short rise, then down in a line
    assert 0 < rates[-1] < 0.1 * max(rates)


def test_the_report_is_about_prompts_that_it_never_saw(learned: Path) -> None:
    rankings = read_rankings(learned / "data" / "rankings.jsonl")
    training, heldout = split_by_prompt(rankings, 0.2)
    report = report_of(learned)
    assert (report["train_rankings"], report["rankings"]) == (len(training), len(heldout))
    scored = {line["id"] for line in read_lines(learned / "out" / "heldout_scores.jsonl")}
    assert scored == {answer for one in heldout for answer in one.answer_ids}


def test_the_report_counts_pairs_by_gap_and_by_annotator(learned: Path) -> None:
    report = report_of(learned)
    for part in ("by_gap", "by_annotator"):
        assert sum(entry["pairs"] for entry in report[part].values()) == report["pairs"]
    assert set(report["by_annotator"]) == {"ann", "ben"}
    assert sum(point["pairs"] for point in report["reliability"]) == report["pairs"]


def test_scores_of_training_answers_have_mean_0_and_deviation_1(learned: Path) -> None:
    rankings = read_rankings(learned / "data" / "rankings.jsonl")
    training, _ = split_by_prompt(rankings, 0.2)
    tokenizer, model = plain(learned)
    raw = [score_plainly(tokenizer, model, one.messages, one.texts) for one in training[:64]]
    values = torch.tensor([score for scores in raw for score in scores])
    scale = json.loads((learned / "out" / "normalisation.json").read_text())
    assert values.mean().item() == pytest.approx(scale["mean"], abs=1e-4)
    assert values.std(correction=0).item() == pytest.approx(scale["std"], abs=1e-4)


# what it leaves


def plain(folder: Path) -> tuple[Any, Any]:
    """The result as anyone would load it."""
    out = str(folder / "out")
    model = AutoModelForSequenceClassification.from_pretrained(out)
    return AutoTokenizer.from_pretrained(out), model


@torch.no_grad()
def score_plainly(tokenizer: Any, model: Any, messages: Any, texts: Any) -> list[float]:
    """Raw scores by transformers alone, one answer at a time."""
    scores = []
    for text in texts:
        turns = [*messages, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False)
        scores.append(model(input_ids=torch.tensor([ids])).logits[0, 0].item())
    return scores


def test_transformers_alone_gives_the_heldout_scores(learned: Path) -> None:
    """The template closes an answer with the end token, as the trainer does."""
    tokenizer, model = plain(learned)
    _, heldout = split_by_prompt(read_rankings(learned / "data" / "rankings.jsonl"), 0.2)
    scale = json.loads((learned / "out" / "normalisation.json").read_text())
    wanted = {
        answer: (score - scale["mean"]) / scale["std"]
        for one in heldout
        for answer, score in zip(
            one.answer_ids, score_plainly(tokenizer, model, one.messages, one.texts), strict=True
        )
    }
    found = {x["id"]: x["score"] for x in read_lines(learned / "out" / "heldout_scores.jsonl")}
    assert found == pytest.approx(wanted, abs=1e-4)


def test_out_holds_what_the_contract_says(learned: Path) -> None:
    out = learned / "out"
    assert not verify_manifest(out)
    names = {path.name for path in out.iterdir()}
    assert {"model.safetensors", "config.json", "README.md", "report.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert config["pad_token_id"] == 0


def test_every_adapted_weight_moved_and_no_other(learned: Path, base: Path) -> None:
    from transformers import AutoModelForCausalLM

    before = dict(AutoModelForCausalLM.from_pretrained(str(base)).state_dict())
    after = weights(learned)
    for name, tensor in after.items():
        if name == "score.weight":
            continue
        moved = not torch.equal(tensor, before[name])
        assert moved == name.endswith("proj.weight"), name


# stopping and going on


def hashes(folder: Path) -> dict[str, str]:
    out = folder / "out"
    return {str(path): sha256_file(out / path) for path in files_of(out)}


def test_three_steps_a_stop_and_three_more_equal_six(base: Path, tmp_path: Path) -> None:
    config = {"epochs": 2, "heldout_fraction": 0.01, "rankings_per_step": 8}
    straight = small_run(tmp_path / "straight", base, **config)
    run_here(straight)
    assert len(events_of(straight, "metric")) == 6

    halted = small_run(tmp_path / "halted", base, **config)
    with pytest.raises(Stopped, match="after 3 of 6 steps"):
        run_here(halted, StopAt(looks_in_steps(straight, 3)))
    assert not (halted / "out").exists()
    run_here(halted)
    assert [event["step"] for event in events_of(halted, "metric")] == [1, 2, 3, 4, 5, 6]
    metrics = [{k: v for k, v in e.items() if k != "t"} for e in events_of(halted, "metric")]
    assert metrics == [
        {k: v for k, v in e.items() if k != "t"} for e in events_of(straight, "metric")
    ]
    assert hashes(halted) == hashes(straight)


def looks_in_steps(run: Path, steps: int) -> int:
    """How often the stage looks whether to stop in its first steps: once a micro-batch."""
    stop = StopAt(10**9)
    begun = stop.left
    twin = run.parent / "twin"
    twin.mkdir()
    (twin / "spec.json").write_text((run / "spec.json").read_text())
    looks: list[int] = []
    before = reward.take_step

    def counting(*args: Any) -> float | None:
        result = before(*args)
        looks.append(begun - stop.left)
        return result

    reward.take_step = counting
    try:
        run_here(twin, stop)
    finally:
        reward.take_step = before
    return looks[steps - 1]


def test_a_stop_in_the_middle_of_a_step_drops_that_step(base: Path, tmp_path: Path) -> None:
    """Micro-batches of one ranking: the second look is inside the first step."""
    run = small_run(tmp_path / "run", base, token_budget=16, head_start=False)
    with pytest.raises(Stopped, match="after 0 of"):
        run_here(run, StopAt(2))
    other = small_run(tmp_path / "other", base, token_budget=16, head_start=False)
    run_here(run)
    run_here(other)
    assert hashes(run) == hashes(other)


def test_a_stop_during_the_test_resumes_behind_training(base: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", base)
    looks = looks_in_steps(run, 3)
    with pytest.raises(Stopped, match="before the test"):
        run_here(run, StopAt(looks))
    trained = len(events_of(run, "metric"))
    run_here(run)
    assert len(events_of(run, "metric")) == trained
    assert (run / "out" / "report.json").exists()


def test_a_checkpoint_of_another_spec_is_refused(base: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", base, checkpoint_every=1)
    run_here(run)
    small_run(run, base, lr=1e-3)
    with pytest.raises(RunError, match="another spec"):
        run_here(run)


# equalities


def test_micro_batches_and_padding_do_not_change_the_result(base: Path, tmp_path: Path) -> None:
    """All rankings of a step in one padded batch, or one at a time: the same weights, nearly."""
    whole = small_run(tmp_path / "whole", base, token_budget=4096)
    single = small_run(tmp_path / "single", base, token_budget=8)
    run_here(whole)
    run_here(single)
    one, other = weights(whole), weights(single)
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=2e-5), name  # they are 3e-6 apart
    losses = [[e["loss"] for e in events_of(run, "metric")] for run in (whole, single)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_no_ranking_takes_more_memory_than_the_token_budget(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four answers that do not fit behind one prompt are read two by two, and teach the same."""
    read: list[tuple[int, int]] = []
    own = reward.learned_scores

    def noted(fit: Any, batch: Any) -> torch.Tensor:
        read.append(tuple(batch.ids.shape))
        return own(fit, batch)

    whole = small_run(tmp_path / "whole", base, lora_layers=1)
    run_here(whole)
    monkeypatch.setattr(reward, "can_share", lambda *_: False)
    monkeypatch.setattr(reward, "learned_scores", noted)
    pieces = small_run(tmp_path / "pieces", base, lora_layers=1, token_budget=32)
    run_here(pieces)
    assert set(read) == {(2, 16)}
    losses = [[e["loss"] for e in events_of(run, "metric")] for run in (whole, pieces)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    one, other = weights(whole), weights(pieces)
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=2e-5), name


def test_sharing_a_prompt_does_not_change_the_result(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = small_run(tmp_path / "shared", base)
    run_here(shared)
    monkeypatch.setattr(reward, "can_share", lambda *_: False)
    apart = small_run(tmp_path / "apart", base)
    run_here(apart)
    losses = [[e["loss"] for e in events_of(run, "metric")] for run in (shared, apart)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_turning_every_ranking_around_turns_the_scores(base: Path, tmp_path: Path) -> None:
    lines = ranking_lines(120)
    for line in lines:
        worst = max(line["ranks"].values())
        line["ranks"] = {name: worst + 1 - rank for name, rank in line["ranks"].items()}
    turned = tmp_path / "turned"
    path = write_lines(turned / "rankings.jsonl", lines)
    run_here(make_run(turned, "reward", {"base": base, "rankings": path}, **QUICK))
    tokenizer, model = plain(turned)
    prompt = [{"role": "user", "content": "how see dog"}]
    good, bad = score_plainly(tokenizer, model, prompt, ["the tea good good", "the tea bad bad"])
    assert good < bad


def test_a_ranking_of_weight_0_teaches_nothing(base: Path, tmp_path: Path) -> None:
    """With one ranking a step, steps without weight and with a wrong order change nothing."""
    lines = ranking_lines(12)
    for line in lines:
        line["weight"] = 1.0
    noisy = [dict(line) for line in lines]
    for line in noisy[::2]:
        line["weight"] = 0.0
    shuffled = [dict(line) for line in noisy]
    for line in shuffled[::2]:
        worst = max(line["ranks"].values())
        line["ranks"] = {name: worst + 1 - rank for name, rank in line["ranks"].items()}
    results = []
    for name, some in (("noisy", noisy), ("shuffled", shuffled)):
        folder = tmp_path / name
        path = write_lines(folder / "rankings.jsonl", some)
        config = {**QUICK, "epochs": 1, "heldout_fraction": 0.0}
        run_here(make_run(folder, "reward", {"base": base, "rankings": path}, **config))
        results.append(weights(folder))
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name


# settings


@pytest.mark.parametrize(
    "config",
    [
        {"loss": "plackett_luce"},
        {"ties": "drop"},
        {"loss": "davidson"},
        {"loss": "davidson", "ensemble": 2, "margin": 0.5},
        {"lora": False, "lr": 1e-3},
        {"dtype": "bfloat16"},
        {"centre": 0.01, "margin": 0.5},
    ],
)
def test_other_settings_learn_too(base: Path, tmp_path: Path, config: dict[str, Any]) -> None:
    run = small_run(tmp_path / "run", base, count=80, **({"epochs": 3} | config))
    report = run_here(run)
    assert report["train_pair_accuracy"] > 0.6
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())


def test_davidson_tells_its_nu_and_goes_on_with_it(base: Path, tmp_path: Path) -> None:
    config = {"loss": "davidson", "epochs": 2, "heldout_fraction": 0.01}
    straight = small_run(tmp_path / "straight", base, **config)
    report = run_here(straight)
    pairs = pairs_of(read_rankings(straight / "data" / "rankings.jsonl"))
    share = float(pairs.tied.float().mean())
    assert 0.2 < share < 0.4
    (nu,) = report["nu"]
    assert 0.5 < nu / (2 * share / (1 - share)) < 2
    halted = small_run(tmp_path / "halted", base, **config)
    with pytest.raises(Stopped):
        run_here(halted, StopAt(looks_in_steps(straight, 3)))
    assert run_here(halted)["nu"] == report["nu"]
    assert hashes(halted) == hashes(straight)


# adapters on some layers, fewer layers


def test_adapters_on_the_top_leave_the_layers_below_alone(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = small_run(tmp_path / "run", base, count=80, lora_layers=1, epochs=3)
    assert run_here(run)["train_pair_accuracy"] > 0.6
    before = dict(AutoModelForCausalLM.from_pretrained(str(base)).state_dict())
    for name, tensor in weights(run).items():
        if name != "score.weight":
            moved = not torch.equal(tensor, before[name])
            assert moved == ("layers.1." in name and name.endswith("proj.weight")), name


def test_kept_lower_states_are_those_of_each_step(base: Path, tmp_path: Path) -> None:
    kept = small_run(tmp_path / "kept", base, lora_layers=1, epochs=2)
    anew = small_run(tmp_path / "anew", base, lora_layers=1, epochs=2, lower_mib=0)
    run_here(kept)
    run_here(anew)
    one, other = weights(kept), weights(anew)
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=2e-4), name


@pytest.mark.parametrize("more", [{"lora_layers": 1}, {"lora_layers": 1, "lower_mib": 0}])
def test_it_resumes_above_known_states(base: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    config = {"epochs": 2, "heldout_fraction": 0.01, "checkpoint_every": 1} | more
    straight = small_run(tmp_path / "straight", base, **config)
    run_here(straight)
    looks = looks_in_steps(straight, 6)
    halted = small_run(tmp_path / "halted", base, **config)
    for share in (0.5, 0.8):
        with pytest.raises(Stopped):
            run_here(halted, StopAt(int(share * looks)))
    run_here(halted)
    assert [event["step"] for event in events_of(halted, "metric")] == [1, 2, 3, 4, 5, 6]
    assert hashes(halted) == hashes(straight)


def test_the_first_layers_can_be_enough(base: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", base, count=80, layers=1, epochs=3)
    assert run_here(run)["train_pair_accuracy"] > 0.6
    tokenizer, model = plain(run)
    assert model.config.num_hidden_layers == len(model.model.layers) == 1
    _, heldout = split_by_prompt(read_rankings(run / "data" / "rankings.jsonl"), 0.2)
    scale = json.loads((run / "out" / "normalisation.json").read_text())
    found = {x["id"]: x["score"] for x in read_lines(run / "out" / "heldout_scores.jsonl")}
    for one in heldout[:3]:
        raw = score_plainly(tokenizer, model, one.messages, one.texts)
        for answer, score in zip(one.answer_ids, raw, strict=True):
            assert found[answer] == pytest.approx((score - scale["mean"]) / scale["std"], abs=1e-4)


# where heads begin


def test_a_fresh_head_is_drawn_and_left_as_it_is(base: Path, tmp_path: Path) -> None:
    """N(0, 1/√(d+1)) for d = 32, whatever the first scores are like."""
    run = small_run(tmp_path / "run", base, lr=1e-30, epochs=1, head_start=False)
    run_here(run)
    seed = json.loads((run / "spec.json").read_text())["seed"]
    drawn = torch.randn(1, 32, generator=torch.Generator().manual_seed(seed)) / math.sqrt(33)
    assert torch.equal(weights(run)["score.weight"], drawn)
    assert drawn.std().item() == pytest.approx(33**-0.5, rel=0.25)


def test_a_head_that_was_fitted_learns_and_resumes(base: Path, tmp_path: Path) -> None:
    config = {"epochs": 2, "heldout_fraction": 0.01, "lora_layers": 1}
    straight = small_run(tmp_path / "straight", base, **config)
    assert run_here(straight)["train_pair_accuracy"] > 0.7
    looks = looks_in_steps(straight, 6)
    halted = small_run(tmp_path / "halted", base, **config)
    for share in (0.1, 0.6):  # before the first step and between steps
        with pytest.raises(Stopped):
            run_here(halted, StopAt(int(share * looks)))
    run_here(halted)
    assert hashes(halted) == hashes(straight)


def test_the_head_alone_moves_nothing_else(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = small_run(tmp_path / "run", base, count=120, epochs=0, even_reading=False)
    report = run_here(run)
    assert (report["steps"], events_of(run, "metric")) == (0, [])
    assert report["train_pair_accuracy"] > 0.6
    before = dict(AutoModelForCausalLM.from_pretrained(str(base)).state_dict())
    for name, tensor in weights(run).items():
        assert name == "score.weight" or torch.equal(tensor, before[name]), name


def test_even_reading_changes_two_maps_and_no_other(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = small_run(tmp_path / "run", base, epochs=0)
    run_here(run)
    before = dict(AutoModelForCausalLM.from_pretrained(str(base)).state_dict())
    last = "model.layers.1.self_attn"
    changed = {
        name
        for name, one in weights(run).items()
        if name != "score.weight" and not torch.equal(one, before[name])
    }
    assert changed == {f"{last}.q_proj.weight", f"{last}.o_proj.weight"}


def test_a_model_without_queries_of_their_own_is_read_at_the_last_token(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    path = tmp_path / "gpt2"
    config = GPT2Config(vocab_size=48, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(str(path))
    tiny_tokenizer().save_pretrained(str(path))
    run = small_run(tmp_path / "run", path, epochs=0)
    report = run_here(run)
    assert report["layers"] == 1
    before = dict(GPT2LMHeadModel.from_pretrained(str(path)).state_dict())
    for name, tensor in weights(run).items():
        assert name == "score.weight" or torch.equal(tensor, before[name]), name


# how deep it reads


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of ten layers, of which the sixth alone does anything: it looks at a word or two, or
    at all of them if it is made to read evenly.
    """
    path = make_tiny(tmp_path_factory.mktemp("deep"), num_hidden_layers=10)
    model = LlamaForCausalLM.from_pretrained(str(path))
    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.q_proj.weight.mul_(8.0)
            layer.self_attn.o_proj.weight.copy_(torch.eye(32) if number == 5 else torch.zeros(32))
    model.save_pretrained(str(path))
    return path


def test_it_reads_where_a_fresh_head_is_right_most_often(deep: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", deep, count=60, epochs=0)
    assert run_here(run)["layers"] == 6
    _, model = plain(run)
    assert model.config.num_hidden_layers == len(model.model.layers) == 6
    assert "the first 6 layers" in (run / "out" / "README.md").read_text()


def test_whoever_says_how_many_layers_gets_them(deep: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", deep, count=20, epochs=0, layers=10)
    assert run_here(run)["layers"] == 10


def test_a_base_with_a_head_keeps_its_layers(deep: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "first", deep, count=20, epochs=0, layers=6)
    run_here(run)
    again = small_run(tmp_path / "again", run / "out", count=20, epochs=1)
    assert run_here(again)["layers"] == 6
    before, after = weights(run), weights(again)
    o_proj = "model.layers.5.self_attn.o_proj.weight"
    assert before[o_proj].max() == 1024
    assert torch.allclose(after[o_proj], before[o_proj], atol=0.5)  # made loud once, not twice


def test_an_encoder_keeps_its_layers_and_its_attention(tmp_path: Path) -> None:
    path = make_tiny_encoder(tmp_path / "encoder")
    config = BertConfig.from_pretrained(str(path), num_hidden_layers=10)
    BertForMaskedLM(config).save_pretrained(str(path))
    run = small_run(tmp_path / "run", path, count=16, lr=1e-30)
    assert run_here(run)["layers"] == 10
    before = BertForMaskedLM.from_pretrained(str(path)).state_dict()
    for name, tensor in weights(run).items():
        assert name not in before or torch.equal(tensor, before[name]), name


def test_stopped_while_it_chooses_or_later_it_ends_in_the_same_bytes(
    deep: Path, tmp_path: Path
) -> None:
    config = {"count": 24, "epochs": 2, "heldout_fraction": 0.01}
    straight = small_run(tmp_path / "straight", deep, **config)
    run_here(straight)
    looks = looks_in_steps(straight, 6)
    halted = small_run(tmp_path / "halted", deep, **config)
    for share in (0.02, 0.1, 0.8):
        with pytest.raises(Stopped):
            run_here(halted, StopAt(max(int(share * looks), 1)))
    run_here(halted)
    assert hashes(halted) == hashes(straight)


# probabilities


def test_the_report_says_how_well_it_is_calibrated(learned: Path) -> None:
    report = report_of(learned)
    scale = json.loads((learned / "out" / "normalisation.json").read_text())
    assert scale["temperature"] == report["temperature"] > 0
    assert 0 <= report["ece_calibrated"] < 0.3
    assert "share of pairs" in (learned / "out" / "README.md").read_text()


# encoders


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_tiny_encoder(tmp_path_factory.mktemp("encoder"))
    assert AutoTokenizer.from_pretrained(str(path)).eos_token is None
    return path


def test_an_encoder_learns_scores_and_is_tested(encoder: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", encoder, count=120, epochs=5)
    report = run_here(run)
    assert report["train_pair_accuracy"] > 0.7
    assert report["pair_accuracy"] > 0.6
    tokenizer, model = plain(run)
    rankings = read_rankings(run / "data" / "rankings.jsonl")
    _, heldout = split_by_prompt(rankings, 0.2)
    # transformers alone: the model of its own class on [CLS] prompt [SEP] answer [SEP], unpadded
    scale = json.loads((run / "out" / "normalisation.json").read_text())
    found = {x["id"]: x["score"] for x in read_lines(run / "out" / "heldout_scores.jsonl")}
    for one in heldout[:4]:
        asked = f"user: {one.messages[0]['content']}\n\nassistant:"
        for answer, text in zip(one.answer_ids, one.texts, strict=True):
            ids = tokenizer(asked)["input_ids"]
            ids += tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = torch.tensor([[*ids, tokenizer.sep_token_id]])
            with torch.no_grad():
                raw = model(input_ids=ids).logits[0, 0].item()
            assert found[answer] == pytest.approx((raw - scale["mean"]) / scale["std"], abs=1e-3)
    # the other stages read it, in batches with padding
    lines = [
        {"id": answer, "prompt": list(one.messages), "text": text}
        for one in heldout
        for answer, text in zip(one.answer_ids, one.texts, strict=True)
    ]
    answers = write_lines(tmp_path / "answers.jsonl", lines)
    run_here(make_run(tmp_path / "score", "score", {"reward": run / "out", "answers": answers}))
    scored = {x["id"]: x["score"] for x in read_lines(tmp_path / "score" / "out" / "scores.jsonl")}
    assert scored == pytest.approx(found, abs=1e-3)
    held = {one.answer_ids for one in heldout}
    kept = [x for x in ranking_lines(120) if tuple(a["id"] for a in x["answers"]) in held]
    path = write_lines(tmp_path / "heldout.jsonl", kept)
    tested = run_here(
        make_run(tmp_path / "test", "evaluate", {"reward": run / "out", "rankings": path})
    )
    assert tested["pair_accuracy"] == pytest.approx(report["pair_accuracy"], abs=1e-9)


def test_a_reward_model_can_be_trained_further(learned: Path, tmp_path: Path) -> None:
    lines = write_lines(tmp_path / "more.jsonl", ranking_lines(16, seed=1))
    inputs = {"base": learned / "out", "rankings": lines}
    config = {**QUICK, "epochs": 1, "lr": 1e-6}
    run_here(make_run(tmp_path / "run", "reward", inputs, **config))
    before, after = weights(learned), weights(tmp_path / "run")
    assert torch.allclose(before["score.weight"], after["score.weight"], atol=1e-4)


def test_a_file_of_its_own_can_be_held_out(base: Path, tmp_path: Path) -> None:
    training = write_lines(tmp_path / "train.jsonl", ranking_lines(16))
    heldout = write_lines(tmp_path / "heldout.jsonl", ranking_lines(6, seed=9))
    inputs = {"base": base, "rankings": training, "heldout": heldout}
    report = run_here(make_run(tmp_path / "run", "reward", inputs, **{**QUICK, "epochs": 1}))
    assert (report["train_rankings"], report["rankings"]) == (16, 6)


def test_one_single_prompt_trains_and_says_that_nothing_was_tested(
    base: Path, tmp_path: Path
) -> None:
    run = small_run(tmp_path / "run", base, count=1)
    report = run_here(run)
    assert (report["pair_accuracy"], report["ci95"], report["pairs"]) == (None, None, 0)
    assert [alert["code"] for alert in events_of(run, "alert")] == ["no_heldout"]
    assert "not tested" in (run / "out" / "README.md").read_text()


def test_chance_is_called_chance(base: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", base, count=12, lr=1e-30)
    run_here(run)
    assert "reward_at_chance" in [alert["code"] for alert in events_of(run, "alert")]


# refusals


def refused(base: Path, folder: Path, lines: list[dict[str, Any]], **config: Any) -> str:
    path = write_lines(folder / "rankings.jsonl", lines)
    with pytest.raises((RunError, DataError)) as refusal:
        run_here(make_run(folder, "reward", {"base": base, "rankings": path}, **config))
    return str(refusal.value)


def test_it_refuses_what_cannot_teach(base: Path, tmp_path: Path) -> None:
    ties = ranking_lines(2)
    for line in ties:
        line["ranks"] = dict.fromkeys(line["ranks"], 1)
    assert "one single tie" in refused(base, tmp_path / "ties", ties)
    weightless = [{**line, "weight": 0} for line in ranking_lines(2)]
    assert "weight 0" in refused(base, tmp_path / "weightless", weightless)


def test_it_refuses_more_layers_than_there_are(base: Path, tmp_path: Path) -> None:
    sentence = refused(base, tmp_path / "run", ranking_lines(4), layers=3)
    assert "has 2 layers" in sentence
    assert "config.layers" in sentence


@pytest.mark.parametrize(
    "config",
    [
        {"loss": "davidson", "ties": "drop"},
        {"ensemble": 2, "ensemble_kind": "lora", "lora": False},
        {"epochs": 0, "head_start": False},
    ],
)
def test_it_refuses_settings_that_contradict_each_other(config: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=r"but|true"):
        RewardConfig.from_json(config)


def test_it_names_file_and_line_of_a_broken_ranking(base: Path, tmp_path: Path) -> None:
    lines = ranking_lines(3)
    del lines[2]["ranks"]["p0-2-1"]
    sentence = refused(base, tmp_path / "run", lines)
    assert "rankings.jsonl:3: 'ranks' leaves out answer 'p0-2-1'" in sentence


def test_rankings_that_all_weigh_nothing_are_refused(base: Path, tmp_path: Path) -> None:
    lines = [line | {"weight": 0.0} for line in ranking_lines(3)]
    said = refused(base, tmp_path / "run", lines)
    assert "rankings.jsonl: every ranking has weight 0; give some of them a weight." in said


@pytest.mark.parametrize(("lr", "taken"), [(1e-2, "0.01"), (0.0, "0.001")])
def test_it_stops_when_the_loss_is_no_number_and_names_the_rate_that_was_taken(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lr: float, taken: str
) -> None:
    monkeypatch.setattr(reward, "weighted_sum", lambda losses, weight: losses.sum() * math.nan)
    said = refused(base, tmp_path / "run", ranking_lines(8), **QUICK | {"lr": lr})
    assert f"take a config.lr below {taken} and a new run folder" in said
