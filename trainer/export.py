"""A run as a job for OpenRLHF or verl, for what outgrows one machine.

`python -m trainer export FOLDER DEST --to openrlhf|verl` reads a reward or PPO run folder and makes
DEST: the data as the other trainer reads it, a launch script with our settings in its words, and a
README that says what became what and what has no counterpart.

Choices
- Every setting of the run is carried over, or the README names it among what is different there;
  a test goes through all of them.
- Nothing is copied that is large: scripts name the model folders where they lie.
- Rewards stay the model's raw output r there. Ours are (r − mean) / std, so the penalty's weight is
  multiplied by std and bounds are moved: the same objective up to its scale.
- Options are those of OpenRLHF 0.11 (`--actor.*`, `--algo.*`; earlier ones are spelled otherwise)
  and verl 0.9 (`reward.reward_model.*`). Script and README are written from one table.
- A launch script is a start, not a benchmark: `docs/scaling.md` says that it was not run here.
Non-goals: starting the other trainer, bringing its result back (`python -m trainer prepare` does).
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow
import pyarrow.parquet

from trainer import schedules
from trainer.checkpoints import publish
from trainer.config import (
    MANNER,
    PPOConfig,
    RewardConfig,
    Spec,
    StageConfig,
    load_spec,
    resolve_path,
)
from trainer.data import (
    Messages,
    Prompt,
    Ranking,
    pairs_of,
    parted,
    read_prompts,
    read_weighty,
    split_by_prompt,
)
from trainer.events import RunError
from trainer.scoring import MEMBERS, Normalisation, read_normalisation

#: learning rates of theirs for training every weight, where ours belongs to an adapter
FULL_LR, CRITIC_LR = 1e-6, 9e-6
#: GPUs of a machine, as the scripts ask for them
GPUS = "${GPUS:-8}"
#: share of the prompts that verl validates on
VALIDATED = 0.1
#: settings of how the work is done and watched on a machine, which the other trainer has of its own
WORK = (
    *(*MANNER, "dtype", "engine", "engine_memory", "token_budget", "batch_size", "lower_mib"),
    *("watch_every", "sample_every", "samples"),
)
#: so far from 0 that nothing is cut there
FAR = 1e6


class Option(NamedTuple):
    """One setting in the other trainer's words; `ours` says where it comes from."""

    name: str
    value: str  # "" for a bare switch
    ours: str
    plain: bool = False  # for the shell to read: a variable, or two words


class Script(NamedTuple):
    """What a launch script sets, and what is different there, a sentence each."""

    options: list[Option]
    losses: list[str]


