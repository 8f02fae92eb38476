"""Pretraining: rows are laid out rightly, it learns, resumes bit for bit, and stands on its own."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, pipeline

from tests.tiny import WORDS, tiny_tokenizer
from tests.trainer.judging import StopAt, events_of, make_run, run_here
from trainer.config import PretrainConfig, SpecError, load_spec, parse_spec
from trainer.corpus import Document, make_tokenizer
from trainer.events import RunError, Stopped
from trainer.manifests import files_of, sha256_file, verify_manifest
from trainer.placement import Placement
from trainer.stages import pretrain
from trainer.stages.pretrain import Fit
from trainer.types import IGNORED, SHAPES, Shape

QUICK: dict[str, Any] = {
    "size": "1m", "vocabulary": 300, "max_length": 32, "batch_size": 8, "lr": 1e-2,
    "near_duplicate": 0.9, "measure_every": 2, "sample_every": 3, "samples": 2, "sample_tokens": 6,
    "checkpoint_every": 4, "heldout_fraction": 0.2,
}  # fmt: skip
OBJECTIVES = ("causal", "masked")
REAL_SHAPES = dict(SHAPES)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, and a preset of some thousand weights."""
    monkeypatch.setitem(SHAPES, "1m", Shape(32, 48, 2, 2))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def paragraph(dice: random.Random) -> str:
    """Sentences in which much can be foretold: the second half repeats the first."""
    said = [" ".join(dice.choices(WORDS, k=dice.randint(2, 5))) for _ in range(2)]
    return ". ".join(f"{some} and {some}" for some in said)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 paragraphs, and a copy of the first."""
    dice = random.Random(0)
    paragraphs = [paragraph(dice) for _ in range(60)]
    file = tmp_path_factory.mktemp("text") / "words.txt"
    file.write_text("\n\n".join([*paragraphs, paragraphs[0].upper()]), "utf-8")
    return file


def new_run(folder: Path, text: Path, **config: Any) -> Path:
    return make_run(folder, "pretrain", {"text": text}, **(QUICK | config))


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "report.json").read_text())
    return found


def losses_of(folder: Path) -> list[float]:
    return [event["loss"] for event in events_of(folder, "metric")]


@pytest.fixture(scope="module")
def learned(text: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each objective."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES, "1m", Shape(32, 48, 2, 2))
        for objective in OBJECTIVES:
            folders[objective] = tmp_path_factory.mktemp(objective)
            changes = {"epochs": 8, "max_length": 128, "batch_size": 4}
            run_here(new_run(folders[objective], text, objective=objective, **changes))
    return folders


# rows


def test_every_token_is_foretold_once_and_only_the_last_row_is_padded() -> None:
    rows = pretrain.pack(
        [np.array([5, 6, 7]), np.array([8, 9])],
        end=1, pad=0, masked=False, apart=True, length=5,
    )  # fmt: skip
    n = IGNORED
    assert rows.ids.tolist() == [[1, 5, 6, 7, 1], [8, 9, 0, 0, 0]]
    assert rows.targets.tolist() == [[5, 6, 7, 1, 8], [9, 1, n, n, n]]
    assert rows.segments.tolist() == [[0, 0, 0, 0, 1], [1, 1, -1, -1, -1]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 0], [0, 1, 0, 1, 2]]


def test_documents_that_may_see_one_another_count_their_places_through() -> None:
    rows = pretrain.pack(
        [np.array([5, 6]), np.array([8])], end=1, pad=0, masked=True, apart=False, length=6
    )
    assert rows.ids.tolist() == [[5, 6, 1, 8, 1, 0]]
    assert rows.targets.tolist() == [[5, 6, 1, 8, 1, IGNORED]]
    assert rows.segments.tolist() == [[0, 0, 0, 0, 0, -1]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 0]]


def toy_fit(objective: str, apart: bool = True) -> Fit:
    """A random model, nothing trained, on documents of random tokens."""
    config = PretrainConfig(**(QUICK | {"objective": objective, "apart": apart}))
    tokenizer = make_tokenizer([" ".join(WORDS * 20)], 300)
    torch.manual_seed(1)
    model = pretrain.new_model(config, tokenizer)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    placement = Placement(torch.device("cpu"), torch.float32)
    optimizer = torch.optim.AdamW(model.parameters())
    texts = pretrain.Texts([], np.array([]))
    return Fit(
        model, tokenizer, config, 0, placement, dict(model.named_parameters()), optimizer,
        texts, texts,
    )  # fmt: skip


def random_tokens(count: int, seed: int) -> pretrain.Ids:
    return np.random.default_rng(seed).integers(10, 300, count)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("apart", [True, False])
def test_a_document_in_a_row_sees_its_neighbour_only_when_it_may(
    objective: str, apart: bool
) -> None:
    fit = toy_fit(objective, apart)
    second = random_tokens(9, 2)
    found = []
    for seed in (3, 4):
        laid = [random_tokens(12, seed), second]
        rows = pretrain.pack(
            laid, end=fit.end, pad=fit.pad, masked=fit.masked, apart=apart, length=32
        )
        found.append(pretrain.token_losses(fit, rows, apart)[-len(second) :])
    assert torch.equal(found[0], found[1]) == apart


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_packed_document_is_read_as_it_is_alone(objective: str) -> None:
    fit = toy_fit(objective)
    laid = [random_tokens(count, count) for count in (7, 11, 4)]
    rows = pretrain.pack(laid, end=fit.end, pad=fit.pad, masked=fit.masked, apart=True, length=32)
    packed = pretrain.token_losses(fit, rows, apart=True)
    pieces = [pretrain.lay_out(tokens, fit.end, fit.masked) for tokens in laid]
    alone = pretrain.token_losses(fit, pretrain.alone(pieces, fit.pad), apart=True)
    torch.testing.assert_close(packed, alone)


def test_the_causal_loss_is_that_of_transformers_itself() -> None:
    fit = toy_fit("causal")
    tokens = torch.from_numpy(random_tokens(10, 5))
    ids = torch.cat([torch.tensor([fit.end]), tokens, torch.tensor([fit.end])])[None]
    rows = pretrain.alone([pretrain.lay_out(tokens.numpy(), fit.end, False)], fit.pad)
    ours = pretrain.token_losses(fit, rows, apart=True).mean()
    torch.testing.assert_close(ours, fit.model(input_ids=ids, labels=ids).loss)


def test_a_mark_that_is_written_out_in_the_text_stays_text() -> None:
    tokenizer = make_tokenizer([" ".join(WORDS * 20)], 300)
    texts = pretrain.encode(tokenizer, [Document("a", "tea <|end|> sun")])
    assert tokenizer.eos_token_id not in texts.tokens[0]
    assert tokenizer.decode(texts.tokens[0]) == "tea <|end|> sun"
    assert texts.size.tolist() == [len("tea <|end|> sun")]


def test_an_opening_ends_with_a_whole_letter() -> None:
    """With bytes for tokens a letter of three bytes is three tokens."""
    tokenizer = make_tokenizer(["tea"], 264)
    tokens = tokenizer("茶, 茶")["input_ids"]
    assert len(tokens) == 8
    wanted = {8: "茶, 茶", 7: "茶, ", 6: "茶, ", 5: "茶, ", 4: "茶,", 3: "茶"}
    for length, text in wanted.items():
        found = pretrain.whole_letters(tokenizer, tokens[:length])
        assert tokenizer.decode(found) == text
    assert len(pretrain.whole_letters(tokenizer, tokens[:2])) == 1  # something has to be there


# hiding


def test_a_share_of_the_tokens_is_hidden_by_the_rule_of_80_10_10() -> None:
    """40 960 tokens: every bound lies more than four standard deviations from what is wanted."""
    tokenizer = make_tokenizer([" ".join(WORDS * 20)], 300)
    laid = [random_tokens(127, seed) for seed in range(320)]
    rows = pretrain.pack(
        laid, end=tokenizer.eos_token_id, pad=0, masked=True, apart=True, length=128
    )
    hidden = pretrain.hide(rows, tokenizer, 0.15, seed=7)
    chosen = hidden.targets != IGNORED
    assert chosen.float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert not (rows.ids == tokenizer.eos_token_id)[chosen].any()
    assert torch.equal(hidden.targets[chosen], rows.ids[chosen])
    assert torch.equal(hidden.ids[~chosen], rows.ids[~chosen])
    became, was = hidden.ids[chosen], rows.ids[chosen]
    masked = (became == tokenizer.mask_token_id).float().mean().item()
    stayed = (became == was).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.025)
    assert stayed == pytest.approx(0.1, abs=0.02)
    assert 1 - masked - stayed == pytest.approx(0.1, abs=0.02)
    assert torch.equal(pretrain.hide(rows, tokenizer, 0.15, seed=7).ids, hidden.ids)
    assert not torch.equal(pretrain.hide(rows, tokenizer, 0.15, seed=8).ids, hidden.ids)


def test_the_masked_loss_counts_the_hidden_tokens_alone() -> None:
    fit = toy_fit("masked")
    pieces = [pretrain.lay_out(random_tokens(30, seed), fit.end, True) for seed in range(4)]
    hidden = pretrain.hide(pretrain.alone(pieces, fit.pad), fit.tokenizer, 0.15, seed=1)
    ours = pretrain.token_losses(fit, hidden, apart=True)
    assert len(ours) == int((hidden.targets != IGNORED).sum())
    assert 0 < len(ours) < 40
    theirs = fit.model(input_ids=hidden.ids, labels=hidden.targets).loss  # -100 is theirs, too
    torch.testing.assert_close(ours.mean(), theirs)


def test_at_least_one_token_is_hidden() -> None:
    fit = toy_fit("masked")
    rows = pretrain.alone([pretrain.lay_out(np.array([40, 50]), fit.end, True)], fit.pad)
    for seed in range(20):
        hidden = pretrain.hide(rows, fit.tokenizer, 0.01, seed)
        assert (hidden.targets != IGNORED).sum() >= 1


# learning


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_perplexity_on_held_out_text_falls(objective: str, learned: dict[str, Path]) -> None:
    folder = learned[objective]
    looks = [e["perplexity"] for e in events_of(folder, "metric") if "perplexity" in e]
    report = report_of(folder)
    assert report["perplexity"] < 0.5 * looks[0]
    assert report["perplexity"] < 300  # that of a model that knows nothing
    low, high = report["perplexity_ci95"]
    assert low < report["perplexity"] < high
    losses = losses_of(folder)
    assert sum(losses[-3:]) < sum(losses[:3])


def test_micro_batches_of_any_size_give_the_same_steps(text: Path, tmp_path: Path) -> None:
    """Padding and hiding leave rows with different numbers of tokens to foretell."""
    for objective in OBJECTIVES:
        losses, norms = {}, {}
        for micro in (1, 2, 8):
            folder = tmp_path / f"{objective}{micro}"
            changes = {"objective": objective, "micro_batch_size": micro, "lr": 1e-3, "steps": 4}
            run_here(new_run(folder, text, **changes))
            losses[micro] = losses_of(folder)
            norms[micro] = [e["grad_norm"] for e in events_of(folder, "metric")]
        for micro in (1, 2):
            assert losses[micro] == pytest.approx(losses[8], abs=1e-5)
            # Adam's steps are as long whatever divides the gradient: its length before them tells.
            assert norms[micro] == pytest.approx(norms[8], rel=1e-5)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bfloat16_learns_nearly_the_same_and_is_written_as_it_was_measured(
    objective: str, text: Path, tmp_path: Path
) -> None:
    losses = {}
    for dtype in ("float32", "bfloat16"):
        folder = new_run(tmp_path / dtype, text, objective=objective, dtype=dtype, steps=6)
        run_here(folder)
        losses[dtype] = losses_of(folder)
    assert losses["float32"] != losses["bfloat16"]
    assert losses["float32"] == pytest.approx(losses["bfloat16"], rel=0.02)
    written = load_file(tmp_path / "bfloat16" / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}


def test_the_report_gives_the_figures_of_plain_transformers(
    text: Path, learned: dict[str, Path]
) -> None:
    folder = learned["causal"]
    out, report = str(folder / "out"), report_of(folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    config = load_spec(folder).config
    assert isinstance(config, PretrainConfig)
    context = type("Context", (), {"input": lambda *_: text, "leave_if_asked": lambda _: None})()
    context.progress = lambda _: None
    corpus = pretrain.prepare(context, config)
    nats, tokens, size = 0.0, 0, 0
    for one in corpus.heldout:
        ids = tokenizer(one.text)["input_ids"]
        assert len(ids) < 128  # fits into the window
        whole = torch.tensor([[tokenizer.eos_token_id, *ids, tokenizer.eos_token_id]])
        with torch.no_grad():
            nats += model(input_ids=whole, labels=whole).loss.item() * (len(ids) + 1)
        tokens += len(ids) + 1
        size += len(one.text.encode())
    assert report["heldout_tokens"] == tokens
    assert report["heldout_loss"] == pytest.approx(nats / tokens, abs=1e-4)
    assert report["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-3)
    assert report["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, abs=1e-4)


def test_a_long_document_is_measured_over_several_windows() -> None:
    """Each window begins where the one before it ended: 32 + 32 + 7 inputs for 70 tokens."""
    fit = toy_fit("causal")
    tokens = random_tokens(70, 1)
    sums, counts = pretrain.measure(fit, pretrain.Texts([tokens], np.array([1])), lambda: None)
    assert counts.tolist() == [71]
    inputs, targets = pretrain.lay_out(tokens, fit.end, False)
    wanted = 0.0
    for begin in (0, 32, 64):
        piece = (inputs[begin : begin + 32], targets[begin : begin + 32])
        rows = pretrain.alone([piece], fit.pad)
        wanted += pretrain.token_losses(fit, rows, apart=True).sum().item()
    assert sums[0] == pytest.approx(wanted, rel=1e-5)


def test_a_step_is_taken_at_the_rate_that_it_is_given() -> None:
    """The first step of Adam moves each weight by its rate, whatever the gradient's size."""
    fit = toy_fit("causal")
    rows = pretrain.alone([pretrain.lay_out(random_tokens(20, 1), fit.end, False)], fit.pad)
    before = fit.parameters["model.norm.weight"].detach().clone()
    context: Any = type("Context", (), {"should_stop": lambda _: False})()
    assert pretrain.take_step(context, fit, rows, 0.25) is not None
    moved = (fit.parameters["model.norm.weight"] - before * (1 - 0.25 * 0.01)).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.25), rtol=0.02, atol=0)


