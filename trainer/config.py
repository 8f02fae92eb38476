"""What a run is asked to do: the settings of each stage and the reading of `spec.json`.

Choices: settings are frozen and checked once, when they are read; a wrong one is refused with its
name, its value and the remedy. Each setting carries its own help text and bounds (`knob`), so that
forms and documents can be made from here. Non-goals: nothing here imports torch or looks inside a
model.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

from trainer.manifests import MANIFEST, folder_hash, sha256_file, verify_manifest

#: Names that are made on first use when no folder of that name is registered yet.
PREPARED_NAMES = ("smollm2", "tiny")
#: Names of texts to pretrain on: folders below `data_dir()`.
TEXT_NAMES = ("pretrain_en", "pretrain_zh")
#: the largest whole number of a setting without a bound of its own: what every database can count
MOST = 2**31 - 1


class SpecError(ValueError):
    """What is wrong with a spec, in one sentence that says where and what to do.

    `words` and `values` are the sentence before it is put together, for who says it in another
    language; `setting` and `role` name the setting or the input that it is about.
    """

    def __init__(self, words: str, *, setting: str = "", role: str = "", **values: Any) -> None:
        super().__init__(words % values if values else words)
        self.words, self.values, self.setting, self.role = words, values, setting, role


def knob(
    default: Any,
    about: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
) -> Any:
    """A setting with its help text and its bounds (inclusive)."""
    metadata = {"about": about, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Settings that every stage has."""

    #: stage name in spec.json
    stage: ClassVar[str] = ""
    #: sets of inputs that the stage can run on; the first that is complete is used
    needs: ClassVar[tuple[tuple[str, ...], ...]] = ()
    #: inputs that may be given besides
    may_use: ClassVar[tuple[str, ...]] = ()

    threads: int = knob(0, "CPU threads; 0 leaves one core free for everything else", low=0)
    dtype: str = knob(
        "auto",
        "number format of the weights; auto takes bfloat16 where the machine is fast at it",
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = knob(
        "auto",
        "where it computes; auto takes the first GPU, if there is one",
        choices=("auto", "cpu", "cuda", *(f"cuda:{n}" for n in range(8))),
    )

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            _check_value(self.stage, item, getattr(self, item.name))

    def changed(self) -> dict[str, Any]:
        """The settings that are not the defaults."""
        found = ((item, getattr(self, item.name)) for item in dataclasses.fields(self))
        return {item.name: value for item, value in found if value != item.default}

    #: whether it learns by transformers' Trainer, which also knows DeepSpeed
    by_transformers: ClassVar[bool] = False

    @property
    def can_split(self) -> bool:
        """Whether its weights can be split over processes while they learn (FSDP2)."""
        return False

    @property
    def can_split_by_zero(self) -> bool:
        """Whether DeepSpeed can split them (ZeRO-3)."""
        return self.by_transformers and self.can_split

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StageConfig:
        """The settings in `values`, defaults for the rest; refuses an unknown key by its name."""
        known = {item.name: item for item in dataclasses.fields(cls)}
        for key in values:
            if key not in known:
                raise SpecError(
                    "spec.json: config has an unknown setting “%(key)s”; stage “%(stage)s” knows "
                    "%(known)s.",
                    setting=key, key=key, stage=cls.stage, known=", ".join(sorted(known)),
                )  # fmt: skip
        return cls(**{key: _as_declared(known[key], value) for key, value in values.items()})

    def check_inputs(self, given: Collection[str]) -> None:
        """Refuse inputs that do not go with these settings or with one another."""


def _as_declared(item: dataclasses.Field[Any], value: Any) -> Any:
    """JSON has one kind of number: let 1 stand for 1.0 where a float is declared."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and str(item.type).startswith("float") else value


def _check_value(stage: str, item: dataclasses.Field[Any], value: Any) -> None:
    """Refuse a value of the wrong kind or outside its bounds."""
    kinds = {"int": int, "float": (int, float), "bool": bool, "str": str}
    declared = str(item.type)
    bounds = item.metadata
    high = MOST if bounds["high"] is None and declared == "int" else bounds["high"]
    wrong_kind = not isinstance(value, cast(Any, kinds[declared])) or (
        isinstance(value, bool) and declared != "bool"
    )
    if wrong_kind or (isinstance(value, float) and not math.isfinite(value)):
        remedy = declared
    elif bounds["choices"] and value not in bounds["choices"]:
        remedy = "choices"
    elif bounds["low"] is not None and value < bounds["low"]:
        remedy = "low"
    elif high is not None and value > high:
        remedy = "high"
    else:
        return
    raise SpecError(
        _REMEDIES[remedy],
        setting=item.name,
        name=item.name,
        stage=stage,
        value=json.dumps(value, default=str, ensure_ascii=False),
        default=json.dumps(item.default),
        choices=", ".join(str(choice) for choice in bounds["choices"]),
        low=bounds["low"],
        high=high,
    )


#: what to do about a value of the wrong kind, of none of the choices, or outside the bounds
_REMEDIES = {
    "int": "spec.json: config.%(name)s of stage “%(stage)s” is %(value)s; give a whole number "
    "(default %(default)s).",
    "float": "spec.json: config.%(name)s of stage “%(stage)s” is %(value)s; give a number "
    "(default %(default)s).",
    "bool": "spec.json: config.%(name)s of stage “%(stage)s” is %(value)s; give true or false "
    "(default %(default)s).",
    "str": "spec.json: config.%(name)s of stage “%(stage)s” is %(value)s; give a text "
    "(default %(default)s).",
    "choices": "spec.json: config.%(name)s of stage “%(stage)s” is %(value)s; choose one of "
    "%(choices)s (default %(default)s).",
    "low": "spec.json: config.%(name)s of stage “%(stage)s” is %(value)s; give %(low)s or more "
    "(default %(default)s).",
    "high": "spec.json: config.%(name)s of stage “%(stage)s” is %(value)s; give %(high)s or less "
    "(default %(default)s).",
}


def _check_multiple(config: StageConfig, name: str, factor: str) -> None:
    """Refuse a setting that is no multiple of another one; a factor of 0 is left open."""
    whole, part = getattr(config, name), getattr(config, factor)
    if part and whole % min(whole, part):
        raise SpecError(
            "spec.json: config.%(name)s of stage “%(stage)s” is %(whole)s; give a multiple of "
            "config.%(factor)s (%(part)s).",
            setting=name,
            name=name,
            stage=config.stage,
            whole=whole,
            factor=factor,
            part=part,
        )


@dataclass(frozen=True, kw_only=True)
class CheckpointedConfig(StageConfig):
    """Settings of the stages that can go on from where they were stopped."""

    keep_checkpoints: int = knob(
        2, "newest checkpoints that are kept; the best one by the stage's own figure is, too", low=1
    )


#: Settings that several stages have in the same words: default, help text, bounds.
COMMON: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "engine": (
        "hf",
        "who writes answers: hf, the trainer's own loop, everywhere; vllm where it is installed",
        {"choices": ("hf", "vllm")},
    ),
    "engine_memory": (
        0.5, "share of the GPU's memory that the engine vllm may take", {"low": 0.01, "high": 1}
    ),
    "lora": (True, "train a low-rank adapter; false trains every weight", {}),
    "lora_r": (16, "rank of the adapter", {"low": 1}),
    "lora_alpha": (
        32.0, "scale of the adapter (its output is multiplied by alpha/rank)", {"low": 0}
    ),
    "warmup": (
        0.05, "share of the steps in which the rate rises to its peak", {"low": 0, "high": 0.99}
    ),
    "weight_decay": (0.0, "weight decay", {"low": 0}),
    "grad_clip": (1.0, "largest norm of the gradient", {"low": 0}),
    "activation_checkpointing": (False, "compute activations anew to save memory", {}),
    "max_length": (
        1024, "longest prompt with answer in tokens; prompts lose their start", {"low": 8}
    ),
    "token_budget": (
        1024,
        "tokens that go through the model at once: where answers are measured, and on a CPU where "
        "they are learned from, too",
        {"low": 8},
    ),
    "checkpoint_every": (20, "optimiser steps between checkpoints", {"low": 1}),
}  # fmt: skip


def common(name: str, default: Any = None, **bounds: float) -> Any:
    """The setting of that name that several stages have; a default or a bound may be a stage's
    own.
    """
    usual, about, usual_bounds = COMMON[name]
    return knob(usual if default is None else default, about, **(usual_bounds | bounds))


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(CheckpointedConfig):
    """Let a policy write K answers to each prompt."""

    stage: ClassVar[str] = "generate"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("policy", "prompts"),)

    answers: int = knob(4, "answers written to each prompt (K)", low=1)
    max_new_tokens: int = knob(64, "longest answer in tokens", low=1)
    temperature: float = knob(1.0, "sampling temperature; 0 takes the likeliest token", low=0)
    top_p: float = knob(
        1.0, "keep the likeliest tokens of this total probability", low=1e-6, high=1
    )
    top_k: int = knob(0, "keep only this many likeliest tokens; 0 keeps all", low=0)
    min_p: float = knob(
        0.0,
        "drop tokens less than this many times as likely as the likeliest; 0 keeps all",
        low=0,
        high=1,
    )
    repetition_penalty: float = knob(
        1.0,
        "what the scores of tokens that stand in the text already are divided by (negative ones: "
        "multiplied); 1 changes nothing",
        low=0.01,
    )
    batch_size: int = knob(64, "answers written side by side", low=1)
    engine: str = common("engine")
    engine_memory: float = common("engine_memory", 0.9)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(CheckpointedConfig):
    """Make a model from nothing but text: duplicates dropped, a tokenizer, a network."""

    stage: ClassVar[str] = "pretrain"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("text",),)
    may_use: ClassVar[tuple[str, ...]] = ("tokenizer",)

    objective: str = knob(
        "causal",
        "causal: foretell the next token (a decoder, to write with); masked: fill in hidden "
        "tokens (an encoder, to judge with)",
        choices=("causal", "masked"),
    )
    size: str = knob(
        "5m",
        "parameters of the network besides its embedding, about",
        choices=("1m", "5m", "15m", "60m", "135m"),
    )
    vocabulary: int = knob(
        8192, "tokens of the tokenizer that is made; not used with the input tokenizer", low=264
    )
    documents: str = knob(
        "paragraphs",
        "what one document is in a text file: a paragraph (blank lines part them), a line or the "
        "whole file; in .jsonl each line is one",
        choices=("paragraphs", "lines", "files"),
    )
    near_duplicate: float = knob(
        0.8,
        "share of common word runs from which a document counts as a copy of an earlier one; 1 "
        "drops only exact copies",
        low=0.1,
        high=1,
    )
    apart: bool = knob(True, "documents in one row do not see one another")
    max_length: int = knob(256, "tokens in a row, and the longest context", low=8)
    heldout_fraction: float = knob(
        0.05, "share of the documents that is only tested on", low=0, high=0.9
    )
    epochs: int = knob(1, "times that each document is seen", low=1)
    steps: int = knob(0, "optimiser steps; 0: as many as the epochs hold", low=0)
    lr: float = knob(2e-3, "peak learning rate; large sizes want less", low=0)
    warmup: float = common("warmup")
    batch_size: int = knob(16, "rows in one optimiser step", low=1)
    micro_batch_size: int = knob(
        0, "rows that go through the model at once; 0 takes the whole batch", low=0
    )
    weight_decay: float = knob(0.1, "weight decay of the matrices", low=0)
    grad_clip: float = common("grad_clip")
    mask_share: float = knob(
        0.15, "share of the tokens that the objective masked hides", low=0.01, high=0.9
    )
    measure_every: int = knob(
        100, "optimiser steps between looks at some held-out documents", low=1
    )
    sample_every: int = knob(100, "optimiser steps between samples", low=1)
    samples: int = knob(3, "samples that the objective causal writes each time", low=0)
    sample_tokens: int = knob(48, "longest sample in tokens", low=1)
    checkpoint_every: int = common("checkpoint_every", 100)

    @property
    def can_split(self) -> bool:
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_multiple(self, "batch_size", "micro_batch_size")


@dataclass(frozen=True, kw_only=True)
class SFTConfig(CheckpointedConfig):
    """Fine-tune a policy on answers that people wrote or approved."""

    stage: ClassVar[str] = "sft"
    by_transformers: ClassVar[bool] = True
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("base", "pairs"),)
    may_use: ClassVar[tuple[str, ...]] = ("heldout",)

    method: str = knob(
        "lora",
        "lora: a low-rank adapter; full: every weight; freeze: the last layers and the head; "
        "prompt: vectors in front of the text, which become words that prompts begin with",
        choices=("lora", "full", "freeze", "prompt"),
    )
    epochs: int = knob(1, "times that each answer is seen", low=1)
    lr: float = knob(2e-4, "peak learning rate; full training wants about a tenth", low=0)
    warmup: float = common("warmup")
    batch_size: int = knob(8, "answers in one optimiser step", low=1)
    micro_batch_size: int = knob(
        0, "answers that go through the model at once; 0 takes the whole batch", low=0
    )
    packing: bool = knob(False, "fill rows with several answers that do not see one another")
    max_length: int = common("max_length")
    heldout_fraction: float = knob(
        0.1, "share of the prompts that is only tested on", low=0, high=0.9
    )
    lora_r: int = common("lora_r")
    lora_alpha: float = common("lora_alpha")
    train_layers: int = knob(2, "last layers that the method freeze trains", low=1)
    prompt_tokens: int = knob(20, "vectors that the method prompt learns", low=1)
    weight_decay: float = common("weight_decay")
    grad_clip: float = common("grad_clip")
    activation_checkpointing: bool = common("activation_checkpointing")
    token_budget: int = common("token_budget")
    checkpoint_every: int = common("checkpoint_every")

    @property
    def can_split(self) -> bool:
        return self.method in ("full", "freeze")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_multiple(self, "batch_size", "micro_batch_size")


@dataclass(frozen=True, kw_only=True)
class RewardConfig(CheckpointedConfig):
    """Fit a reward model to whole rankings."""

    stage: ClassVar[str] = "reward"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("base", "rankings"),)
    may_use: ClassVar[tuple[str, ...]] = ("heldout",)

    epochs: int = knob(
        2, "times that each ranking is seen; 0 fits the head alone to the frozen base", low=0
    )
    lr: float = knob(
        0.0,
        "peak learning rate; 0: 0.001 in up to 64 steps, less in more, as one over the root of "
        "their number",
        low=0,
    )
    warmup: float = common("warmup", high=1)
    rankings_per_step: int = knob(
        0,
        "rankings in one optimiser step; 0: as many as make 24 pairs, at least 4",
        low=0,
    )
    heldout_fraction: float = knob(
        0.2, "share of the prompts that is only tested on", low=0, high=0.9
    )
    max_length: int = common("max_length")
    token_budget: int = knob(1024, "tokens that go through the model at once", low=8)
    loss: str = knob(
        "pairs",
        "pairs: Bradley-Terry on all pairs of a ranking; davidson: the same with a probability of "
        "its own for ties; plackett_luce: the order as a whole",
        choices=("pairs", "davidson", "plackett_luce"),
    )
    ties: str = knob(
        "half",
        "loss pairs: a tie counts as target one half, or is dropped",
        choices=("half", "drop"),
    )
    ensemble: int = knob(
        1,
        "members, each of which learns from rankings weighed at random; their disagreement tells "
        "what to rank next",
        low=1,
        high=64,
    )
    ensemble_kind: str = knob(
        "heads",
        "what a member has of its own: a head on the same states, which costs next to nothing, or "
        "an adapter as well (lora), which costs a pass of its own",
        choices=("heads", "lora"),
    )
    layers: int = knob(
        0,
        "first layers of the base that are kept; 0: half, three quarters or all of them, as a "
        "fresh head orders unseen pairs best (all if it has a head already, or fewer than 9)",
        low=0,
    )
    even_reading: bool = knob(
        True,
        "let the last layer attend to all tokens alike to begin with, where it can, so that the "
        "score is read from their mean and not from the last token alone",
    )
    head_start: bool = knob(
        True,
        "fit a fresh head to the rankings before anything else learns, instead of a random start",
    )
    margin: float = knob(0.0, "margin for each step of gap between two ranks", low=0)
    centre: float = knob(0.0, "weight of the pull of scores towards 0", low=0)
    lora: bool = common("lora")
    lora_r: int = common("lora_r")
    lora_alpha: float = common("lora_alpha")
    lora_layers: int = knob(
        0,
        "top layers that get an adapter; what those below give is computed once; 0: all layers",
        low=0,
    )
    lower_mib: int = knob(
        2048,
        "memory for what the layers below the adapter give, kept for all epochs; what does not "
        "fit is computed anew in each step",
        low=0,
    )
    weight_decay: float = common("weight_decay")
    grad_clip: float = common("grad_clip")
    checkpoint_every: int = common("checkpoint_every")

    @property
    def can_split(self) -> bool:
        return not self.lora

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ensemble > 1 and self.ensemble_kind == "lora" and not self.lora:
            raise SpecError(
                "spec.json: config.ensemble_kind of stage “reward” is “lora”, but config.lora is "
                "false; choose heads, or train adapters.",
                setting="ensemble_kind",
            )
        if not self.epochs and not self.head_start:
            raise SpecError(
                "spec.json: config.epochs of stage “reward” is 0, but config.head_start is false; "
                "set it to true to fit the head alone.",
                setting="epochs",
            )
        if self.loss == "davidson" and self.ties == "drop":
            raise SpecError(
                "spec.json: config.ties of stage “reward” is “drop”, but the loss davidson learns "
                "from ties; take the loss pairs to leave them out.",
                setting="ties",
            )


@dataclass(frozen=True, kw_only=True)
class PPOConfig(CheckpointedConfig):
    """Improve a policy against a reward model, held near its reference by a KL penalty."""

    stage: ClassVar[str] = "ppo"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("policy", "reward", "prompts"),)
    may_use: ClassVar[tuple[str, ...]] = ("second", "heldout", "pairs")

    steps: int = knob(14, "PPO steps (rollout and update)", low=1)
    episodes_per_step: int = knob(64, "answers written in each step", low=1)
    answers_per_prompt: int = knob(4, "answers to each prompt within a step", low=1)
    max_new_tokens: int = knob(32, "longest answer in tokens", low=1)
    temperature: float = knob(1.0, "sampling temperature, also used by the loss", low=0.01)
    epochs: int = knob(2, "passes over the episodes of a step", low=1)
    minibatches: int = knob(4, "optimiser steps in each pass", low=1)
    token_budget: int = knob(1024, "tokens that go through the policy at once", low=8)
    batch_size: int = knob(128, "answers written side by side", low=1)
    engine: str = common("engine")
    engine_memory: float = common("engine_memory", 0.3)
    lr: float = knob(
        1e-3, "learning rate of the policy; full training wants about a hundredth", low=0
    )
    lr_schedule: str = knob(
        "linear",
        "how the learning rates of policy and critic go on; linear: down in a line, to nothing "
        "behind the last step",
        choices=("constant", "linear"),
    )
    critic: str = knob(
        "head",
        "head: linear, on the frozen reward model's states, or on the policy's where that one is "
        "an encoder or has words of its own; policy: linear, on the policy's states; adapter: the "
        "reward model with a low-rank adapter and head of its own",
        choices=("head", "policy", "adapter"),
    )
    critic_lr: float = knob(1e-3, "learning rate of the critic", low=0)
    critic_warmup: int = knob(0, "first steps in which only the critic learns", low=0)
    lora: bool = knob(
        True, "train a low-rank adapter; false trains every weight, the reference being a copy"
    )
    lora_r: int = common("lora_r")
    lora_alpha: float = common("lora_alpha")
    lora_layers: int = knob(
        0, "top layers that get an adapter; 0: all, or the top third of more than eight", low=0
    )
    kl_coef: float = knob(0.05, "weight of the KL penalty (its start when it adapts)", low=0)
    kl_estimator: str = knob(
        "k1",
        "what the penalty counts at a token, x being log π − log π_ref: k1 is x, k2 x²/2, k3 "
        "e^(−x) − 1 + x; the KL that is told, steered and limited is k1 always",
        choices=("k1", "k2", "k3"),
    )
    kl_control: str = knob(
        "fixed", "whether the weight of the penalty adapts", choices=("fixed", "adaptive")
    )
    kl_target: float = knob(6.0, "KL in nats a reply that an adaptive weight steers to", low=0.01)
    kl_horizon: int = knob(
        10_000, "episodes in which an adaptive weight may grow e-fold at most × 0.2", low=1
    )
    kl_budget: float = knob(
        12.0,
        "KL in nats a reply at which training stops and the last step below is kept; 0: no limit",
        low=0,
    )
    clip: float = knob(0.2, "how far the probability ratio may help", low=0.0)
    value_clip: float = knob(0.2, "how far a value may move from its old value", low=0.0)
    vf_coef: float = knob(0.1, "weight of the value loss", low=0)
    gamma: float = knob(1.0, "discount from token to token", low=0, high=1)
    lam: float = knob(1.0, "lambda of the generalised advantage estimate", low=0, high=1)
    whiten: bool = knob(True, "bring advantages to mean 0 and variance 1")
    missing_eos_penalty: float = knob(
        0.0, "taken from the score of an answer without its end", low=0
    )
    ensemble: str = knob(
        "mean",
        "what an ensemble's members make one score of: their mean, or the lowest",
        choices=("mean", "minimum"),
    )
    pessimism: float = knob(
        0.0, "standard deviations over an ensemble's members taken from their mean", low=0
    )
    score_clip: float = knob(5.0, "largest size of a normalised score; 0: no limit", low=0)
    target_kl: float = knob(
        0.2,
        "approximate KL per token from the rollout at which a step's passes end; 0: never",
        low=0,
    )
    grad_clip: float = common("grad_clip")
    ptx_coef: float = knob(
        0.0, "weight of the next-token loss on the input pairs, a token; 0: none", low=0
    )
    ptx_batch: int = knob(8, "pairs in each optimiser step", low=1)
    watch_every: int = knob(2, "steps between looks at held-out prompts", low=1)
    sample_every: int = knob(1, "steps between sample answers to a few fixed prompts", low=1)
    samples: int = knob(4, "fixed prompts that are sampled", low=0)
    checkpoint_every: int = knob(1, "steps between checkpoints", low=1)

    @property
    def write_batch(self) -> int:
        """The same by the name that every writing stage has for it."""
        return self.batch_size

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pessimism and self.ensemble == "minimum":
            raise SpecError(
                "spec.json: config.pessimism of stage “ppo” is %(value)s, but the lowest member "
                "has no spread to take from it; set it to 0 or config.ensemble to mean.",
                setting="pessimism",
                value=f"{self.pessimism:g}",
            )
        _check_multiple(self, "episodes_per_step", "answers_per_prompt")

    def check_inputs(self, given: Collection[str]) -> None:
        if self.ptx_coef and "pairs" not in given:
            raise SpecError(
                "spec.json: config.ptx_coef is %(value)s, but there are no pairs to go on learning "
                "from; add the input pairs, or set it to 0.",
                role="pairs",
                value=f"{self.ptx_coef:g}",
            )
        if "pairs" in given and not self.ptx_coef:
            raise SpecError(
                "spec.json: the input pairs would have no effect, since config.ptx_coef is 0; set "
                "it, or leave the input out.",
                role="pairs",
            )


@dataclass(frozen=True, kw_only=True)
class PreferConfig(CheckpointedConfig):
    """Improve a policy from rankings directly (DPO), or from scored answers of its own (RLOO)."""

    stage: ClassVar[str] = "prefer"
    by_transformers: ClassVar[bool] = True
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("policy", "rankings"),
        ("policy", "reward", "prompts"),
    )
    may_use: ClassVar[tuple[str, ...]] = ("heldout",)

    method: str = knob(
        "dpo",
        "dpo: from pairs of rankings; rloo: from scored answers of its own",
        choices=("dpo", "rloo"),
    )
    lora: bool = common("lora")
    lora_r: int = common("lora_r")
    lora_alpha: float = common("lora_alpha")
    lr: float = knob(1e-4, "peak learning rate; full training wants about a tenth", low=0)
    warmup: float = common("warmup")
    batch_size: int = knob(16, "pairs (dpo) or answers (rloo) in one optimiser step", low=1)
    micro_batch_size: int = knob(
        0, "pairs or answers that go through the model at once; 0 takes the whole batch", low=0
    )
    heldout_fraction: float = knob(
        0.1, "share of the prompts that is only tested on", low=0, high=0.9
    )
    beta: float = knob(0.1, "dpo: how dearly it pays to leave the reference", low=1e-6)
    epochs: int = knob(1, "dpo: times that each pair is seen", low=1)
    best_worst: bool = knob(False, "dpo: of each ranking only the best against the worst")
    max_length: int = common("max_length")
    steps: int = knob(20, "rloo: optimiser steps, each on new answers", low=1)
    answers: int = knob(4, "rloo: answers to each prompt (K)", low=2)
    kl_coef: float = knob(0.05, "rloo: weight of the KL penalty in the score", low=0)
    max_new_tokens: int = knob(32, "longest answer in tokens", low=1)
    temperature: float = knob(1.0, "sampling temperature, also used by the loss", low=0.01)
    write_batch: int = knob(64, "answers written side by side", low=1)
    sample_every: int = knob(5, "rloo: steps between sample answers", low=1)
    samples: int = knob(4, "answers that a sample event shows", low=0)
    weight_decay: float = common("weight_decay")
    grad_clip: float = common("grad_clip")
    activation_checkpointing: bool = common("activation_checkpointing")
    token_budget: int = knob(1024, "tokens that are measured at once", low=8)
    checkpoint_every: int = common("checkpoint_every")

    #: TRL's loop changes the weights at every step; only the model itself keeps up with that
    engine: ClassVar[str] = "hf"
    engine_memory: ClassVar[float] = 0.5

    @property
    def can_split(self) -> bool:
        return not self.lora

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_multiple(self, "batch_size", "micro_batch_size")
        if self.method == "rloo":
            _check_multiple(self, "batch_size", "answers")

    def check_inputs(self, given: Collection[str]) -> None:
        missing = [name for name in _PREFER_READS[self.method] if name not in given]
        if missing:
            raise SpecError(
                "spec.json: the method %(method)s misses the input %(names)s; add it, or choose "
                "the other config.method.",
                role=missing[0],
                method=self.method,
                names=", ".join(missing),
            )
        may = (*_PREFER_READS[self.method], *(("heldout",) if self.method == "dpo" else ()))
        if needless := [name for name in given if name not in may]:
            raise SpecError(
                "spec.json: the method %(method)s does not read the input %(names)s; leave it out.",
                role=needless[0],
                method=self.method,
                names=", ".join(needless),
            )


#: what each method of `prefer` reads
_PREFER_READS = {"dpo": ("policy", "rankings"), "rloo": ("policy", "reward", "prompts")}


@dataclass(frozen=True, kw_only=True)
class BestOfNConfig(CheckpointedConfig):
    """Write n answers a prompt, keep the one that scores best, and fine-tune on it."""

    stage: ClassVar[str] = "bestofn"
    by_transformers: ClassVar[bool] = True
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("policy", "reward", "prompts"),)

    answers: int = knob(4, "answers written to each prompt, of which one is kept (n)", low=1)
    max_new_tokens: int = knob(64, "longest answer in tokens", low=1)
    temperature: float = knob(1.0, "sampling temperature", low=0.01)
    write_batch: int = knob(64, "answers written side by side", low=1)
    engine: str = common("engine")
    engine_memory: float = common("engine_memory")
    heldout_fraction: float = knob(
        0.1, "share of the prompts whose winners are not learned", low=0, high=0.9
    )
    lora: bool = common("lora")
    lora_r: int = common("lora_r")
    lora_alpha: float = common("lora_alpha")
    epochs: int = knob(1, "times that each winner is seen", low=1)
    lr: float = knob(2e-4, "peak learning rate; full training wants about a tenth", low=0)
    warmup: float = common("warmup")
    batch_size: int = knob(8, "winners in one optimiser step", low=1)
    micro_batch_size: int = knob(
        0, "winners that go through the model at once; 0 takes the whole batch", low=0
    )
    max_length: int = knob(
        1024, "longest prompt with answer that the reward model reads, in tokens", low=8
    )
    samples: int = knob(4, "answers that a sample event shows", low=0)
    weight_decay: float = common("weight_decay")
    grad_clip: float = common("grad_clip")
    activation_checkpointing: bool = common("activation_checkpointing")
    token_budget: int = common("token_budget")
    checkpoint_every: int = common("checkpoint_every")

    @property
    def can_split(self) -> bool:
        return not self.lora

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_multiple(self, "batch_size", "micro_batch_size")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StageConfig):
    """Test a reward model on held-out rankings, or a policy against its reference."""

    stage: ClassVar[str] = "evaluate"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("reward", "rankings"),
        ("policy", "reference", "reward", "prompts"),
    )
    may_use: ClassVar[tuple[str, ...]] = ("second", "history")

    answers: int = knob(1, "answers of each model to each prompt", low=1)
    frontier: int = knob(
        0,
        "answers of the reference to each prompt from which the best-of-n frontier is estimated; "
        "0: as many as answers",
        low=0,
    )
    max_new_tokens: int = knob(64, "longest answer in tokens", low=1)
    temperature: float = knob(1.0, "sampling temperature", low=0.01)
    batch_size: int = knob(64, "answers written side by side", low=1)
    engine: str = common("engine")
    engine_memory: float = common("engine_memory")
    token_budget: int = knob(1024, "tokens that go through a model at once", low=8)
    max_length: int = common("max_length")

    @property
    def write_batch(self) -> int:
        """The same by the name that every writing stage has for it."""
        return self.batch_size

    def check_inputs(self, given: Collection[str]) -> None:
        needless = [name for name in given if name not in ("reward", "rankings")]
        if "rankings" in given and needless:
            raise SpecError(
                "spec.json: with rankings a reward model is tested, and the input %(names)s is not "
                "read; leave it out, or leave rankings out to test a policy.",
                role=needless[0],
                names=", ".join(needless),
            )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(StageConfig):
    """Score answers with a reward model."""

    stage: ClassVar[str] = "score"
    needs: ClassVar[tuple[tuple[str, ...], ...]] = (("reward", "answers"),)

    token_budget: int = knob(1024, "tokens that go through the model at once", low=8)
    max_length: int = common("max_length")


CONFIGS: dict[str, type[StageConfig]] = {
    config.stage: config
    for config in (
        PretrainConfig,
        SFTConfig,
        GenerateConfig,
        RewardConfig,
        PPOConfig,
        PreferConfig,
        BestOfNConfig,
        EvaluateConfig,
        ScoreConfig,
    )
}

#: What an input is: a model that writes, one that may also be an encoder, a reward model, any
#: with a tokenizer, or data of a kind; see `input_kind`.
INPUT_KINDS = {
    "policy": "writer",
    "reference": "writer",
    "base": "writer",
    "reward": "reward",
    "second": "reward",
    "tokenizer": "tokenizer",
    "prompts": "prompts",
    "rankings": "rankings",
    "pairs": "pairs",
    "answers": "answers",
    "text": "text",
    "history": "report",
}


def input_kind(stage: str, name: str) -> str:
    """What the input `name` of a stage is; `heldout` is of the kind that the stage learns from."""
    if name == "heldout":
        learned = {one for names in CONFIGS[stage].needs for one in names}
        return next(kind for kind in ("pairs", "rankings", "prompts") if kind in learned)
    return "backbone" if (stage, name) == ("reward", "base") else INPUT_KINDS[name]


#: Settings that say how a run goes and not what comes out.
MANNER = ("threads", "device", "checkpoint_every", "keep_checkpoints")

#: A path or registered name, or {"path": …, "sha256": …}.
InputValue = str | Mapping[str, str]


@dataclass(frozen=True)
class Spec:
    """One run as it was asked for."""

    stage: str
    config: StageConfig
    inputs: Mapping[str, InputValue]
    seed: int = 0
    parents: Any = field(default_factory=list)
    code_version: str = ""

    def identity(self) -> dict[str, Any]:
        """All that decides the result, by name, as JSON has it: to know a run's own files again."""
        names = {"stage": self.stage, "seed": self.seed}
        names |= {
            f"inputs.{name}": value if isinstance(value, str) else dict(value)
            for name, value in self.inputs.items()
        }
        config = dataclasses.asdict(self.config).items()
        return names | {f"config.{name}": value for name, value in config if name not in MANNER}

    def changes_since(self, earlier: Mapping[str, Any]) -> list[str]:
        """What differs from an earlier identity, a few words each.

        A setting that was unknown then did what its default does now, so an update of the trainer
        changes nothing; a default that is another one now is a change.
        """
        defaults = {f"config.{one.name}": one.default for one in dataclasses.fields(self.config)}
        before, now = defaults | dict(earlier), self.identity()
        names = [name for name in {**earlier, **now} if before.get(name) != now.get(name)]
        return [f"{name} was {_said(before, name)} and is {_said(now, name)}" for name in names]


def _said(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "not given"


def load_spec(folder: Path) -> Spec:
    """Read and check FOLDER/spec.json; paths are not looked at yet."""
    path = folder / "spec.json"
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{folder} has no spec.json; write one that names the stage.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read ({error}); check the file.") from None
    except json.JSONDecodeError as error:
        raise SpecError(
            f"{path} is not JSON (line {error.lineno}, column {error.colno}: {error.msg}); mend it."
        ) from None
    return parse_spec(body)


def parse_spec(body: Any) -> Spec:
    """A checked Spec from the JSON object of a spec.json."""
    if not isinstance(body, dict):
        raise SpecError("spec.json must hold one JSON object with “stage”, “config” and “inputs”.")
    known = [item.name for item in dataclasses.fields(Spec)]
    for key in body:
        if key not in known:
            raise SpecError(f"spec.json has an unknown key “{key}”; it knows {', '.join(known)}.")
    stage = body.get("stage")
    if not isinstance(stage, str) or stage not in CONFIGS:
        raise SpecError(
            f"spec.json: stage is {json.dumps(stage)}; choose one of {', '.join(CONFIGS)}."
        )
    kind = CONFIGS[stage]
    config = body.get("config", {})
    if not isinstance(config, dict):
        raise SpecError("spec.json: “config” must be an object of settings; {} takes the defaults.")
    settings = kind.from_json(config)
    inputs = _checked_inputs(kind, body.get("inputs", {}))
    settings.check_inputs(inputs)
    return Spec(
        stage=stage,
        config=settings,
        inputs=inputs,
        seed=_checked_seed(body.get("seed", 0)),
        parents=body.get("parents", []),
        code_version=str(body.get("code_version", "")),
    )


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise SpecError(
            f"spec.json: seed is {json.dumps(seed)}; give a whole number from 0 to 2^63 - 1."
        )
    return seed


def _checked_inputs(kind: type[StageConfig], inputs: Any) -> dict[str, InputValue]:
    """Refuse unknown, misshapen and missing inputs."""
    if not isinstance(inputs, dict):
        raise SpecError("spec.json: “inputs” must be an object that names paths.")
    known = sorted({name for names in kind.needs for name in names} | set(kind.may_use))
    for name, value in inputs.items():
        if name not in known:
            raise SpecError(
                f"spec.json: inputs has an unknown name “{name}”; "
                f"stage “{kind.stage}” knows {', '.join(known)}."
            )
        fields = set(value) if isinstance(value, dict) else {"path"}
        texts = value.values() if isinstance(value, dict) else [value]
        if (
            "path" not in fields
            or fields - {"path", "sha256"}
            or not all(isinstance(text, str) and text for text in texts)
        ):
            raise SpecError(
                f"spec.json: inputs.{name} is {json.dumps(value)}; "
                "give a path, a registered name, or {“path”: …, “sha256”: …}."
            )
    if not any(set(names) <= set(inputs) for names in kind.needs):
        wanted = min(kind.needs, key=lambda names: len(set(names) - set(inputs)))
        missing = [name for name in wanted if name not in inputs]
        raise SpecError(
            "spec.json: stage “%(stage)s” misses the input %(names)s; add it under “inputs”.",
            role=missing[0],
            stage=kind.stage,
            names=", ".join(missing),
        )
    return dict(inputs)


def models_dir() -> Path:
    """Where registered models lie: LABELHUB_MODELS, or var/models of the project."""
    named = os.environ.get("LABELHUB_MODELS")
    return Path(named) if named else Path(__file__).resolve().parent.parent / "var" / "models"


def data_dir() -> Path:
    """Where texts of other people lie: LABELHUB_DATA, or shared/data beside the project."""
    named = os.environ.get("LABELHUB_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def resolve_path(value: InputValue, folder: Path) -> Path:
    """The file or folder that an input names, checked against its sha256 where one is given.

    An absolute path is itself; then the run folder is tried; then the registered models and texts.
    `smollm2` and `tiny` are made on first use.
    """
    name = value if isinstance(value, str) else value["path"]
    wanted = None if isinstance(value, str) else value.get("sha256")
    path = _find(name, folder)
    if wanted:
        _check_sha256(path, wanted)
    return path


def _find(name: str, folder: Path) -> Path:
    here = folder / name  # joining an absolute path gives that path
    if here.exists():
        return here
    simple = Path(name).name == name and name not in (".", "..")
    registered = models_dir() / name
    if simple and registered.exists():
        return registered
    if simple and name in PREPARED_NAMES:
        # By name: whoever reads a spec must not load torch, and only this line needs it.
        importlib.import_module("trainer.bases").prepare(name, registered)
        return registered
    if name in TEXT_NAMES:
        text = data_dir() / name
        if text.is_dir():
            return text
        raise SpecError(
            f"The text “{name}” is not on this machine: there is no {text}; set LABELHUB_DATA to "
            "the folder that holds it, or give the path of a text of your own."
        )
    where = f"{here} and no model of that name in {models_dir()}" if simple else f"{here}"
    raise SpecError(f"The input “{name}” was not found: there is no {where}; check the path.")


def _check_sha256(path: Path, wanted: str) -> None:
    """Hash a file; of a folder, its manifest, after a check of the files that it lists."""
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise SpecError(f"{path} has no {MANIFEST}, so its sha256 cannot be checked.")
        found = folder_hash(path)
        damage = verify_manifest(path)
        if damage:
            raise SpecError(f"{path} is damaged: {damage[0]}; restore it from its source.")
    else:
        found = sha256_file(path)
    if found != wanted:
        raise SpecError(
            f"{path} has sha256 {found}, but the spec says {wanted}; "
            "it was changed since the run was planned: restore it or plan the run anew."
        )
