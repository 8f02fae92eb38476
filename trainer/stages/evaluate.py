"""Test a reward model on held-out rankings, or a policy against its reference.

With inputs `reward` and `rankings`: out/report.json says how many pairs the reward model orders as
the annotators did. With `policy`, `reference`, `reward` and `prompts`: both models answer the same
prompts with the same seeds, the reward model scores the answers, and the report gives the gain and
the KL. out/answers.jsonl holds both models' answers with their scores.

Choices
- The policy's KL from its reference is the mean over its own answers of log π − log π_ref, summed
  over the answer's tokens: nats a reply, by the forward pass that training uses.
- Intervals are over prompts: a prompt's answers are averaged first, and the gain is paired.
- One model in memory at a time.
- A stopped evaluation keeps nothing: it is a matter of minutes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from trainer.checkpoints import publish
from trainer.config import EvaluateConfig
from trainer.data import Prompt, read_prompts, read_rankings
from trainer.events import RunError, Stopped
from trainer.modeling import (
    Placement,
    chat_ids,
    load_policy,
    load_tokenizer,
    longest_context,
    packed,
    start,
    stop_ids,
)
from trainer.reports import ensemble_report, reward_report
from trainer.rollout import answer_seed, generate
from trainer.scoring import judge_answers, load_judge, score_answers
from trainer.statistics import Estimate, bootstrap_mean, distinct_2, paired_bootstrap
from trainer.trials import logprobs
from trainer.types import RunContext, Sampled


def run(context: RunContext) -> dict[str, Any]:
    """One of the two tests, by the inputs that are given."""
    if "rankings" in context.spec.inputs:
        return test_reward(context)
    return test_policy(context)


# a reward model -----------------------------------------------------------------------------------


def test_reward(context: RunContext) -> dict[str, Any]:
    """Score the answers of rankings and compare the order with the annotators'."""
    config = cast(EvaluateConfig, context.spec.config)

    # 1. read
    model_path = context.input("reward")
    rankings = read_rankings(context.input("rankings"))
    judge = load_judge(model_path, start(context, model_path), config.max_length)

    # 2. score
    asked = [(ranking.messages, ranking.texts) for ranking in rankings]
    count = sum(len(ranking.texts) for ranking in rankings)
    found = judge_answers(
        judge, asked, token_budget=config.token_budget, after_batch=_steps(context, 0.0, 1.0, count)
    )
    raw = [scores[:, 0].tolist() for scores in found]

    # 3. publish
    report = {"stage": "evaluate", **reward_report(rankings, raw, judge.normalisation)}
    if judge.members is not None:
        members = judge.members.out_features
        report["ensemble"] = ensemble_report(rankings, found, judge.normalisation, members)
    context.emit("metric", len(rankings), total=len(rankings), **_flat(report))
    publish(context.out, lambda folder: _write_report(folder, report))
    return report


# a policy -----------------------------------------------------------------------------------------


@dataclass
class Written:
    """What one model answered; all lists run over prompts and then over the answers of each."""

    sampled: list[Sampled]
    texts: list[str]
    scores: list[float]

    def by_prompt(self, values: Sequence[float], answers: int) -> list[float]:
        """Mean over the answers of each prompt."""
        return np.asarray(values, dtype=np.float64).reshape(-1, answers).mean(1).tolist()


def test_policy(context: RunContext) -> dict[str, Any]:
    """Let policy and reference answer the same prompts with the same seeds, and compare."""
    config = cast(EvaluateConfig, context.spec.config)

    # 1. read
    paths = {name: context.input(name) for name in ("policy", "reference", "reward")}
    prompts = read_prompts(context.input("prompts"))
    place = start(context, paths["policy"])

    # 2. both models write; each gives the policy's answers their log-probability
    policy, own = answer(context, paths["policy"], place, prompts, None, (0.0, 0.35))
    reference, other = answer(
        context, paths["reference"], place, prompts, policy.sampled, (0.35, 0.7)
    )
    kl = [a - b for a, b in zip(own, other, strict=True)]

    # 3. the reward model reads
    judge = load_judge(paths["reward"], place, config.max_length)
    total = len(policy.texts)
    for number, written in enumerate((policy, reference)):
        share = 0.7 + 0.15 * number
        raw = score_answers(
            judge,
            [
                (prompts[one.prompt].messages, [text])
                for one, text in zip(written.sampled, written.texts, strict=True)
            ],
            token_budget=config.token_budget,
            after_batch=_steps(context, share, share + 0.15, total),
        )
        written.scores = [judge.normalisation.apply(score) for (score,) in raw]

    # 4. publish
    report = policy_report(policy, reference, kl, config.answers)
    context.emit("metric", len(prompts), total=len(prompts), **_flat(report))
    lines = answer_lines(prompts, {"policy": policy, "reference": reference})

    def write(folder: Path) -> None:
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "answers.jsonl").write_text(body, "utf-8")
        _write_report(folder, report)

    publish(context.out, write)
    return report


