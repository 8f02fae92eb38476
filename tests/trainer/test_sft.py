"""Fine-tuning: it learns the answers and nothing else, by every method, and can be stopped."""

from __future__ import annotations

import itertools
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.tiny import WORDS, make_tiny, tiny_tokenizer
from tests.trainer import judging
from tests.trainer.judging import run_here, write_lines
from trainer.config import SpecError
from trainer.data import DataError, Pair, read_pairs
from trainer.events import RunError, Stopped, read_events
from trainer.manifests import files_of, sha256_file, verify_manifest
from trainer.modeling import chat_ids
from trainer.stages import sft
from trainer.types import RunContext

QUICK: dict[str, Any] = {
    "epochs": 3, "lr": 1e-2, "batch_size": 8, "threads": 1, "lora_r": 4, "train_layers": 1,
    "prompt_tokens": 4, "checkpoint_every": 4,
}  # fmt: skip
METHODS = ("lora", "full", "freeze", "prompt")


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, and answers of one manner to questions of many words."""
    folder = tmp_path_factory.mktemp("sft")
    make_tiny(folder)
    lines = [
        {"prompt": [{"role": "user", "content": f"I like {word}"}], "answer": f"{word} is good"}
        for word in WORDS
    ]
    write_lines(folder / "pairs.jsonl", lines)
    return folder


def make_run(folder: Path, things: Path, **config: Any) -> Path:
    inputs = {"base": str(things / "policy"), "pairs": str(things / "pairs.jsonl")}
    return judging.make_run(folder, "sft", inputs, **(QUICK | config))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(folder) if event["kind"] == "metric"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def moved(things: Path, folder: Path) -> set[str]:
    """Which weights differ from the base's."""
    base, new = weights(things / "policy"), weights(folder / "out")
    assert base.keys() == new.keys()
    return {name for name in base if not torch.equal(base[name], new[name])}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_makes_held_out_answers_likelier(
    method: str, things: Path, tmp_path: Path
) -> None:
    report = run_here(make_run(tmp_path / "run", things, method=method))
    assert report["heldout_pairs"] > 0
    assert report["perplexity"] < report["perplexity_before"]
    assert verify_manifest(tmp_path / "run" / "out") == []


def test_each_method_trains_its_own_weights_and_no_others(things: Path, tmp_path: Path) -> None:
    changed = {}
    for method in ("lora", "full", "freeze"):
        folder = make_run(tmp_path / method, things, method=method, weight_decay=0.01)
        run_here(folder)
        changed[method] = moved(things, folder)
    linear = {name for name in weights(things / "policy") if "proj" in name}
    assert changed["lora"] == linear
    assert changed["full"] == set(weights(things / "policy"))
    top = {name for name in changed["full"] if name.startswith("model.layers.1.")}
    # The toy's head has weights of its own; one that shares the embedding's would stay frozen.
    assert changed["freeze"] == top | {"model.norm.weight", "lm_head.weight"}


def test_the_result_loads_in_plain_transformers_with_its_chat_template(
    things: Path, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run", things)
    run_here(folder)
    AutoModelForCausalLM.from_pretrained(str(folder / "out"))
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "out"))
    assert tokenizer.chat_template == tiny_tokenizer().chat_template
    assert "Fine-tuned policy" in (folder / "out" / "README.md").read_text("utf-8")


