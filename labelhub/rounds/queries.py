"""Reads about rounds: where one stands, what it wrote, who ranked, what came of it.

Only facts leave this module; the sentences about them are the doors' matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Avg, Count, Max, Prefetch, Q, QuerySet
from django.http import Http404
from django.utils.translation import gettext as _

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.projects.models import Membership, Project
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.rankings.models import Flag, Ranking, Skip
from labelhub.registry.models import ModelVersion
from labelhub.rounds.models import Round, RoundRun
from labelhub.rounds.rules import ENDED, SCORE
from labelhub.runs.models import Run
from labelhub.runs.queries import interval, number


@dataclass(frozen=True)
class Written:
    """The answers to rank that the round holds so far."""

    prompts: int
    sets: int
    answers: int


@dataclass(frozen=True)
class Ranked:
    """How far the ranking of a round is, in opinions (slots)."""

    wanted: int
    done: int
    held: int
    reviews: int  # sets on which opinions differ and nobody has decided yet
    rankings: int
    simulated: int
    annotators: int

    @property
    def left(self) -> int:
        return self.wanted - self.done

    @property
    def by_people(self) -> int:
        return self.rankings - self.simulated


@dataclass(frozen=True)
class Compared:
    """One held-out prompt, answered by the old and the new policy, with the scores of both."""

    prompt: Prompt
    before: Answer
    after: Answer
    score_before: float | None
    score_after: float | None

    @property
    def asked(self) -> str:
        """The user's last turn, whole."""
        return str(self.prompt.messages[-1]["content"])

    @property
    def gain(self) -> float | None:
        if self.score_before is None or self.score_after is None:
            return None
        return self.score_after - self.score_before


@dataclass(frozen=True)
class Gain:
    """How much higher the new policy scores than the old one, on the same prompts and seeds."""

    value: float
    bounds: tuple[float, float] | None
    before: float | None
    after: float | None
    prompts: int | None


def rounds_of(project: Project) -> QuerySet[Round]:
    """The project's rounds, newest first."""
    return (
        Round.objects.filter(project=project)
        .select_related("project", "policy_in", "policy_out", "reward", "reward_base", "snapshot")
        .order_by("-number")
    )


def get_round_or_404(project: Project, number: int) -> Round:
    """One round by its number in the project."""
    found = rounds_of(project).filter(number=number).first()
    if found is None:
        raise Http404(_("There is no such round in this project."))
    return found


def current_round(project: Project) -> Round | None:
    """The open round, else the newest one; None before the first."""
    # A project has at most one open round, and it is always the newest.
    return rounds_of(project).first()


def is_open(round: Round) -> bool:
    """Whether the round still waits for anything."""
    return round.state not in ENDED


def latest_runs(round: Round) -> dict[str, Run]:
    """The newest run of each stage: an earlier try of a stage is history."""
    links = round.round_runs.select_related("run", "run__output").order_by("run_id")
    return {link.stage: link.run for link in links}


def runs_in(round: Round) -> list[Run]:
    """Every run of the round in the order in which they began."""
    return [link.run for link in round.round_runs.select_related("run").order_by("run_id")]


def newest_ensemble(project: Project) -> ModelVersion | None:
    """The project's newest reward model of several heads: its disagreement orders the queue."""
    rewards = ModelVersion.objects.filter(project=project, kind=ModelVersion.Kind.REWARD)
    return rewards.filter(metrics__ensemble__members__gte=2).order_by("-number").first()


def scoring_runs(round: Round) -> QuerySet[Run]:
    """Finished runs in which an ensemble read the round's open sets, newest first."""
    links = Run.objects.filter(round_run__round=round, round_run__stage=SCORE)
    return links.filter(state=Run.State.FINISHED).order_by("-pk")


def living_scoring(round: Round) -> QuerySet[Run]:
    """Such runs that are queued or under way."""
    links = Run.objects.filter(round_run__round=round, round_run__stage=SCORE)
    return links.filter(state__in=[Run.State.QUEUED, Run.State.RUNNING]).order_by("pk")


