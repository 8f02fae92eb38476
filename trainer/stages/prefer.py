"""Improve a policy without a critic: from rankings (DPO), or from scored answers of its own (RLOO).

Reads `policy` and, for dpo, `rankings` (and `heldout`, else a share of the prompts is held out);
for rloo, `reward` and `prompts`. Writes out/: the merged policy with its chat template, adapter/,
report.json.

Choices
- The loops are TRL's DPOTrainer and RLOOTrainer. What they are given and what they keep is ours:
  tokens as the policy sees them when it writes, answers from our sampler, scores from our reward
  model, checkpoints of safetensors and JSON.
- Low-rank adapter on the frozen policy by default; the reference is the same weights without it.
  With every weight trained, the reference is a second copy.
- dpo (Rafailov et al. 2023): every untied pair of a ranking is one example, ties say nothing. A
  ranking of weight 2 counts as the ranking twice, one of weight 0 as if it were not there; weights
  are brought to mean 1 over the training pairs. β (log π − log π_ref) of an answer is its implicit
  reward, in log-odds; the report tests it as it would a reward model.
- rloo (Ahmadian et al. 2024): the advantage of an answer is its score minus β times its KL, minus
  the mean of the same over the other answers to its prompt.
- Dropout is off and every random number follows from the seed: a resumed run is bit for bit the
  undisturbed one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor, nn
from trl import DPOConfig, DPOTrainer, RLOOConfig, RLOOTrainer
from trl.models import prepare_deepspeed
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from trainer import distributed, ranks, trials
from trainer.adapters import add_lora, reference, save_adapter
from trainer.cards import Card, parent_name, with_interval, write_card
from trainer.checkpoints import Checkpoint, publish, resume
from trainer.config import PreferConfig
from trainer.data import (
    Prompt,
    Ranking,
    pairs_of,
    prompt_hash,
    rankings_of,
    read_prompts,
    split_by_prompt,
)
from trainer.modeling import (
    answer_ids,
    chat_ids,
    conversation_ids,
    keep_template,
    load_policy,
    load_tokenizer,
    longest_context,
)
from trainer.placement import Placement, start
from trainer.reports import reward_report
from trainer.rollout import answer_seed
from trainer.scoring import Judge, Normalisation, load_judge
from trainer.statistics import paired_bootstrap
from trainer.trl_loop import (
    Journey,
    Kept,
    narrow_head,
    no_dropout,
    plain_model,
    settings,
    take_over,
    train,
)
from trainer.types import RunContext

disable_progress_bars()

#: DPOTrainer's figures that become metrics
DPO_NAMES = {
    "loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm", "epoch": "epoch",
    "rewards/accuracies": "pair_accuracy", "rewards/margins": "margin",
    "rewards/chosen": "reward_better", "rewards/rejected": "reward_worse",
}  # fmt: skip
#: RLOOTrainer's figures that become metrics
RLOO_NAMES = {
    "loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm", "reward": "reward",
    "reward_std": "reward_std", "kl_reply": "kl", "entropy": "entropy", "eos_rate": "eos_rate",
    "completions/mean_length": "length",
}  # fmt: skip


@dataclass
class Opened:
    """What both methods begin with."""

    context: RunContext
    config: PreferConfig
    checkpoint: Checkpoint | None
    placement: Placement
    tokenizer: Any
    model: Any  # the policy with what is to be trained
    reference: nn.Module

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)


def run(context: RunContext) -> dict[str, Any]:
    """Train by the method of the spec, measure and publish; returns the report."""
    config = cast(PreferConfig, context.spec.config)
    return METHODS[config.method](context, config)


def open_policy(context: RunContext, config: PreferConfig) -> Opened:
    """The policy, ready to be trained, its reference, and an earlier attempt's checkpoint."""
    path = context.input("policy")
    checkpoint = resume(context)
    placement = start(context, path, checkpoint.step if checkpoint else None)
    tokenizer = load_tokenizer(path)
    keep_template(tokenizer)
    if config.lora:
        model: Any = load_policy(path, placement)
        add_lora(model, config.lora_r, config.lora_alpha, context.spec.seed)
        silent: nn.Module = Silent(model)
    else:
        # What is trained itself must hold small changes: bfloat16 would round them away.
        placement = placement._replace(dtype=torch.float32)
        model = load_policy(path, placement)
        model.requires_grad_(True)
        silent = load_policy(path, placement)
    no_dropout(model)
    return Opened(context, config, checkpoint, placement, tokenizer, model, silent)