@pytest.mark.parametrize("begin", [False, True])
def test_a_base_without_template_gets_the_one_it_was_taught_with(
    begin: bool, things: Path, tmp_path: Path
) -> None:
    """The same tokens as the lines “role: text”, a begin-of-text before them included."""
    shutil.copytree(things / "policy", tmp_path / "policy")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    if begin:
        tokenizer.bos_token = "<system>"
        first = ("<system>", tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<system> $A", special_tokens=[first]
        )
    tokenizer.save_pretrained(str(tmp_path / "policy"))
    (tmp_path / "policy" / "chat_template.jinja").unlink(missing_ok=True)
    (tmp_path / "pairs.jsonl").symlink_to(things / "pairs.jsonl")
    turns = ({"role": "user", "content": "I like tea"}, {"role": "assistant", "content": "warm"},
             {"role": "user", "content": "very"})  # fmt: skip
    bare = AutoTokenizer.from_pretrained(str(tmp_path / "policy"))
    assert not bare.chat_template
    wanted = chat_ids(bare, turns)
    assert (wanted[0] == bare.bos_token_id) is begin

    folder = make_run(tmp_path / "run", tmp_path, epochs=1)
    run_here(folder)
    saved = AutoTokenizer.from_pretrained(str(folder / "out"))
    found = saved.apply_chat_template(list(turns), add_generation_prompt=True, return_dict=False)
    assert found == wanted == chat_ids(saved, turns)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_learned_vectors_are_words_of_a_plain_model_and_load_in_peft(
    things: Path, tmp_path: Path
) -> None:
    """Both give the old words the same scores, and the new words are as rare as the rarest."""
    folder = make_run(tmp_path / "run", things, method="prompt")
    run_here(folder)
    vectors = AutoPeftModelForCausalLM.from_pretrained(str(folder / "out" / "adapter"))
    assert vectors.prompt_encoder["default"].embedding.weight.shape == (4, 32)
    assert not (folder / "out" / "adapter" / "README.md").exists()
    plain = AutoModelForCausalLM.from_pretrained(str(folder / "out"))
    tokenizer = AutoTokenizer.from_pretrained(str(folder / "out"))

    prompt = ({"role": "user", "content": "I like tea"},)
    old, new = chat_ids(tiny_tokenizer(), prompt), chat_ids(tokenizer, prompt)
    assert tokenizer.convert_ids_to_tokens(new[:4]) == [f"<|learned_{n}|>" for n in range(1, 5)]
    assert new[4:] == old
    assert "learned" not in tokenizer.decode(new, skip_special_tokens=True)
    with torch.no_grad():
        wanted = vectors(torch.tensor([old])).logits[0, -1]
        found = plain(torch.tensor([new])).logits[0, -1]
    torch.testing.assert_close(found[: len(wanted)], wanted, rtol=1e-4, atol=1e-5)
    assert found[new[:4]].exp().sum() < 0.01 * found.exp().sum()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_what_learned_vectors_write_can_be_had_and_learned_on(things: Path, tmp_path: Path) -> None:
    """Other stages take the result as any model, and vectors learned on it come before its own."""
    first = make_run(tmp_path / "first", things, method="prompt")
    run_here(first)
    write_lines(
        tmp_path / "prompts.jsonl",
        [{"id": "p1", "prompt": [{"role": "user", "content": "I like tea"}]}],
    )
    inputs = {"policy": str(first / "out"), "prompts": str(tmp_path / "prompts.jsonl")}
    written = judging.make_run(
        tmp_path / "written", "generate", inputs, answers=2, max_new_tokens=4, threads=1
    )
    assert run_here(written)["answers"] == 2
    inputs = {"base": str(first / "out"), "pairs": str(things / "pairs.jsonl")}
    again = judging.make_run(tmp_path / "again", "sft", inputs, **(QUICK | {"method": "prompt"}))
    run_here(again)
    tokenizer = AutoTokenizer.from_pretrained(str(again / "out"))
    ids = chat_ids(tokenizer, ({"role": "user", "content": "I like tea"},))
    wanted = [f"<|learned_{n}|>" for n in (5, 6, 7, 8, 1, 2, 3, 4)]
    assert tokenizer.convert_ids_to_tokens(ids[:8]) == wanted