def may_score(round: Round) -> bool:
    """Whether an ensemble is there to read the open sets and is not at it already."""
    return newest_ensemble(round.project) is not None and not living_scoring(round).exists()


def written(round: Round) -> Written:
    """Count what the round's policy wrote for ranking."""
    sets = round.answer_sets.filter(purpose=AnswerSet.Purpose.RANK)
    counts = sets.aggregate(sets=Count("id", distinct=True), answers=Count("answers"))
    return Written(round.prompts.count(), counts["sets"], counts["answers"])


def ranked(round: Round) -> Ranked:
    """Count opinions wanted and given, and by how many people."""
    ranking_sets = round.answer_sets.filter(purpose=AnswerSet.Purpose.RANK)
    opinion, review = Q(kind=Slot.Kind.OPINION), Q(kind=Slot.Kind.REVIEW)
    open_, held = Q(state=Slot.State.OPEN), Q(state=Slot.State.HELD)
    done = Q(state=Slot.State.DONE)
    # Nobody is offered an open slot of a retired prompt, so nobody waits for it.
    slots = (
        Slot.objects.filter(answer_set__in=ranking_sets)
        .exclude(open_ & Q(answer_set__prompt__retired=True))
        .aggregate(
            wanted=Count("id", filter=opinion & (open_ | held | done)),
            done=Count("id", filter=opinion & done),
            held=Count("id", filter=opinion & held),
            reviews=Count("id", filter=review & (open_ | held)),
        )
    )
    rankings = Ranking.objects.filter(answer_set__in=ranking_sets).aggregate(
        rankings=Count("id"),
        simulated=Count("id", filter=Q(is_simulated=True)),
        annotators=Count("annotator", distinct=True),
    )
    return Ranked(**slots, **rankings)


def gain_of(report: dict[str, Any]) -> Gain | None:
    """The gain that an evaluation's report tells; None when it does not tell both scores."""
    before, after = number(report, "score_before"), number(report, "score_after")
    value = number(report, "gain")
    if value is None and before is not None and after is not None:
        value = after - before
    if value is None:
        return None
    prompts = number(report, "prompts")
    return Gain(
        value=value,
        bounds=interval(report, "ci95_of_gain"),
        before=before,
        after=after,
        prompts=int(prompts) if prompts is not None else None,
    )


def compared(round: Round, limit: int | None = None) -> list[Compared]:
    """The answers of both policies to the same held-out prompts, in the prompts' order.

    Ask only when nobody is comparing them blind: it tells who wrote what.
    """
    return compared_in(round.answer_sets.all(), limit)


def compared_in(answer_sets: QuerySet[AnswerSet], limit: int | None = None) -> list[Compared]:
    """Those of these sets that are comparisons, side by side.

    Answer 0 of a comparison set is the old policy's, answer 1 the new one's. A set that misses one
    of them (the run was cut off) is left out.
    """
    sets = (
        answer_sets.filter(purpose=AnswerSet.Purpose.COMPARE)
        .select_related("prompt")
        .prefetch_related(Prefetch("answers", Answer.objects.order_by("n")))
        .order_by("prompt_id", "id")
    )
    pairs = (_compared(one) for one in (sets[:limit] if limit else sets))
    return [pair for pair in pairs if pair is not None]


def comparisons(round: Round) -> int:
    """How many held-out prompts both policies answered."""
    return round.answer_sets.filter(purpose=AnswerSet.Purpose.COMPARE).count()


def _compared(answer_set: AnswerSet) -> Compared | None:
    answers = {answer.n: answer for answer in answer_set.answers.all()}
    if 0 not in answers or 1 not in answers:
        return None
    before, after = answers[0], answers[1]
    return Compared(answer_set.prompt, before, after, score_of(before), score_of(after))


def score_of(answer: Answer) -> float | None:
    """The reward model's score that was stored beside the answer's sampling settings."""
    return number(answer.sampling, "score")


@dataclass(frozen=True)
class MemberWork:
    """What one member did: in the whole project and in one round."""

    membership: Membership
    rankings: int
    in_round: int
    skips: int
    seconds_each: float | None
    last: datetime | None

    @property
    def user(self) -> User:
        return self.membership.user


