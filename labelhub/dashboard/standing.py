"""Where a round stands, in its steps and one sentence, and what its admin may do now.

The facts come from queries; the words are made here, so that the home page, the project's page and
the round's page say the same. A step is `now` while a machine works, `person` while it waits for
people, `bad` when it failed or was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labelhub.lib.figures import count, duration, fixed, plain, time_left, with_error
from labelhub.rounds import queries
from labelhub.rounds.models import Round
from labelhub.rounds.queries import Gain, Ranked, Written
from labelhub.rounds.rules import ENDED
from labelhub.rounds.verdicts import Verdict, comparison_of, verdict_of
from labelhub.runs.models import Run
from labelhub.runs.queries import Progress, interval, is_living, latest_metrics, number, progress_of

State = Round.State
STEPS = ("generate", "rank", "reward", "ppo", "evaluate", "compare", "decide")


@dataclass(frozen=True)
class Step:
    """One box of the loop strip."""

    key: str
    name: str
    state: str  # done | now | person | bad | todo
    figure: str
    detail: str
    share: float | None = None
    left: str = ""
    run: Run | None = None


@dataclass(frozen=True)
class Facts:
    """What the database knows about a round, read once for a page."""

    round: Round
    runs: Mapping[str, Run]
    progress: Progress | None
    written: Written
    ranked: Ranked
    gain: Gain | None
    verdict: Verdict | None = None

    @property
    def run(self) -> Run | None:
        """The newest run of the stage that the round is in."""
        return self.runs.get(self.round.state)


@dataclass(frozen=True)
class Standing:
    """A round as a page shows it."""

    round: Round
    steps: list[Step]
    sentence: str
    tone: str  # now | person | bad | done
    failed: Run | None
    may: frozenset[str]
    facts: Facts

    @property
    def now(self) -> Step | None:
        """The step at which the round is, None when it is over."""
        return next((step for step in self.steps if step.state in ("now", "person", "bad")), None)


def standing_of(round: Round) -> Standing:
    """Read the round's facts and put them into words."""
    facts = facts_of(round)
    run = facts.run
    return Standing(
        round=round,
        steps=[_step(key, facts) for key in STEPS if key != "compare" or wants_comparison(facts)],
        sentence=waits_for(facts),
        tone=tone_of(facts),
        failed=run if run and run.state == Run.State.FAILED and run.error else None,
        may=what_may_be_asked(facts),
        facts=facts,
    )


def facts_of(round: Round) -> Facts:
    """Every number that the strip, the sentence and the buttons need."""
    runs = queries.latest_runs(round)
    run = runs.get(round.state)
    evaluation = runs.get("evaluate")
    return Facts(
        round=round,
        runs=runs,
        progress=progress_of(run) if run else None,
        written=queries.written(round),
        ranked=queries.ranked(round),
        gain=queries.gain_of(evaluation.report) if evaluation else None,
        verdict=verdict_of(comparison) if (comparison := comparison_of(round)) else None,
    )


def wants_comparison(facts: Facts) -> bool:
    """Whether people compare the policies of this round before its decision."""
    return bool(facts.verdict or facts.round.config.get("compare_prompts"))


# --- the steps


def _step(key: str, facts: Facts) -> Step:
    figure, detail = _FIGURES[key](facts)
    state = state_of_step(key, facts)
    run = facts.runs.get(key)
    working = state == "now" and run is not None and facts.progress is not None
    share = facts.progress.share if working and facts.progress else None
    if key == "rank" and state == "person" and facts.ranked.wanted:
        share = facts.ranked.done / facts.ranked.wanted
    if key == "compare" and state == "person" and facts.verdict and facts.verdict.wanted:
        share = facts.verdict.done / facts.verdict.wanted
    return Step(
        key=key,
        name=step_name(key),
        state=state,
        figure=figure,
        detail=detail,
        share=share,
        left=time_left(facts.progress.eta_seconds) if working and facts.progress else "",
        run=run,
    )


