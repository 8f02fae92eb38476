"""What a worker reports about slots: how urgent the open ones are."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from django.db.models import Exists, OuterRef
from django.utils import timezone

from labelhub.assignments import rules
from labelhub.assignments.models import Slot
from labelhub.prompts.models import AnswerSet

_BATCH = 500
_DAY = 24 * 3600


def refresh_priorities(project_id: int) -> int:
    """Write the priority of a project's open opinions anew; returns how many slots changed.

    Priority = the band of disagreement × age (`rules.priority_band`). A set that no ensemble has
    scored yet counts as the median of those that are scored; without any, nothing is changed.
    Only slots whose band is another one are written, since each write costs all their indexes.
    """
    usual = _usual_disagreement(project_id)
    if usual is None:
        return 0
    changed = _changes(project_id, usual)
    for band, ids in sorted(changed.items()):
        for at in range(0, len(ids), _BATCH):
            # Whoever has claimed one meanwhile keeps it as it is: no claim waits for this.
            batch = Slot.objects.filter(pk__in=ids[at : at + _BATCH], state=Slot.State.OPEN)
            batch.update(priority=band)
    return sum(len(ids) for ids in changed.values())


def _usual_disagreement(project_id: int) -> float | None:
    waiting = Slot.objects.filter(
        answer_set=OuterRef("pk"), state=Slot.State.OPEN, kind=Slot.Kind.OPINION
    )
    scored = AnswerSet.objects.filter(prompt__project=project_id, disagreement__isnull=False)
    values = scored.filter(Exists(waiting)).values_list("disagreement", flat=True)
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _changes(project_id: int, usual: float) -> dict[float, list[int]]:
    """The new band and the slots that are to have it."""
    now = timezone.now()
    rows = Slot.objects.filter(
        project=project_id, state=Slot.State.OPEN, kind=Slot.Kind.OPINION
    ).values_list("pk", "priority", "created", "answer_set__disagreement")
    changed: dict[float, list[int]] = defaultdict(list)
    for pk, priority, created, disagreement in rows.iterator(chunk_size=5000):
        days = (now - created).total_seconds() // _DAY
        band = rules.priority_band(usual if disagreement is None else disagreement, days)
        if band != priority:
            changed[band].append(pk)
    return changed
