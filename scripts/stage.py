"""The stage of the documents' pictures: a project with people, answers and rankings made for it.

The texts lie in screenshot_sets.jsonl. The opinions behind the figures are drawn at random from
annotators of different care, with a fixed seed: a picture of the page, not a measurement.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.utils import timezone

from labelhub.accounts.actions import create_user
from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next
from labelhub.assignments.models import Slot
from labelhub.assignments.wishes import assign, open_slots
from labelhub.projects.actions import add_member, create_project, publish_guidelines
from labelhub.projects.models import Project
from labelhub.prompts.actions import create_answer_set, import_prompts
from labelhub.prompts.models import AnswerSet, Prompt
from labelhub.rankings.actions import make_gold, submit_ranking
from labelhub.rankings.models import Ranking
from labelhub.rankings.progress import store_report
from labelhub.rankings.rules import Feedback, ItemFeedback

SETS = Path(__file__).with_name("screenshot_sets.jsonl")
GUIDELINES = "Put the answer first that helps more. **True** comes before *well said*."
# How far each annotator's view strays from the shared one: 0 would be perfect agreement.
CARE = {"ann": 0.35, "ben": 0.6, "cho": 1.4}
SHARED, GOLD, WEEKS = 90, 14, 6
REVIEW_BELOW = 0.3
# What three people thought of the answers to the first prompt; a reviewer has to decide.
DISPUTE = {"ann": (1, 4, 2, 3), "ben": (3, 2, 4, 1), "cho": (2, 4, 1, 4)}
CRITIQUES = {"ann": "Says what to do first.", "cho": "The list helps most; nothing is missing."}


@dataclass(frozen=True)
class Stage:
    """Who is on it, and where the pictures are taken."""

    people: dict[str, User]
    paths: dict[str, str]


def set_stage() -> Stage:
    """Fill the (empty) database; the same picture every time."""
    rng = random.Random(3)
    admin = create_user(username="ada", password=None, by=None, is_superuser=True)
    project = create_project(
        name="Everyday help", slug="everyday", by=admin, ask_gaps=True,
        description="Everyday questions, answered by a small model.",
        shared_share=0, newcomer_sets=0, gold_share=0, repeat_share=0, review_below=None,
    )  # fmt: skip
    publish_guidelines(project=project, text=GUIDELINES, by=admin)
    people = {"ada": admin} | {
        name: _member(project, name, role, admin)
        for name, role in [*((one, "annotator") for one in CARE), ("rey", "reviewer")]
    }
    _opinions(project, people, rng)
    records = [json.loads(line) for line in SETS.read_text("utf-8").splitlines()]
    sets = {record["name"]: _set(project, record) for record in records}
    Project.objects.filter(pk=project.pk).update(review_below=REVIEW_BELOW)
    disputed = _set(project, records[0] | {"prompt": "Why did my bread not rise in the fridge?"})
    _dispute(disputed, people)
    paths = {
        name: _in_hand(project, sets[name], people[who], admin)
        for name, who in (("bread", "ann"), ("mean", "ben"), ("sky", "cho"))
    }
    store_report(project.pk)
    return Stage(
        people,
        paths | {"quality": "/dashboard/everyday/quality/", "review": "/annotate/everyday/review/"},
    )


def _member(project: Project, name: str, role: str, by: User) -> User:
    user = create_user(username=name, password=None, by=None, one_time=False)
    add_member(project=project, user=user, role=role, by=by)
    return user


def _set(project: Project, record: Mapping[str, Any]) -> AnswerSet:
    text = str(record["prompt"])
    import_prompts(
        project=project, lines=[{"prompt": text, "language": record["language"]}], by=None
    )
    prompt = next(
        one for one in Prompt.objects.order_by("-pk") if one.messages[-1]["content"] == text
    )
    answers = [{"version": None, "text": answer} for answer in record["answers"]]
    return create_answer_set(prompt=prompt, answers=answers)


def _opinions(project: Project, people: dict[str, User], rng: random.Random) -> None:
    """Sets that all three ranked over some weeks, some of them with a known ranking."""
    for number in range(SHARED + GOLD):
        record = {"prompt": f"Question {number + 1}", "language": "en"}
        made = _set(project, record | {"answers": [f"Answer {n}" for n in range(4)]})
        worth = [rng.gauss(0, 1) for _ in range(4)]
        if number >= SHARED:
            ids = list(made.answers.values_list("pk", flat=True))
            known = make_gold(
                project=project, by=people["ada"], answer_set=made,
                ranks=dict(zip(ids, _order(worth), strict=True)),
            )  # fmt: skip
            made = known.answer_set
        when = timezone.now() - timedelta(weeks=WEEKS * (1 - number / (SHARED + GOLD)))
        for name, spread in CARE.items():
            seen = [value + rng.gauss(0, spread) for value in worth]
            ranking = _rank(made, people[name], _order(seen), seconds=rng.gauss(70, 15))
            Ranking.objects.filter(pk=ranking.pk).update(created=when)


def _order(worth: Sequence[float]) -> list[int]:
    """Ranks of these values, best first; near ones tie."""
    steps = [round(value * 3) for value in worth]
    places = sorted(set(steps), reverse=True)
    return [places.index(step) + 1 for step in steps]


def _dispute(disputed: AnswerSet, people: dict[str, User]) -> None:
    for name, ranks in DISPUTE.items():
        answers = list(disputed.answers.order_by("n"))
        said = {answers[0].pk: ItemFeedback(critique=CRITIQUES.get(name, ""))}
        _rank(disputed, people[name], ranks, seconds=80, feedback=Feedback(items=said))


def _rank(
    made: AnswerSet,
    by: User,
    ranks: Sequence[int],
    *,
    seconds: float,
    feedback: Feedback | None = None,
) -> Ranking:
    """Submit as a person would, on a slot of this very set."""
    project = made.prompt.project
    kind = Slot.Kind.GOLD if made.purpose == AnswerSet.Purpose.GOLD else Slot.Kind.OPINION
    pool = project.pools.get_or_create(language=made.prompt.language, skill="")[0]
    slot = Slot.objects.create(
        answer_set=made, project=project, pool=pool, kind=kind, n=made.slots.count(),
        state=Slot.State.HELD, holder=by, lease_token=uuid.uuid4(),
        lease_until=timezone.now() + timedelta(minutes=15), claimed_at=timezone.now(),
    )  # fmt: skip
    ids = made.answers.order_by("n").values_list("pk", flat=True)
    milliseconds = max(12_000, int(seconds * 1000))
    return submit_ranking(
        slot_id=slot.pk, token=slot.lease_token, ranks=dict(zip(ids, ranks, strict=True)),
        idempotency_key=uuid.uuid4(), duration_ms=milliseconds, active_ms=milliseconds, by=by,
        feedback=feedback,
    )  # fmt: skip


def _in_hand(project: Project, made: AnswerSet, by: User, admin: User) -> str:
    """Give the set to this person; returns the address of its board."""
    open_slots(project=project, answer_sets=[made], overlap=1)
    assign(project=project, answer_sets=[made], to=by, by=admin)
    slot = claim_next(project=project, by=by)
    if slot is None or slot.answer_set_id != made.pk:
        raise RuntimeError(f"{by} was given {slot}, not the set for the picture.")
    return f"/annotate/{project.slug}/slots/{slot.pk}/"