@pytest.mark.parametrize("micro", [0, 1])
def test_a_step_learns_from_the_mean_over_all_its_tokens(micro: int) -> None:
    """A document of 20 tokens and one of 5, together or one after the other."""
    fit = toy_fit("causal")
    fit.config = dataclasses.replace(fit.config, micro_batch_size=micro, grad_clip=0.0)
    pieces = [pretrain.lay_out(random_tokens(size, size), fit.end, False) for size in (20, 5)]
    rows = pretrain.alone(pieces, fit.pad)
    wanted = pretrain.token_losses(fit, rows, fit.config.apart).mean()
    wanted.backward()
    slopes = [one.grad.flatten() for one in fit.parameters.values() if one.grad is not None]
    norm = float(torch.cat(slopes).norm())
    fit.optimizer.zero_grad(set_to_none=True)
    context: Any = type("Context", (), {"should_stop": lambda _: False})()
    found = pretrain.take_step(context, fit, rows, 0.0)
    assert found is not None
    assert found["loss"] == pytest.approx(wanted.item(), rel=1e-5)
    assert found["grad_norm"] == pytest.approx(norm, rel=1e-5)
    assert found["tokens"] == 27  # each document with the mark in front of it


def test_the_rate_rises_in_a_line_and_falls_by_a_cosine_to_a_tenth() -> None:
    shares = [pretrain.schedule(step, 12, 2 / 12) for step in range(12)]
    assert shares[:2] == [0.5, 1.0]
    assert shares[6] == pytest.approx(0.55)  # half way: the mean of 1 and a tenth
    assert shares[-1] == pytest.approx(0.1)
    assert shares[2:] == sorted(shares[2:], reverse=True)


