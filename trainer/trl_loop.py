"""What the stages on transformers' Trainer have in common, TRL's trainers being its children.

Choices
- Checkpoints are ours (safetensors and JSON with a manifest), so a run is resumed from what was
  checked, nothing is unpickled, and the trained weights alone are kept, not the frozen base.
- Where weights are split over the processes, accelerate does it (FSDP2) or lets DeepSpeed do it
  (ZeRO-3, zero.py); checkpoints hold whole ones, and what is measured and written is a plain model.
- Figures go into events, and a wish to stop goes into the trainer, through one callback.
- A loss that is no number ends the run before it is saved.
TRL itself is imported by its two stages alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from peft import PeftModel
from torch import Tensor, nn
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState

from trainer import distributed, ranks
from trainer.adapters import merged_state
from trainer.checkpoints import CHECKPOINTS, Checkpoint, load_optimizer, optimizer_state, record
from trainer.data import length_buckets
from trainer.events import RunError, Stopped, no_number
from trainer.manifests import DRAFT
from trainer.modeling import load_policy
from trainer.placement import Placement
from trainer.types import IGNORED, TILE, RunContext


@dataclass
class Journey:
    """One training within a run: where it tells its progress, and what its checkpoints carry."""

    context: RunContext
    #: figures of the trainer that become metrics: its name → ours
    names: Mapping[str, str]
    #: what was found out before training and is needed after it
    known: dict[str, Any]
    #: steps that the run's work before this training has taken
    offset: int = 0
    #: share of the run's time before this training
    begun: float = 0.0
    checkpoint: Checkpoint | None = None
    #: the figure by which the best checkpoint is told, and 1 where more is better, else -1
    figure: tuple[str, int] = ("loss", -1)


#: DeepSpeed's own sizes are made for the largest models: its buffers would be larger than a small
#: one, of which nothing would be split
SIZES = {
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
}


class Kept:
    """Put before a Trainer: its checkpoints become ours."""

    journey: Journey
    # of the Trainer behind
    model: Any
    args: Any
    state: Any
    optimizer: Any
    lr_scheduler: Any
    accelerator: Any
    is_fsdp_enabled: bool
    #: what is trained, in the order in which an optimiser of one process numbers it
    ordered: list[nn.Parameter]

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        state = self.accelerator.state
        wants_fsdp = ranks.splits() and not ranks.splits_by_zero()
        if wants_fsdp and state.distributed_type != DistributedType.FSDP:
            # accelerate passes the wish over where there are no GPUs, though all of it works there.
            PartialState().distributed_type = state.distributed_type = DistributedType.FSDP
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            self.is_fsdp_enabled = True
        if ranks.splits_by_zero():
            state.deepspeed_plugin.deepspeed_config["zero_optimization"] |= SIZES

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """What is trained, by name, in a fixed order."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        context, step = self.journey.context, self.journey.offset + self.state.global_step
        tensors: dict[str, Tensor] = {f"learned.{n}": p for n, p in self.learned.items()}
        tensors |= self._optimizer_state()
        tensors["random"] = torch.random.get_rng_state()
        state = {
            **self.journey.known,
            "schedule": self.lr_scheduler.state_dict(),
            "trainer": dataclasses.asdict(self.state) | {"stateful_callbacks": {}},
        }
        record(context, step, tensors, state, self._scores(step))

    def _scores(self, step: int) -> dict[int, float]:
        """The figure of this stage, mean over the steps since the checkpoint before."""
        name, sign = self.journey.figure
        begun = self.state.global_step - self.args.save_steps
        values = [
            entry[name]
            for entry in self.state.log_history
            if name in entry and entry["step"] > begun
        ]
        return {step: sign * sum(values) / len(values)} if values else {}

    def create_optimizer(self, *given: Any) -> Any:
        optimizer = super().create_optimizer(*given)  # type: ignore[misc]
        self.ordered = [one for group in optimizer.param_groups for one in group["params"]]
        return optimizer

    def _optimizer_state(self) -> dict[str, Tensor]:
        """What the optimiser knows, as tensors by name."""
        if ranks.splits_by_zero():
            found: dict[str, Tensor] = distributed.zero().optimizer_state(
                self.optimizer, self.ordered
            )
            return found
        return optimizer_state(self.optimizer)

    def _prepare_for_training(self, max_steps: int, loader: Any, resume: str | None) -> Any:
        """Weights are put back while they are still whole, and what belongs to split ones after
        that; the Trainer would look for files of its own.
        """
        checkpoint = self.journey.checkpoint
        if checkpoint is not None:
            self._load_weights(checkpoint)
        prepared = super()._prepare_for_training(max_steps, loader, None)  # type: ignore[misc]
        if checkpoint is not None:
            self._load_optimizer(checkpoint)
        return prepared

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: `_prepare_for_training` does it."""

    @torch.no_grad()
    def _load_weights(self, checkpoint: Checkpoint) -> None:
        for name, parameter in self.learned.items():
            parameter.copy_(checkpoint.tensors[f"learned.{name}"])

    def _load_optimizer(self, checkpoint: Checkpoint) -> None:
        if ranks.splits_by_zero():
            names = {id(parameter): name for name, parameter in self.learned.items()}
            weights = [checkpoint.tensors[f"learned.{names[id(one)]}"] for one in self.ordered]
            distributed.zero().load(self.optimizer, self.ordered, weights, checkpoint.tensors)
        else:
            load_optimizer(self.optimizer, checkpoint.tensors)
        schedule = checkpoint.state["schedule"]
        self.lr_scheduler.load_state_dict(schedule)
        # A scheduler tells the optimiser its rate only after a step: the first one needs it now.
        for group, rate in zip(self.optimizer.param_groups, schedule["_last_lr"], strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.journey.checkpoint is not None:
            torch.random.set_rng_state(self.journey.checkpoint.tensors["random"])


class Parted(Kept):
    """Kept, for rows that the collator padded on the right: on a CPU those of like length go
    through the model together, as padding costs there what an answer costs.

    The gradient is the same, as the loss is a sum over tokens.
    """

    def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
        step = super().training_step  # type: ignore[misc]
        if self.args.device.type != "cpu" or ranks.world() > 1 or "attention_mask" not in inputs:
            return step(model, inputs, *rest)
        config: Any = self.journey.context.spec.config
        parts = parts_of(inputs, config.token_budget)
        return sum(step(model, part, *rest) for part in parts)


def parts_of(inputs: Mapping[str, Tensor], token_budget: int) -> list[dict[str, Tensor]]:
    """A padded batch as smaller ones of at most `token_budget` tokens (or one row), each as wide as
    its longest row; tensors are (rows, positions).
    """
    lengths = inputs["attention_mask"].sum(1).tolist()
    return [
        {name: column[rows, : max(lengths[row] for row in rows)] for name, column in inputs.items()}
        for rows in length_buckets(lengths, token_budget)
    ]


class Reporter(TrainerCallback):
    """Carries the trainer's figures into events, and a wish to stop into the trainer."""

    def __init__(self, journey: Journey) -> None:
        self.journey = journey

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """After each optimiser step: how far it is, and whether to save and leave."""
        context, begun = self.journey.context, self.journey.begun
        context.progress(begun + (1 - begun) * state.global_step / max(1, state.max_steps))
        distributed.agree_to_stop(context)
        if context.should_stop():
            control.should_save = control.should_training_stop = True
        return control

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """One metric event for each optimiser step."""
        if not logs or "loss" not in logs:
            return
        if not all(math.isfinite(float(logs.get(name, 0.0))) for name in ("loss", "grad_norm")):
            raise no_number("The loss or its gradient is", state.global_step)
        values = {
            ours: float(logs[theirs])
            for theirs, ours in self.journey.names.items()
            if logs.get(theirs) is not None
        }
        offset = self.journey.offset
        self.journey.context.emit(
            "metric", offset + state.global_step, total=offset + state.max_steps, **values
        )


