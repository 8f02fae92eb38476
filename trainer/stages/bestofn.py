"""Write n answers to each prompt, keep the one that scores best, and fine-tune on the winners.

Reads `policy`, `reward` and `prompts`; writes out/: the merged policy with its chat template,
adapter/, answers.jsonl (every answer with its score), pairs.jsonl (the winners, as `sft` reads
them) and report.json.

Choices
- Rejection sampling (Stiennon et al. 2020; Touvron et al. 2023): the policy itself writes, nothing
  but its own winners is learned. An empty answer cannot win; among equals the first does.
- Picking the best of n moves the policy by at most log n − (n − 1)/n nats a reply (Stiennon et al.
  2020; a bound, Beirami et al. 2024): the KL at which it is to be compared with PPO.
- The winners of held-out prompts are not learned: on those prompts the tuned policy is tried, with
  the dice that the untuned one had.
- Two phases, each resumable: checkpoints of the first count prompts, those of the second go on
  from there. The loss is on the tokens the policy wrote, each counting the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from numpy.typing import NDArray
from torch import nn
from transformers import Trainer, TrainingArguments

from trainer import distributed, ranks, trials
from trainer.adapters import add_lora, save_adapter
from trainer.cards import Card, parent_name, with_interval, write_card
from trainer.checkpoints import Checkpoint, publish, record, resume
from trainer.config import BestOfNConfig
from trainer.data import Prompt, prompt_hash, read_prompts, split_by_prompt
from trainer.engines import drawn_by, sampling_of
from trainer.events import RunError, Stopped
from trainer.modeling import keep_template, load_policy, load_tokenizer
from trainer.placement import Placement, start
from trainer.policy_reports import frontier
from trainer.rollout import answer_seed
from trainer.scoring import load_judge
from trainer.statistics import best_of_kl, bootstrap_mean, paired_bootstrap
from trainer.trl_loop import Journey, Parted, narrowed, no_dropout, plain_model, settings, train
from trainer.types import IGNORED, RunContext

disable_progress_bars()

#: prompts between two checkpoints of the first phase, in batches of answers
CHUNK_BATCHES = 4
#: share of the run's time until fine-tuning begins
WRITTEN = 0.6
KL_BOUND = "log n − (n − 1)/n (Stiennon et al. 2020; an upper bound: Beirami et al. 2024)"
NAMES = {"loss": "loss", "learning_rate": "lr", "grad_norm": "grad_norm", "epoch": "epoch"}


def run(context: RunContext) -> dict[str, Any]:
    """Write, choose, learn, publish; returns the report."""
    config = cast(BestOfNConfig, context.spec.config)

    # 1. read what is asked, and open the policy
    path = context.input("policy")
    prompts = read_prompts(context.input("prompts"))
    checkpoint = resume(context)
    place = start(context, path, checkpoint.step if checkpoint else None)
    tokenizer = load_tokenizer(path)
    keep_template(tokenizer)
    base: Any = load_policy(path, place)
    ids = trials.prompt_tokens(base, tokenizer, prompts, config)
    judge = load_judge(context.input("reward"), place, config.max_length)

    # 2. write n answers to each prompt, score them and keep the best
    lines = write_all(context, (base, tokenizer, judge), prompts, ids, checkpoint)
    winners = choose(lines)
    if not winners:
        raise RunError("Every answer is empty, so there is no winner to learn; check the policy.")

    # 3. fine-tune on the winners of the prompts that are not held out
    _, kept_out = split_by_prompt(prompts, config.heldout_fraction)
    hidden = {prompt_hash(prompt.messages) for prompt in kept_out}
    place_of = {prompt.id: number for number, prompt in enumerate(prompts)}
    learned = [one for one in winners if prompt_hash(one["prompt"]) not in hidden]
    if not learned:
        raise RunError("No prompt has a winner that may be learned; lower heldout_fraction.")
    rows = [(ids[place_of[one["prompt_id"]]], one["ids"]) for one in learned]
    model, fit = make_fit(context, place, int(tokenizer.pad_token_id), rows)
    resumed = checkpoint if checkpoint and "trainer" in checkpoint.state else None
    known = {"lines": lines}
    train(fit, Journey(context, NAMES, known, len(prompts), WRITTEN, resumed))

    # 4. try the result on the held-out prompts
    finished = plain_model(path, place, model)
    seed, pause = context.spec.seed, context.leave_if_asked
    tried = trials.try_out(
        finished, tokenizer, judge, kept_out, config.answers, seed, config, pause
    )
    untuned = [one["score"] for one in lines if prompt_hash(one["prompt"]) in hidden]
    report = {
        "stage": "bestofn",
        **figures(lines, winners, config.answers),
        "frontier": frontier(scores_by_prompt(untuned or [one["score"] for one in lines], config)),
        "train_prompts": len(learned),
        "heldout_prompts": len(kept_out),
        **heldout_figures(scores_by_prompt(untuned, config), tried.by_prompt(config.answers)),
        "kl": trials.kl(finished, base, tokenizer, kept_out, tried, config, pause),
        "steps": fit.state.global_step,
        "trained_parameters": sum(p.numel() for p in fit.learned.values()),
    }
    shown = trials.samples(kept_out, tried, config.samples)
    if shown:
        context.emit("sample", len(prompts) + fit.state.global_step, samples=shown)

    # 5. publish
    result = Result(finished, model, tokenizer, lines, winners, report)
    publish(context.out, lambda folder: write_out(context, result, folder))
    context.progress(1.0)
    return report


# --- choosing ---------------------------------------------------------------------------------


def write_all(
    context: RunContext,
    actors: tuple[Any, Any, Any],
    prompts: Sequence[Prompt],
    ids: Sequence[list[int]],
    checkpoint: Checkpoint | None,
) -> list[dict[str, Any]]:
    """Every answer with its score, n for each prompt in their order, a chunk at a time."""
    config = cast(BestOfNConfig, context.spec.config)
    base, tokenizer, judge = actors
    lines: list[dict[str, Any]] = checkpoint.state["lines"] if checkpoint else []
    done = len(lines) // config.answers
    chunk = max(1, CHUNK_BATCHES * config.write_batch // config.answers)
    drawn = drawn_by(config.engine, sampling_of(config))

    def keep() -> None:
        record(context, done, {"done": torch.tensor(done)}, {"lines": lines})

    def look(written: int) -> None:
        context.progress(WRITTEN * (done + written / config.answers) / len(prompts))
        if context.should_stop():
            keep()
            raise Stopped(f"Stopped after the answers to {done} of {len(prompts)} prompts.")

    with trials.writer(base, tokenizer, config) as writer:
        while done < len(prompts):
            distributed.agree_to_stop(context)
            part = distributed.own(prompts[done : done + chunk])
            own_ids = distributed.own(ids[done : done + chunk])
            seeds = [
                [answer_seed(context.spec.seed, prompt.id, n) for n in range(config.answers)]
                for prompt in part
            ]
            sampled = writer.write(own_ids, seeds, look)
            texts = [trials.text_of(tokenizer, one.ids) for one in sampled]
            asked = [part[one.prompt] for one in sampled]
            scores = trials.score(judge, asked, texts, config.token_budget)
            written = [
                trials.answer_line(prompt, one, text, drawn) | {"score": score, "ids": one.ids}
                for prompt, one, text, score in zip(asked, sampled, texts, scores, strict=True)
            ]
            many = config.answers
            sets = [written[at : at + many] for at in range(0, len(written), many)]
            lines += [line for some in distributed.gather(sets) for line in some]
            done = len(lines) // many
            told = figures(lines, choose(lines), config.answers)
            numbers = {
                name: told[name] for name in ("mean_score", "best_score", "length", "eos_rate")
            }
            context.emit("metric", done, total=len(prompts), **numbers)
            keep()
    return lines


def choose(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The best answer to each prompt, in their order; a prompt with only empty ones has none."""
    best: dict[str, dict[str, Any]] = {}
    for line in lines:
        held = best.get(line["prompt_id"])
        if line["text"] and (held is None or line["score"] > held["score"]):
            best[line["prompt_id"]] = dict(line)
    return list(best.values())


