"""What people ask for about rankings: submit and correct one, skip a set, flag an answer.

Submitting is one transaction, in this order: lock, recognise a repeated submit, check the token,
check the ranks, settle the slot, store, audit; the signal goes out after the commit. Work that
comes late is kept and marked; the only rankings refused are incomplete ones, those of strangers,
and a second opinion of one person on one answer set.

Correcting follows the same order on a ranking that is there. What stood before is kept whole; a
ranking that a snapshot holds is frozen, since something may have been trained on it.

What becomes of a set's other slots is in `routing`; known rankings are made in `gold`, a person's
rankings forgotten in `forgetting`. All that people can ask for is imported from here.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from labelhub.accounts.actions import audit
from labelhub.accounts.models import User
from labelhub.assignments.actions import give_back, not_yours, one_at_a_time, prove, settle
from labelhub.assignments.models import Slot
from labelhub.assignments.rules import display_order, parse_token
from labelhub.lib.errors import Refused
from labelhub.lib.markdown import plain
from labelhub.projects.models import Project
from labelhub.projects.queries import current_guidelines, role_in
from labelhub.prompts.models import Answer, AnswerSet
from labelhub.prompts.rules import storable
from labelhub.rankings import queries, routing, rules
from labelhub.rankings.forgetting import Forgotten, forget_person
from labelhub.rankings.gold import import_gold, make_gold, retire_gold
from labelhub.rankings.models import Flag, Ranking, RankingItem, RankingRevision, Skip
from labelhub.rankings.rules import BadFeedback, Feedback, ItemFeedback
from labelhub.rankings.signals import ranking_submitted

__all__ = [
    "Forgotten",
    "correct_ranking",
    "flag_answer",
    "forget_person",
    "freeze",
    "handle_flag",
    "handle_skip",
    "import_gold",
    "make_gold",
    "retire_gold",
    "skip",
    "submit_ranking",
]

_LONGEST_MS = 30 * 24 * 3600 * 1000  # a clock that says more than 30 days is wrong
_BATCH = 500
_NOTHING_SAID = ItemFeedback()

# Why feedback cannot be kept: the reasons of `rules.BadFeedback`.
REASONS = {
    "unknown_answer": gettext_lazy(
        "The feedback names an answer that is not among these: load the page again."
    ),
    "likert": gettext_lazy("A rating must be a whole number from %(low)s to %(high)s."),
    "attribute": gettext_lazy(
        "This project does not ask about “%(key)s” any more: take the mark away and send again."
    ),
    "long_ideal": gettext_lazy("The ideal answer is longer than %(limit)s characters: shorten it."),
    "long_critique": gettext_lazy("A comment is longer than %(limit)s characters: shorten it."),
    "long_note": gettext_lazy(
        "The note on a marked place is longer than %(limit)s characters: shorten it."
    ),
    "many_spans": gettext_lazy(
        "An answer has more than %(limit)s marked places: take some of them away."
    ),
    "span_tag": gettext_lazy("A marked place must be good or bad."),
    "span_place": gettext_lazy(
        "The marked place “%(quote)s” is not where it was in the answer: mark it again."
    ),
    "span_form": gettext_lazy("The page sent a marked place that cannot be read: mark it again."),
}

# Why a ranking cannot be corrected: the answers of `queries.why_not_correctable`.
UNCHANGEABLE = {
    "frozen": gettext_lazy(
        "This ranking is part of a snapshot for training by now and can no longer be corrected."
    ),
    "not_today": gettext_lazy("Only rankings of today can be corrected."),
    "tutorial": gettext_lazy("What was ranked in the tutorial cannot be corrected."),
}


# --- submit


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
    feedback: Feedback | None = None,
    sha256: Mapping[int, str] | None = None,
) -> Ranking:
    """Store the weak order that `by` gives to the answers of a slot.

    `ranks` maps each answer's id to its rank (1 = best, equal = tie; made dense here). `gaps` has
    one entry for each step from a rank to the next, best first: 1 slightly, 2 clearly, 3 much
    better, None not said. `sha256` are the hashes of the texts as the page showed them.
    The same idempotency key again returns the ranking that it stored the first time.

    On a review slot the order is a decision: it stands for the set, and the opinions beside it.
    """
    slot = _slot_for(slot_id, by)
    key = _key(idempotency_key)
    answer_set = AnswerSet.objects.select_for_update(no_key=True).get(pk=slot.answer_set_id)
    if first := _known_key(key, slot.answer_set_id, by):
        return first
    prove(slot_id=slot_id, token=token, by=by)
    _refuse_second_opinion(slot, by)
    answers = _answers_of(slot.answer_set_id)
    order = _checked_order(ranks, answers)
    _check_texts(sha256, answers)
    gap_after = _checked_gaps(gaps, max(order.values()))
    said = _checked_feedback(feedback or Feedback(), answers, slot.project)
    chosen, late = settle(slot=slot, by=by)
    ranking = Ranking.objects.create(
        slot=chosen,
        answer_set=answer_set,
        project=slot.project,
        annotator=by,
        guidelines=current_guidelines(slot.project),
        idempotency_key=key,
        late=late,
        is_simulated=by.is_simulated,
        adjudicates=slot.kind == Slot.Kind.REVIEW,
        **_said_of_all(said),
        **_times(duration_ms, active_ms),
    )
    # The page was drawn for the slot that was given out, whichever one the work is counted on.
    shown = display_order(slot_id, by.pk, answers)
    RankingItem.objects.bulk_create(
        RankingItem(
            ranking=ranking,
            answer=answers[pk],
            position=shown.index(pk),
            **_facts_of_item(rank, gap_after, said.items.get(pk)),
        )
        for pk, rank in order.items()
    )
    audit(by=by, action="ranking.submit", target=ranking, slot=chosen.pk, late=late)
    if answer_set.purpose in {AnswerSet.Purpose.RANK, AnswerSet.Purpose.COMPARE}:
        _tell(ranking)
    return ranking


def _tell(ranking: Ranking) -> None:
    """Opinions and decisions have consequences; known rankings, repeats, the tutorial have none."""
    routing.look_for_disagreement(ranking.answer_set, ranking.project)
    if ranking.answer_set.skips.exists():
        routing.close_unreachable([ranking.answer_set], ranking.project)
    transaction.on_commit(
        partial(
            ranking_submitted.send_robust,
            sender=Ranking,
            ranking_id=ranking.pk,
            project_id=ranking.project_id,
        )
    )


def _slot_for(slot_id: int, by: User) -> Slot:
    """The slot, if `by` belongs to its project; a stranger learns nothing of it.

    Asked under the person's lock, so that who is leaving the project adds nothing afterwards.
    """
    one_at_a_time(by)
    slot = Slot.objects.select_related("project").filter(pk=slot_id).first()
    if slot is None or role_in(by, slot.project) is None:
        raise not_yours()
    return slot


def _key(value: object) -> uuid.UUID:
    key = parse_token(value)
    if key is None:
        raise Refused(_("The page sent no valid submit key: load it again."), status=400)
    return key


def _known_key(key: uuid.UUID, answer_set_id: int, by: User) -> Ranking | None:
    """What this key stored the first time, be it a ranking or a later correction of it."""
    first = Ranking.objects.filter(idempotency_key=key).first()
    if first is None:
        own = Ranking.objects.filter(answer_set=answer_set_id, annotator=by)
        return own.filter(revisions__facts__idempotency_key=str(key)).first()
    if first.annotator_id != by.pk or first.answer_set_id != answer_set_id:
        raise Refused(_("This submit key belongs to another ranking: load the page again."))
    return first


def _refuse_second_opinion(slot: Slot, by: User) -> None:
    if Ranking.objects.filter(answer_set=slot.answer_set_id, annotator=by).exists():
        raise Refused(
            _("You have ranked these answers already, maybe in another tab: that ranking stands."),
            code="already_ranked",
        )


def _answers_of(answer_set_id: int) -> dict[int, Answer]:
    return {one.pk: one for one in Answer.objects.filter(answer_set=answer_set_id)}


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


def _checked_feedback(
    feedback: Feedback, answers: Mapping[int, Answer], project: Project
) -> Feedback:
    """The feedback as it is kept. Places are counted in the answer as it is read."""
    marked = [pk for pk, item in feedback.items.items() if item.spans and pk in answers]
    read = dict.fromkeys(answers, "") | {pk: plain(answers[pk].text) for pk in marked}
    keys = {one["key"] for one in project.attributes}
    try:
        checked = rules.checked_feedback(_storable(feedback), read=read, attributes=keys)
    except BadFeedback as bad:
        sentence = str(REASONS[bad.reason]) % bad.values
        raise Refused(sentence, status=400, code="bad_feedback") from None
    return checked


def _storable(feedback: Feedback) -> Feedback:
    """What was typed, without the few characters that no database keeps."""
    items = {
        pk: replace(
            item,
            critique=storable(item.critique),
            spans=tuple(replace(one, note=storable(one.note)) for one in item.spans),
        )
        for pk, item in feedback.items.items()
    }
    return replace(feedback, ideal_answer=storable(feedback.ideal_answer), items=items)


def _said_of_all(said: Feedback) -> dict[str, Any]:
    return {
        "all_bad": said.all_bad,
        "refusal_right": said.refusal_right,
        "ideal_answer": said.ideal_answer,
    }


def _facts_of_item(
    rank: int, gap_after: Mapping[int, int | None], item: ItemFeedback | None
) -> dict[str, Any]:
    said = item or _NOTHING_SAID
    return {
        "rank": rank,
        "gap": gap_after.get(rank),
        "likert": said.likert,
        "attributes": list(said.attributes),
        "critique": said.critique,
        "spans": rules.spans_to_json(said.spans),
    }


def _times(duration_ms: int, active_ms: int) -> dict[str, int]:
    """A browser's clock may jump; that is no reason to refuse a ranking."""
    duration = min(max(0, int(duration_ms)), _LONGEST_MS)
    return {"duration_ms": duration, "active_ms": min(max(0, int(active_ms)), duration)}