def step_name(key: str) -> str:
    """What the strip calls a step."""
    return {
        "generate": _("Answers"),
        "rank": _("Rankings"),
        "reward": _("Reward model"),
        "ppo": _("PPO"),
        "evaluate": _("Evaluation"),
        "compare": _("Blind comparison"),
        "decide": _("Promotion"),
    }[key]


def state_of_step(key: str, facts: Facts) -> str:
    """How one step stands, from the round's state and the run of that step."""
    state = facts.round.state
    if state in ENDED:
        # A round that was ended early never took its later steps.
        return "done" if key == "decide" or _has_result(key, facts) else "todo"
    if state == State.PLANNED:
        return "todo"
    at, here = STEPS.index(state), STEPS.index(key)
    if here != at:
        return "done" if here < at else "todo"
    if key in ("rank", "compare", "decide"):
        return "person"
    run = facts.run
    if run is None:
        return "bad"
    if run.state in (Run.State.FAILED, Run.State.STOPPED):
        return "bad"
    return "done" if run.state == Run.State.FINISHED else "now"


def _has_result(key: str, facts: Facts) -> bool:
    if key == "rank":
        return facts.ranked.rankings > 0
    if key == "compare":
        return facts.verdict is not None and facts.verdict.people.n > 0
    run = facts.runs.get(key)
    return run is not None and run.state == Run.State.FINISHED


def _answers(facts: Facts) -> tuple[str, str]:
    planned = facts.round.config.get("answers") or 0
    prompts = facts.written.prompts
    detail = _("%(prompts)s prompts × %(answers)s") % {
        "prompts": count(prompts),
        "answers": planned,
    }
    if facts.written.answers:
        return count(facts.written.answers), detail
    return _run_figure("generate", facts) or count(prompts * int(planned)), detail


def _rankings(facts: Facts) -> tuple[str, str]:
    ranked = facts.ranked
    if not ranked.wanted and not ranked.rankings:
        return "–", _("none asked for yet")
    if facts.round.state == State.RANK:
        figure = _("%(done)s of %(wanted)s") % {
            "done": count(ranked.done),
            "wanted": count(ranked.wanted),
        }
    else:
        figure = count(ranked.rankings)
    return figure, _agreement(facts) or who_ranked(ranked)


def _agreement(facts: Facts) -> str:
    """How far annotators agree, where some answers were ranked by more than one of them."""
    reward = facts.runs.get("reward")
    told = reward.report.get("annotator_agreement") if reward else None
    value = number(told, "agreement") if isinstance(told, dict) else None
    if value is None or not isinstance(told, dict):
        return ""
    share = with_error(value, interval(told, "ci95"), percent=True)
    if facts.ranked.simulated:
        return _("simulated annotators agree %(share)s") % {"share": share}
    return _("annotators agree %(share)s") % {"share": share}


def who_ranked(ranked: Ranked) -> str:
    """By whom: people and simulated annotators are never counted together."""
    if not ranked.rankings:
        return _("by nobody yet")
    if ranked.simulated and ranked.by_people:
        return _("%(people)s by people, %(simulated)s simulated") % {
            "people": ranked.by_people,
            "simulated": ranked.simulated,
        }
    if ranked.simulated:
        return ngettext(
            "by %(n)d simulated annotator", "by %(n)d simulated annotators", ranked.annotators
        ) % {"n": ranked.annotators}
    return ngettext("by %(n)d person", "by %(n)d people", ranked.annotators) % {
        "n": ranked.annotators
    }


def _reward(facts: Facts) -> tuple[str, str]:
    run = facts.runs.get("reward")
    accuracy = number(run.report, "pair_accuracy") if run else None
    if run is None or run.state != Run.State.FINISHED:
        return _run_figure("reward", facts) or "–", _("right on pairs that it never saw")
    length = number(run.report, "length_baseline")
    figure = with_error(accuracy, interval(run.report, "ci95"), percent=True)
    if length is None:
        return figure, _("right on held-out pairs")
    return figure, _("right; length alone %(share)s") % {
        "share": with_error(length, None, percent=True)
    }