def test_the_loss_is_that_of_the_answers_tokens_alone(things: Path, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", things, batch_size=64, heldout_fraction=0.0, epochs=1)
    run_here(folder)
    model = AutoModelForCausalLM.from_pretrained(str(things / "policy"))
    tokenizer = tiny_tokenizer()
    total, count = 0.0, 0
    for pair in read_pairs(things / "pairs.jsonl"):
        prompt = chat_ids(tokenizer, pair.messages)
        answer = [*tokenizer(pair.answer)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            scores = model(torch.tensor([[*prompt, *answer]])).logits.log_softmax(-1)[0]
        said = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        total -= sum(float(scores[at, answer[i]]) for i, at in enumerate(said))
        count += len(answer)
    assert metrics(folder)[0]["loss"] == pytest.approx(total / count, abs=1e-4)


def test_micro_batches_of_any_size_give_the_same_steps(things: Path, tmp_path: Path) -> None:
    """Answers are of different lengths here: a mean of means would weigh short ones more."""
    lines = [
        {
            "prompt": [{"role": "user", "content": "I like tea"}],
            "answer": " ".join(WORDS[: 1 + n]),
        }
        for n in range(16)
    ]
    inputs = things / "uneven"
    inputs.mkdir(exist_ok=True)
    write_lines(inputs / "pairs.jsonl", lines)
    if not (inputs / "policy").exists():
        (inputs / "policy").symlink_to(things / "policy")
    losses, norms = {}, {}
    for micro in (1, 2, 8):
        folder = make_run(tmp_path / str(micro), inputs, micro_batch_size=micro, lr=1e-3, epochs=2)
        run_here(folder)
        losses[micro] = [event["loss"] for event in metrics(folder)]
        norms[micro] = [event["grad_norm"] for event in metrics(folder)]
    assert len(losses[1]) == 4
    for micro in (1, 2):
        assert losses[micro] == pytest.approx(losses[8], abs=1e-5)
        # Adam's steps are as long whatever divides the gradient: its length before them tells.
        assert norms[micro] == pytest.approx(norms[8], rel=1e-5)


def test_rows_of_like_length_go_through_together_and_give_the_same_steps(
    tmp_path: Path,
) -> None:
    """Seven rows of 5 to 11 tokens: one pass of all of them, or passes of 16 tokens when padded."""
    make_tiny(tmp_path)
    asked = [{"role": "user", "content": "tea"}]
    answers = [" ".join(WORDS[: 1 + n]) for n in (0, 6, 1, 5, 2, 4, 3)]
    lines = [{"prompt": asked, "answer": answer} for answer in answers]
    write_lines(tmp_path / "pairs.jsonl", lines)
    found = {}
    for budget in (16, 1024):
        folder = make_run(
            tmp_path / str(budget), tmp_path, token_budget=budget, epochs=4, lr=1e-1,
            heldout_fraction=0.0,
        )  # fmt: skip
        run_here(folder)
        found[budget] = [
            [event[name] for name in ("loss", "grad_norm", "token_accuracy", "tokens")]
            for event in metrics(folder)
        ]
    assert len(found[16]) == 4
    for parted, whole in zip(found[16], found[1024], strict=True):
        assert parted == pytest.approx(whole, rel=1e-4)
    assert found[16][-1][2] > 0


def test_packed_rows_do_not_see_one_another(things: Path, tmp_path: Path) -> None:
    first = {}
    for packing in (False, True):
        folder = make_run(
            tmp_path / str(packing), things, packing=packing, batch_size=64, epochs=1,
            heldout_fraction=0.0, max_length=64,
        )  # fmt: skip
        run_here(folder)
        first[packing] = metrics(folder)[0]["loss"]
    assert first[True] == pytest.approx(first[False], abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_stopped_and_resumed_is_bit_for_bit_the_undisturbed_run(
    method: str, things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = make_run(tmp_path / "straight", things, method=method)
    run_here(straight)
    broken = make_run(tmp_path / "broken", things, method=method)
    stop = threading.Event()
    emit = RunContext.emit

    def stop_at_step_six(self: RunContext, kind: str, step: int | None = None, **data: Any) -> None:
        emit(self, kind, step, **data)
        if kind == "metric" and step == 6:
            stop.set()

    monkeypatch.setattr(RunContext, "emit", stop_at_step_six)
    with pytest.raises(Stopped, match=r"Stopped after step \d of"):
        run_here(broken, stop)
    monkeypatch.undo()
    assert not (broken / "out").exists()
    run_here(broken)
    names = [name for name in files_of(straight / "out") if name.suffix == ".safetensors"]
    assert names
    for name in names:
        assert sha256_file(straight / "out" / name) == sha256_file(broken / "out" / name), name


def test_a_loss_that_is_no_number_ends_the_run_unsaved(
    things: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = itertools.count(1)
    whole = sft.Fit.compute_loss

    def broken(self: Any, *inputs: Any, **named: Any) -> Any:
        loss = whole(self, *inputs, **named)
        return loss * math.nan if next(steps) == 2 else loss

    monkeypatch.setattr(sft.Fit, "compute_loss", broken)
    folder = make_run(tmp_path / "run", things, checkpoint_every=1)
    with pytest.raises(RunError, match="is no number any more at step 2: take a lower config"):
        run_here(folder)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_1"]


def test_what_is_too_long_loses_the_start_of_its_prompt() -> None:
    tokenizer = tiny_tokenizer()
    pair = Pair(({"role": "user", "content": "the cat and the dog and the sun"},), "very warm")
    whole = sft.row_of(tokenizer, pair, 100)
    short = sft.row_of(tokenizer, pair, 8)
    assert short.ids == whole.ids[-8:]
    assert short.ids[short.prompt :] == whole.ids[whole.prompt :]
    cut = sft.row_of(tokenizer, Pair(pair.messages, "very " * 30), 8)
    assert len(cut.ids) == 8
    assert cut.prompt == 1
    assert cut.ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ({"prompt": [{"role": "user", "content": "tea"}]}, "'answer' must be text"),
        ({"prompt": [{"role": "user", "content": "tea"}], "answer": " "}, "'answer' must be text"),
        ({"prompt": [], "answer": "warm"}, "'prompt' must be a list"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(
    line: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    good = {"prompt": [{"role": "user", "content": "tea"}], "answer": "warm"}
    with pytest.raises(DataError, match=f"pairs.jsonl:2: {sentence}"):
        read_pairs(write_lines(tmp_path / "pairs.jsonl", [good, line]))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"method": "freeze", "train_layers": 3}, "the model has 2 layers"),
        ({"batch_size": 8, "micro_batch_size": 3}, "give a multiple of config.micro_batch_size"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(
    config: dict[str, Any], sentence: str, things: Path, tmp_path: Path
) -> None:
    with pytest.raises((RunError, SpecError), match=sentence):
        run_here(make_run(tmp_path / "run", things, **config))