def no_dropout(model: nn.Module) -> None:
    """Switch dropout off for good: the policy that is trained is the one that writes."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010 - torch types it as a module


def micro_batch(config: Any) -> int:
    """Rows that go through the model at once; an optimiser step must be whole micro batches, as
    many on each process.
    """
    world = ranks.world()
    whole = max(1, config.batch_size // world)
    micro: int = min(config.micro_batch_size or whole, whole)
    if config.batch_size % (micro * world):
        raise RunError(
            f"config.batch_size ({config.batch_size}) must be a multiple of "
            f"config.micro_batch_size ({micro}) times the {world} processes: change one of them."
        )
    return micro


def settings(context: RunContext, device: torch.device) -> dict[str, Any]:
    """Arguments of any Trainer from a stage's settings, with its own outputs switched off."""
    config: Any = context.spec.config
    micro = micro_batch(config)
    return {
        "output_dir": str(context.folder / "checkpoints"),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": config.batch_size // (micro * ranks.world()),
        "learning_rate": config.lr,
        "lr_scheduler_type": "cosine",
        "warmup_steps": config.warmup,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.grad_clip,
        "activation_checkpointing": config.activation_checkpointing,
        "bf16": device.type == "cuda",
        "use_cpu": device.type == "cpu",
        "seed": context.spec.seed % 2**32,
        "save_strategy": "steps",
        "save_steps": config.checkpoint_every,
        "logging_steps": 1,
        # Else a loss that is no number would be written as the mean of those before it.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": device.type == "cuda",
        # Else gradients that are not split would wait for the last micro batch of a step.
        "accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": ranks.splits()}},
    }