def _ppo(facts: Facts) -> tuple[str, str]:
    run = facts.runs.get("ppo")
    steps = facts.round.config.get("steps")
    if run is None:
        detail = _("%(n)s steps planned") % {"n": steps} if steps else ""
        return "–", detail
    kl = number(run.report, "kl")
    if kl is None:
        kl = latest_metrics(run).get("kl")
    detail = kl_words(kl, kl_budget(facts))
    if run.state == Run.State.FINISHED:
        done = number(run.report, "steps") or run.step
        return ngettext("%(n)d step", "%(n)d steps", int(done)) % {"n": int(done)}, detail
    return _run_figure("ppo", facts) or "–", detail


def kl_budget(facts: Facts) -> float | None:
    """How many nats a reply the policy may move away from its reference."""
    run = facts.runs.get("ppo")
    told = number(run.config, "kl_budget") if run else None
    return told if told is not None else number(facts.round.config, "kl_budget")


def kl_words(kl: float | None, budget: float | None) -> str:
    """KL 5.9 nats of 12."""
    if kl is None:
        return _("KL not measured yet")
    if budget is None:
        return _("KL %(kl)s nats") % {"kl": plain(kl, 2)}
    return _("KL %(kl)s of %(budget)s nats") % {"kl": plain(kl, 2), "budget": plain(budget, 3)}


def _evaluation(facts: Facts) -> tuple[str, str]:
    run = facts.runs.get("evaluate")
    if run is None or run.state != Run.State.FINISHED:
        n = facts.round.config.get("heldout_prompts")
        detail = _("on %(n)s prompts that nothing trained on") % {"n": n} if n else ""
        return _run_figure("evaluate", facts) or "–", detail
    if facts.gain is None:
        return _("too few"), _("no gain could be measured")
    return with_error(facts.gain.value, facts.gain.bounds, sign=True), gain_words(facts.gain)


def gain_words(gain: Gain) -> str:
    """On how many prompts the gain was measured."""
    if gain.prompts is None:
        return _("gain in score on held-out prompts")
    return ngettext(
        "gain in score, n = %(n)d held-out prompt",
        "gain in score, n = %(n)d held-out prompts",
        gain.prompts,
    ) % {"n": gain.prompts}


def _comparison(facts: Facts) -> tuple[str, str]:
    verdict = facts.verdict
    if verdict is None:
        n = int(facts.round.config.get("compare_prompts") or 0)
        detail = ngettext("%(n)d prompt, old and new", "%(n)d prompts, old and new", n) % {"n": n}
        return "–", detail
    if facts.round.state == State.COMPARE:
        figure = _("%(done)s of %(wanted)s") % {
            "done": count(verdict.done),
            "wanted": count(verdict.wanted),
        }
        return figure, _("opinions; what they say is shown at the end")
    rate = verdict.people
    if rate.value is None:
        return _("too few"), _("nobody compared them")
    words = ngettext("of %(n)d pair won by the new", "of %(n)d pairs won by the new", rate.n)
    return with_error(rate.value, rate.bounds, percent=True), words % {"n": rate.n}


def _promotion(facts: Facts) -> tuple[str, str]:
    round = facts.round
    if round.state == State.PROMOTED:
        return _("promoted"), round.policy_out.name if round.policy_out else ""
    if round.state == State.REJECTED:
        if round.policy_out is None:
            return _("ended early"), _("without a new policy")
        return _("rejected"), _("the old policy stays live")
    if round.state == State.DECIDE:
        return _("your decision"), round.policy_out.name if round.policy_out else ""
    return _("waits"), _("an admin decides")


_FIGURES = {
    "generate": _answers,
    "rank": _rankings,
    "reward": _reward,
    "ppo": _ppo,
    "evaluate": _evaluation,
    "compare": _comparison,
    "decide": _promotion,
}