class Silent(nn.Module):
    """The policy with its adapter off, as TRL asks a reference model: it has no weights itself."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.__dict__["policy"] = policy  # not a child: its weights must not be counted twice

    @property
    def config(self) -> Any:
        return self.__dict__["policy"].config

    def base_model(self, *inputs: Any, **named: Any) -> Any:
        """The states of the policy's network, its adapter off."""
        policy = self.__dict__["policy"]
        with reference(policy):
            return policy.base_model(*inputs, **named)

    def get_output_embeddings(self) -> Any:
        return self.__dict__["policy"].get_output_embeddings()

    def forward(self, *inputs: Any, **named: Any) -> Any:
        policy = self.__dict__["policy"]
        with reference(policy):
            return policy(*inputs, **named)


# --- dpo --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """A prompt with the better and the worse of two answers, as tokens."""

    prompt: list[int]
    better: list[int]
    worse: list[int]
    weight: float


def run_dpo(context: RunContext, config: PreferConfig) -> dict[str, Any]:
    """Learn from pairs of answers."""
    # 1. read what people ranked
    training, heldout = rankings_of(context, config.heldout_fraction)

    # 2. open the policy, and an earlier attempt's checkpoint
    opened = open_policy(context, config)
    window = min(config.max_length, longest_context(opened.model))
    choices = choices_of(opened.tokenizer, training, window, config.best_worst)

    # 3. train
    fit = make_dpo(opened, choices)
    train(fit, Journey(context, DPO_NAMES, {}, checkpoint=opened.checkpoint))

    # 4. measure what will be written
    finished, base = finished_model(opened), load_policy(context.input("policy"), opened.placement)
    raw = implicit_rewards(opened, finished, base, heldout, window)
    figures = reward_report(heldout, raw, Normalisation())
    report = {
        "stage": "prefer",
        "method": "dpo",
        **{name: value for name, value in figures.items() if not name.startswith("score_")},
        "margin": mean_margin(heldout, raw),
        "train_rankings": len(training),
        "train_pairs": len(choices),
        "steps": fit.state.global_step,
        "trained_parameters": sum(p.numel() for p in fit.learned.values()),
    }
    tell_answers(opened, finished, heldout or training, fit.state.global_step)

    # 5. publish
    publish(context.out, lambda folder: write_out(opened, finished, folder, report))
    return report


def choices_of(
    tokenizer: Any, rankings: Sequence[Ranking], window: int, best_worst: bool
) -> list[Choice]:
    """The untied pairs of each ranking, the weights brought to mean 1 over all of them."""
    found = []
    for ranking in rankings:
        pairs = pairs_of([ranking])
        most = max(ranking.ranks) - 1
        answers = [answer_ids(tokenizer, text, window) for text in ranking.texts]
        prompt = chat_ids(tokenizer, ranking.messages)
        for better, worse, distance in zip(
            pairs.better.tolist(), pairs.worse.tolist(), pairs.distance.tolist(), strict=True
        ):
            if distance and (distance == most or not best_worst):
                two = answers[better], answers[worse]
                room = window - max(map(len, two))
                found.append(Choice(prompt[-room:], *two, ranking.weight))
    mean = sum(one.weight for one in found) / len(found)
    return [Choice(one.prompt, one.better, one.worse, one.weight / mean) for one in found]


