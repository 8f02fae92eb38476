"""What admins ask of the loop."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import Count, Max, Q
from django.utils.translation import gettext as _

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.lib.errors import Refused
from labelhub.lib.queue import enqueue_on_commit
from labelhub.projects.models import Project
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.prompts.queries import usable_prompts
from labelhub.prompts.rules import draw
from labelhub.registry.actions import promote as promote_version
from labelhub.registry.models import LivePolicy, ModelVersion
from labelhub.rounds import comparing, progress, scoring
from labelhub.rounds.models import Comparison, Round
from labelhub.rounds.queries import living_scoring, newest_ensemble
from labelhub.rounds.rules import ENDED, STAGES, ConfigError, RoundConfig, stage_config
from labelhub.rounds.tasks import advance_round
from labelhub.runs.actions import check_config, resume_run, start_run, stop_run
from labelhub.runs.models import Run
from labelhub.runs.queries import is_living


@transaction.atomic
def start_round(
    *,
    project: Project,
    by: User | None,
    config: dict[str, Any],
    mode: str = Round.Mode.AUTO,
    seed: int = 0,
) -> Round:
    """Begin a turn of the loop with the project's live policy and prompts that were used least."""
    project = Project.objects.select_for_update().get(pk=project.pk)
    settings = _settings(project, config)
    if project.rounds.exclude(state__in=ENDED).exists():
        raise Refused(_("A round is open already: decide it before the next one begins."))
    live = LivePolicy.objects.filter(project=project).select_related("version").first()
    if live is None:
        raise Refused(_("The project has no policy yet: choose a model version first."))
    prompts = _choose_prompts(project, settings, seed)
    turn = Round.objects.create(
        project=project,
        number=(project.rounds.aggregate(n=Max("number"))["n"] or 0) + 1,
        mode=mode,
        config=settings.to_json(),
        seed=seed,
        policy_in=live.version,
        reward_base=_reward_base(live.version),
        created_by=by,
    )
    turn.prompts.add(*prompts)
    audit(by=by, action="round.start", target=turn, number=turn.number, config=turn.config)
    # In step mode, too: whoever starts a round wants its answers written.
    progress.advance(turn.pk, asked=True)
    turn.refresh_from_db()
    return turn


def _settings(project: Project, config: dict[str, Any]) -> RoundConfig:
    """The round's settings over the project's; refused now what would stop the round later."""
    wanted = {
        "answers": project.answers_per_prompt,
        "overlap": project.overlap,
        "max_new_tokens": project.max_new_tokens,
        "temperature": project.temperature,
        # Simulated annotators are asked only where a round says so.
        "compare_prompts": 0 if project.is_simulated else project.compare_prompts,
        "compare_opinions": project.compare_opinions,
    }
    try:
        settings = RoundConfig.from_json(wanted | config)
    except ConfigError as error:
        raise Refused(str(error), status=400) from None
    for stage in STAGES:
        check_config(stage, stage_config(stage, settings))
    return settings


def _choose_prompts(project: Project, settings: RoundConfig, seed: int) -> list[Prompt]:
    """Prompts that fewer rounds have used come first; among equals, a seeded draw."""
    free = usable_prompts(project).filter(language__in=settings.languages)
    uses = dict(free.annotate(uses=Count("rounds")).values_list("pk", "uses"))
    if len(uses) < settings.prompts:
        raise Refused(
            _(
                "The round wants %(wanted)d prompts and the project has %(there)d for it: "
                "import more, or ask for fewer."
            )
            % {"wanted": settings.prompts, "there": len(uses)}
        )
    return list(Prompt.objects.filter(pk__in=draw(uses, settings.prompts, seed)))


def _reward_base(policy: ModelVersion) -> ModelVersion:
    """The base that the policy descends from.

    Reward models start there, so that they do not inherit what an earlier one taught the policy.
    """
    version = policy
    while version.kind != ModelVersion.Kind.BASE:
        link = (
            version.parent_links.filter(role__in=["policy", "base"])
            .select_related("parent")
            .first()
        )
        if link is None:
            return version
        version = link.parent
    return version


@transaction.atomic
def step_round(*, round: Round, by: User | None) -> Round:
    """Take the next step by hand; refused when what the round waits for is not there yet."""
    moved = progress.advance(round.pk, asked=True)
    if moved is None:
        raise Refused(_("The round's present stage is not complete yet."))
    audit(by=by, action="round.step", target=round, state=moved)
    return _fresh(round)


