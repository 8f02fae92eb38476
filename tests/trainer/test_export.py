"""A run as a job for another trainer: its files, its options, and what they hold."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from tests.tiny import make_tiny, make_tiny_reward, write_prompts
from tests.trainer.judging import make_run, ranking_lines, read_lines, write_lines
from trainer.__main__ import main
from trainer.config import load_spec
from trainer.data import read_weighty, split_by_prompt
from trainer.manifests import verify_manifest

#: options that OpenRLHF 0.11 knows, as far as an export writes them
PPO_OPTIONS = """
actor.model_name_or_path reward.model_name_or_path critic.model_name_or_path
ds.value_head_prefix data.prompt_dataset data.input_key data.apply_chat_template data.max_len
rollout.max_new_tokens rollout.temperature rollout.batch_size rollout.n_samples_per_prompt
train.batch_size train.max_epochs train.num_episodes train.seed algo.advantage.estimator
algo.advantage.gamma algo.advantage.lambd algo.kl.estimator algo.kl.init_coef algo.kl.target
algo.kl.horizon actor.eps_clip actor.adam.lr actor.max_norm critic.value_clip critic.adam.lr
critic.freezing_steps reward.clip_range actor.num_nodes actor.num_gpus_per_node critic.num_nodes
critic.num_gpus_per_node reward.num_nodes reward.num_gpus_per_node ref.num_nodes
ref.num_gpus_per_node vllm.num_engines vllm.gpu_memory_utilization vllm.enable_sleep
ds.enable_sleep ds.zero_stage ds.param_dtype train.colocate_all
actor.gradient_checkpointing_enable ckpt.output_dir ckpt.save_hf
actor.lr_scheduler actor.lr_warmup_ratio actor.min_lr_ratio
critic.lr_scheduler critic.lr_warmup_ratio critic.min_lr_ratio critic.max_norm
"""
RM_OPTIONS = """
model.model_name_or_path data.dataset eval.dataset data.prompt_key data.chosen_key
data.rejected_key data.apply_chat_template data.max_len train.max_epochs train.batch_size
train.micro_batch_size max_norm adam.weight_decay adam.lr lr_warmup_ratio train.seed
ds.value_head_prefix ds.zero_stage ds.param_dtype ds.lora.rank ds.lora.alpha
model.gradient_checkpointing_enable model.margin_loss_enable min_lr_ratio ckpt.output_dir
"""
#: keys of verl 0.9's configuration (its generated ppo_trainer.yaml), as far as written
VERL_KEYS = """
data.train_files data.val_files data.train_batch_size data.max_prompt_length
data.max_response_length data.seed algorithm.adv_estimator algorithm.gamma algorithm.lam
algorithm.use_kl_in_reward algorithm.kl_penalty algorithm.kl_ctrl.type algorithm.kl_ctrl.kl_coef
algorithm.kl_ctrl.target_kl algorithm.kl_ctrl.horizon actor_rollout_ref.model.path
actor_rollout_ref.model.enable_gradient_checkpointing actor_rollout_ref.model.lora_rank
actor_rollout_ref.model.lora_alpha actor_rollout_ref.model.target_modules
actor_rollout_ref.actor.optim.lr actor_rollout_ref.actor.clip_ratio
actor_rollout_ref.actor.optim.lr_scheduler_type critic.optim.lr_scheduler_type
actor_rollout_ref.actor.grad_clip actor_rollout_ref.actor.loss_agg_mode
actor_rollout_ref.actor.ppo_epochs actor_rollout_ref.actor.ppo_mini_batch_size
actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu actor_rollout_ref.rollout.name
actor_rollout_ref.rollout.n actor_rollout_ref.rollout.temperature
actor_rollout_ref.rollout.tensor_model_parallel_size
actor_rollout_ref.rollout.gpu_memory_utilization actor_rollout_ref.rollout.load_format
actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu
actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu critic.model.path critic.optim.lr
critic.cliprange_value critic.ppo_epochs critic.ppo_mini_batch_size
critic.ppo_micro_batch_size_per_gpu reward.reward_model.enable reward.reward_model.model_path
reward.reward_model.rollout.name reward.reward_model.rollout.tensor_model_parallel_size
reward.reward_model.rollout.prompt_length reward.reward_model.rollout.response_length
trainer.total_training_steps trainer.critic_warmup trainer.nnodes trainer.n_gpus_per_node
trainer.logger trainer.project_name trainer.experiment_name trainer.default_local_dir
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    found = {"policy": make_tiny(folder), "reward": make_tiny_reward(folder)}
    (found["reward"] / "normalisation.json").write_text('{"mean": 1.0, "std": 2.0}')
    return found