def _run_figure(key: str, facts: Facts) -> str:
    """The figure of a step whose run is not over: its state, or the step it is at."""
    run = facts.runs.get(key)
    if run is None:
        return ""
    if run.state == Run.State.RUNNING and run.step and run.total:
        if key == "generate":  # its steps are prompts
            return _("%(done)s of %(wanted)s") % {"done": run.step, "wanted": run.total}
        return _("step %(step)s of %(total)s") % {"step": run.step, "total": run.total}
    return str(run.get_state_display())


def how_far(run: Run, progress: Progress) -> list[str]:
    """How far a run is in words, what is left of it, and what it took when it is over."""
    words = {"step": count(progress.step), "total": count(progress.total)}
    parts = []
    if progress.total and run.stage == Run.Stage.GENERATE:
        parts.append(_("%(step)s of %(total)s prompts answered") % words)
    elif progress.total:
        parts.append(_("step %(step)s of %(total)s") % words)
    elif run.state == Run.State.QUEUED:
        parts.append(_("waits for a free worker"))
    elif progress.share:
        parts.append(f"{fixed(100 * progress.share, 0)}\u202f%")
    elif run.state == Run.State.RUNNING:
        parts.append(_("the trainer starts"))
    if run.state == Run.State.RUNNING and (left := time_left(progress.eta_seconds)):
        parts.append(left)
    if run.started and run.ended:
        took = duration((run.ended - run.started).total_seconds())
        parts.append(_("took %(time)s") % {"time": took})
    return parts


# --- the sentence


def waits_for(facts: Facts) -> str:
    """What the round waits for, in one sentence that says whose turn it is."""
    state = facts.round.state
    if state == State.RANK:
        return _waits_for_rankings(facts)
    if state == State.COMPARE:
        return _waits_for_comparison(facts)
    if state == State.DECIDE:
        return _("Waits for your decision: promote the new policy or reject it.")
    if state == State.PROMOTED:
        return _("This round is over: its policy is promoted and writes the next answers.")
    if state == State.REJECTED:
        return _("This round is over: no new policy came of it, the old one stays live.")
    if state == State.PLANNED:
        return _("Waits for its first step: the answers are not being written yet.")
    return _waits_for_run(facts)


def _waits_for_rankings(facts: Facts) -> str:
    ranked = facts.ranked
    if not ranked.left and ranked.reviews:
        return ngettext(
            "Waits for a reviewer: on %(n)d set the opinions differ.",
            "Waits for a reviewer: on %(n)d sets the opinions differ.",
            ranked.reviews,
        ) % {"n": ranked.reviews}
    if not ranked.left:
        return (
            _("Every ranking is there. Waits for you: take the next step.")
            if _is_stepped(facts)
            else _("Every ranking is there; the reward model begins in a moment.")
        )
    words = {"left": ranked.left, "wanted": ranked.wanted}
    if facts.round.project.is_simulated:
        return (
            ngettext(
                "Simulated annotators are ranking: %(left)d of %(wanted)d opinions is to come.",
                "Simulated annotators are ranking: %(left)d of %(wanted)d opinions are to come.",
                ranked.left,
            )
            % words
        )
    return (
        ngettext(
            "Waits for annotators: %(left)d of %(wanted)d opinions is still wanted.",
            "Waits for annotators: %(left)d of %(wanted)d opinions are still wanted.",
            ranked.left,
        )
        % words
    )


def _waits_for_comparison(facts: Facts) -> str:
    verdict = facts.verdict
    if verdict is None or not verdict.left:
        return (
            _("Every opinion is there. Waits for you: take the next step.")
            if _is_stepped(facts)
            else _("Every opinion is there; the decision follows in a moment.")
        )
    words = ngettext(
        "Waits for annotators: %(left)d of %(wanted)d blind opinions is still wanted.",
        "Waits for annotators: %(left)d of %(wanted)d blind opinions are still wanted.",
        verdict.left,
    )
    return words % {"left": verdict.left, "wanted": verdict.wanted}


def _is_stepped(facts: Facts) -> bool:
    return bool(facts.round.mode == Round.Mode.STEP)