class Collator(DataCollatorForPreference):
    """TRL's pairs with their weights."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        return batch | {"weight": torch.tensor([example["weight"] for example in examples])}


class DPO(Kept, DPOTrainer):
    """TRL's trainer with our checkpoints and weighted pairs.

    Its loss is the mean over pairs. What a pair contributes to the gradient is multiplied by its
    weight; the figures stay those of the pairs as they are.
    """

    #: the loss is divided by the pairs of the whole step, not by the number of micro batches
    loss_is_scaled_for_ga = True
    weight: Tensor | None = None

    def __init__(self, reference: nn.Module, **named: Any) -> None:
        self.silent = reference
        super().__init__(ref_model=reference, **named)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        # TRL would split it as one piece, which each pass would gather as a whole.
        distributed.split_frozen(self.silent, self.accelerator)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["prompt_ids", "chosen_ids", "rejected_ids", "weight"]

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> int:
        return int(distributed.sums([sum(len(batch["weight"]) for batch in batch_samples)])[0])

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs = dict(inputs)
        weight = inputs.pop("weight")
        self.weight = torch.cat([weight, weight])  # the better answers come first, then the worse
        loss = super().compute_loss(model, inputs, return_outputs)
        self.weight = None
        # Several processes take the mean of their gradients, where the sum is meant.
        return loss * len(weight) / num_items_in_batch * ranks.world()

    def weigh(self, _model: Any, _inputs: Any, outputs: Any) -> None:
        """A forward hook: the log-probabilities stay, their gradients are weighted."""
        if self.weight is not None and outputs.log_probs is not None:
            fixed = outputs.log_probs.detach()
            outputs.log_probs = fixed + self.weight[:, None] * (outputs.log_probs - fixed)


def make_dpo(opened: Opened, choices: Sequence[Choice]) -> DPO:
    """TRL's trainer over these pairs."""
    config = opened.config
    arguments = DPOConfig(
        **settings(opened.context, opened.placement.device),
        num_train_epochs=config.epochs,
        beta=config.beta,
        max_length=None,  # the rows are cut already
    )
    data = Dataset.from_dict(
        {
            "prompt_ids": [one.prompt for one in choices],
            "chosen_ids": [one.better for one in choices],
            "rejected_ids": [one.worse for one in choices],
            "weight": [one.weight for one in choices],
        }
    )
    fit = DPO(
        opened.reference,
        model=opened.model,
        args=arguments,
        data_collator=Collator(pad_token_id=opened.pad),
        train_dataset=data,
        processing_class=opened.tokenizer,
    )
    fit.model.register_forward_hook(fit.weigh)
    narrow_heads(opened)
    return fit


def narrow_heads(opened: Opened) -> None:
    """Neither the policy nor the reference foretells prompts and padding."""
    narrow_head(opened.model)
    narrow_head(
        opened.reference, opened.model.base_model if isinstance(opened.reference, Silent) else None
    )


def implicit_rewards(
    opened: Opened, model: Any, base: Any, rankings: Sequence[Ranking], window: int
) -> list[list[float]]:
    """β (log π − log π_ref) of each answer of each ranking (Rafailov et al. 2023, eq. 5)."""
    rows = []
    for ranking in rankings:
        prompt = chat_ids(opened.tokenizer, ranking.messages)
        rows += [conversation_ids(opened.tokenizer, prompt, text, window) for text in ranking.texts]
    budget, pause = opened.config.token_budget, opened.context.leave_if_asked
    own, other = (
        trials.logprobs(one, rows, opened.pad, 1.0, budget, pause) for one in (model, base)
    )
    flat = iter(opened.config.beta * (a - b) for a, b in zip(own, other, strict=True))
    return [[next(flat) for _ in ranking.texts] for ranking in rankings]


def mean_margin(rankings: Sequence[Ranking], raw: Sequence[Sequence[float]]) -> float | None:
    """Mean implicit reward of the better minus that of the worse answer over untied pairs."""
    pairs = pairs_of(rankings)
    flat = torch.tensor([value for some in raw for value in some], dtype=torch.float64)
    margins = (flat[pairs.better] - flat[pairs.worse])[~pairs.tied]
    return float(margins.mean()) if len(margins) else None


def tell_answers(opened: Opened, model: Any, rankings: Sequence[Ranking], step: int) -> None:
    """Let the trained policy answer the first prompts, for people to read."""
    config = opened.config
    seen = {prompt_hash(one.messages): one.messages for one in rankings}
    room = longest_context(model) - config.max_new_tokens
    prompts = [Prompt(name[:12], messages) for name, messages in seen.items()]
    prompts = [one for one in prompts if len(chat_ids(opened.tokenizer, one.messages)) <= room]
    prompts = prompts[: config.samples]
    if not prompts:
        return
    ids = trials.prompt_tokens(model, opened.tokenizer, prompts, config)
    seeds = [[answer_seed(opened.context.spec.seed, one.id, 0)] for one in prompts]
    sampled = trials.write(
        model, opened.tokenizer, ids, seeds, config, opened.context.leave_if_asked
    )
    shown = [
        {
            "prompt_id": prompt.id,
            "prompt": list(prompt.messages),
            "text": trials.text_of(opened.tokenizer, one.ids),
        }
        for prompt, one in zip(prompts, sampled, strict=True)
    ]
    opened.context.emit("sample", step, total=step, samples=shown)


# --- rloo -------------------------------------------------------------------------------------


