"""Blind comparisons of two model versions: their pairs enter the queue and come to an end.

Choices
- A pair is an ordinary answer set of two answers with ordinary slots: leases, pools, skips, ties
  and corrections are those of any set, and nothing about it tells what it is for.
- Nobody is asked about a pair whose two answers are the same text: it is a tie.
- Where a project holds back answers that name a model, pairs with one are not drawn: they would
  not be blind, and no round shall wait for an admin's eye on them.
- Closing freezes the rankings that count (`verdicts.counted_rankings`): what a decision followed
  from stays as it was.
- It never hangs: a pair that everybody skipped, a retired prompt and a closed slot are waited for
  no longer, and an admin may close a comparison at any time, with what is there.
Locks are taken in this order: round, comparison, answer sets, slots, rankings, each by id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.utils import timezone

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments.actions import open_slots
from labelhub.assignments.models import Slot
from labelhub.prompts.actions import create_answer_set
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.prompts.rules import draw
from labelhub.rankings.actions import freeze
from labelhub.rankings.routing import lock_sets
from labelhub.registry.models import ModelVersion
from labelhub.rounds.models import Comparison, Round
from labelhub.rounds.verdicts import counted_rankings, open_opinions, verdict_of
from labelhub.runs.folder import read_lines, run_folder
from labelhub.runs.models import Run

State = Comparison.State
# what a line of answers.jsonl tells about how the answer was drawn
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "score")


# --- what an evaluation wrote


def take_in_pairs(run: Run) -> list[AnswerSet]:
    """Store an evaluation's answers side by side: n = 0 the reference's, n = 1 the policy's.

    Of several answers to a prompt the first of each is taken: they have the same seed.
    """
    links = run.inputs.select_related("version")
    used = {link.role: link.version for link in links if link.version is not None}
    pairs: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for line in read_lines(run_folder(run.pk) / "out" / "answers.jsonl"):
        which = str(line["model"])
        pairs[line["prompt_id"]].setdefault(which, stored_answer(line, used[which], run))
    prompts = Prompt.objects.in_bulk([int(key) for key in pairs])
    return [
        create_answer_set(
            prompt=prompts[int(key)],
            answers=[pair["reference"], pair["policy"]],
            purpose=AnswerSet.Purpose.COMPARE,
        )
        for key, pair in pairs.items()
        if len(pair) == 2
    ]


def stored_answer(line: dict[str, Any], version: ModelVersion, run: Run) -> dict[str, Any]:
    """One line of answers.jsonl as the prompts room stores it."""
    sampling = {key: line[key] for key in SAMPLING if key in line}
    return {
        "version": version,
        "text": line["text"],
        "seed": line.get("seed", run.seed),
        "logprob": line.get("logprob"),
        "tokens": line.get("tokens", 0),
        "finished": line.get("finished", True),
        "sampling": sampling | {"run": run.pk},
    }


# --- asking people


def begin_for_round(turn: Round, run: Run, pairs: Sequence[AnswerSet]) -> Comparison | None:
    """Ask people about the round's policies, if it wants that; None when nobody is to be asked."""
    wanted = int(turn.config.get("compare_prompts", 0))
    if not wanted or not pairs or turn.policy_out_id is None:
        return None
    comparison = Comparison.objects.create(
        project=turn.project,
        round=turn,
        before_id=turn.policy_in_id,
        after_id=turn.policy_out_id,
        run=run,
        opinions=turn.config.get("compare_opinions", 1),
        created_by=turn.created_by,
    )
    ask(comparison, pairs, most=wanted, seed=turn.seed)
    return comparison


def ask(comparison: Comparison, pairs: Sequence[AnswerSet], *, most: int, seed: int) -> None:
    """Draw at most so many of the pairs and put them into the queue."""
    fitting = {one.pk: one for one in pairs if _is_blind(one, comparison)}
    drawn = draw(dict.fromkeys(fitting, 0), min(most, len(fitting)), seed)
    chosen = [fitting[pk] for pk in drawn]
    comparison.answer_sets.add(*chosen)
    asked = [one for one in chosen if not _is_same(one)]
    if asked:
        open_slots(
            project=comparison.project, answer_sets=asked, overlap=comparison.opinions, by=None
        )
    comparison.state = State.OPEN
    comparison.save(update_fields=["state"])


def _is_blind(answer_set: AnswerSet, comparison: Comparison) -> bool:
    leaks = comparison.project.hold_back_leaks
    return not (leaks and answer_set.answers.filter(names_model=True).exists())


def _is_same(answer_set: AnswerSet) -> bool:
    return answer_set.answers.values("sha256").distinct().count() == 1


# --- its course


@transaction.atomic
def look_after(comparison_id: int) -> str | None:
    """Take the next step of a comparison that belongs to no round; None if none was due.

    It may be called at any time, by anybody, as often as one likes: see `progress.advance`.
    """
    found = Comparison.objects.filter(pk=comparison_id, round__isnull=True)
    comparison = found.select_for_update(of=("self",)).select_related("project", "run").first()
    if comparison is None or comparison.state == State.CLOSED:
        return None
    before = comparison.state
    if before == State.WRITING and comparison.run.state == Run.State.FINISHED:
        pairs = take_in_pairs(comparison.run)
        ask(comparison, pairs, most=len(pairs), seed=comparison.run.seed)
    if comparison.state == State.OPEN and not open_opinions(comparison):
        close(comparison, by=None)
    return str(comparison.state) if comparison.state != before else None


def close(comparison: Comparison, *, by: User | None) -> None:
    """Ask nobody any more and keep what was said as it is. Whoever holds a slot may still submit.

    Call it in a transaction that has locked the comparison.
    """
    if comparison.state == State.CLOSED:
        return
    lock_sets(AnswerSet.objects.filter(comparisons=comparison))
    _close_slots(comparison)
    locked = counted_rankings(comparison).select_for_update(no_key=True, of=("self",))
    freeze(list(locked.order_by("pk").values_list("pk", flat=True)))
    comparison.state, comparison.ended = State.CLOSED, timezone.now()
    comparison.save(update_fields=["state", "ended"])
    people = verdict_of(comparison).people
    audit(
        by=by, action="comparison.close", target=comparison, wins=people.wins, ties=people.ties,
        losses=people.losses,
    )  # fmt: skip


def _close_slots(comparison: Comparison) -> None:
    living = Slot.objects.filter(
        answer_set__comparisons=comparison, state__in=[Slot.State.OPEN, Slot.State.HELD]
    )
    locked = living.select_for_update(no_key=True, of=("self",)).order_by("pk")
    ids = list(locked.values_list("pk", flat=True))
    for at in range(0, len(ids), 500):
        Slot.objects.filter(pk__in=ids[at : at + 500]).update(state=Slot.State.CLOSED, priority=0)


def waiting_comparisons() -> list[int]:
    """Comparisons of no round that may be due: a message may have been lost."""
    waiting = Comparison.objects.filter(round__isnull=True).exclude(state=State.CLOSED)
    return list(waiting.order_by("pk").values_list("pk", flat=True))