def _waits_for_run(facts: Facts) -> str:
    run = facts.run
    doing = stage_words(facts.round.state)
    if run is None:
        return _("The run of this step is missing: abandon the round and start it anew.")
    if run.state == Run.State.QUEUED:
        return _("Waits for a free worker on the accelerator queue: %(doing)s comes next.") % {
            "doing": doing
        }
    if run.state == Run.State.STOPPING:
        return _("Is being stopped: the trainer saves a checkpoint first.")
    if run.state == Run.State.STOPPED:
        return _("Was stopped and keeps its checkpoint: it waits for you to resume it.")
    if run.state == Run.State.FAILED:
        return _("Failed and waits for you: read the reason, mend it, then resume.")
    if run.state == Run.State.FINISHED:
        return (
            _("This step is complete. Waits for you: take the next step.")
            if _is_stepped(facts)
            else _("This step is complete; the next one begins in a moment.")
        )
    left = time_left(facts.progress.eta_seconds) if facts.progress else ""
    if left:
        return _("Nothing needs you now: %(doing)s is under way, %(left)s.") % {
            "doing": doing,
            "left": left,
        }
    return _("Nothing needs you now: %(doing)s is under way.") % {"doing": doing}


def stage_words(stage: str) -> str:
    """A stage as the subject of a sentence."""
    return {
        "generate": _("the writing of answers"),
        "reward": _("the training of the reward model"),
        "ppo": _("the training of the policy"),
        "evaluate": _("the comparison of the new policy with the old one"),
    }.get(stage, stage)


def tone_of(facts: Facts) -> str:
    """Whose turn it is: a machine's, a person's, a mender's, nobody's."""
    round, run = facts.round, facts.run
    if round.state in ENDED:
        return "done"
    if round.state in (State.RANK, State.COMPARE, State.DECIDE, State.PLANNED):
        return "person"
    if run is None or run.state in (Run.State.FAILED, Run.State.STOPPED):
        return "bad"
    return "person" if run.state == Run.State.FINISHED and _is_stepped(facts) else "now"


# --- what may be asked


def what_may_be_asked(facts: Facts) -> frozenset[str]:
    """The actions that make sense now; the actions themselves check again."""
    round, run = facts.round, facts.run
    if round.state in ENDED:
        return frozenset()
    may = {"abandon", "mode"}
    if round.state == State.DECIDE:
        return frozenset({"promote", "reject"})
    if run is not None and is_living(run) and run.state != Run.State.STOPPING:
        may.add("stop")
    if run is not None and run.state in (Run.State.STOPPED, Run.State.FAILED):
        may.add("resume")
    if round.state == State.RANK and facts.ranked.rankings and facts.ranked.left:
        may.add("close_ranking")
    if round.state == State.RANK and facts.ranked.left and queries.may_score(round):
        may.add("score")
    if round.state == State.COMPARE and facts.verdict and facts.verdict.left:
        may.add("close_comparing")
    if _is_stepped(facts) and _is_complete(facts):
        may.add("step")
    return frozenset(may)


def _is_complete(facts: Facts) -> bool:
    """Whether the present state has all that it waits for."""
    if facts.round.state == State.PLANNED:
        return True
    if facts.round.state == State.RANK:
        return facts.ranked.left == 0
    if facts.round.state == State.COMPARE:
        return facts.verdict is None or facts.verdict.left == 0
    return facts.run is not None and facts.run.state == Run.State.FINISHED


# --- the gates


@dataclass(frozen=True)
class Gate:
    """One thing to look at before a promotion: met, unclear, missed or not measured yet."""

    name: str
    state: str  # good | unclear | bad | todo
    figure: str
    words: str


def gates_of(facts: Facts, alerts: int) -> list[Gate]:
    """What speaks for and against the new policy, in words. They advise; a person decides."""
    gates = [
        _gate_accuracy(_report(facts, "reward")),
        _gate_length(_report(facts, "reward")),
        _gate_kl(_report(facts, "ppo"), kl_budget(facts)),
        _gate_alerts(facts, alerts),
        _gate_gain(facts.gain),
    ]
    return [*gates, _gate_people(facts)] if wants_comparison(facts) else gates


