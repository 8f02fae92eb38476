"""The model card: one shape for every stage, and all that a spec tells stands in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import WORDS, make_tiny, make_tiny_reward, write_prompts
from tests.trainer.judging import make_run, ranking_lines, run_here, write_lines
from trainer import cards
from trainer.config import CONFIGS, load_spec
from trainer.manifests import folder_hash, write_manifest

SECTIONS = ["Figures", "How to use it", "Limits", "Data", "Parents", "Settings", "Software"]


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that any stage reads."""
    folder = tmp_path_factory.mktemp("cards")
    make_tiny(folder)
    write_manifest(folder / "policy")
    make_tiny_reward(folder)
    write_prompts(folder / "prompts.jsonl", 8)
    write_lines(folder / "rankings.jsonl", ranking_lines(8))
    pairs = [
        {"prompt": [{"role": "user", "content": f"I like {word}"}], "answer": f"a good {word}"}
        for word in WORDS[:8]
    ]
    write_lines(folder / "pairs.jsonl", pairs)
    sentences = [f"the {one} is a {two} and not my {one}" for one in WORDS for two in WORDS[:4]]
    (folder / "words.txt").write_text("\n".join(sentences))
    return folder


STAGES: dict[str, tuple[str, dict[str, str], dict[str, Any]]] = {
    "pretrain": (
        "pretrain",
        {"text": "words.txt"},
        {
            "size": "1m", "vocabulary": 300, "documents": "lines", "steps": 2, "max_length": 16,
            "near_duplicate": 1.0, "samples": 0,
        },
    ),
    "sft": ("sft", {"base": "policy", "pairs": "pairs.jsonl"}, {"heldout_fraction": 0.3}),
    "sft-freeze": (
        "sft",
        {"base": "policy", "pairs": "pairs.jsonl"},
        {"method": "freeze", "train_layers": 1},
    ),
    "reward": ("reward", {"base": "policy", "rankings": "rankings.jsonl"}, {"epochs": 1}),
    "ppo": (
        "ppo",
        {"policy": "policy", "reward": "reward", "prompts": "prompts.jsonl"},
        {"steps": 1, "episodes_per_step": 4, "answers_per_prompt": 2, "max_new_tokens": 4},
    ),
    "dpo": ("prefer", {"policy": "policy", "rankings": "rankings.jsonl"}, {"samples": 0}),
    "rloo": (
        "prefer",
        {"policy": "policy", "reward": "reward", "prompts": "prompts.jsonl"},
        {"method": "rloo", "steps": 1, "batch_size": 4, "max_new_tokens": 4},
    ),
    "bestofn": (
        "bestofn",
        {"policy": "policy", "reward": "reward", "prompts": "prompts.jsonl"},
        {"max_new_tokens": 4, "answers": 2},
    ),
}  # fmt: skip


# peft still asks transformers by a name that is going away.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_tells_all_and_loads_with_transformers_alone(
    things: Path, tmp_path: Path, name: str
) -> None:
    stage, inputs, config = STAGES[name]
    run = make_run(
        tmp_path, stage, {role: things / file for role, file in inputs.items()}, **config
    )
    run_here(run)
    out = run / "out"

    card = (out / "README.md").read_text("utf-8")
    data = [file for file in inputs.values() if "." in file]
    wanted = [one for one in SECTIONS if one != "Parents" or len(data) < len(inputs)]
    assert [line[3:] for line in card.splitlines() if line.startswith("## ")] == wanted
    for file in data:
        digest = hashlib.sha256((things / file).read_bytes()).hexdigest()
        assert f"`{file}`" in card
        assert digest in card
    if "policy" in inputs.values():
        assert folder_hash(things / "policy") in card
    assert "seed 3" in card
    for setting, value in config.items():
        if value != getattr(CONFIGS[stage](), setting):
            assert f'"{setting}": {json.dumps(value)}' in card
    assert "torch" in card
    manifest = json.loads((out / "manifest.json").read_text())["files"]
    assert {"README.md", "report.json", "config.json", "tokenizer.json"} <= set(manifest)

    kind = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
    model, found = kind.from_pretrained(str(out), output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    turns = [{"role": "user", "content": "I like tea"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt")
    logits = model(**ids).logits
    assert logits.isfinite().all()
    if (out / "adapter").is_dir():
        from peft import AutoPeftModelForCausalLM

        adapted = AutoPeftModelForCausalLM.from_pretrained(str(out / "adapter"))
        assert adapted.peft_config


# its parts


def test_rows_are_lines_that_hold_something(tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert cards.rows_of(file) == "2"
    assert cards.rows_of(tmp_path) == "1 files"
    (tmp_path / "text.txt").write_text("a\nb\n")
    assert cards.rows_of(tmp_path / "text.txt") == "–"


def test_the_hash_of_a_folder_changes_with_any_file_or_name(tmp_path: Path) -> None:
    seen = []
    for name, text in (("a.txt", "one"), ("a.txt", "two"), ("b.txt", "two")):
        folder = tmp_path / f"{name}-{text}"
        folder.mkdir()
        (folder / name).write_text(text)
        seen.append(cards.hash_of(folder))
    assert len(set(seen)) == 3


def test_a_parent_has_its_registered_name_where_it_is_told(tmp_path: Path) -> None:
    body = {
        "stage": "score",
        "inputs": {"reward": {"path": "/models/7"}, "answers": "a.jsonl"},
        "parents": {"reward": "everyday · reward 2"},
    }
    (tmp_path / "spec.json").write_text(json.dumps(body))
    assert cards.parent_name(load_spec(tmp_path), "reward") == "everyday · reward 2"
    (tmp_path / "spec.json").write_text(json.dumps(body | {"parents": ["?"]}))
    assert cards.parent_name(load_spec(tmp_path), "reward") == "/models/7"


def test_settings_that_do_not_matter_are_left_out(tmp_path: Path) -> None:
    body = {"stage": "score", "seed": 5, "inputs": {"reward": "r", "answers": "a.jsonl"}}
    (tmp_path / "spec.json").write_text(json.dumps(body | {"config": {"threads": 1}}))
    words = cards.settings_words(load_spec(tmp_path))
    assert words == "Stage `score`, seed 5; all others are the defaults."
    (tmp_path / "spec.json").write_text(json.dumps(body | {"config": {"max_length": 64}}))
    assert '{"max_length": 64}' in cards.settings_words(load_spec(tmp_path))


def test_a_figure_without_an_interval_stands_alone() -> None:
    assert cards.with_interval(0.5, None) == "0.500"
    assert cards.with_interval(0.5, [0.25, 0.75], ".2f") == "0.50 (95 % interval 0.25 to 0.75)"
    assert cards.with_interval(None, None) == "not known"