@pytest.fixture
def ppo_run(models: dict[str, Path], tmp_path: Path) -> Path:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 20)
    config = {"steps": 10, "episodes_per_step": 32, "answers_per_prompt": 4, "kl_coef": 0.05}
    return make_run(tmp_path / "ppo run", "ppo", models | {"prompts": prompts}, **config)


@pytest.fixture
def reward_run(models: dict[str, Path], tmp_path: Path) -> Path:
    prompt = [{"role": "user", "content": "how is the tea"}]
    line = {
        "prompt": prompt,
        "answers": [{"id": name, "text": text} for name, text in zip("abc", "ABC", strict=True)],
        "ranks": {"a": 2, "b": 1, "c": 2},
        "gaps": [3],
    }
    data = write_lines(tmp_path / "rankings.jsonl", [line])
    heldout = write_lines(tmp_path / "heldout.jsonl", [line])
    inputs = {"base": models["policy"], "rankings": data, "heldout": heldout}
    return make_run(tmp_path / "rm", "reward", inputs, margin=0.5)


def options_of(script: Path, start: str) -> dict[str, list[str]]:
    """Each option of a launch script with its values, as a shell would split them."""
    words = shlex.split(script.read_text().split(start)[1].replace("\\\n", " "))
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            assert name not in found
            found[name] = []
        elif word != "$@":
            found[name].append(word)
    return found


def overrides_of(script: Path) -> dict[str, str]:
    words = shlex.split(script.read_text().split("main_ppo")[1].replace("\\\n", " "))
    pairs = [tuple(word.split("=", 1)) for word in words if word != "$@"]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def export(run: Path, dest: Path, target: str) -> Path:
    assert main(["export", str(run), str(dest), "--to", target]) == 0
    assert verify_manifest(dest) == []
    for script in dest.glob("*.sh"):
        subprocess.run(["sh", "-n", str(script)], check=True)
    return dest


def test_a_ppo_run_for_openrlhf(ppo_run: Path, models: dict[str, Path], tmp_path: Path) -> None:
    dest = export(ppo_run, tmp_path / "there", "openrlhf")
    options = options_of(dest / "train_ppo.sh", "openrlhf.cli.train_ppo_ray")
    assert set(options) <= set(PPO_OPTIONS.split())
    assert options["actor.model_name_or_path"] == [str(models["policy"])]
    assert options["reward.model_name_or_path"] == [str(models["reward"])]
    # 32 answers, four to a prompt, in four minibatches; ten steps of eight of the twenty prompts
    assert options["rollout.batch_size"] == ["8"]
    assert options["rollout.n_samples_per_prompt"] == ["4"]
    assert options["train.batch_size"] == ["8"]
    assert options["train.num_episodes"] == ["4"]
    # raw rewards are 2 times as wide around 1: 0.05 · 2, and five deviations to either side
    assert options["algo.kl.init_coef"] == ["0.1"]
    assert options["reward.clip_range"] == ["-9", "11"]
    lines = read_lines(dest / "data" / "prompts.jsonl")
    assert lines == [
        {"input": line["prompt"], "id": line["id"]}
        for line in read_lines(ppo_run.parent / "prompts.jsonl")
    ]
    assert not (dest / "train_rm.sh").exists()
    readme = (dest / "README.md").read_text()
    assert "| `--algo.kl.init_coef` | `0.1` | kl_coef × std" in readme
    assert "The KL budget (`kl_budget`, 12 nats a reply)" in readme


def change(run: Path, **settings: Any) -> None:
    """Other settings for a run folder, and pairs to go on learning from where they are wanted."""
    spec = json.loads((run / "spec.json").read_text())
    spec["config"] |= settings
    if settings.get("ptx_coef"):
        spec["inputs"]["pairs"] = "pairs.jsonl"
    (run / "spec.json").write_text(json.dumps(spec))


@pytest.mark.parametrize("target", ["openrlhf", "verl"])
def test_no_bound_here_is_no_bound_there(target: str, ppo_run: Path, tmp_path: Path) -> None:
    """Theirs would be 10 for a reward, and verl's gradient would be nothing."""
    change(ppo_run, score_clip=0, grad_clip=0)
    script = export(ppo_run, tmp_path / "there", target) / "train_ppo.sh"
    if target == "verl":
        assert overrides_of(script)["actor_rollout_ref.actor.grad_clip"] == "1000000"
        return
    options = options_of(script, "openrlhf.cli.train_ppo_ray")
    assert options["reward.clip_range"] == ["-1999999", "2000001"]
    assert options["actor.max_norm"] == options["critic.max_norm"] == ["1000000"]


