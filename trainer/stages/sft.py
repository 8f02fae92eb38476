"""Fine-tune a policy on answers that people wrote or approved.

Reads `base` and `pairs` (and `heldout`, else a share of the prompts is held out); writes out/: the
model with its chat template, report.json with the perplexity of held-out answers before and after.

Choices
- The loop is TRL's SFTTrainer. What it is given and what it keeps is ours: rows are tokenised as
  the policy will see them when it writes (prompt up to where its answer begins, answer,
  end-of-text), and checkpoints are safetensors and JSON with a manifest.
- The loss is on the answer and its end alone; each of its tokens counts the same, in whatever micro
  batch it stands.
- Methods: lora (adapter on every linear layer, float32 on a frozen base), full, freeze (the last
  layers and the head alone), prompt (vectors put before the text; Lester et al. 2021). Of each the
  result is a plain model: vectors become words that the chat template begins with.
- Packed rows do not see one another: positions start anew with each, and attention keeps apart.
- Dropout is off and an epoch's order follows from the seed, so a resumed run is bit for bit the
  undisturbed one.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, disable_progress_bars
from peft import PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from trl import SFTConfig as Arguments
from trl import SFTTrainer

from trainer import ranks, trials
from trainer.adapters import ADAPTER, add_lora, save_adapter
from trainer.cards import Card, parent_name, with_interval, write_card
from trainer.checkpoints import publish, resume
from trainer.config import SFTConfig
from trainer.data import Pair, length_buckets, read_pairs, with_heldout
from trainer.events import RunError
from trainer.modeling import (
    chat_ids,
    conversation_ids,
    keep_template,
    layers_of,
    load_policy,
    load_tokenizer,
    longest_context,
)
from trainer.placement import Placement, start
from trainer.soft_prompts import check_words, with_vectors, with_words
from trainer.statistics import clustered_ratio, perplexity
from trainer.trl_loop import Journey, Parted, narrow_head, no_dropout, plain_model, settings, train
from trainer.types import IGNORED, RunContext

disable_progress_bars()

#: TRL's figures that become metrics
NAMES = {
    "loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy", "num_tokens": "tokens", "epoch": "epoch",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One pair as tokens; the first `prompt` of them are not learned."""

    ids: list[int]
    prompt: int


def run(context: RunContext) -> dict[str, Any]:
    """Train, measure and publish; returns the report."""
    config = cast(SFTConfig, context.spec.config)

    # 1. read what is to be learned
    base = context.input("base")
    training, heldout = read_data(context, config)

    # 2. open the base, and an earlier attempt's checkpoint
    checkpoint = resume(context)
    placement = start(context, base, checkpoint.step if checkpoint else None)
    tokenizer = load_tokenizer(base)
    keep_template(tokenizer)
    model = open_model(base, config, placement, context.spec.seed)
    learned = config.prompt_tokens if config.method == "prompt" else 0
    window = min(config.max_length, longest_context(model) - learned)
    if learned:
        check_words(tokenizer, learned, training[0].messages)
    rows = [row_of(tokenizer, pair, window) for pair in training]
    tested = [row_of(tokenizer, pair, window) for pair in heldout]
    pad = int(tokenizer.pad_token_id)

    # 3. the untrained model on held-out answers; a resumed run has measured that already
    untrained = model.get_base_model() if config.method == "prompt" else model
    pause = context.leave_if_asked
    before = (
        checkpoint.state["before"]
        if checkpoint
        else measure(untrained, tested, pad, config.token_budget, pause)
    )

    # 4. train
    fit = make_fit(context, model, tokenizer, rows)
    train(fit, Journey(context, NAMES, {"before": before}, checkpoint=checkpoint))

    # 5. measure what will be written, and publish it
    finished = finish(context, fit, rows, placement)
    begin = finished.begin
    asked = [Row([*begin, *row.ids], len(begin) + row.prompt) for row in tested]
    after = measure(finished.model, asked, pad, config.token_budget, pause)
    report = {
        "stage": "sft",
        "method": config.method,
        "train_pairs": len(rows),
        "heldout_pairs": len(tested),
        "steps": fit.state.global_step,
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        **figures_of(before, "_before"),
        **figures_of(after),
    }
    publish(context.out, lambda folder: write_out(context, fit, finished, folder, report))
    return report


