"""What a run is said to need: counted by hand on a tiny model, and refused when it is not there."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny, make_tiny_encoder, make_tiny_reward, write_prompts
from tests.trainer.judging import events_of, make_run, ranking_lines, write_lines
from trainer import memory, placement
from trainer.__main__ import main
from trainer.config import PPOConfig, ScoreConfig, load_spec
from trainer.events import RunError
from trainer.memory import GIB, MIB, Estimate, Part, Plan
from trainer.types import SHAPES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"policy": make_tiny(folder), "reward": make_tiny_reward(folder)}


@pytest.fixture
def generate_run(models: dict[str, Path], tmp_path: Path) -> Path:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 3)
    inputs = {"policy": models["policy"], "prompts": prompts}
    return make_run(tmp_path / "run", "generate", inputs, answers=2, max_new_tokens=4, batch_size=8)


def reward_run(models: dict[str, Path], folder: Path, **config: Any) -> Path:
    data = write_lines(folder / "rankings.jsonl", ranking_lines(6))
    return make_run(
        folder / "run", "reward", {"base": models["policy"], "rankings": data}, **config
    )


def part(found: Estimate, name: str) -> int:
    return sum(one.bytes for one in found.parts if one.name == name)


def test_sizes_are_read_from_the_folder(models: dict[str, Path]) -> None:
    net = memory.read_network(models["policy"])
    # embedding and head 48 × 32 each, norms 5 × 32; a layer: q and o 32², k and v 16 · 32,
    # three feed-forward matrices 48 · 32
    layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32
    assert net.parameters == net.vocabulary * 32 * (2 if has_head(net) else 1) + 2 * layer + 5 * 32
    assert (net.width, net.inner, net.layers, net.heads, net.key_width) == (32, 48, 2, 2, 16)
    assert net.window == 128


def has_head(net: memory.Network) -> bool:
    return any(layer < 0 for layer, _, _ in net.matrices)


def test_the_adapter_is_counted_matrix_by_matrix(models: dict[str, Path], tmp_path: Path) -> None:
    run = reward_run(models, tmp_path, lora_r=16)
    found = memory.estimate(load_spec(run), run, "float32", "cpu")
    # out + in of q, k, v, o, gate, up, down: 64 + 48 + 48 + 64 + 3 · 80 = 464, in two layers;
    # rank 16; weight, gradient and two moments of four bytes
    assert part(found, "adapter, its gradient and moments") == 464 * 2 * 16 * 16


def test_a_reward_model_learns_in_all_layers_that_it_keeps(tmp_path: Path) -> None:
    """Of ten layers all by default (PPO would take the top third), or those that are asked for."""
    models = {"policy": make_tiny(tmp_path, num_hidden_layers=10)}
    data = write_lines(tmp_path / "rankings.jsonl", ranking_lines(6))
    inputs = {"base": models["policy"], "rankings": data}

    def estimate(**config: Any) -> Estimate:
        run = make_run(tmp_path / "run", "reward", inputs, **config)
        return memory.estimate(load_spec(run), run, "float32", "cpu")

    adapter = "adapter, its gradient and moments"
    one_layer = 464 * 16 * 16  # as above
    whole = estimate()
    assert part(whole, adapter) == 10 * one_layer
    assert part(estimate(ensemble=3, ensemble_kind="lora"), adapter) == 30 * one_layer
    top = estimate(lora_layers=4)
    assert part(top, adapter) == 4 * one_layer
    # a third of the file's bytes, 32 numbers of four bytes each
    below = data.stat().st_size / 3 * 32 * 4
    assert part(top, "states below the adapter") == pytest.approx(below, abs=1)
    assert part(estimate(lora_layers=4, lower_mib=0), "states below the adapter") == 0
    cut = estimate(layers=4)
    assert part(cut, adapter) == 4 * one_layer
    layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 48 * 32
    assert part(whole, "base") - part(cut, "base") == 6 * layer * 4
    assert whole.phases()["training"] > 2 * cut.phases()["training"]


def test_training_every_weight_holds_sixteen_bytes_of_each(
    models: dict[str, Path], tmp_path: Path
) -> None:
    run = reward_run(models, tmp_path, lora=False)
    found = memory.estimate(load_spec(run), run, "bfloat16", "cpu")
    count = memory.read_network(models["policy"]).parameters
    assert part(found, "base") + part(found, "gradient and moments") == 16 * count


def test_the_cache_of_what_is_written(generate_run: Path) -> None:
    """Four prompts once each and eight answers of four; on a GPU a prompt for each answer."""
    spec = load_spec(generate_run)
    longest = max(map(len, (generate_run.parent / "prompts.jsonl").read_bytes().splitlines(True)))
    prompt = -(-longest // 3)
    for device, tokens in (("cpu", 4 * prompt + 8 * 4), ("cuda", 8 * (prompt + 4))):
        found = memory.estimate(spec, generate_run, "float32", device)
        # keys and values of 16 numbers of four bytes in two layers
        assert part(found, "key-value cache") == tokens * 2 * 2 * 16 * 4


def test_a_sliding_window_and_other_attention_keep_a_prompt_for_each_answer(
    models: dict[str, Path], tmp_path: Path
) -> None:
    assert memory.read_network(models["policy"]).lean
    sliding = shutil.copytree(models["policy"], tmp_path / "sliding")
    config = json.loads((sliding / "config.json").read_text())
    (sliding / "config.json").write_text(json.dumps(config | {"sliding_window": 8}))
    assert not memory.read_network(sliding).lean
    encoder = make_tiny_encoder(tmp_path / "encoder")  # its projections have other names
    assert not memory.read_network(encoder).lean


def test_half_the_bytes_in_bfloat16_and_no_packing_on_a_gpu(generate_run: Path) -> None:
    spec = load_spec(generate_run)
    wide, narrow, there = (
        memory.estimate(spec, generate_run, dtype, device)
        for dtype, device in (("float32", "cpu"), ("bfloat16", "cpu"), ("bfloat16", "cuda"))
    )
    assert part(wide, "policy") == 2 * part(narrow, "policy")
    assert part(narrow, "packed weights") > 0
    assert part(there, "packed weights") == 0


def test_learning_in_bfloat16_on_a_cpu_counts_what_products_were_prepared(
    models: dict[str, Path], tmp_path: Path, generate_run: Path
) -> None:
    run = reward_run(models, tmp_path / "reward")

    def prepared(folder: Path, dtype: str, device: str) -> int:
        found = memory.estimate(load_spec(folder), folder, dtype, device)
        return part(found, "prepared products")

    assert prepared(run, "bfloat16", "cpu") == 192 * 2**20
    assert prepared(run, "float32", "cpu") == prepared(run, "bfloat16", "cuda") == 0
    assert prepared(generate_run, "bfloat16", "cpu") == 0


def test_writing_on_a_cpu_counts_the_compiler(
    models: dict[str, Path], tmp_path: Path, generate_run: Path
) -> None:
    def compiler(folder: Path, device: str) -> int:
        found = memory.estimate(load_spec(folder), folder, "float32", device)
        return part(found, "numba and what it compiled")

    assert compiler(generate_run, "cpu") == 100 * 2**20
    assert compiler(generate_run, "cuda") == 0
    assert compiler(reward_run(models, tmp_path / "reward"), "cpu") == 0


def test_the_need_is_the_fixed_part_and_the_largest_phase() -> None:
    found = Estimate(
        (Part("a", 100), Part("b", 30, "one"), Part("c", 20, "two"), Part("d", 25, "two"))
    )
    assert found.bytes == round(1.1 * (100 + 45))


def test_a_planned_network_has_the_preset_s_weights(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some text")
    run = make_run(tmp_path / "run", "pretrain", {"text": tmp_path / "text.txt"}, size="5m")
    net = memory.planned_network(load_spec(run).config)
    inside = sum(out * into for _, out, into in net.matrices)
    assert inside == SHAPES["5m"].parameters
    assert net.parameters == inside + 8192 * 256


@pytest.mark.parametrize("stage", ["sft", "ppo", "prefer", "bestofn", "evaluate", "score"])
def test_every_stage_has_an_estimate(stage: str, models: dict[str, Path], tmp_path: Path) -> None:
    lines = ranking_lines(4)
    given = [one | {"prompt": line["prompt"]} for line in lines for one in line["answers"]]
    files = {
        "prompts": write_prompts(tmp_path / "prompts.jsonl"),
        "rankings": write_lines(tmp_path / "rankings.jsonl", lines),
        "answers": write_lines(tmp_path / "answers.jsonl", given),
        "pairs": write_lines(
            tmp_path / "pairs.jsonl", [{"prompt": g["prompt"], "answer": g["text"]} for g in given]
        ),
        "base": models["policy"],
        "reference": models["policy"],
    } | models
    wanted = {
        "sft": ("base", "pairs"),
        "ppo": ("policy", "reward", "prompts"),
        "prefer": ("policy", "rankings"),
        "bestofn": ("policy", "reward", "prompts"),
        "evaluate": ("policy", "reference", "reward", "prompts"),
        "score": ("reward", "answers"),
    }[stage]
    run = make_run(tmp_path / "run", stage, {name: files[name] for name in wanted})
    spec = load_spec(run)
    found = memory.estimate(spec, run, "float32", "cpu")
    assert 400 * MIB < found.bytes < 3 * GIB
    # settings that are said to save memory never cost any
    for change in memory.remedies(spec.config):
        less = dataclasses.replace(spec, config=dataclasses.replace(spec.config, **change))
        assert memory.estimate(less, run, "float32", "cpu").bytes <= found.bytes


# --- what is free ---------------------------------------------------------------------------------


def fake_proc(folder: Path, available_kb: int, cgroup: str, anonymous_kb: int = 0) -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:  {available_kb} kB\n")
    (folder / "self" / "cgroup").write_text(cgroup)
    (folder / "self" / "status").write_text(f"Name: x\nRssAnon:\t{anonymous_kb} kB\n")
    return folder


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_what_this_process_holds_already_counts_as_its_own(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path / "proc", 1000, "0::/\n", anonymous_kb=50)
    assert memory.free_memory(proc, tmp_path / "none") == 1050 * 1024


def test_a_control_group_above_may_allow_less(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path / "proc", 10_000, "0::/a/b\n")
    root = tmp_path / "cgroup"
    group(root / "a" / "b", memory__max="max\n", memory__current="5", memory__stat="anon 1\n")
    group(
        root / "a",
        memory__max="3000000\n",
        memory__current="1000000\n",
        memory__stat="anon 9\ninactive_file 400000\n",
    )
    assert memory.free_memory(proc, root) == 3_000_000 - 1_000_000 + 400_000


def test_control_groups_of_the_first_version(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path / "proc", 10_000, "4:memory:/box\n2:cpu:/box\n")
    root = tmp_path / "cgroup"
    files = {
        "memory.limit_in_bytes": "2000000",
        "memory.usage_in_bytes": "500000",
        "memory.stat": "total_inactive_file 100000\n",
    }
    (root / "memory" / "box").mkdir(parents=True)
    for name, text in files.items():
        (root / "memory" / "box" / name).write_text(text)
    assert memory.free_memory(proc, root) == 1_600_000


def test_a_machine_that_does_not_say_is_not_asked_twice(tmp_path: Path) -> None:
    assert memory.free_memory(tmp_path / "nothing", tmp_path) is None


# --- refusing -------------------------------------------------------------------------------------


def test_a_run_that_does_not_fit_is_refused_with_what_would_help(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reward_run(models, tmp_path, lora=False)
    spec = load_spec(run)
    monkeypatch.setattr(memory, "PROCESS", 0)
    whole = memory.estimate(spec, run, "float32", "cpu").bytes
    smaller = dataclasses.replace(spec, config=dataclasses.replace(spec.config, token_budget=256))
    room = memory.estimate(smaller, run, "float32", "cpu").bytes
    with pytest.raises(RunError) as refusal:
        memory.check(spec, run, "float32", "cpu", room)
    sentence = str(refusal.value)
    assert f"needs about {memory.gib(whole)} of memory and {memory.gib(room)} are free" in sentence
    assert f"config.token_budget to 256 ({memory.gib(room)})" in sentence
    assert "LABELHUB_MEMORY_CHECK=0" in sentence
    assert memory.check(spec, run, "float32", "cpu", whole) == -(-whole // MIB)


def test_settings_that_help_only_together_are_named_together(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = reward_run(models, tmp_path, lora=False, lora_r=1)
    spec = load_spec(run)
    monkeypatch.setattr(memory, "PROCESS", 0)
    both = dataclasses.replace(spec.config, lora=True, token_budget=256)
    room = memory.estimate(dataclasses.replace(spec, config=both), run, "float32", "cpu").bytes
    with pytest.raises(RunError, match=r"token_budget to 256 and config\.lora to true"):
        memory.check(spec, run, "float32", "cpu", room)
    with pytest.raises(RunError, match="a smaller model or a machine with more memory"):
        memory.check(spec, run, "float32", "cpu", 1000)


def test_the_check_can_be_switched_off(generate_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELHUB_MEMORY_CHECK", "0")
    assert memory.check(load_spec(generate_run), generate_run, "float32", "cpu", 1) > 400


def test_a_refused_run_fails_before_it_reads_weights(
    generate_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 5 * MIB)
    assert main(["run", str(generate_run)]) == 1
    (failed,) = events_of(generate_run, "failed")
    assert failed["message"].startswith("This run needs about ")
    assert not events_of(generate_run, "started")


@pytest.mark.parametrize(("engine", "free"), [("hf", 60), ("vllm", 35)])
def test_what_vllm_takes_of_a_gpu_is_not_free(
    engine: str, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 GiB are free of 100, of which a quarter is vLLM's."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (60 * GIB, 100 * GIB))
    config = PPOConfig(engine=engine, engine_memory=0.25)
    assert placement.free_memory(torch.device("cuda"), config) == free * GIB
    assert placement.free_memory(torch.device("cuda"), ScoreConfig()) == 60 * GIB


def test_a_run_says_what_it_needs(generate_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["estimate", str(generate_run)]) == 0
    table = capsys.readouterr().out
    assert "key-value cache" in table
    assert main(["run", str(generate_run)]) == 0
    (started,) = events_of(generate_run, "started")
    assert f"{started['needs_mib']}" in table


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    model = make_tiny(tmp_path)
    (model / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(RunError, match=r"model\.safetensors is damaged .* restore it\."):
        list(memory.tensor_shapes(model))


def test_a_model_without_sizes_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps([1])[:1])
    with pytest.raises(RunError, match="cannot be read"):
        memory.read_network(tmp_path)
    with pytest.raises(RunError, match="no model folder"):
        memory.read_network(tmp_path / "away")


def test_a_plan_counts_the_longest_line(generate_run: Path) -> None:
    plan = Plan(load_spec(generate_run), generate_run, "float32", "cpu")
    (generate_run.parent / "prompts.jsonl").write_bytes(b"x" * 30 + b"\n" + b"y" * 60 + b"\n")
    assert plan.longest("prompts", most=100) == 21  # 61 bytes with the line's end
    assert plan.longest("prompts", most=7) == 7