#: settings beside which every other one has an effect
IN_EFFECT: dict[str, dict[str, Any]] = {
    "ppo": {"kl_control": "adaptive", "ptx_coef": 0.5},
    "reward": {"ensemble": 2},
}


def another(setting: dataclasses.Field[Any], now: Any) -> Any:
    """A value of that setting that is not the present one."""
    if choices := setting.metadata["choices"]:
        return next(choice for choice in choices if choice != now)
    if isinstance(now, bool):
        return not now
    return now / 2 if isinstance(now, float) and now else now * 2 or 1


def told(dest: Path) -> tuple[dict[str, bytes], str]:
    """What an export holds, and what it says is different there."""
    files = {
        str(path.relative_to(dest)): path.read_bytes()
        for path in dest.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    parts = (dest / "README.md").read_text().split("What is different there:")
    return files, "".join(part.split("##")[0] for part in parts[1:])


@pytest.mark.parametrize(
    ("stage", "target"), [("ppo", "openrlhf"), ("ppo", "verl"), ("reward", "openrlhf")]
)
def test_every_setting_is_carried_over_or_named_as_different(
    stage: str, target: str, models: dict[str, Path], tmp_path: Path
) -> None:
    inputs = {"base": models["policy"]} | {
        "rankings": write_lines(tmp_path / "rankings.jsonl", ranking_lines(20))
    }
    if stage == "ppo":
        inputs = models | {"prompts": write_prompts(tmp_path / "prompts.jsonl", 20)}
    run = make_run(tmp_path / "run", stage, inputs, **IN_EFFECT[stage])
    change(run, **IN_EFFECT[stage])
    plain, _ = told(export(run, tmp_path / "plain", target))
    config = load_spec(run).config
    forgotten = []
    for setting in dataclasses.fields(config):
        now = getattr(config, setting.name)
        change(run, **{setting.name: another(setting, now)})
        files, different = told(export(run, tmp_path / setting.name, target))
        if files == plain and f"`{setting.name}`" not in different:
            forgotten.append(setting.name)
        change(run, **{setting.name: now})
    assert forgotten == []


@pytest.mark.parametrize(("schedule", "theirs"), [("linear", "cosine"), ("constant", "constant")])
def test_rates_that_fall_here_fall_there(
    schedule: str, theirs: str, ppo_run: Path, tmp_path: Path
) -> None:
    change(ppo_run, lr_schedule=schedule)
    sentence = "The learning rates fall along a cosine, not in a line"
    for target in ("openrlhf", "verl"):
        dest = export(ppo_run, tmp_path / target, target)
        assert (sentence in told(dest)[1]) == (schedule == "linear")
    options = options_of(tmp_path / "openrlhf" / "train_ppo.sh", "openrlhf.cli.train_ppo_ray")
    keys = overrides_of(tmp_path / "verl" / "train_ppo.sh")
    for model, part in (("actor", "actor_rollout_ref.actor"), ("critic", "critic")):
        assert options[f"{model}.lr_scheduler"][0].startswith(theirs)
        assert keys[f"{part}.optim.lr_scheduler_type"] == theirs


@pytest.mark.parametrize("target", ["openrlhf", "verl"])
def test_what_becomes_of_an_ensemble_is_told(
    target: str, ppo_run: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    sentence = "Of the reward model's ensemble the first member judges alone."
    assert sentence not in told(export(ppo_run, tmp_path / "one", target))[1]
    reward = shutil.copytree(models["reward"], tmp_path / "reward")
    (reward / "members" / "1").mkdir(parents=True)
    spec = json.loads((ppo_run / "spec.json").read_text())
    spec["inputs"] |= {"reward": str(reward), "second": str(models["reward"])}
    (ppo_run / "spec.json").write_text(json.dumps(spec))
    change(ppo_run, ensemble="minimum")
    different = told(export(ppo_run, tmp_path / "many", target))[1]
    assert sentence in different
    assert "An ensemble's disagreement costs nothing (`ensemble` minimum" in different
    assert "Nothing is measured on the inputs `second`." in different


def test_a_ppo_run_for_verl(ppo_run: Path, models: dict[str, Path], tmp_path: Path) -> None:
    dest = export(ppo_run, tmp_path / "there", "verl")
    keys = overrides_of(dest / "train_ppo.sh")
    assert set(keys) <= set(VERL_KEYS.split())
    assert keys["critic.model.path"] == str(models["reward"])
    assert keys["algorithm.kl_ctrl.kl_coef"] == "0.1"
    assert keys["actor_rollout_ref.actor.ppo_mini_batch_size"] == "2"
    assert keys["actor_rollout_ref.model.lora_rank"] == "16"
    assert keys["trainer.experiment_name"] == "ppo run"
    tables = [
        pyarrow.parquet.read_table(dest / "data" / f"{name}.parquet").to_pylist()
        for name in ("train", "val")
    ]
    rows = [row for table in tables for row in table]
    given = {line["id"]: line["prompt"] for line in read_lines(ppo_run.parent / "prompts.jsonl")}
    assert {row["extra_info"]["id"]: row["prompt"] for row in rows} == given
    assert rows[0]["reward_model"] == {"style": "model", "ground_truth": ""}
    assert rows[0]["data_source"] == "labelhub"


def test_rankings_become_pairs(reward_run: Path, models: dict[str, Path], tmp_path: Path) -> None:
    dest = export(reward_run, tmp_path / "there", "openrlhf")
    options = options_of(dest / "train_rm.sh", "openrlhf.cli.train_rm")
    assert set(options) <= set(RM_OPTIONS.split())
    assert options["model.model_name_or_path"] == [str(models["policy"])]
    assert options["adam.lr"] == ["0.001"]
    assert "model.margin_loss_enable" in options

    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    # b before a and c, which tie: two pairs, each 0.5 times a gap of 3
    prompt = [{"role": "user", "content": "how is the tea"}]
    pairs = [
        {"prompt": prompt, "chosen": said("B"), "rejected": said(worse), "margin": 1.5}
        for worse in "AC"
    ]
    assert read_lines(dest / "data" / "pairs.jsonl") == pairs
    assert read_lines(dest / "data" / "heldout.jsonl") == pairs
    assert not (dest / "train_ppo.sh").exists()  # there is no reward model yet


def test_what_weighs_nothing_stays_here_and_the_same_prompts_are_held_out(
    models: dict[str, Path], tmp_path: Path
) -> None:
    lines = ranking_lines(40)
    for number, line in enumerate(lines):
        line["weight"] = float(number % 2)
    data = write_lines(tmp_path / "rankings.jsonl", lines)
    run = make_run(tmp_path / "rm", "reward", {"base": models["policy"], "rankings": data})
    (run / "out").symlink_to(models["reward"])
    training, heldout = split_by_prompt(read_weighty(data), 0.2)
    dest = export(run, tmp_path / "there", "openrlhf")
    for name, rankings in (("pairs", training), ("heldout", heldout)):
        prompts = {
            json.dumps(line["prompt"]) for line in read_lines(dest / "data" / f"{name}.jsonl")
        }
        ordered = [one for one in rankings if max(one.ranks) > 1]  # a single tie has no pair
        assert prompts == {json.dumps(list(one.messages)) for one in ordered}
    asked = [json.dumps(line["input"]) for line in read_lines(dest / "data" / "prompts.jsonl")]
    assert sorted(asked) == sorted(json.dumps(list(one.messages)) for one in training)


def test_a_finished_reward_run_brings_its_model_along(
    reward_run: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    (reward_run / "out").symlink_to(models["reward"])
    dest = export(reward_run, tmp_path / "a", "openrlhf")
    options = options_of(dest / "train_ppo.sh", "openrlhf.cli.train_ppo_ray")
    assert options["reward.model_name_or_path"] == [str(reward_run / "out")]
    assert options["actor.model_name_or_path"] == [str(models["policy"])]
    assert len(read_lines(dest / "data" / "prompts.jsonl")) == 1
    keys = overrides_of(export(reward_run, tmp_path / "b", "verl") / "train_ppo.sh")
    assert keys["reward.reward_model.model_path"] == str(reward_run / "out")


def refusal(arguments: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["export", *map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(
    reward_run: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = [reward_run, tmp_path, "--to", "openrlhf"]
    assert "exists already; give a new place" in refusal(taken, capsys)
    unfinished = [reward_run, tmp_path / "x", "--to", "verl"]
    assert "no finished reward model in out/" in refusal(unfinished, capsys)
    assert not (tmp_path / "x").exists()
    pairs = write_lines(tmp_path / "pairs.jsonl", [])
    sft = make_run(tmp_path / "sft", "sft", {"base": models["policy"], "pairs": pairs})
    assert "give the folder of a reward or ppo run" in refusal(
        [sft, tmp_path / "x", "--to", "verl"], capsys
    )
    (reward_run / "spec.json").write_text(json.dumps({"stage": "none"}))
    assert "choose one of" in refusal([reward_run, tmp_path / "x", "--to", "verl"], capsys)