def figures(
    lines: Sequence[Mapping[str, Any]], winners: Sequence[Mapping[str, Any]], n: int
) -> dict[str, Any]:
    """What choosing gained, and how far it moved the policy at most."""
    average, best = mean([line["score"] for line in lines]), mean([w["score"] for w in winners])
    return {
        "prompts": len(lines) // n,
        "answers": n,
        "winners": len(winners),
        "mean_score": average,
        "best_score": best,
        "gain": None if average is None or best is None else best - average,
        "kl_bound": best_of_kl(n),
        "kl_bound_source": KL_BOUND,
        "length": mean([line["tokens"] for line in lines]),
        "eos_rate": mean([line["finished"] for line in lines]),
    }


def mean(values: Sequence[float]) -> float | None:
    """Their mean; None for none."""
    return sum(values) / len(values) if values else None


def scores_by_prompt(scores: Sequence[float], config: BestOfNConfig) -> NDArray[np.float64]:
    """Scores of the answers, prompt after prompt, as (p, n)."""
    return np.array(scores, dtype=np.float64).reshape(-1, config.answers)


def heldout_figures(untuned: NDArray[np.float64], tuned: Sequence[float]) -> dict[str, Any]:
    """What the tuned policy gained on held-out prompts, with an interval over them.

    `untuned` (p, n) are scores of answers, `tuned` (p,) the means of as many.
    """
    gain = paired_bootstrap(untuned.mean(1), tuned) if len(untuned) else None
    around = bootstrap_mean(tuned)
    return {
        "score_before": float(untuned.mean()) if untuned.size else None,
        "score_after": mean(tuned),
        "score_after_ci95": around.ci95 if around else None,
        "heldout_gain": gain.value if gain else None,
        "ci95_of_heldout_gain": gain.ci95 if gain else None,
    }


# --- learning ---------------------------------------------------------------------------------