# what it leaves


@pytest.mark.parametrize(
    ("objective", "auto", "task"),
    [
        ("causal", AutoModelForCausalLM, "text-generation"),
        ("masked", AutoModelForMaskedLM, "fill-mask"),
    ],
)
def test_the_result_loads_and_works_in_plain_transformers(
    objective: str, auto: Any, task: Any, learned: dict[str, Path]
) -> None:
    out = learned[objective] / "out"
    assert verify_manifest(out) == []
    model, info = auto.from_pretrained(str(out), output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    assert len(tokenizer) == model.config.vocab_size == 300
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.chat_template
    if objective == "causal":
        assert model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert model.generation_config.pad_token_id == tokenizer.pad_token_id
    said = pipeline(task, model=model, tokenizer=tokenizer)(
        f"the cat and the{tokenizer.mask_token}"
    )
    assert said


def test_the_copy_is_reported_and_the_card_tells_data_and_figures(
    learned: dict[str, Path],
) -> None:
    out = learned["causal"] / "out"
    copies = json.loads((out / "duplicates.json").read_text())
    assert (copies["exact"]["count"], copies["near"]["count"]) == (1, 0)
    assert copies["exact"]["examples"][0]["kept"] == "words.txt:1"
    counted = report_of(learned["causal"])["corpus"]
    assert (counted["documents"], counted["exact_duplicates"], counted["empty"]) == (61, 1, 0)
    assert counted["train_documents"] + counted["heldout_documents"] == 60
    card = (out / "README.md").read_text("utf-8")
    for part in ("Pretrained decoder", "words.txt", "1 exact", "perplexity", '"size": "1m"'):
        assert part in card


def test_samples_show_what_it_writes_while_it_runs(learned: dict[str, Path]) -> None:
    events = events_of(learned["causal"], "sample")
    steps = report_of(learned["causal"])["steps"]
    assert [event["step"] for event in events] == sorted({*range(3, steps + 1, 3), steps})
    assert all(len(event["samples"]) == 2 for event in events)
    first, last = events[0]["samples"], events[-1]["samples"]
    assert [one["prompt"] for one in first] == [one["prompt"] for one in last]
    assert any(one["text"] for one in last)
    assert not events_of(learned["masked"], "sample")


def test_every_weight_is_trained(learned: dict[str, Path]) -> None:
    for objective, auto in (("causal", AutoModelForCausalLM), ("masked", AutoModelForMaskedLM)):
        folder = learned[objective]
        trained = auto.from_pretrained(str(folder / "out"))
        config = load_spec(folder).config
        assert isinstance(config, PretrainConfig)
        torch.manual_seed(3)
        tokenizer = AutoTokenizer.from_pretrained(str(folder / "out"))
        fresh = dict(pretrain.new_model(config, tokenizer).named_parameters())
        for name, parameter in trained.named_parameters():
            assert not torch.equal(parameter, fresh[name]), name


@pytest.mark.parametrize("name", list(REAL_SHAPES))
def test_a_preset_has_the_size_of_its_name_in_both_objectives(name: str) -> None:
    wanted = int(name.removesuffix("m")) * 1e6
    for objective in OBJECTIVES:
        config = PretrainConfig(size=name, objective=objective, max_length=64)
        tokenizer = make_tokenizer([" ".join(WORDS * 20)], 300)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(SHAPES, name, REAL_SHAPES[name])
            with torch.device("meta"):
                model = pretrain.new_model(config, tokenizer)
        inside = sum(
            parameter.numel()
            for key, parameter in model.named_parameters()
            if "layer" in key and "embed" not in key
        )
        assert inside == pytest.approx(wanted, rel=0.08)


# stopping and going on


def hashes(folder: Path) -> dict[str, str]:
    out = folder / "out"
    return {str(path): sha256_file(out / path) for path in files_of(out)}


def without_times(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key != "t"} for event in events]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_three_steps_a_stop_and_three_more_equal_six(
    objective: str, text: Path, tmp_path: Path, looks_before: Callable[[Path, int], int]
) -> None:
    straight = new_run(tmp_path / "straight", text, objective=objective, steps=6)
    run_here(straight)
    broken = new_run(tmp_path / "broken", text, objective=objective, steps=6)
    with pytest.raises(Stopped, match="after 3 of 6 steps"):
        run_here(broken, StopAt(looks_before(straight, 3)))
    assert not (broken / "out").exists()
    run_here(broken)
    for kind in ("metric", "sample"):
        assert without_times(events_of(broken, kind)) == without_times(events_of(straight, kind))
    assert hashes(broken) == hashes(straight)


