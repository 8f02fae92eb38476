"""What to rank first: the newest reward ensemble reads the open sets beside the ranking.

Choices
- It is a run of its own that the ranking neither waits for nor depends on: when it fails, sets keep
  the priority that they had. It is stopped when the ranking is over.
- Simulated annotators rank every set at once, so nothing is scored for them by itself.
- Written again, a run's result is the same; of several runs the newest counts.
"""

from __future__ import annotations

import logging
from collections import defaultdict

from django.db import transaction

from labelhub.accounts.models import User
from labelhub.assignments.models import Slot
from labelhub.assignments.progress import refresh_priorities
from labelhub.lib.errors import Refused
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.registry.models import ModelVersion
from labelhub.rounds.models import Round, RoundRun
from labelhub.rounds.queries import living_scoring, newest_ensemble, scoring_runs
from labelhub.rounds.rules import SCORE, disagreement
from labelhub.runs.actions import start_run, stop_run
from labelhub.runs.folder import read_lines, run_folder
from labelhub.runs.models import Run

log = logging.getLogger(__name__)


def score_when_it_helps(turn: Round) -> Run | None:
    """Start scoring for people, if there is an ensemble; a refusal is logged and harms nothing."""
    reward = newest_ensemble(turn.project)
    if reward is None or turn.project.is_simulated:
        return None
    try:
        with transaction.atomic():
            return start_scoring(turn, reward, by=turn.created_by)
    except Refused as refusal:
        log.warning("%s: the open sets are not scored: %s", turn, refusal)
        return None


def start_scoring(turn: Round, reward: ModelVersion, *, by: User | None) -> Run | None:
    """Queue a run that scores every open set of the round; None when none is open."""
    answers = Answer.objects.filter(answer_set__in=open_sets(turn)).order_by("pk")
    ids = list(answers.values_list("pk", flat=True))
    if not ids:
        return None
    run = start_run(
        project=turn.project, stage=SCORE, config={}, inputs={"reward": reward}, seed=turn.seed,
        by=by, data={"answers": ids},
    )  # fmt: skip
    RoundRun.objects.create(round=turn, run=run, stage=SCORE)
    return run


def open_sets(turn: Round) -> list[int]:
    """The round's sets to rank on which an opinion is still wanted and not under way."""
    slots = Slot.objects.filter(
        answer_set__rounds=turn,
        answer_set__purpose=AnswerSet.Purpose.RANK,
        state=Slot.State.OPEN,
    )
    return list(slots.values_list("answer_set", flat=True).distinct().order_by("answer_set"))


def stop_scoring(turn: Round) -> None:
    """Nobody is asked for opinions any more, so nobody needs to know which to ask for first."""
    for run in living_scoring(turn):
        stop_run(run=run, by=None)


def take_in_scores(run_id: int) -> int:
    """Write what a finished run tells about its sets, and order the queue by it.

    Returns how many sets were written: none when the run did not finish, gave no members, or when
    a newer one has.
    """
    link = RoundRun.objects.filter(run_id=run_id, stage=SCORE).select_related("round", "run")
    found = link.first()
    if found is None or found.run != scoring_runs(found.round).first():
        return 0
    # The scale that was divided out of the scores: members speak in log-odds.
    scale = float(found.run.report.get("normalisation", {}).get("std", 1.0))
    by_set = _members_by_set(found.run)
    sets = list(AnswerSet.objects.filter(pk__in=by_set).order_by("pk"))
    for one in sets:
        rows = [[scale * score for score in members] for members in by_set[one.pk]]
        one.disagreement = disagreement(rows)
    AnswerSet.objects.bulk_update(sets, ["disagreement"], batch_size=500)
    if sets:
        # Outside a transaction: no claim shall wait for a whole queue to be written.
        refresh_priorities(found.round.project_id)
    return len(sets)


def _members_by_set(run: Run) -> dict[int, list[list[float]]]:
    """The members' scores of each answer, by answer set."""
    place = dict(
        Answer.objects.filter(pk__in=run.data["answers"]).values_list("pk", "answer_set_id")
    )
    found: dict[int, list[list[float]]] = defaultdict(list)
    for line in read_lines(run_folder(run.pk) / "out" / "scores.jsonl"):
        answer = int(line["id"])
        if answer in place and line.get("members"):
            found[place[answer]].append(line["members"])
    return found


def waiting_scores() -> list[int]:
    """Finished runs of rounds in ranking whose result nobody took in: a message was lost."""
    waiting = []
    for turn in Round.objects.filter(state=Round.State.RANK, round_runs__stage=SCORE).distinct():
        run = scoring_runs(turn).first()
        if run is None or not run.report.get("members"):
            continue
        sets = AnswerSet.objects.filter(answers__in=run.data["answers"], disagreement=None)
        if sets.exists():
            waiting.append(run.pk)
    return waiting