def run_rloo(context: RunContext, config: PreferConfig) -> dict[str, Any]:
    """Learn from scored answers of the policy's own."""
    # 1. read what is asked
    training, heldout = split_by_prompt(
        read_prompts(context.input("prompts")), config.heldout_fraction
    )

    # 2. open policy and reward model, and an earlier attempt's checkpoint
    opened = open_policy(context, config)
    judge = load_judge(context.input("reward"), opened.placement, config.max_length)
    trials.prompt_tokens(opened.model, opened.tokenizer, [*training, *heldout], config)

    # 3. train
    fit = make_rloo(opened, judge, training)
    journey = Journey(context, RLOO_NAMES, {}, checkpoint=opened.checkpoint, figure=("reward", 1))
    train(fit, journey)

    # 4. let the policy as it will be written and the untrained one answer the held-out prompts
    finished, base = finished_model(opened), load_policy(context.input("policy"), opened.placement)
    seed, pause = context.spec.seed, context.leave_if_asked
    before, after = (
        trials.try_out(one, opened.tokenizer, judge, heldout, config.answers, seed, config, pause)
        for one in (base, finished)
    )
    gain = paired_bootstrap(*(one.by_prompt(config.answers) for one in (before, after)))
    report = {
        "stage": "prefer",
        "method": "rloo",
        "train_prompts": len(training),
        "heldout_prompts": len(heldout),
        "steps": fit.state.global_step,
        "episodes": fit.state.global_step * config.batch_size,
        "score_before": before.mean,
        "score_after": after.mean,
        "gain": gain.value if gain else None,
        "ci95_of_gain": gain.ci95 if gain else None,
        "kl": trials.kl(finished, base, opened.tokenizer, heldout, after, config, pause),
        "trained_parameters": sum(p.numel() for p in fit.learned.values()),
    }

    # 5. publish
    publish(context.out, lambda folder: write_out(opened, finished, folder, report))
    return report


class RLOO(Kept, RLOOTrainer):
    """TRL's trainer with our checkpoints, our sampler and our way to read a prompt.

    Each optimiser step has new answers, so a step begins from nothing but weights and seed.
    """

    opened: Opened
    #: the policy, or where its weights are split a plain copy: each process writes at its own pace
    writer: Any

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [chat_ids(self.opened.tokenizer, prompt) for prompt in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any) -> list[list[int]]:
        # Each prompt stands there K times, one after the other.
        many, step = self.num_generations, self.state.global_step
        seed = self.opened.context.spec.seed
        asked = prompt_ids[::many]
        before = ranks.rank() * len(asked)  # prompts of the step that other processes have
        seeds = [
            [answer_seed(seed, "rloo", step, before + slot, n) for n in range(many)]
            for slot in range(len(asked))
        ]
        if self.writer is not self.model:
            take_over(self.writer, self.model)
        written = trials.write(self.writer, self.opened.tokenizer, asked, seeds, self.opened.config)
        return [one.ids for one in written]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        figures = self._metrics["train"]
        if "kl" in figures:  # nats a token there, nats a reply here
            length = figures["completions/mean_length"][-1]
            figures["kl_reply"].append(figures["kl"][-1] * length)
        figures["eos_rate"].append(1 - figures["completions/clipped_ratio"][-1])
        return output


def make_rloo(opened: Opened, judge: Judge, prompts: Sequence[Prompt]) -> RLOO:
    """TRL's trainer over the prompts of all steps."""
    config, context = opened.config, opened.context
    writer = opened.model
    if ranks.splits():
        writer = load_policy(context.input("policy"), opened.placement)
    arguments = RLOOConfig(
        **settings(context, opened.placement.device),
        num_train_epochs=1,
        shuffle_dataset=False,  # the rows stand in the order in which they are wanted
        remove_unused_columns=False,
        num_generations=config.answers,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        beta=0.0,  # set below: TRL would load a second model
    )
    chosen = prompts_of_steps(prompts, config, context.spec.seed)
    rows = {
        "id": [prompt.id for prompt in chosen],
        "prompt": [list(prompt.messages) for prompt in chosen],
    }
    fit = RLOO(
        model=opened.model,
        reward_funcs=[Scorer(opened, judge)],
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=opened.tokenizer,
    )
    fit.opened, fit.writer = opened, writer
    if config.kl_coef:
        fit.beta, fit.ref_model = config.kl_coef, opened.reference
        add_fused_lm_head(opened.reference, temperature=config.temperature)
        distributed.split_frozen(opened.reference, fit.accelerator)
        if ranks.splits_by_zero():
            fit.ref_model = prepare_deepspeed(opened.reference, fit.accelerator)
    narrow_heads(opened)
    return fit