def read_data(context: RunContext, config: SFTConfig) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, held-out pairs)."""
    pairs = read_pairs(context.input("pairs"))
    return with_heldout(context, pairs, read_pairs, config.heldout_fraction)


def row_of(tokenizer: Any, pair: Pair, window: int) -> Row:
    """Prompt and answer, of which the answer is to be learned."""
    asked = chat_ids(tokenizer, pair.messages)
    prompt, answer = conversation_ids(tokenizer, asked, pair.answer, window)
    return Row([*prompt, *answer], len(prompt))


def open_model(base: Path, config: SFTConfig, placement: Placement, seed: int) -> Any:
    """The base with those weights wanting gradients that the method trains."""
    if config.method == "lora":
        model = load_policy(base, placement)
        no_dropout(model)
        return add_lora(model, config.lora_r, config.lora_alpha, seed)
    # What is trained itself must hold small changes: bfloat16 would round them away.
    model = load_policy(base, placement._replace(dtype=torch.float32))
    no_dropout(model)
    if config.method == "full":
        return model.requires_grad_(True)
    if config.method == "freeze":
        return thaw(model, config.train_layers)
    torch.manual_seed(seed)
    shape = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=config.prompt_tokens)
    with warnings.catch_warnings():
        # peft still asks transformers by a name that is going away.
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, shape)


def thaw(model: Any, count: int) -> Any:
    """Let the last `count` layers, the last norm and the head learn."""
    owner, name = layers_of(model)
    layers = getattr(owner, name)
    if count > len(layers):
        raise RunError(
            f"config.train_layers is {count}, but the model has {len(layers)} layers; "
            "give fewer, or choose the method full."
        )
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    learned: list[nn.Module] = [*layers[-count:]]
    learned += [part for part in owner.children() if "norm" in type(part).__name__.lower()]
    # A head that shares its weights with the embedding would drag the frozen bottom along.
    learned += [] if tied else [model.get_output_embeddings()]
    for part in learned:
        part.requires_grad_(True)
    return model


# --- training ---------------------------------------------------------------------------------


class Fit(Parted, SFTTrainer):
    """TRL's trainer with our checkpoints."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # TRL takes the mean over the passes of a step: here each counts with its tokens.
        tokens = self.accelerator.gather_for_metrics((inputs["labels"] != IGNORED).sum()).sum()
        self._metrics["train"]["mean_token_accuracy"][-1] *= float(tokens / num_items_in_batch)
        return loss

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        if shares := self._metrics["train"].get("mean_token_accuracy"):
            shares[:] = [sum(shares)]
        super().log(logs, *rest)


def make_fit(context: RunContext, model: Any, tokenizer: Any, rows: Sequence[Row]) -> Fit:
    """TRL's trainer over these rows."""
    config = cast(SFTConfig, context.spec.config)
    arguments = Arguments(
        **settings(context, next(model.parameters()).device),
        num_train_epochs=config.epochs,
        max_length=config.max_length,
        packing=config.packing,
        completion_only_loss=True,
    )
    data = Dataset.from_dict(
        {
            "input_ids": [row.ids for row in rows],
            "completion_mask": [
                [0] * row.prompt + [1] * (len(row.ids) - row.prompt) for row in rows
            ],
        }
    )
    fit = Fit(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    narrow_head(fit.model)
    return fit


# --- measuring and writing --------------------------------------------------------------------


def measure(
    model: Any, rows: Sequence[Row], pad: int, token_budget: int, pause: Callable[[int], None]
) -> tuple[list[float], list[int]]:
    """(nats, tokens) of each held-out answer: its negative log-likelihood.

    `pause` is called after every batch with how many are done, and may raise.
    """
    model.eval()
    asked = [(row.ids[: row.prompt], row.ids[row.prompt :]) for row in rows]
    found = trials.logprobs(model, asked, pad, 1.0, token_budget, pause)
    return [-value for value in found], [len(answer) for _, answer in asked]


def tensors_of(rows: Sequence[Row], pad: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and labels (b, t), padded on the right; labels are those of the answers."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows])
    labels = torch.full_like(ids, IGNORED)
    for place, row in enumerate(rows):
        labels[place, row.prompt : len(row.ids)] = ids[place, row.prompt : len(row.ids)]
    mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows])
    return ids, mask, labels


