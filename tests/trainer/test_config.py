"""A spec is read once and refused in one sentence that says where, what and how to mend it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainer.config import (
    CONFIGS,
    PPOConfig,
    SpecError,
    data_dir,
    load_spec,
    models_dir,
    parse_spec,
    resolve_path,
)
from trainer.manifests import folder_hash, sha256_file, write_manifest

INPUTS = {"policy": "tiny", "reward": "rm", "prompts": "data/prompts.jsonl"}


def ppo(**changes: Any) -> dict[str, Any]:
    return {"stage": "ppo", "seed": 3, "config": {}, "inputs": INPUTS} | changes


@pytest.mark.parametrize(
    "body",
    [
        {"stage": "generate", "config": {"answers": 4}, "inputs": {"policy": "a", "prompts": "b"}},
        {"stage": "reward", "config": {}, "inputs": {"base": "a", "rankings": "b"}},
        {"stage": "ppo", "config": {"steps": 10}, "inputs": INPUTS},
        {"stage": "evaluate", "config": {}, "inputs": {"reward": "a", "rankings": "b"}},
        {"stage": "score", "config": {}, "inputs": {"reward": "a", "answers": "b"}},
    ],
)
def test_the_smallest_specs_are_taken_with_defaults(body: dict[str, Any]) -> None:
    spec = parse_spec(body | {"seed": 0})
    assert spec.stage == body["stage"] == spec.config.stage
    assert dict(spec.inputs) == body["inputs"]


def test_a_policy_is_evaluated_on_other_inputs() -> None:
    inputs = {"policy": "a", "reference": "b", "reward": "c", "prompts": "d"}
    assert parse_spec({"stage": "evaluate", "inputs": inputs}).config == CONFIGS["evaluate"]()


def test_a_whole_number_serves_as_a_decimal() -> None:
    config = parse_spec(ppo(config={"kl_coef": 1})).config
    assert isinstance(config, PPOConfig)
    assert config.kl_coef == 1.0


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "spec.json must hold one JSON object"),
        (ppo(stage="dance"), 'stage is "dance"; choose one of pretrain, sft, generate'),
        (ppo(colour="red"), "unknown key “colour”"),
        (ppo(config={"stepz": 3}), "unknown setting “stepz”; stage “ppo” knows answers_per_prompt"),
        (ppo(config=[]), "“config” must be an object"),
        (ppo(config={"steps": 0}), "config.steps of stage “ppo” is 0; give 1 or more"),
        (ppo(config={"steps": "ten"}), 'config.steps of stage “ppo” is "ten"; give a whole number'),
        (ppo(config={"steps": True}), "config.steps of stage “ppo” is true; give a whole number"),
        (ppo(config={"steps": 2**31}), "steps of stage “ppo” is 2147483648; give 2147483647"),
        (ppo(config={"lam": 1.5}), "config.lam of stage “ppo” is 1.5; give 1 or less"),
        (ppo(config={"lr": float("nan")}), "config.lr of stage “ppo” is NaN; give a number"),
        (ppo(config={"kl_control": "odd"}), "choose one of fixed, adaptive"),
        (ppo(config={"device": "toaster"}), "choose one of auto, cpu, cuda, cuda:0"),
        (ppo(config={"answers_per_prompt": 3}), "a multiple of config.answers_per_prompt"),
        (ppo(seed=-1), "seed is -1; give a whole number from 0"),
        (ppo(inputs={"policy": "tiny"}), "stage “ppo” misses the input reward, prompts"),
        (ppo(inputs=INPUTS | {"judge": "x"}), "inputs has an unknown name “judge”"),
        (ppo(inputs=INPUTS | {"reward": 3}), "inputs.reward is 3; give a path"),
        (ppo(inputs=INPUTS | {"reward": {"sha256": "0"}}), "inputs.reward is"),
    ],
)
def test_it_refuses_in_one_sentence(body: Any, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        parse_spec(body)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_spec_that_is_no_json_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"stage": "ppo",\n "seed": }')
    with pytest.raises(SpecError, match=r"spec.json is not JSON \(line 2, column 10"):
        load_spec(tmp_path)


def test_a_folder_without_spec(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"has no spec.json"):
        load_spec(tmp_path)


def test_a_path_is_absolute_or_lies_in_the_run_folder_or_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELHUB_MODELS", str(tmp_path / "models"))
    run, named = tmp_path / "run", tmp_path / "models" / "mine"
    (run / "data").mkdir(parents=True)
    named.mkdir(parents=True)
    (run / "data" / "p.jsonl").write_text("")
    assert resolve_path("data/p.jsonl", run) == run / "data" / "p.jsonl"
    assert resolve_path(str(named), run) == named
    assert resolve_path("mine", run) == named
    with pytest.raises(SpecError, match="no model of that name in"):
        resolve_path("unknown-model", run)
    with pytest.raises(SpecError, match="check the path"):
        resolve_path("data/none.jsonl", run)


def test_texts_have_names_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELHUB_DATA", str(tmp_path / "data"))
    with pytest.raises(SpecError, match="set LABELHUB_DATA to the folder that holds it"):
        resolve_path("pretrain_zh", tmp_path)
    (tmp_path / "data" / "pretrain_zh").mkdir(parents=True)
    assert resolve_path("pretrain_zh", tmp_path) == tmp_path / "data" / "pretrain_zh"
    (tmp_path / "pretrain_zh").mkdir()  # what lies in the run folder comes first
    assert resolve_path("pretrain_zh", tmp_path) == tmp_path / "pretrain_zh"


def test_texts_lie_beside_the_project_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABELHUB_DATA", raising=False)
    root = Path(__file__).resolve().parents[2]
    assert data_dir() == root.parent / "shared" / "data"


def test_registered_models_lie_in_var_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABELHUB_MODELS", raising=False)
    assert models_dir().parts[-2:] == ("var", "models")


def test_a_file_is_checked_against_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("one")
    value = {"path": "p.jsonl", "sha256": sha256_file(path)}
    assert resolve_path(value, tmp_path) == path
    path.write_text("two")
    with pytest.raises(SpecError, match="was changed since the run was planned"):
        resolve_path(value, tmp_path)


def test_a_folder_is_checked_against_its_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_text("abc")
    with pytest.raises(SpecError, match=r"has no manifest.json"):
        resolve_path({"path": "model", "sha256": "0"}, tmp_path)
    write_manifest(folder)
    value = {"path": "model", "sha256": folder_hash(folder)}
    assert resolve_path(value, tmp_path) == folder
    (folder / "weights").write_text("abd")
    with pytest.raises(SpecError, match="weights does not have the sha256 that was recorded"):
        resolve_path(value, tmp_path)


def test_what_does_not_change_the_result_is_no_change() -> None:
    before = parse_spec(ppo()).identity()
    manner = {"threads": 2, "keep_checkpoints": 9, "checkpoint_every": 7}
    assert parse_spec(ppo(config=manner)).changes_since(before) == []
    assert parse_spec(ppo(config={"steps": 14})).changes_since(before) == []  # its default


def test_what_changes_the_result_is_named() -> None:
    before = parse_spec(ppo()).identity()
    assert parse_spec(ppo(seed=4)).changes_since(before) == ["seed was 3 and is 4"]
    assert parse_spec(ppo(config={"lr": 0.5})).changes_since(before) == [
        "config.lr was 0.001 and is 0.5"
    ]
    inputs = ppo()["inputs"] | {"second": "b/out"}
    assert parse_spec(ppo(inputs=inputs)).changes_since(before) == [
        'inputs.second was not given and is "b/out"'
    ]


def test_an_update_that_adds_a_setting_is_no_change_but_another_default_is() -> None:
    now = parse_spec(ppo())
    before = {
        name: value for name, value in now.identity().items() if name != "config.critic_warmup"
    }
    assert now.changes_since(before) == []
    assert parse_spec(ppo(config={"critic_warmup": 5})).changes_since(before) == [
        "config.critic_warmup was 0 and is 5"
    ]
    assert now.changes_since(before | {"config.lam": 0.9}) == ["config.lam was 0.9 and is 1.0"]
    assert now.changes_since(before | {"config.gone": 1}) == ["config.gone was 1 and is not given"]


def test_every_setting_says_what_it_is() -> None:
    for config in CONFIGS.values():
        for item in dataclasses.fields(config):
            assert len(item.metadata["about"]) > 10, f"{config.stage}.{item.name}"


def test_reading_specs_and_events_needs_no_torch() -> None:
    code = (
        "import sys, trainer.config, trainer.events, trainer.types, trainer.manifests\n"
        "print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout.replace("'", '"')) == []
