"""What annotators ask for: submit a ranking, skip an answer set, flag an answer.

Submitting is one transaction, in this order: lock, recognise a repeated submit, check the token,
check the ranks, settle the slot, store, audit; the signal goes out after the commit. Work that
comes late is kept and marked; the only rankings refused are incomplete ones, those of strangers,
and a second opinion of one person on one answer set.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from functools import partial

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments.actions import give_back, not_yours, one_at_a_time, prove, settle
from labelhub.assignments.models import Slot
from labelhub.assignments.rules import display_order, parse_token
from labelhub.lib.errors import Refused
from labelhub.projects.queries import current_guidelines, role_in
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.rankings import rules
from labelhub.rankings.models import Flag, Ranking, RankingItem, Skip
from labelhub.rankings.signals import ranking_submitted

_LONGEST_MS = 30 * 24 * 3600 * 1000  # a clock that says more than 30 days is wrong


@transaction.atomic
def submit_ranking(
    *,
    slot_id: int,
    token: object,
    ranks: Mapping[int, int],
    idempotency_key: object,
    duration_ms: int,
    active_ms: int,
    by: User,
    gaps: Sequence[int | None] | None = None,
    sha256: Mapping[int, str] | None = None,
) -> Ranking:
    """Store the weak order that `by` gives to the answers of a slot.

    `ranks` maps each answer's id to its rank (1 = best, equal = tie; made dense here). `gaps` has
    one entry for each step from a rank to the next, best first: 1 slightly, 2 clearly, 3 much
    better, None not said. `sha256` are the hashes of the texts as the page showed them.
    The same idempotency key again returns the ranking that it stored the first time.
    """
    slot = _slot_for(slot_id, by)
    key = _key(idempotency_key)
    one_at_a_time(by)
    AnswerSet.objects.select_for_update(no_key=True).get(pk=slot.answer_set_id)
    if first := _same_submit(key, slot, by):
        return first
    prove(slot_id=slot_id, token=token, by=by)
    _refuse_second_opinion(slot, by)
    answers = {one.pk: one for one in Answer.objects.filter(answer_set=slot.answer_set_id)}
    order = _checked_order(ranks, answers)
    _check_texts(sha256, answers)
    gap_after = _checked_gaps(gaps, max(order.values()))
    chosen, late = settle(slot=slot, by=by)
    ranking = Ranking.objects.create(
        slot=chosen,
        answer_set_id=slot.answer_set_id,
        project=slot.project,
        annotator=by,
        guidelines=current_guidelines(slot.project),
        idempotency_key=key,
        late=late,
        is_simulated=by.is_simulated,
        **_times(duration_ms, active_ms),
    )
    # The page was drawn for the slot that was given out, whichever one the work is counted on.
    shown = display_order(slot_id, by.pk, answers)
    RankingItem.objects.bulk_create(
        RankingItem(
            ranking=ranking,
            answer=answers[pk],
            rank=rank,
            position=shown.index(pk),
            gap=gap_after.get(rank),
        )
        for pk, rank in order.items()
    )
    audit(by=by, action="ranking.submit", target=ranking, slot=chosen.pk, late=late)
    transaction.on_commit(
        partial(
            ranking_submitted.send_robust,
            sender=Ranking,
            ranking_id=ranking.pk,
            project_id=ranking.project_id,
        )
    )
    return ranking


def _slot_for(slot_id: int, by: User) -> Slot:
    """The slot, if `by` belongs to its project; a stranger learns nothing of it."""
    slot = Slot.objects.select_related("project").filter(pk=slot_id).first()
    if slot is None or role_in(by, slot.project) is None:
        raise not_yours()
    return slot


def _key(value: object) -> uuid.UUID:
    key = parse_token(value)
    if key is None:
        raise Refused(_("The page sent no valid submit key: load it again."), status=400)
    return key


def _same_submit(key: uuid.UUID, slot: Slot, by: User) -> Ranking | None:
    first = Ranking.objects.filter(idempotency_key=key).first()
    if first and (first.annotator_id != by.pk or first.answer_set_id != slot.answer_set_id):
        raise Refused(_("This submit key belongs to another ranking: load the page again."))
    return first


def _refuse_second_opinion(slot: Slot, by: User) -> None:
    if Ranking.objects.filter(answer_set=slot.answer_set_id, annotator=by).exists():
        raise Refused(
            _("You have ranked these answers already, maybe in another tab: that ranking stands."),
            code="already_ranked",
        )


def _checked_order(ranks: Mapping[int, int], answers: Mapping[int, Answer]) -> dict[int, int]:
    """The dense order, if every answer has exactly one place and every place is a whole number."""
    if any(pk not in answers for pk in ranks):
        raise Refused(
            _("The ranking names an answer that is not among these: load the page again."),
            status=400,
            code="unknown_answer",
        )
    if not all(rules.is_rank(rank) for rank in ranks.values()):
        raise Refused(
            _("A place must be a whole number from 1 = best; equal numbers are a tie."),
            status=400,
            code="bad_rank",
        )
    missing = [pk for pk in answers if pk not in ranks]
    if missing:
        raise Refused(_missing(len(missing)), status=400, code="incomplete", missing=missing)
    return rules.dense(ranks)


def _missing(count: int) -> str:
    return ngettext(
        "%(count)s answer has no place yet: give it one and submit again, nothing is lost.",
        "%(count)s answers have no place yet: give each one and submit again, nothing is lost.",
        count,
    ) % {"count": count}


def _check_texts(sha256: Mapping[int, str] | None, answers: Mapping[int, Answer]) -> None:
    """What was read must be what is stored: a ranking of other texts would teach nonsense."""
    if sha256 is not None and any(
        sha256.get(pk) != answer.sha256 for pk, answer in answers.items()
    ):
        raise Refused(
            _("The page showed other texts than are stored: load it again before you rank."),
            code="other_text",
        )


def _checked_gaps(gaps: Sequence[int | None] | None, tiers: int) -> dict[int, int | None]:
    """From the list of gaps to {rank: gap to the next rank}."""
    if gaps is None:
        return {}
    known = [None, *RankingItem.Gap.values]
    if len(gaps) != tiers - 1 or any(gap not in known for gap in gaps):
        raise Refused(
            _("There must be one gap from 1 to 3 for each step from a place to the next."),
            status=400,
            code="bad_gap",
        )
    return dict(enumerate(gaps, start=1))


def _times(duration_ms: int, active_ms: int) -> dict[str, int]:
    """A browser's clock may jump; that is no reason to refuse a ranking."""
    duration = min(max(0, int(duration_ms)), _LONGEST_MS)
    return {"duration_ms": duration, "active_ms": min(max(0, int(active_ms)), duration)}