def _report(facts: Facts, stage: str) -> dict[str, Any]:
    run = facts.runs.get(stage)
    return run.report if run else {}


def _gate_accuracy(report: dict[str, Any]) -> Gate:
    name = _("The reward model agrees with the rankings better than chance")
    value, bounds = number(report, "pair_accuracy"), interval(report, "ci95")
    if value is None or bounds is None:
        return Gate(name, "todo", "–", _("not measured yet"))
    state = "good" if bounds[0] > 0.5 else "bad" if bounds[1] < 0.5 else "unclear"
    words = {
        "good": _("the whole interval lies above 50\u00a0%"),
        "unclear": _("the interval holds 50\u00a0%: more rankings would tell"),
        "bad": _("worse than chance"),
    }[state]
    return Gate(name, state, with_error(value, bounds, percent=True), words)


def _gate_length(report: dict[str, Any]) -> Gate:
    name = _("It knows more than the length of an answer")
    value, length = number(report, "pair_accuracy"), number(report, "length_baseline")
    bounds = interval(report, "ci95")
    if value is None or length is None or bounds is None:
        return Gate(name, "todo", "–", _("not measured yet"))
    figure = _("%(difference)s points") % {
        "difference": fixed((value - length) * 100, 0, sign=True)
    }
    if bounds[0] > length:
        return Gate(name, "good", figure, _("above length alone, interval and all"))
    if value > length:
        return Gate(name, "unclear", figure, _("above length alone, but within the error"))
    return Gate(name, "bad", figure, _("length alone does as well"))


def _gate_kl(report: dict[str, Any], budget: float | None) -> Gate:
    name = _("The policy stayed within its KL budget")
    kl = number(report, "kl")
    if kl is None:
        return Gate(name, "todo", "–", _("not measured yet"))
    if budget is None:
        return Gate(name, "unclear", plain(kl, 2), _("no budget was set"))
    words = _("nats a reply, of %(budget)s") % {"budget": plain(budget, 3)}
    return Gate(name, "good" if kl <= budget else "bad", plain(kl, 2), words)


def _gate_alerts(facts: Facts, alerts: int) -> Gate:
    name = _("PPO raised no alarm")
    run = facts.runs.get("ppo")
    if run is None or run.state != Run.State.FINISHED:
        return Gate(name, "todo" if not alerts else "bad", str(alerts or "–"), _("so far"))
    if alerts:
        words = ngettext("alarm: see below", "alarms: see below", alerts)
        return Gate(name, "bad", str(alerts), words)
    return Gate(name, "good", "0", _("neither length, entropy nor KL ran away"))


def _gate_gain(gain: Gain | None) -> Gate:
    name = _("It scores higher on prompts that nothing trained on")
    if gain is None or gain.bounds is None:
        return Gate(name, "todo", "–", _("not measured yet"))
    figure = with_error(gain.value, gain.bounds, sign=True)
    if gain.bounds[0] > 0:
        return Gate(name, "good", figure, _("the whole interval lies above 0"))
    if gain.bounds[1] < 0:
        return Gate(name, "bad", figure, _("it got worse"))
    return Gate(name, "unclear", figure, _("the interval holds 0: it may be chance"))


def _gate_people(facts: Facts) -> Gate:
    name = _("People prefer it, blind")
    rate = facts.verdict.people if facts.verdict else None
    if facts.round.state == State.COMPARE or rate is None or rate.value is None:
        return Gate(name, "todo", "–", _("not measured yet"))
    state = {"promote": "good", "reject": "bad"}.get(rate.advice, "unclear")
    words = {
        "good": _("the whole interval lies above 50\u00a0%"),
        "unclear": _("the interval holds 50\u00a0%: it may be chance"),
        "bad": _("people prefer the old policy"),
    }[state]
    return Gate(name, state, with_error(rate.value, rate.bounds, percent=True), words)