# --- correct


@transaction.atomic
def correct_ranking(
    *,
    ranking_id: int,
    revision: int,
    ranks: Mapping[int, int],
    idempotency_key: object,
    duration_ms: int,
    active_ms: int,
    by: User,
    gaps: Sequence[int | None] | None = None,
    feedback: Feedback | None = None,
    sha256: Mapping[int, str] | None = None,
) -> Ranking:
    """Put another order, and what is said beside it, in the place of one's own of today.

    `revision` is the one that the page showed: if the ranking was corrected since, it is refused.
    What stood before is kept as a `RankingRevision`. The times are added up, since the correction
    is work on the same ranking. Without `feedback` what was said beside the order stays.
    """
    key = _key(idempotency_key)
    ranking = _own_ranking(ranking_id, by)
    if done := _known_key(key, ranking.answer_set_id, by):
        return done
    _refuse_unchangeable(ranking, revision)
    answers = _answers_of(ranking.answer_set_id)
    order = _checked_order(ranks, answers)
    _check_texts(sha256, answers)
    gap_after = _checked_gaps(gaps, max(order.values()))
    # What is said anew is checked; what was said before was, and its questions may be gone by now.
    said = (
        queries.feedback_of(ranking)
        if feedback is None
        else _checked_feedback(feedback, answers, ranking.project)
    )
    RankingRevision.objects.create(
        ranking=ranking, n=ranking.revision, facts=queries.facts_of(ranking)
    )
    _put_in_place(ranking, order, gap_after, said)
    _add_times(ranking, duration_ms, active_ms)
    ranking.revision += 1
    ranking.idempotency_key = key
    ranking.guidelines = current_guidelines(ranking.project)
    ranking.save()
    audit(by=by, action="ranking.correct", target=ranking, revision=ranking.revision)
    routing.look_for_disagreement(ranking.answer_set, ranking.project)
    return ranking