@transaction.atomic
def set_mode(*, round: Round, mode: str, by: User | None) -> Round:
    """Let the round run by itself, or step by step."""
    if mode not in Round.Mode.values:
        raise Refused(_("There is no mode “%(mode)s”.") % {"mode": mode}, status=400)
    Round.objects.filter(pk=round.pk).update(mode=mode)
    audit(by=by, action="round.mode", target=round, mode=mode)
    enqueue_on_commit(advance_round, round.pk)
    return _fresh(round)


@transaction.atomic
def close_ranking(*, round: Round, by: User | None) -> Round:
    """Stop asking for opinions and train on what is there. Who holds a slot may still submit."""
    turn = _locked(round)
    if turn.state != Round.State.RANK:
        raise Refused(_("The round is not being ranked now."))
    if not progress.round_rankings(turn).exists():
        raise Refused(_("There is no ranking yet to train on."))
    Slot.objects.filter(answer_set__rounds=turn, state__in=["open", "held"]).update(
        state=Slot.State.CLOSED, priority=0
    )
    audit(by=by, action="round.close_ranking", target=turn)
    progress.advance(turn.pk, asked=True)
    return _fresh(round)


@transaction.atomic
def ask_for_disagreement(*, round: Round, by: User | None) -> Run:
    """Let the newest reward ensemble read the open sets: what it disagrees on is ranked first."""
    turn = _locked(round)
    if turn.state != Round.State.RANK:
        raise Refused(_("The round is not being ranked now."))
    reward = newest_ensemble(turn.project)
    if reward is None:
        raise Refused(
            _(
                "No reward model of this project has several heads yet: let a round train one with "
                "reward_ensemble 2 or more."
            )
        )
    if living_scoring(turn).exists():
        raise Refused(_("The reward model is reading the open answers already."))
    run = scoring.start_scoring(turn, reward, by=by)
    if run is None:
        raise Refused(_("No answer set is open any more."))
    audit(by=by, action="round.score", target=turn, run=run.pk, reward=reward.name)
    return run


@transaction.atomic
def stop_round(*, round: Round, by: User | None) -> Round:
    """Stop the stage that runs; it keeps its checkpoint and can be resumed."""
    turn = _locked(round)
    run = progress.current_run(turn)
    if turn.state not in STAGES or run is None:
        raise Refused(_("Nothing of this round is running now."))
    stop_run(run=run, by=by)
    return _fresh(round)


@transaction.atomic
def resume_round(*, round: Round, by: User | None) -> Round:
    """Go on after a stop or a failure, from the last checkpoint."""
    turn = _locked(round)
    run = progress.current_run(turn)
    if turn.state not in STAGES or run is None:
        raise Refused(_("This round has nothing to resume."))
    if run.state not in {Run.State.STOPPED, Run.State.FAILED}:
        raise Refused(_("Only a stopped or failed run can be resumed."))
    resume_run(run=run, by=by)
    return _fresh(round)


@transaction.atomic
def decide(*, round: Round, promote: bool, by: User | None) -> Round:
    """Promote the new policy, so that it writes the next answers, or reject it."""
    turn = _locked(round)
    if turn.state != Round.State.DECIDE or turn.policy_out is None:
        raise Refused(_("There is nothing to decide yet."))
    if promote:
        promote_version(project=turn.project, version=turn.policy_out, by=by)
    progress.end(turn, "promoted" if promote else "rejected")
    turn.decided_by = by
    turn.save()
    audit(by=by, action="round.promote" if promote else "round.reject", target=turn)
    return turn


@transaction.atomic
def abandon_round(*, round: Round, by: User | None) -> Round:
    """End a round without a new policy: its run is stopped, its open slots are closed."""
    turn = _locked(round)
    if turn.state in ENDED:
        raise Refused(_("This round has ended already."))
    run = progress.current_run(turn) if turn.state in STAGES else None
    if run is not None and run.state in {Run.State.QUEUED, Run.State.RUNNING}:
        stop_run(run=run, by=by)
    scoring.stop_scoring(turn)
    if comparison := Comparison.objects.select_for_update().filter(round=turn).first():
        comparing.close(comparison, by=by)
    Slot.objects.filter(answer_set__rounds=turn, state__in=["open", "held"]).update(
        state=Slot.State.CLOSED
    )
    progress.end(turn, "rejected")
    turn.decided_by = by
    turn.save()
    audit(by=by, action="round.abandon", target=turn)
    return turn