def prompts_of_steps(prompts: Sequence[Prompt], config: PreferConfig, seed: int) -> list[Prompt]:
    """The prompts of all steps, one after the other: shuffled passes over all of them."""
    found: list[Prompt] = []
    wanted = config.steps * config.batch_size // config.answers
    for turn in range(1 + wanted // len(prompts)):
        dice = torch.Generator().manual_seed(answer_seed(seed, "pass", turn))
        found += [prompts[n] for n in torch.randperm(len(prompts), generator=dice).tolist()]
    return found[:wanted]


@dataclass
class Scorer:
    """The reward model as TRL asks it; some of what it scores is shown."""

    opened: Opened
    judge: Judge

    @property
    def __name__(self) -> str:
        return "reward_model"

    def __call__(
        self,
        *,
        prompts: list[Any],
        completions: list[Any],
        id: list[str],
        trainer_state: Any,
        **_: Any,
    ) -> list[float]:
        """Normalised scores of the answers."""
        config = self.opened.config
        asked = [Prompt(name, tuple(m)) for name, m in zip(id, prompts, strict=True)]
        texts = [completion[0]["content"].strip() for completion in completions]
        scores = trials.score(self.judge, asked, texts, config.token_budget)
        step = trainer_state.global_step
        if config.samples and step % config.sample_every == 0:
            shown = range(0, len(asked), config.answers)[: config.samples]
            self.opened.context.emit(
                "sample",
                step + 1,
                total=config.steps,
                samples=[
                    {
                        "prompt_id": asked[n].id,
                        "prompt": list(asked[n].messages),
                        "text": texts[n],
                        "score": scores[n],
                    }
                    for n in shown
                ],
            )
        return scores


# --- writing ----------------------------------------------------------------------------------


def finished_model(opened: Opened) -> Any:
    """The model as it will be written: a figure of any other would mislead."""
    return plain_model(opened.context.input("policy"), opened.placement, opened.model)


def write_out(opened: Opened, finished: Any, folder: Path, report: Mapping[str, Any]) -> None:
    """The result as plain transformers loads it, with chat template, card and report."""
    base = str(opened.context.input("policy"))
    finished.save_pretrained(str(folder))
    opened.tokenizer.save_pretrained(str(folder))
    if opened.config.lora:
        save_adapter(opened.model, folder / "adapter", base)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    write_card(opened.context, folder, card(report, parent_name(opened.context.spec, "policy")))


def card(report: Mapping[str, Any], base: str) -> Card:
    """What the model card says."""
    return Card(
        title="Policy",
        about=f"Trained by {report['method']} from `{base}`: {report['steps']} steps.",
        figures=FINDINGS[report["method"]](report),
        use=(
            "The weights are merged and load with `AutoModelForCausalLM.from_pretrained`; "
            "`adapter/`, where there is one, holds the low-rank adapter alone, for peft."
        ),
        limits=LIMITS[report["method"]],
    )


def dpo_findings(report: Mapping[str, Any]) -> list[str]:
    """What was measured."""
    if report["pair_accuracy"] is None:
        return ["no pairs were held out, so how well it generalises is not known"]
    return [
        f"the implicit reward puts {with_interval(report['pair_accuracy'], report['ci95'], '.1%')} "
        f"of {report['pairs']} held-out pairs in the annotators' order; the longer answer is the "
        f"better one in {report['length_baseline']:.1%}",
        f"mean margin {report['margin']:.3f} in log-odds",
    ]


def rloo_findings(report: Mapping[str, Any]) -> list[str]:
    """What was measured."""
    if report["score_after"] is None:
        return ["no prompts were held out, so how well it generalises is not known"]
    return [
        f"score of the reward model on {report['heldout_prompts']} held-out prompts "
        f"{report['score_before']:.3f} before, {report['score_after']:.3f} after; gain "
        f"{with_interval(report['gain'], report['ci95_of_gain'])}",
        f"KL from the reference {report['kl']:.2f} nats an answer",
    ]


METHODS: dict[str, Callable[[RunContext, PreferConfig], dict[str, Any]]] = {
    "dpo": run_dpo,
    "rloo": run_rloo,
}
FINDINGS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "dpo": dpo_findings,
    "rloo": rloo_findings,
}
LIMITS = {
    "dpo": (
        "The implicit reward says how far the policy was moved towards the better answers, not "
        "that what it writes itself is liked better: let people compare it with its parent."
    ),
    "rloo": (
        "The score is that of the reward model that was trained against: it shows that training "
        "worked, not that people like it better."
    ),
}