def _own_ranking(ranking_id: int, by: User) -> Ranking:
    """The ranking, locked after its person and its answer set; anybody else's is not there."""
    one_at_a_time(by)
    found = Ranking.objects.filter(pk=ranking_id, annotator=by).select_related("project").first()
    if found is None or role_in(by, found.project) is None:
        raise Refused(_("You have no such ranking in this project."), status=404, code="not_yours")
    AnswerSet.objects.select_for_update(no_key=True).get(pk=found.answer_set_id)
    return (
        Ranking.objects.select_for_update(no_key=True, of=("self",))
        .select_related("project", "slot", "answer_set")
        .get(pk=ranking_id)
    )


def _refuse_unchangeable(ranking: Ranking, revision: int) -> None:
    if why := queries.why_not_correctable(ranking):
        raise Refused(str(UNCHANGEABLE[why]), code=why)
    if revision != ranking.revision:
        raise Refused(
            _("This ranking was changed meanwhile, maybe in another tab: load the page again."),
            code="changed",
        )


def _put_in_place(
    ranking: Ranking, order: Mapping[int, int], gap_after: Mapping[int, int | None], said: Feedback
) -> None:
    for name, value in _said_of_all(said).items():
        setattr(ranking, name, value)
    items = list(ranking.items.all())
    for item in items:
        facts = _facts_of_item(order[item.answer_id], gap_after, said.items.get(item.answer_id))
        for name, value in facts.items():
            setattr(item, name, value)
    names = list(_facts_of_item(1, {}, None))
    RankingItem.objects.bulk_update(items, names)


def _add_times(ranking: Ranking, duration_ms: int, active_ms: int) -> None:
    more = _times(duration_ms, active_ms)
    ranking.duration_ms += more["duration_ms"]
    ranking.active_ms += more["active_ms"]