def figures_of(measured: Sequence[Sequence[float]], when: str = "") -> dict[str, Any]:
    """Loss a token and perplexity of held-out answers, with 95 % intervals that count answers."""
    loss = clustered_ratio(*measured)
    # no loss is less than 0, whatever the interval of a few answers says
    edges = [max(0.0, edge) for edge in loss.ci95] if loss and loss.n > 1 else None
    return {
        f"heldout_loss{when}": loss.value if loss else None,
        f"heldout_loss{when}_ci95": edges,
        f"perplexity{when}": perplexity(loss.value) if loss else None,
        f"perplexity{when}_ci95": [perplexity(edge) for edge in edges] if edges else None,
    }


@dataclass(frozen=True)
class Finished:
    """What will be written; `begin` are the tokens that its prompts have in front by now."""

    model: Any
    tokenizer: Any
    begin: list[int]


def finish(context: RunContext, fit: Fit, rows: Sequence[Row], placement: Placement) -> Finished:
    """The model as it will be written: a figure of any other would mislead."""
    config = cast(SFTConfig, context.spec.config)
    tokenizer = fit.processing_class
    if config.method == "prompt":
        vectors = fit.model.get_prompt_embedding_to_save(ADAPTER)
        rare = rarest(fit.model, rows, tokenizer.pad_token_id, config.token_budget)
        new, begin = with_words(tokenizer, config.prompt_tokens)
        base = fit.model.get_base_model()
        return Finished(with_vectors(base, begin, vectors, rare).to(placement.dtype), new, begin)
    if config.method == "lora" or ranks.splits():
        return Finished(plain_model(context.input("base"), placement, fit.model), tokenizer, [])
    return Finished(fit.model.to(placement.dtype), tokenizer, [])


@torch.no_grad()
def rarest(model: Any, rows: Sequence[Row], pad: int, token_budget: int) -> int:
    """The token that is least likely, on the mean, within a batch of what was learned."""
    chosen = [rows[index] for index in length_buckets([len(r.ids) for r in rows], token_budget)[0]]
    ids, mask, labels = tensors_of(chosen, pad)
    device = next(model.parameters()).device
    logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
    # peft's vectors stand in front, and each place foretells the next
    logits = logits[:, -ids.shape[1] : -1][labels[:, 1:] != IGNORED]
    return int(logits.float().softmax(-1).mean(0).argmin())


def write_out(
    context: RunContext, fit: Fit, finished: Finished, folder: Path, report: Mapping[str, Any]
) -> None:
    """The result as plain transformers loads it, with chat template; beside it what peft loads."""
    base = str(context.input("base"))
    finished.model.save_pretrained(str(folder))
    finished.tokenizer.save_pretrained(str(folder))
    if report["method"] == "lora":
        save_adapter(fit.model, folder / "adapter", base)
    if report["method"] == "prompt":
        fit.model.save_pretrained(str(folder / "adapter"))
        (folder / "adapter" / "README.md").unlink()  # peft's form of a card, with nothing filled in
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    write_card(context, folder, card(report, parent_name(context.spec, "base")))


def card(report: Mapping[str, Any], base: str) -> Card:
    """What the model card says."""
    if report["perplexity"] is None:
        figures = ["no answers were held out, so how well it generalises is not known"]
    else:
        before = with_interval(report["perplexity_before"], report["perplexity_before_ci95"])
        after = with_interval(report["perplexity"], report["perplexity_ci95"])
        figures = [
            f"perplexity of the {report['heldout_pairs']} held-out answers, a token: {before} "
            f"before, {after} after"
        ]
    loads = "`AutoModelForCausalLM.from_pretrained` loads it; the chat template lies beside it."
    if report["method"] == "prompt":
        loads += (
            " The template begins with the words that were learned; they write only behind these. "
            "`adapter/` holds them as vectors for peft."
        )
    return Card(
        title="Fine-tuned policy",
        about=(
            f"Fine-tuned from `{base}` on {report['train_pairs']} answers by the method "
            f"{report['method']}: {report['steps']} steps on {report['trained_parameters']} "
            "trained parameters."
        ),
        figures=figures,
        use=loads,
        limits=(
            "It imitates the answers that it was given, their mistakes included. Perplexity says "
            "how well it foretells such answers, not how good they are."
        ),
    )