@pytest.fixture
def looks_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], int]:
    """How often a run like this one looks whether to stop until the end of its n-th step."""

    def count(run: Path, steps: int) -> int:
        stop = StopAt(10**9)
        begun, looks, take = stop.left, [], pretrain.take_step

        def counting(*args: Any) -> Any:
            values = take(*args)
            looks.append(begun - stop.left)
            return values

        twin = tmp_path / "twin"
        twin.mkdir()
        (twin / "spec.json").write_text((run / "spec.json").read_text())
        with monkeypatch.context() as patch:
            patch.setattr(pretrain, "take_step", counting)
            run_here(twin, stop)
        return looks[steps - 1]

    return count


def test_a_stop_in_the_middle_of_a_step_drops_that_step(
    text: Path, tmp_path: Path, looks_before: Callable[[Path, int], int]
) -> None:
    changes = {"steps": 3, "micro_batch_size": 2}
    straight = new_run(tmp_path / "straight", text, **changes)
    run_here(straight)
    broken = new_run(tmp_path / "broken", text, **changes)
    with pytest.raises(Stopped, match="after 1 of 3 steps"):
        run_here(broken, StopAt(looks_before(straight, 1) + 2))
    run_here(broken)
    assert hashes(broken) == hashes(straight)


def test_a_stop_while_copies_are_sought_begins_anew(text: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", text, steps=2)
    with pytest.raises(Stopped, match="outside training"):
        run_here(run, StopAt(5))
    assert not events_of(run, "metric")
    assert run_here(run)["steps"] == 2


def test_text_that_changed_since_the_checkpoint_is_refused(text: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_bytes(text.read_bytes())
    run = new_run(tmp_path / "run", mine, steps=2)
    run_here(run)
    mine.write_text(text.read_text() + "\n\nsomething quite new about the sun and the rain")
    with pytest.raises(RunError, match="another one than when this run began"):
        run_here(run)


# refusals


def test_a_tokenizer_that_is_there_already_is_kept(text: Path, tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(str(tmp_path / "words"))
    inputs = {"text": text, "tokenizer": tmp_path / "words"}
    folder = make_run(tmp_path / "run", "pretrain", inputs, **(QUICK | {"steps": 2}))
    report = run_here(folder)
    kept = AutoTokenizer.from_pretrained(str(folder / "out"))
    assert kept.get_vocab() == tiny_tokenizer().get_vocab()
    assert report["vocabulary"] == len(tiny_tokenizer())
    blind = make_run(tmp_path / "blind", "pretrain", inputs, **(QUICK | {"objective": "masked"}))
    with pytest.raises(RunError, match="has no mask token"):
        run_here(blind)


@pytest.mark.parametrize(
    ("body", "config", "sentence"),
    [
        (" \n\x00\n", {}, "holds no text at all"),
        ("warm tea", {}, r"too little for config.vocabulary = 300: it gives only 2\d\d tokens"),
        ("warm tea", {"batch_size": 8, "micro_batch_size": 3}, "give a multiple of"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_sentence(
    body: str, config: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.txt"
    file.write_text(body)
    with pytest.raises((RunError, SpecError), match=sentence):
        run_here(new_run(tmp_path / "run", file, **config))


def test_an_unknown_preset_is_refused_with_those_that_there_are() -> None:
    spec = {"stage": "pretrain", "config": {"size": "9m"}, "inputs": {"text": "a.txt"}}
    with pytest.raises(SpecError, match="choose one of 1m, 5m, 15m, 60m, 135m"):
        parse_spec(spec)


def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pretrain.token_losses
    monkeypatch.setattr(pretrain, "token_losses", lambda *args: plain(*args) * math.nan)
    with pytest.raises(RunError, match="no number any more at step 1: take a lower config"):
        run_here(new_run(tmp_path / "run", text))


def test_without_held_out_text_it_says_that_nobody_knows(text: Path, tmp_path: Path) -> None:
    folder = new_run(tmp_path / "run", text, steps=2, heldout_fraction=0.0)
    report = run_here(folder)
    assert report["perplexity"] is None
    assert [event["code"] for event in events_of(folder, "alert")] == ["no_heldout"]
    assert "not known" in (folder / "out" / "README.md").read_text("utf-8")