def freeze(ranking_ids: Iterable[int]) -> None:
    """Let nobody correct these rankings any more, since something will be trained on them.

    Call it with the rankings locked, in the transaction that takes them into a snapshot.
    """
    ids, now = list(ranking_ids), timezone.now()
    for start in range(0, len(ids), _BATCH):
        Ranking.objects.filter(pk__in=ids[start : start + _BATCH], frozen_at__isnull=True).update(
            frozen_at=now
        )


# --- skip and flag


@transaction.atomic
def skip(*, slot_id: int, token: object, reason: str, note: str, by: User) -> Skip:
    """Pass on an answer set and say why; the reason decides where the set goes (`rules.ROUTES`).

    Skipping again changes nothing. Of a harmful set admins hear.
    """
    slot = _slot_for(slot_id, by)
    if reason not in Skip.Reason.values:
        raise Refused(_("Choose one of the reasons for skipping."), status=400, code="bad_reason")
    answer_set = _locked_for_skip(slot)
    prove(slot_id=slot_id, token=token, by=by)
    _refuse_second_opinion(slot, by)
    skipped, is_new = Skip.objects.get_or_create(
        answer_set=answer_set,
        annotator=by,
        defaults={"slot": slot, "reason": reason, "note": _note(note)},
    )
    give_back(answer_set_id=slot.answer_set_id, by=by)
    if is_new:
        harmful = reason == Skip.Reason.HARMFUL
        action = "answers.report_harmful" if harmful else "slot.skip"
        audit(by=by, action=action, target=slot, answer_set=slot.answer_set_id, reason=reason)
        _free_of(slot.answer_set_id, by)
        if slot.kind in routing.SHARED:
            routing.send_on(skipped, slot.project)
            routing.look_for_disagreement(answer_set, slot.project)
    return skipped


def _locked_for_skip(slot: Slot) -> AnswerSet:
    """The slot's set, locked together with the prompt's other sets: the prompt may be retired."""
    prompt_id = AnswerSet.objects.values_list("prompt_id", flat=True).get(pk=slot.answer_set_id)
    sets = routing.lock_sets(routing.sets_of(prompt_id).select_related("prompt"))
    return next(one for one in sets if one.pk == slot.answer_set_id)


def _free_of(answer_set_id: int, by: User) -> None:
    """What was assigned to this person by name, and passed on, is for others."""
    Slot.objects.filter(answer_set=answer_set_id, reserved_for=by, state=Slot.State.OPEN).update(
        reserved_for=None
    )


@transaction.atomic
def handle_skip(*, skip: Skip, do: Literal["put_back", "retire"], by: User) -> Skip:
    """Answer a skip: ask others after all, or ask nobody about this prompt any more.

    The other skips of the same set (when retiring: of the same prompt) are answered with it.
    """
    prompt_id = AnswerSet.objects.values_list("prompt_id", flat=True).get(pk=skip.answer_set_id)
    sets = routing.lock_sets(routing.sets_of(prompt_id).select_related("prompt__project"))
    answer_set = next(one for one in sets if one.pk == skip.answer_set_id)
    prompt = answer_set.prompt
    if do == "retire":
        answered = Skip.objects.filter(answer_set__in=sets)
    elif do == "put_back":
        same = Q(answer_set__prompt=prompt, reason=skip.reason) if prompt.retired else Q()
        answered = Skip.objects.filter(Q(answer_set=answer_set) | same)
    else:
        raise Refused(_("Choose to put the set back or to retire its prompt."), status=400)
    answered.filter(handled_at__isnull=True).update(handled_at=timezone.now())
    if do == "retire":
        routing.retire(prompt, by=by)
    else:
        routing.put_back(answer_set, prompt.project, by=by)
    audit(by=by, action="skip.handle", target=skip, answer_set=answer_set.pk, do=do)
    skip.refresh_from_db()
    return skip


@transaction.atomic
def flag_answer(*, answer: Answer, note: str, by: User) -> Flag:
    """Tell the admins about one answer; a second flag of the same person replaces the note."""
    if role_in(by, answer.answer_set.prompt.project) is None:
        raise not_yours()
    flag, _is_new = Flag.objects.update_or_create(
        answer=answer, annotator=by, defaults={"note": _note(note), "handled_at": None}
    )
    audit(by=by, action="answer.flag", target=answer)
    return flag


@transaction.atomic
def handle_flag(*, flag: Flag, by: User) -> Flag:
    """Note that an admin has looked at a flag; once is enough."""
    changed = Flag.objects.filter(pk=flag.pk, handled_at__isnull=True).update(
        handled_at=timezone.now()
    )
    if changed:
        audit(by=by, action="flag.handle", target=flag, answer=flag.answer_id)
    flag.refresh_from_db()
    return flag


def _note(text: str) -> str:
    return text.replace("\x00", "").strip()[: Skip._meta.get_field("note").max_length]
