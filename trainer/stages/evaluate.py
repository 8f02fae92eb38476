"""Test a reward model on held-out rankings, or a policy against its reference.

With inputs `reward` and `rankings`: out/report.json says how many pairs the reward model orders as
the annotators did. With `policy`, `reference`, `reward` and `prompts`: both models answer the same
prompts with the same seeds, the reward model scores the answers, and the report compares them
(policy_reports.py). `second`, another reward model, scores them too and chooses nothing; `history`,
the report of a PPO run, is drawn against its KL. out/answers.jsonl holds all answers with their
scores.

Choices
- The policy's KL from its reference is the mean over its own answers of log π − log π_ref, summed
  over the answer's tokens: nats a reply, by the forward pass that training uses.
- Intervals are over prompts: a prompt's answers are averaged first, and the gain is paired.
- The reference may write more answers (`frontier`) than are compared: the best-of-n frontier is
  estimated from all of them, the comparison takes the first ones, with the policy's seeds.
- One model in memory at a time.
- A stopped evaluation keeps nothing: it is a matter of minutes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trainer import trials
from trainer.checkpoints import publish
from trainer.config import EvaluateConfig
from trainer.data import Prompt, read_prompts, read_rankings
from trainer.engines import drawn_by, sampling_of
from trainer.events import RunError, Stopped
from trainer.modeling import load_policy, load_tokenizer
from trainer.placement import Placement, start
from trainer.policy_reports import Side, kl_curves, policy_report
from trainer.reports import ensemble_report, reward_report
from trainer.rollout import answer_seed
from trainer.scoring import Judge, judge_answers, load_judge, score_answers
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
    if judge.size:
        report["ensemble"] = ensemble_report(rankings, found, judge.normalisation, judge.size)
    context.emit("metric", len(rankings), total=len(rankings), **_flat(report))
    publish(context.out, lambda folder: _write_report(folder, report))
    return report


# a policy -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """What one model answered; the lists run over prompts and then over the answers of each."""

    sampled: list[Sampled]
    texts: list[str]
    each: int  # answers a prompt


def test_policy(context: RunContext) -> dict[str, Any]:
    """Let policy and reference answer the same prompts with the same seeds, and compare."""
    config = cast(EvaluateConfig, context.spec.config)

    # 1. read
    paths = {name: context.input(name) for name in ("policy", "reference")}
    judges = [name for name in ("reward", "second") if name in context.spec.inputs]
    prompts = read_prompts(context.input("prompts"))
    history = read_history(context.input("history")) if "history" in context.spec.inputs else None
    place = start(context, paths["policy"])

    # 2. both models write; each gives the policy's answers their log-probability
    many = max(config.answers, config.frontier)
    policy, own = answer(context, paths["policy"], place, prompts, config.answers, None, (0.0, 0.3))
    reference, other = answer(
        context, paths["reference"], place, prompts, many, policy.sampled, (0.3, 0.7)
    )
    kl = np.array(own, dtype=np.float64) - np.array(other, dtype=np.float64)

    # 3. the reward models read, one after the other
    scores = {}
    for number, name in enumerate(judges):
        begin, end = (0.7 + 0.3 * at / len(judges) for at in (number, number + 1))
        judge = load_judge(context.input(name), place, config.max_length)
        scores[name] = judge_both(context, judge, prompts, (policy, reference), (begin, end))
    sides = [
        Side(written.sampled, scores["reward"][at], scores["second"][at] if judges[1:] else None)
        for at, written in enumerate((policy, reference))
    ]

    # 4. publish
    report = policy_report(sides[0], sides[1], kl.reshape(-1, config.answers))
    if history is not None:
        report["history"] = kl_curves(history)
    context.emit("metric", len(prompts), total=len(prompts), **_flat(report))
    drawn = drawn_by(config.engine, sampling_of(config))
    lines = [
        *answer_lines(prompts, "policy", policy, sides[0], drawn),
        *answer_lines(prompts, "reference", reference, sides[1], drawn),
    ]

    def write(folder: Path) -> None:
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "answers.jsonl").write_text(body, "utf-8")
        _write_report(folder, report)

    publish(context.out, write)
    return report


def read_history(path: Path) -> list[dict[str, Any]]:
    """The steps of a PPO run, from its report.json or the folder that holds it."""
    file = path / "report.json" if path.is_dir() else path
    try:
        history = json.loads(file.read_text("utf-8"))["history"]
        steps = [dict(step) for step in history]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(
            f"{file} is no report of a PPO run with its “history”; give the report.json of one as "
            "the input “history”, or leave it out."
        ) from None
    return steps


def answer(
    context: RunContext,
    path: Path,
    place: Placement,
    prompts: Sequence[Prompt],
    each: int,
    given: Sequence[Sampled] | None,
    share: tuple[float, float],
) -> tuple[Written, list[float]]:
    """A model's answers, and its log-probability of each `given` one (its own when None)."""
    config = cast(EvaluateConfig, context.spec.config)
    tokenizer = load_tokenizer(path)
    model = load_policy(path, place)
    ids = trials.prompt_tokens(model, tokenizer, prompts, config)
    middle = share[0] + 0.7 * (share[1] - share[0])
    seed = context.spec.seed
    seeds = [[answer_seed(seed, prompt.id, n) for n in range(each)] for prompt in prompts]
    after = _steps(context, share[0], middle, len(prompts) * each)
    sampled = trials.write(model, tokenizer, ids, seeds, config, after)
    texts = [trials.text_of(tokenizer, one.ids) for one in sampled]
    judged = sampled if given is None else given
    rows = [(ids[one.prompt], one.ids) for one in judged]
    after = _steps(context, middle, share[1], len(rows))
    found = trials.logprobs(
        model, rows, int(tokenizer.pad_token_id), config.temperature, config.token_budget, after
    )
    return Written(sampled, texts, each), found