@transaction.atomic
def skip(*, slot_id: int, token: object, reason: str, note: str, by: User) -> Skip:
    """Pass on an answer set and say why; the slot goes back to the queue, for others.

    Skipping again changes nothing. A harmful set closes nothing by itself, but admins hear of it.
    """
    slot = _slot_for(slot_id, by)
    if reason not in Skip.Reason.values:
        raise Refused(_("Choose one of the reasons for skipping."), status=400, code="bad_reason")
    one_at_a_time(by)
    prove(slot_id=slot_id, token=token, by=by)
    _refuse_second_opinion(slot, by)
    skipped, is_new = Skip.objects.get_or_create(
        answer_set_id=slot.answer_set_id,
        annotator=by,
        defaults={"slot": slot, "reason": reason, "note": _note(note)},
    )
    give_back(answer_set_id=slot.answer_set_id, by=by)
    if is_new:
        harmful = reason == Skip.Reason.HARMFUL
        action = "answers.report_harmful" if harmful else "slot.skip"
        audit(by=by, action=action, target=slot, answer_set=slot.answer_set_id, reason=reason)
    return skipped


@transaction.atomic
def flag_answer(*, answer: Answer, note: str, by: User) -> Flag:
    """Tell the admins about one answer; a second flag of the same person replaces the note."""
    if role_in(by, answer.answer_set.prompt.project) is None:
        raise not_yours()
    flag, _is_new = Flag.objects.update_or_create(
        answer=answer, annotator=by, defaults={"note": _note(note)}
    )
    audit(by=by, action="answer.flag", target=answer)
    return flag


def _note(text: str) -> str:
    return text.replace("\x00", "").strip()[: Skip._meta.get_field("note").max_length]