class Fit(Parted, Trainer):
    """transformers' Trainer with our checkpoints; the loss is the mean over a step's tokens."""

    loss_is_scaled_for_ga = True

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> int:
        own = sum(int((batch["labels"] != IGNORED).sum()) for batch in batch_samples)
        return int(distributed.sums([own])[0])

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        # The token at t + 1 is predicted at t; a prompt's own tokens are labelled IGNORED.
        following = inputs["labels"][:, 1:]
        mask = following != IGNORED
        with narrowed(self.model.base_model, mask):
            logits = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
            ).logits[0]
        total = nn.functional.cross_entropy(logits.float(), following[mask], reduction="sum")
        # Several processes take the mean of their gradients, where the sum is meant.
        return total / num_items_in_batch * ranks.world()


def make_fit(
    context: RunContext,
    place: Placement,
    pad: int,
    rows: Sequence[tuple[list[int], list[int]]],
) -> tuple[Any, Fit]:
    """The policy with what is trained, and a trainer over rows of (prompt, answer) tokens."""
    config = cast(BestOfNConfig, context.spec.config)
    placement = place if config.lora else place._replace(dtype=torch.float32)
    model: Any = load_policy(context.input("policy"), placement)
    if config.lora:
        add_lora(model, config.lora_r, config.lora_alpha, context.spec.seed)
    else:
        model.requires_grad_(True)
    no_dropout(model)
    data = Dataset.from_dict(
        {
            "input_ids": [[*prompt, *answer] for prompt, answer in rows],
            "labels": [[IGNORED] * len(prompt) + answer for prompt, answer in rows],
        }
    )

    def collate(examples: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(example["input_ids"]) for example in examples)

        def column(name: str, fill: int) -> torch.Tensor:
            ragged = [example[name] for example in examples]
            return torch.tensor([row + [fill] * (width - len(row)) for row in ragged])

        there = [[1] * len(example["input_ids"]) for example in examples]
        mask = torch.tensor([row + [0] * (width - len(row)) for row in there])
        inputs = {"input_ids": column("input_ids", pad), "labels": column("labels", IGNORED)}
        return inputs | {"attention_mask": mask}

    arguments = TrainingArguments(
        **settings(context, place.device),
        num_train_epochs=config.epochs,
        remove_unused_columns=False,
    )
    return model, Fit(model=model, args=arguments, train_dataset=data, data_collator=collate)


# --- writing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What is written."""

    finished: Any  # the merged model
    model: Any  # the model with its adapter
    tokenizer: Any
    lines: list[dict[str, Any]]
    winners: list[dict[str, Any]]
    report: dict[str, Any]


def write_out(context: RunContext, result: Result, folder: Path) -> None:
    """The result as plain transformers loads it, with the answers, the winners and the report."""
    config = cast(BestOfNConfig, context.spec.config)
    base = str(context.input("policy"))
    result.finished.save_pretrained(str(folder))
    result.tokenizer.save_pretrained(str(folder))
    if config.lora:
        save_adapter(result.model, folder / "adapter", base)
    chosen = {winner["id"] for winner in result.winners}
    answers = [
        {name: value for name, value in line.items() if name != "ids"}
        | {"winner": line["id"] in chosen}
        for line in result.lines
    ]
    pairs = [
        {"prompt": one["prompt"], "answer": one["text"], "id": one["id"], "score": one["score"]}
        for one in result.winners
    ]
    for name, lines in (("answers", answers), ("pairs", pairs)):
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(body, "utf-8")
    (folder / "report.json").write_text(json.dumps(result.report, indent=1) + "\n", "utf-8")
    write_card(context, folder, card(result.report, parent_name(context.spec, "policy")))


def card(report: Mapping[str, Any], base: str) -> Card:
    """What the model card says."""
    figures = [
        f"mean score of all answers {report['mean_score']:.3f}, of the winners "
        f"{report['best_score']:.3f} (standard deviations of the reward model's reference answers)",
        f"choosing moves the policy by at most {report['kl_bound']:.3f} nats an answer: "
        f"{report['kl_bound_source']}",
    ]
    if report["score_after"] is None:
        figures.append("no prompts were held out, so how the tuned policy scores is not known")
    else:
        figures += [
            f"on {report['heldout_prompts']} held-out prompts the untuned policy scores "
            f"{report['score_before']:.3f}, the tuned one "
            f"{with_interval(report['score_after'], report['score_after_ci95'])}; gain "
            f"{with_interval(report['heldout_gain'], report['ci95_of_heldout_gain'])}",
            f"KL from the untuned policy {report['kl']:.2f} nats an answer",
        ]
    return Card(
        title="Policy",
        about=(
            f"Fine-tuned from `{base}` on the best of {report['answers']} own answers to each of "
            f"{report['train_prompts']} prompts: {report['steps']} steps."
        ),
        figures=figures,
        use=(
            "The weights are merged and load with `AutoModelForCausalLM.from_pretrained`; "
            "`adapter/`, where there is one, holds the low-rank adapter alone, for peft; "
            "`pairs.jsonl` holds the winners, `answers.jsonl` every answer."
        ),
        limits=(
            "The scores are those of the reward model that chose: they show that choosing worked, "
            "not that people like the answers better."
        ),
    )