def answer(
    context: RunContext,
    path: Path,
    place: Placement,
    prompts: Sequence[Prompt],
    given: Sequence[Sampled] | None,
    share: tuple[float, float],
) -> tuple[Written, list[float]]:
    """A model's answers, and its log-probability of each `given` one (its own when None)."""
    config = cast(EvaluateConfig, context.spec.config)
    tokenizer = load_tokenizer(path)
    model = load_policy(path, place)
    ids = [chat_ids(tokenizer, prompt.messages) for prompt in prompts]
    for prompt, tokens in zip(prompts, ids, strict=True):
        if len(tokens) + config.max_new_tokens > longest_context(model):
            raise RunError(
                f"The prompt “{prompt.id}” has {len(tokens)} tokens, too many for the window of "
                f"{path}; shorten it or lower config.max_new_tokens."
            )
    middle = share[0] + 0.7 * (share[1] - share[0])
    seeds = [
        [answer_seed(context.spec.seed, prompt.id, n) for n in range(config.answers)]
        for prompt in prompts
    ]
    with packed(model) as writer:
        sampled = generate(
            writer,
            ids,
            seeds,
            stop=stop_ids(model, tokenizer),
            pad=tokenizer.pad_token_id,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            batch_size=config.batch_size,
            after_batch=_steps(context, share[0], middle, len(prompts) * config.answers),
        )
    texts = [tokenizer.decode(one.ids, skip_special_tokens=True).strip() for one in sampled]
    judged = sampled if given is None else given
    rows = [(ids[one.prompt], one.ids) for one in judged]
    after = _steps(context, middle, share[1], len(rows))
    found = logprobs(
        model, rows, tokenizer.pad_token_id, config.temperature, config.token_budget, after
    )
    return Written(sampled, texts, []), found


def policy_report(
    policy: Written, reference: Written, kl: Sequence[float], answers: int
) -> dict[str, Any]:
    """Figures of both models side by side, the gain and the KL with their intervals."""
    before = reference.by_prompt(reference.scores, answers)
    after = policy.by_prompt(policy.scores, answers)
    gain = paired_bootstrap(before, after)
    drift = bootstrap_mean(policy.by_prompt(kl, answers))
    return {
        "stage": "evaluate",
        "prompts": len(before),
        "answers": len(kl),
        "score_before": float(np.mean(before)),
        "score_after": float(np.mean(after)),
        "gain": float(np.mean(after) - np.mean(before)),
        "ci95_of_gain": _interval(gain),
        "kl": float(np.mean(kl)),
        "kl_ci95": _interval(drift),
        "reference": figures(reference),
        "policy": figures(policy),
    }


def figures(written: Written) -> dict[str, Any]:
    """What can be said of one model's answers."""
    return {
        "score": float(np.mean(written.scores)),
        "score_std": float(np.std(written.scores)),
        "length": float(np.mean([len(one.ids) for one in written.sampled])),
        "eos_rate": float(np.mean([one.finished for one in written.sampled])),
        "distinct_2": distinct_2([one.ids for one in written.sampled]),
    }


def answer_lines(prompts: Sequence[Prompt], models: dict[str, Written]) -> list[dict[str, Any]]:
    """Lines of answers.jsonl; the model stands in the id, as both answer every prompt."""
    lines = []
    for name, written in models.items():
        for one, text, score in zip(written.sampled, written.texts, written.scores, strict=True):
            prompt = prompts[one.prompt]
            lines.append(
                {
                    "id": f"{prompt.id}-{one.n}-{name}",
                    "prompt_id": prompt.id,
                    "prompt": list(prompt.messages),
                    "text": text,
                    "logprob": round(one.logprob, 5),
                    "tokens": len(one.ids),
                    "finished": one.finished,
                    "seed": one.seed,
                    "model": name,
                    "score": score,
                }
            )
    return lines


# both ---------------------------------------------------------------------------------------------


def _steps(context: RunContext, begin: float, end: float, total: int) -> Any:
    """Tells the progress of a part of the work and stops the run when asked to."""

    def after_batch(done: int) -> None:
        context.progress(begin + (end - begin) * done / total)
        if context.should_stop():
            raise Stopped("The evaluation was stopped; run the folder again to begin anew.")

    return after_batch


def _interval(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None else estimate.ci95


def _flat(report: dict[str, Any]) -> dict[str, float]:
    """The plain numbers of a report, for an event."""
    return {name: value for name, value in report.items() if isinstance(value, int | float)}


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