def judge_both(
    context: RunContext,
    judge: Judge,
    prompts: Sequence[Prompt],
    both: tuple[Written, Written],
    share: tuple[float, float],
) -> list[NDArray[np.float64]]:
    """Normalised scores (p, answers a prompt) of both models' answers."""
    config = cast(EvaluateConfig, context.spec.config)
    asked = [
        (prompts[one.prompt].messages, [text])
        for written in both
        for one, text in zip(written.sampled, written.texts, strict=True)
    ]
    raw = score_answers(
        judge,
        asked,
        token_budget=config.token_budget,
        after_batch=_steps(context, *share, len(asked)),
    )
    scores = np.array([judge.normalisation.apply(one) for (one,) in raw], dtype=np.float64)
    border = len(both[0].texts)
    return [
        part.reshape(-1, written.each)
        for part, written in zip((scores[:border], scores[border:]), both, strict=True)
    ]


def answer_lines(
    prompts: Sequence[Prompt], name: str, written: Written, side: Side, drawn: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Lines of answers.jsonl; the model stands in the id, as both answer every prompt."""
    lines = []
    scores = side.scores.reshape(-1).tolist()
    second = None if side.second is None else side.second.reshape(-1).tolist()
    for number, (one, text) in enumerate(zip(written.sampled, written.texts, strict=True)):
        prompt = prompts[one.prompt]
        line = trials.answer_line(prompt, one, text, drawn)
        line |= {"id": f"{line['id']}-{name}", "model": name, "score": scores[number]}
        lines.append(line if second is None else line | {"second_score": second[number]})
    return lines


# both ---------------------------------------------------------------------------------------------


def _steps(context: RunContext, begin: float, end: float, total: int) -> Any:
    """Tells the progress of a part of the work and stops the run when asked to."""

    def after_batch(done: int) -> None:
        context.progress(begin + (end - begin) * done / total)
        if context.should_stop():
            raise Stopped("The evaluation was stopped; run the folder again to begin anew.")

    return after_batch


def _flat(report: dict[str, Any]) -> dict[str, float]:
    """The plain numbers of a report, for an event."""
    return {name: value for name, value in report.items() if isinstance(value, int | float)}


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