def plain_model(path: Path, placement: Placement, trained: Any) -> Any:
    """The model of that folder with what was learned: adapters merged, split weights joined."""
    plain: Any = load_policy(path, placement)
    take_over(plain, trained)
    return plain


@torch.no_grad()
def take_over(plain: nn.Module, trained: Any) -> None:
    """Give a plain model the weights that were learned, one after the other."""
    own, given = plain.state_dict(), merged_state(trained)
    # DeepSpeed's weights are empty in a state, but know themselves where their parts are.
    named = trained.named_parameters(remove_duplicate=False)
    split = {name: one for name, one in named if hasattr(one, "ds_tensor")}
    for name, tensor in (given | split).items():
        own[name].copy_(distributed.whole_tensor(tensor))


@contextlib.contextmanager
def narrowed(network: nn.Module, mask: Tensor) -> Iterator[None]:
    """Within, a model's head gets of its network only the states where `mask` (rows, positions − 1)
    is true, as one row: those of prompts and padding cost as much as others and predict nothing.
    """

    def narrow(_module: nn.Module, _inputs: Any, outputs: Any) -> Any:
        outputs.last_hidden_state = outputs.last_hidden_state[:, :-1][mask][None]
        return outputs

    hook = network.register_forward_hook(narrow)
    try:
        yield
    finally:
        hook.remove()


#: what TRL's head says of each token
FUSED = {"log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"}


def narrow_head(model: Any, network: nn.Module | None = None) -> None:
    """Let TRL's head, which gives log-probabilities without logits, see narrowed states.

    On a GPU with Triton it leaves the others out itself, elsewhere it computes them all, and takes
    more of the vocabulary at once than is good for a CPU. `network` is what the model's states come
    from, where the model does not have it itself.
    """
    if isinstance(model, PeftModel):
        model = model.get_base_model()
    network = network or model.base_model
    if next(network.parameters()).device.type == "cpu":
        utils: Any = importlib.import_module("trl.trainer.utils")
        utils._CHUNKED_LOGPROB_CHUNK_SIZE = min(TILE, utils._CHUNKED_LOGPROB_CHUNK_SIZE)
    whole = model.forward

    @functools.wraps(whole)
    def forward(*given: Any, **named: Any) -> Any:
        if not named.get("fused_lm_head"):
            return whole(*given, **named)
        following = named["labels"][:, 1:]
        mask = following != IGNORED
        if not mask.any():  # nothing to score
            return whole(*given, **named)
        del named["labels"]
        with narrowed(network, mask):
            outputs = whole(*given, shift_labels=following[mask][None], **named)
        for name in FUSED & outputs.keys():
            outputs[name] = outputs[name].new_zeros(mask.shape).masked_scatter(mask, outputs[name])
        outputs.label_mask = mask
        return outputs

    model.forward = forward


def train(fit: Any, journey: Journey) -> None:
    """All steps of a Trainer with `Kept` before it, from where the checkpoint stands."""
    fit.journey = journey
    fit.remove_callback(PrinterCallback)
    fit.add_callback(Reporter(journey))
    if journey.checkpoint is None:
        fit.train()
    else:
        # It wants a folder with the trainer's state; the weights come from our checkpoint. In its
        # place and by its name, what a killed process leaves of it is found and removed.
        where = journey.context.folder / CHECKPOINTS
        with tempfile.TemporaryDirectory(prefix=".trainer", suffix=DRAFT, dir=where) as folder:
            text = json.dumps(journey.checkpoint.state["trainer"])
            (Path(folder) / "trainer_state.json").write_text(text, "utf-8")
            fit.train(resume_from_checkpoint=folder)
    if ranks.splits_by_zero():
        distributed.zero().forget()
    done, total = fit.state.global_step, fit.state.max_steps
    if journey.context.should_stop() and done < total:
        raise Stopped(f"Stopped after step {done} of {total}.")