@dataclass(frozen=True)
class Source:
    """What a run folder gives to an export."""

    spec: Spec
    folder: Path
    policy: Path
    reward: Path | None  # None: a reward run that is not finished
    prompts: list[Prompt]
    training: list[Ranking]
    heldout: list[Ranking]
    fit: RewardConfig | None  # of a reward run
    ppo: PPOConfig  # of a PPO run, else its defaults

    @property
    def scale(self) -> Normalisation:
        """Mean and standard deviation of the reward model's raw scores."""
        return read_normalisation(self.reward) if self.reward else Normalisation()

    @property
    def prompts_per_step(self) -> int:
        return self.ppo.episodes_per_step // self.ppo.answers_per_prompt

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt, about: three bytes each, in whole 128s."""
        sizes = [len(json.dumps(one.messages, ensure_ascii=False).encode()) for one in self.prompts]
        return max(128, math.ceil(max(sizes, default=1) / 3 / 128) * 128)

    @property
    def kl_coef(self) -> float:
        """Weight of the penalty beside raw rewards."""
        return self.ppo.kl_coef * self.scale.std


def export(folder: Path, dest: Path, target: str) -> Path:
    """Write the job; refuses a run that holds nothing to export, and a place that is taken."""
    if dest.exists():
        raise RunError(f"{dest} exists already; give a new place.")
    source = read_source(folder)
    write = TARGETS[target]
    dest.parent.mkdir(parents=True, exist_ok=True)
    return publish(dest, lambda draft: write(source, draft))


def read_source(folder: Path) -> Source:
    """What the run folder of a reward or PPO run holds."""
    spec = load_spec(folder)

    def path(name: str) -> Path:
        return resolve_path(spec.inputs[name], folder)

    if spec.stage == "ppo":
        prompts, ppo = read_prompts(path("prompts")), cast(PPOConfig, spec.config)
        return Source(spec, folder, path("policy"), path("reward"), prompts, [], [], None, ppo)
    if spec.stage != "reward":
        raise RunError(
            f"{folder} is a run of stage “{spec.stage}”; give the folder of a reward or ppo run."
        )
    fit = cast(RewardConfig, spec.config)
    rankings = read_weighty(path("rankings"))
    given = path("heldout") if "heldout" in spec.inputs else None
    training, heldout = parted(rankings, read_weighty, given, fit.heldout_fraction)
    asked = dict.fromkeys(json.dumps(one.messages) for one in training)
    prompts = [Prompt(f"p{n}", tuple(json.loads(text))) for n, text in enumerate(asked)]
    fit = schedules.settled(fit, [len(one.ranks) for one in training])
    done = folder / "out"
    reward = done if (done / "config.json").is_file() else None
    return Source(spec, folder, path("base"), reward, prompts, training, heldout, fit, PPOConfig())


# --- OpenRLHF -----------------------------------------------------------------------------------


def write_openrlhf(source: Source, draft: Path) -> None:
    """Pairs and prompts as JSON lines, a script for each stage that the run can feed."""
    scripts: dict[str, Script] = {}
    (draft / "data").mkdir()
    if source.fit is not None:
        write_lines(draft / "data" / "pairs.jsonl", pair_lines(source.training, source.fit))
        write_lines(draft / "data" / "heldout.jsonl", pair_lines(source.heldout, source.fit))
        options = openrlhf_reward(source, source.fit)
        scripts["train_rm.sh"] = Script(options, openrlhf_reward_losses(source.fit))
        start = ["deepspeed", "--module", "openrlhf.cli.train_rm"]
        write_script(draft / "train_rm.sh", start, options)
    if source.reward is not None:
        lines = [{"input": list(one.messages), "id": one.id} for one in source.prompts]
        write_lines(draft / "data" / "prompts.jsonl", lines)
        options = openrlhf_ppo(source, source.reward)
        losses = openrlhf_ppo_losses(source.ppo) + ppo_losses(source, source.reward)
        scripts["train_ppo.sh"] = Script(options, losses)
        start = ["python3", "-m", "openrlhf.cli.train_ppo_ray"]
        write_script(draft / "train_ppo.sh", start, options)
    write_readme(draft, "OpenRLHF", source, scripts)


def pair_lines(rankings: Sequence[Ranking], config: RewardConfig) -> list[dict[str, Any]]:
    """One line for each untied pair; the margin is that of our loss."""
    lines = []
    for ranking in rankings:
        pairs = pairs_of([ranking])
        for better, worse, tied, gap in zip(
            pairs.better.tolist(),
            pairs.worse.tolist(),
            pairs.tied.tolist(),
            pairs.gap.tolist(),
            strict=True,
        ):
            if not tied:
                lines.append(
                    {
                        "prompt": list(ranking.messages),
                        "chosen": reply(ranking.texts[better]),
                        "rejected": reply(ranking.texts[worse]),
                        "margin": config.margin * gap,
                    }
                )
    return lines


def reply(text: str) -> list[dict[str, str]]:
    """An answer as the message that it is."""
    return [{"role": "assistant", "content": text}]


def openrlhf_reward(source: Source, fit: RewardConfig) -> list[Option]:
    """Our reward settings as options of `openrlhf.cli.train_rm`."""
    answers = [len(one.ranks) for one in source.training]
    pairs = round(fit.rankings_per_step * schedules.pairs_in(answers) / len(answers))
    options = [
        Option("--model.model_name_or_path", str(source.policy), "input base"),
        Option("--data.dataset", "data/pairs.jsonl", "input rankings: all untied pairs"),
        Option("--eval.dataset", "data/heldout.jsonl", "the held-out rankings"),
        Option("--data.prompt_key", "prompt", ""),
        Option("--data.chosen_key", "chosen", ""),
        Option("--data.rejected_key", "rejected", ""),
        Option("--data.apply_chat_template", "", "the tokenizer's own template"),
        Option("--data.max_len", str(fit.max_length), "max_length"),
        Option("--train.max_epochs", str(fit.epochs or 1), "epochs"),
        Option("--train.batch_size", str(pairs), "rankings_per_step, as pairs"),
        Option("--train.micro_batch_size", "1", ""),
        Option("--max_norm", number(fit.grad_clip or FAR), "grad_clip"),
        Option("--adam.weight_decay", number(fit.weight_decay), "weight_decay"),
        Option("--adam.lr", number(fit.lr), "lr"),
        Option("--lr_warmup_ratio", number(fit.warmup), "warmup"),
        Option("--min_lr_ratio", "0", "down to nothing"),
        Option("--train.seed", str(source.spec.seed % 2**32), "seed"),
        Option("--ds.value_head_prefix", "score", "so that transformers loads the result"),
        Option("--ds.zero_stage", "3", ""),
        Option("--ds.param_dtype", "bf16", ""),
        Option("--model.gradient_checkpointing_enable", "", ""),
        Option("--ckpt.output_dir", "out_rm", ""),
    ]
    if fit.lora:
        options += [
            Option("--ds.lora.rank", str(fit.lora_r), "lora_r"),
            Option("--ds.lora.alpha", str(round(fit.lora_alpha)), "lora_alpha"),
        ]
    if fit.margin:
        options.append(Option("--model.margin_loss_enable", "", "margin, times each pair's gap"))
    return options


def openrlhf_reward_losses(fit: RewardConfig) -> list[str]:
    """What of a reward run OpenRLHF has no counterpart for."""
    found = [
        "It takes pairs, each by itself: an answer is read once for every pair it is in, "
        "annotators' weights are lost, a tie says nothing (`ties`), and a ranking of many answers "
        "counts for more.",
        "The learning rate falls along a cosine, not in a line.",
        "The base keeps all its layers (`layers`).",
    ]
    if fit.even_reading:
        found.append("The score is read from the last token alone (`even_reading`).")
    if fit.head_start:
        found.append("The head starts at random (`head_start`).")
    if not fit.epochs:
        found.append("The head is not fitted alone (`epochs` 0): one epoch trains everything.")
    if fit.lora and fit.lora_layers:
        found.append(f"Every layer gets an adapter, not the top {fit.lora_layers} (`lora_layers`).")
    if fit.loss != "pairs":
        found.append(f"The loss is that of pairs, not {fit.loss} (`loss`).")
    if fit.centre:
        found.append("Nothing pulls the scores towards 0 (`centre`).")
    if fit.ensemble > 1:
        found.append(
            f"One model is trained, no ensemble (`ensemble` {fit.ensemble}, `ensemble_kind` "
            f"{fit.ensemble_kind})."
        )
    return found + work_losses(fit)


def openrlhf_ppo(source: Source, reward: Path) -> list[Option]:
    """Our PPO settings as options of `openrlhf.cli.train_ppo_ray`."""
    ppo, scale = source.ppo, source.scale
    passes = math.ceil(ppo.steps * source.prompts_per_step / max(1, len(source.prompts)))
    rate = FULL_LR if ppo.lora else ppo.lr
    options = [
        Option("--actor.model_name_or_path", str(source.policy), "input policy"),
        Option("--reward.model_name_or_path", str(reward), "input reward"),
        Option("--critic.model_name_or_path", str(reward), "the critic begins as the reward model"),
        Option("--ds.value_head_prefix", "score", "the head's name in our reward models"),
        Option("--data.prompt_dataset", "data/prompts.jsonl", "input prompts"),
        Option("--data.input_key", "input", ""),
        Option("--data.apply_chat_template", "", "the tokenizer's own template"),
        Option(
            "--data.max_len",
            str(source.longest_prompt + ppo.max_new_tokens),
            "longest prompt, about, and max_new_tokens",
        ),
        Option("--rollout.max_new_tokens", str(ppo.max_new_tokens), "max_new_tokens"),
        Option("--rollout.temperature", number(ppo.temperature), "temperature"),
        Option(
            "--rollout.batch_size",
            str(source.prompts_per_step),
            "episodes_per_step / answers_per_prompt: prompts of a step",
        ),
        Option("--rollout.n_samples_per_prompt", str(ppo.answers_per_prompt), "answers_per_prompt"),
        Option(
            "--train.batch_size",
            str(max(1, ppo.episodes_per_step // ppo.minibatches)),
            "episodes_per_step / minibatches",
        ),
        Option("--train.max_epochs", str(ppo.epochs), "epochs"),
        Option("--train.num_episodes", str(passes), "steps, as passes over the prompts"),
        Option("--train.seed", str(source.spec.seed % 2**32), "seed"),
        Option("--algo.advantage.estimator", "gae", ""),
        Option("--algo.advantage.gamma", number(ppo.gamma), "gamma"),
        Option("--algo.advantage.lambd", number(ppo.lam), "lam"),
        Option("--algo.kl.estimator", ppo.kl_estimator, "kl_estimator"),
        Option("--algo.kl.init_coef", number(source.kl_coef), "kl_coef × std of the raw rewards"),
        Option("--actor.eps_clip", number(ppo.clip), "clip"),
        Option("--actor.adam.lr", number(rate), "lr, if every weight is trained; see below"),
        Option("--critic.value_clip", number(ppo.value_clip), "value_clip"),
        Option("--critic.adam.lr", number(CRITIC_LR), "not ours: their critic is a whole model"),
    ]
    if ppo.kl_control == "adaptive":
        options += [
            Option("--algo.kl.target", number(ppo.kl_target), "kl_target"),
            Option("--algo.kl.horizon", str(ppo.kl_horizon), "kl_horizon"),
        ]
    reach = (ppo.score_clip or FAR) * scale.std
    bounds = f"{number(scale.mean - reach)} {number(scale.mean + reach)}"
    options.append(Option("--reward.clip_range", bounds, "score_clip, on raw rewards", plain=True))
    for part in ("actor", "critic"):
        options += rate_options(part, ppo)
    if ppo.critic_warmup:
        steps = str(ppo.critic_warmup)
        options.append(Option("--critic.freezing_steps", steps, "critic_warmup"))
    for role in ("actor", "critic", "reward", "ref"):
        options += [
            Option(f"--{role}.num_nodes", "1", ""),
            Option(f"--{role}.num_gpus_per_node", GPUS, "", plain=True),
        ]
    options += [
        Option("--vllm.num_engines", GPUS, "", plain=True),
        Option("--vllm.gpu_memory_utilization", "0.5", ""),
        Option("--vllm.enable_sleep", "", ""),
        Option("--ds.enable_sleep", "", ""),
        Option("--ds.zero_stage", "3", ""),
        Option("--ds.param_dtype", "bf16", ""),
        Option("--train.colocate_all", "", "all models on the same GPUs, as here"),
        Option("--actor.gradient_checkpointing_enable", "", ""),
        Option("--ckpt.output_dir", "out", ""),
        Option("--ckpt.save_hf", "", ""),
    ]
    return options


def rate_options(part: str, ppo: PPOConfig) -> list[Option]:
    """How the learning rate and the gradient of actor or critic are held."""
    falls = ppo.lr_schedule == "linear"  # their own linear schedule refuses the lowest rate
    return [
        Option(
            f"--{part}.lr_scheduler", "cosine_with_min_lr" if falls else "constant", "lr_schedule"
        ),
        Option(f"--{part}.lr_warmup_ratio", "0", ""),
        Option(f"--{part}.min_lr_ratio", "0", ""),
        Option(f"--{part}.max_norm", number(ppo.grad_clip or FAR), "grad_clip"),
    ]


def openrlhf_ppo_losses(ppo: PPOConfig) -> list[str]:
    """What of a PPO run OpenRLHF alone has no counterpart for."""
    found = []
    if ppo.lora:
        found.append(
            "With Ray and vLLM it trains every weight, no adapter (`lora`, `lora_r`, `lora_alpha`, "
            f"`lora_layers`): the actor's learning rate is then {number(FULL_LR)}, as `lr` is an "
            "adapter's."
        )
    return found


# --- verl ---------------------------------------------------------------------------------------


def write_verl(source: Source, draft: Path) -> None:
    """Prompts as parquet and the script for `verl.trainer.main_ppo`."""
    if source.reward is None:
        raise RunError(
            f"{source.folder} has no finished reward model in out/, and verl trains none; finish "
            "the run first, or export it to openrlhf."
        )
    training, validation = split_by_prompt(source.prompts, VALIDATED)
    (draft / "data").mkdir()
    write_parquet(draft / "data" / "train.parquet", training)
    write_parquet(draft / "data" / "val.parquet", validation or training)
    options = verl_ppo(source, source.reward)
    write_script(draft / "train_ppo.sh", ["python3", "-m", "verl.trainer.main_ppo"], options, "=")
    losses = verl_losses(source.ppo) + ppo_losses(source, source.reward)
    write_readme(draft, "verl", source, {"train_ppo.sh": Script(options, losses)})


def write_parquet(path: Path, prompts: Sequence[Prompt]) -> None:
    """Prompts with the columns that verl reads; rewards come from the model, so truth is empty."""
    rows = [
        {
            "data_source": "labelhub",
            "prompt": plain(one.messages),
            "ability": "chat",
            "reward_model": {"style": "model", "ground_truth": ""},
            "extra_info": {"index": number, "id": one.id},
        }
        for number, one in enumerate(prompts)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def plain(messages: Messages) -> list[dict[str, str]]:
    """Messages with their two keys alone."""
    return [{"role": one["role"], "content": one["content"]} for one in messages]


def verl_ppo(source: Source, reward: Path) -> list[Option]:
    """Our PPO settings as keys of verl's configuration."""
    ppo = source.ppo
    minibatch = max(1, source.prompts_per_step // ppo.minibatches)
    both = ("actor_rollout_ref.actor", "critic")
    options = [
        Option("data.train_files", "data/train.parquet", "input prompts"),
        Option("data.val_files", "data/val.parquet", "a tenth of them"),
        Option("data.train_batch_size", str(source.prompts_per_step), "prompts of a step"),
        Option("data.max_prompt_length", str(source.longest_prompt), "longest prompt, about"),
        Option("data.max_response_length", str(ppo.max_new_tokens), "max_new_tokens"),
        Option("data.seed", str(source.spec.seed % 2**31), "seed"),
        Option("algorithm.adv_estimator", "gae", ""),
        Option("algorithm.gamma", number(ppo.gamma), "gamma"),
        Option("algorithm.lam", number(ppo.lam), "lam"),
        Option("algorithm.use_kl_in_reward", "True", "the penalty is part of the reward"),
        Option("algorithm.kl_penalty", verl_estimator(ppo), "kl_estimator"),
        Option("algorithm.kl_ctrl.type", ppo.kl_control, "kl_control"),
        Option(
            "algorithm.kl_ctrl.kl_coef", number(source.kl_coef), "kl_coef × std of the raw rewards"
        ),
        Option("algorithm.kl_ctrl.target_kl", number(ppo.kl_target), "kl_target"),
        Option("algorithm.kl_ctrl.horizon", str(ppo.kl_horizon), "kl_horizon"),
        Option("actor_rollout_ref.model.path", str(source.policy), "input policy"),
        Option("actor_rollout_ref.model.enable_gradient_checkpointing", "True", ""),
        Option("actor_rollout_ref.actor.optim.lr", number(ppo.lr), "lr"),
        Option("actor_rollout_ref.actor.clip_ratio", number(ppo.clip), "clip"),
        Option("actor_rollout_ref.actor.grad_clip", number(ppo.grad_clip or FAR), "grad_clip"),
        Option("actor_rollout_ref.actor.loss_agg_mode", "token-mean", "tokens weigh equally"),
        Option("actor_rollout_ref.rollout.name", "vllm", ""),
        Option("actor_rollout_ref.rollout.n", str(ppo.answers_per_prompt), "answers_per_prompt"),
        Option("actor_rollout_ref.rollout.temperature", number(ppo.temperature), "temperature"),
        Option("actor_rollout_ref.rollout.tensor_model_parallel_size", "1", ""),
        Option("actor_rollout_ref.rollout.gpu_memory_utilization", "0.4", ""),
        Option("actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu", "8", ""),
        Option("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu", "8", ""),
        Option("critic.model.path", str(reward), "the critic begins as the reward model"),
        Option("critic.optim.lr", number(CRITIC_LR), "not ours: their critic is a whole model"),
        Option("critic.cliprange_value", number(ppo.value_clip), "value_clip"),
        Option("reward.reward_model.enable", "True", ""),
        Option("reward.reward_model.model_path", str(reward), "input reward"),
        Option("reward.reward_model.rollout.name", "vllm", ""),
        Option("reward.reward_model.rollout.tensor_model_parallel_size", "1", ""),
        Option("reward.reward_model.rollout.prompt_length", str(source.longest_prompt), ""),
        Option("reward.reward_model.rollout.response_length", str(ppo.max_new_tokens), ""),
        Option("trainer.total_training_steps", str(ppo.steps), "steps"),
        Option("trainer.critic_warmup", str(ppo.critic_warmup), "critic_warmup"),
        Option("trainer.nnodes", "1", ""),
        Option("trainer.n_gpus_per_node", GPUS, "", plain=True),
        Option("trainer.logger", '["console"]', ""),
        Option("trainer.project_name", "labelhub", ""),
        Option("trainer.experiment_name", source.folder.name, ""),
        Option("trainer.default_local_dir", "out", ""),
    ]
    schedule = "cosine" if ppo.lr_schedule == "linear" else "constant"  # they have no other
    for part in both:
        options += [
            Option(f"{part}.optim.lr_scheduler_type", schedule, "lr_schedule"),
            Option(f"{part}.ppo_epochs", str(ppo.epochs), "epochs"),
            Option(f"{part}.ppo_mini_batch_size", str(minibatch), "prompts of a minibatch"),
            Option(f"{part}.ppo_micro_batch_size_per_gpu", "8", ""),
        ]
    if ppo.lora:
        options += [
            Option("actor_rollout_ref.model.lora_rank", str(ppo.lora_r), "lora_r"),
            Option("actor_rollout_ref.model.lora_alpha", str(round(ppo.lora_alpha)), "lora_alpha"),
            Option("actor_rollout_ref.model.target_modules", "all-linear", ""),
            Option("actor_rollout_ref.rollout.load_format", "safetensors", "wanted by an adapter"),
        ]
    return options


def verl_estimator(ppo: PPOConfig) -> str:
    """verl's name of a KL estimator."""
    names = {"k1": "kl", "k2": "mse", "k3": "low_var_kl"}
    return names[ppo.kl_estimator]


def verl_losses(ppo: PPOConfig) -> list[str]:
    """What of a PPO run verl alone has no counterpart for."""
    found = [
        "The reward model is served by vLLM and reads the conversation through its own chat "
        "template."
    ]
    if ppo.score_clip:
        found.append(f"Rewards have no bounds (`score_clip` {number(ppo.score_clip)}).")
    if ppo.lora:
        found.append("Every layer gets an adapter, not the top ones alone (`lora_layers`).")
    return found


# --- both ---------------------------------------------------------------------------------------


def ppo_losses(source: Source, reward: Path) -> list[str]:
    """What of a PPO run neither of them has."""
    ppo = source.ppo
    found = [
        "Rewards are not normalised there. The penalty's weight was brought to their scale: "
        f"{number(ppo.kl_coef)} × {number(source.scale.std)}.",
        "The critic is a whole model, which begins as the reward model and learns at a rate of "
        f"{number(CRITIC_LR)}: `critic`, `critic_lr` and `vf_coef` say nothing.",
    ]
    if ppo.lr_schedule == "linear":
        found.append("The learning rates fall along a cosine, not in a line (`lr_schedule`).")
    if ppo.kl_budget:
        found.append(
            f"The KL budget (`kl_budget`, {number(ppo.kl_budget)} nats a reply), at which ours "
            "stops and keeps the last step below: watch their KL and stop by hand."
        )
    if ppo.target_kl:
        found.append(
            "A step's passes go on however far the policy is from the rollout (`target_kl`)."
        )
    if not ppo.whiten:
        found.append("Advantages are whitened all the same (`whiten`).")
    if ppo.missing_eos_penalty:
        found.append("An answer without its end costs nothing (`missing_eos_penalty`).")
    if ppo.ptx_coef:
        found.append("No pairs are mixed in (`ptx_coef`, `ptx_batch`, the input `pairs`).")
    if looked_at := [f"`{name}`" for name in ("heldout", "second") if name in source.spec.inputs]:
        found.append(f"Nothing is measured on the inputs {' and '.join(looked_at)}.")
    return found + ensemble_losses(ppo, reward) + work_losses(ppo)


def ensemble_losses(ppo: PPOConfig, reward: Path) -> list[str]:
    """What becomes of a reward model's members."""
    found = []
    if (reward / MEMBERS).is_dir():
        found.append("Of the reward model's ensemble the first member judges alone.")
    if ppo.pessimism or ppo.ensemble != "mean":
        found.append(
            "An ensemble's disagreement costs nothing "
            f"(`ensemble` {ppo.ensemble}, `pessimism` {number(ppo.pessimism)})."
        )
    return found


def work_losses(config: StageConfig) -> list[str]:
    """The settings of `WORK` that the run has changed."""
    changed = [f"`{name}`" for name in config.changed() if name in WORK]
    return [f"How the work is done is set there anew: {', '.join(changed)}."] if changed else []


def number(value: float) -> str:
    """A number as people write it."""
    return f"{value:.10g}"


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines."""
    body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(body, "utf-8")


def write_script(
    path: Path, start: Sequence[str], options: Sequence[Option], joint: str = " "
) -> None:
    """A shell script that starts the other trainer beside its data."""
    words = [
        one.name
        + (joint + (one.value if one.plain else shlex.quote(one.value)) if one.value else "")
        for one in options
    ]
    lines = [
        "#!/bin/sh",
        "# Written by LabelHub (python -m trainer export); README.md says what stands for what.",
        'set -e\ncd "$(dirname "$0")"',
        " \\\n  ".join([" ".join(start), *words, '"$@"']),
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    path.chmod(0o755)


def write_readme(
    draft: Path,
    name: str,
    source: Source,
    scripts: dict[str, Script],
) -> None:
    """What became what, and what was lost."""
    lines = [
        f"# A run for {name}",
        "",
        f"Exported from the {source.spec.stage} run `{source.folder}`, seed {source.spec.seed}. "
        "Not run by LabelHub: look through the script before you start it. `GPUS` is the number of "
        "GPUs (8 when not set); further options go behind the script's name.",
    ]
    for name_of_script, script in scripts.items():
        lines += ["", f"## {name_of_script}", "", "| option | value | from |", "|---|---|---|"]
        lines += [
            f"| `{one.name}` | {f'`{one.value}`' if one.value else 'on'} | {one.ours} |"
            for one in script.options
        ]
        lines += ["", "What is different there:", "", *(f"- {loss}" for loss in script.losses)]
    lines.append("")
    if source.reward is not None:
        lines += [
            "The result is an ordinary transformers folder; bring it back with",
            "`python -m trainer prepare FOLDER DEST`.",
            "",
        ]
    (draft / "README.md").write_text("\n".join(lines), "utf-8")


TARGETS: dict[str, Callable[[Source, Path], None]] = {
    "openrlhf": write_openrlhf,
    "verl": write_verl,
}