# --- blind comparisons


@transaction.atomic
def start_comparison(
    *,
    project: Project,
    before: ModelVersion,
    after: ModelVersion,
    reward: ModelVersion,
    by: User | None,
    prompts: int = 40,
    opinions: int = 1,
    held_out: bool = True,
    seed: int = 0,
) -> Comparison:
    """Let two versions answer the same prompts, and people compare the answers, blind.

    Both write with the project's sampling settings and the same seeds; the reward model scores
    what they wrote. Prompts that fewer comparisons have used come first.
    """
    project = Project.objects.select_for_update().get(pk=project.pk)
    _refuse_bad_comparison(project, before, after, prompts, opinions)
    free = usable_prompts(project, held_out=held_out)
    compares = Q(answer_sets__purpose=AnswerSet.Purpose.COMPARE)
    counted = free.annotate(uses=Count("answer_sets", filter=compares))
    uses = dict(counted.values_list("pk", "uses"))
    if len(uses) < prompts:
        raise Refused(
            _(
                "The comparison wants %(wanted)d prompts and the project has %(there)d for it: "
                "ask for fewer, or hold out more."
            )
            % {"wanted": prompts, "there": len(uses)}
        )
    run = start_run(
        project=project,
        stage="evaluate",
        config={
            "answers": 1,
            "max_new_tokens": project.max_new_tokens,
            "temperature": project.temperature,
        },
        inputs={"policy": after, "reference": before, "reward": reward},
        seed=seed,
        by=by,
        data={"prompts": sorted(draw(uses, prompts, seed))},
    )
    comparison = Comparison.objects.create(
        project=project, before=before, after=after, run=run, opinions=opinions, created_by=by
    )
    audit(
        by=by, action="comparison.start", target=comparison, before=before.name, after=after.name,
        prompts=prompts, opinions=opinions,
    )  # fmt: skip
    return comparison


def _refuse_bad_comparison(
    project: Project, before: ModelVersion, after: ModelVersion, prompts: int, opinions: int
) -> None:
    if before == after:
        raise Refused(_("Choose two different versions to compare."), status=400)
    try:
        RoundConfig(compare_prompts=prompts, compare_opinions=opinions)
    except ConfigError as error:
        raise Refused(str(error), status=400) from None
    if prompts < 1:
        raise Refused(_("A comparison needs at least one prompt."), status=400)
    same = Q(before=before, after=after) | Q(before=after, after=before)
    living = project.comparisons.filter(same, round__isnull=True)
    if living.exclude(state=Comparison.State.CLOSED).exists():
        raise Refused(_("These two versions are being compared already: close that first."))


@transaction.atomic
def close_comparison(*, comparison: Comparison, by: User | None) -> Comparison:
    """Ask nobody any more and keep what was said. A round goes on to its decision.

    Who is comparing a pair right now may still submit: it is kept and does not count.
    """
    turn = _locked(comparison.round) if comparison.round else None
    locked = Comparison.objects.select_for_update(of=("self",)).select_related("project", "run")
    found = locked.get(pk=comparison.pk)
    if found.state == Comparison.State.CLOSED:
        raise Refused(_("This comparison is closed already."))
    if found.state == Comparison.State.WRITING and is_living(found.run):
        stop_run(run=found.run, by=by)
    comparing.close(found, by=by)
    if turn is not None and turn.state == Round.State.COMPARE:
        progress.advance(turn.pk, asked=True)
    return found


@transaction.atomic
def close_comparing(*, round: Round, by: User | None) -> Round:
    """Go on to the decision with the opinions that are there, be they none."""
    turn = _locked(round)
    comparison = Comparison.objects.filter(round=turn).first()
    if turn.state != Round.State.COMPARE or comparison is None:
        raise Refused(_("The round's policies are not being compared now."))
    close_comparison(comparison=comparison, by=by)
    return _fresh(round)


def _locked(round: Round) -> Round:
    return (
        # Of the round only: PostgreSQL locks no row that an outer join may not find.
        Round.objects.select_for_update(of=("self",))
        .select_related("project", "policy_out")
        .get(pk=round.pk)
    )


def _fresh(round: Round) -> Round:
    round.refresh_from_db()
    return round