def members_work(project: Project, round: Round | None) -> list[MemberWork]:
    """Every member with their rankings, those who may rank first and the busiest of them ahead."""
    ours = Q(rankings__project=project)
    here = Q(rankings__answer_set__rounds=round) if round else Q(pk=None)
    people = (
        User.objects.filter(memberships__project=project)
        .annotate(
            done=Count("rankings", filter=ours, distinct=True),
            here=Count("rankings", filter=ours & here, distinct=True),
            last_ranking=Max("rankings__created", filter=ours),
        )
        .in_bulk()
    )
    pace = dict(
        Ranking.objects.filter(project=project, active_ms__gt=0)
        .values_list("annotator")
        .annotate(mean=Avg("active_ms"))
    )
    skips = dict(
        Skip.objects.filter(answer_set__prompt__project=project)
        .values_list("annotator")
        .annotate(n=Count("id"))
    )
    members = [
        MemberWork(
            membership=membership,
            rankings=people[membership.user_id].done,
            in_round=people[membership.user_id].here,
            skips=skips.get(membership.user_id, 0),
            seconds_each=pace[membership.user_id] / 1000 if membership.user_id in pace else None,
            last=people[membership.user_id].last_ranking,
        )
        for membership in project.memberships.select_related("user")
    ]
    return sorted(members, key=lambda one: (-one.rankings, one.user.username))


@dataclass(frozen=True)
class Outcome:
    """What came of one round, for a list of rounds."""

    round: Round
    accuracy: float | None
    accuracy_bounds: tuple[float, float] | None
    gain: Gain | None
    kl: float | None
    simulated: bool


def outcomes(project: Project, limit: int = 20) -> list[Outcome]:
    """The project's newest rounds with the figures that their runs reported."""
    rounds = list(rounds_of(project)[:limit])
    links = (
        RoundRun.objects.filter(round__in=rounds, run__state=Run.State.FINISHED)
        .select_related("run")
        .order_by("run_id")
    )
    reports = {(link.round_id, link.stage): link.run.report for link in links}
    return [_outcome(one, reports) for one in rounds]


def _outcome(round: Round, reports: dict[tuple[int, str], dict[str, Any]]) -> Outcome:
    reward = reports.get((round.pk, "reward"), {})
    return Outcome(
        round=round,
        accuracy=number(reward, "pair_accuracy"),
        accuracy_bounds=interval(reward, "ci95"),
        gain=gain_of(reports.get((round.pk, "evaluate"), {})),
        kl=number(reports.get((round.pk, "ppo"), {}), "kl"),
        simulated=round.project.is_simulated,
    )


def flags_of(project: Project, limit: int = 6) -> list[Flag]:
    """What annotators want an admin to see and none has looked at, newest first."""
    rows = Flag.objects.filter(answer__answer_set__prompt__project=project, handled_at__isnull=True)
    found = rows.select_related("annotator", "answer__answer_set__prompt")
    return list(found.order_by("-id")[:limit])


@dataclass(frozen=True)
class PromptCounts:
    """How many prompts a project has to work with."""

    total: int
    free: int  # may be given to a round
    held_out: int
    retired: int
    languages: dict[str, int]  # of the free ones


def prompt_counts(project: Project) -> PromptCounts:
    """Count the project's prompts by what they may be used for."""
    rows = list(
        Prompt.objects.filter(project=project)
        .values("held_out", "retired", "language")
        .annotate(n=Count("id"))
        .order_by("language")
    )
    free = [row for row in rows if not row["held_out"] and not row["retired"]]
    languages: dict[str, int] = {}
    for row in free:
        languages[row["language"]] = languages.get(row["language"], 0) + row["n"]
    return PromptCounts(
        total=sum(row["n"] for row in rows),
        free=sum(row["n"] for row in free),
        held_out=sum(row["n"] for row in rows if row["held_out"] and not row["retired"]),
        retired=sum(row["n"] for row in rows if row["retired"]),
        languages=languages,
    )
