"""Builds rows for tests, straight through the models: a factory never runs the code under test.

Every factory takes what the test cares about as keywords and fills in the rest.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.models import Pool, Slot
from labelhub.projects.models import Guidelines, Membership, Project
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.rankings.models import Ranking, RankingItem
from labelhub.registry.models import ModelVersion

PASSWORD = "a long enough password"
_count = itertools.count(1)


def make_user(username: str = "", *, password: str = PASSWORD, **fields: Any) -> User:
    """A person who can sign in with `PASSWORD`."""
    user = User(username=username or f"person{next(_count)}", **fields)
    user.set_password(password)
    user.save()
    return user


def make_project(
    slug: str = "",
    *,
    annotators: Iterable[User] = (),
    admins: Iterable[User] = (),
    guidelines: str = "Prefer the answer that helps more.",
    **fields: Any,
) -> Project:
    """A project with members and version 1 of its guidelines (none if the text is empty)."""
    slug = slug or f"project-{next(_count)}"
    fields.setdefault("name", slug.capitalize())
    # Every set the same and no surprises, unless a test asks for them.
    for share in ("shared_share", "newcomer_sets", "gold_share", "repeat_share", "uniform_share"):
        fields.setdefault(share, 0)
    project = Project.objects.create(slug=slug, **fields)
    for role, people in (("annotator", annotators), ("admin", admins)):
        for person in people:
            Membership.objects.create(project=project, user=person, role=role)
    if guidelines:
        Guidelines.objects.create(project=project, version=1, text=guidelines)
    return project


def make_version(
    name: str = "tiny-base",
    *,
    kind: str = ModelVersion.Kind.BASE,
    project: Project | None = None,
    **fields: Any,
) -> ModelVersion:
    """A model version; asked for by the same name again, the same one."""
    fields.setdefault("folder", f"models/{name}")
    fields.setdefault("sha256", sha256(name))
    return ModelVersion.objects.get_or_create(
        name=name, defaults={"kind": kind, "project": project, **fields}
    )[0]


def make_prompt(project: Project, text: str = "", **fields: Any) -> Prompt:
    """A prompt of one user turn, unlike every other one."""
    messages = fields.pop(
        "messages", [{"role": "user", "content": text or f"Question {next(_count)}?"}]
    )
    return Prompt.objects.create(
        project=project,
        messages=messages,
        sha256=sha256(json.dumps(messages)),
        **fields,
    )


def make_answer_set(
    project: Project,
    *,
    prompt: Prompt | None = None,
    answers: int | Sequence[str] = 4,
    version: ModelVersion | None = None,
    purpose: str = AnswerSet.Purpose.RANK,
    slots: int = 0,
) -> AnswerSet:
    """An answer set of K answers (or of these texts) by a base version, with `slots` open slots."""
    texts = [f"Answer {n}" for n in range(answers)] if isinstance(answers, int) else answers
    answer_set = AnswerSet.objects.create(prompt=prompt or make_prompt(project), purpose=purpose)
    Answer.objects.bulk_create(
        Answer(
            answer_set=answer_set,
            n=n,
            version=version or make_version(),
            text=text,
            sha256=sha256(text),
            tokens=len(text.split()),
        )
        for n, text in enumerate(texts)
    )
    for n in range(slots):
        make_slot(answer_set, n=n)
    return answer_set


def make_pool(project: Project, language: str = "en", skill: str = "") -> Pool:
    """The project's pool of this language and skill."""
    return Pool.objects.get_or_create(project=project, language=language, skill=skill)[0]


def make_slot(answer_set: AnswerSet, *, n: int | None = None, **fields: Any) -> Slot:
    """An open slot on an answer set, the next by number unless `n` is given."""
    prompt = answer_set.prompt
    fields.setdefault("pool", make_pool(prompt.project, prompt.language, prompt.skill))
    return Slot.objects.create(
        answer_set=answer_set,
        project=prompt.project,
        n=answer_set.slots.count() if n is None else n,
        **fields,
    )


def hold(slot: Slot, by: User, *, minutes: float = 15) -> Slot:
    """Give `by` a lease on the slot that ends in so many minutes (less than 0: it has ended)."""
    now = timezone.now()
    slot.state = Slot.State.HELD
    slot.holder = by
    slot.lease_token = uuid.uuid4()
    slot.lease_until = now + timedelta(minutes=minutes)
    slot.claimed_at = now
    slot.save()
    return slot


def make_ranking(
    answer_set: AnswerSet, by: User, ranks: Sequence[int] | None = None, **fields: Any
) -> Ranking:
    """A ranking that `by` has submitted: rank i belongs to the answer number i of the set."""
    slot = make_slot(answer_set, state=Slot.State.DONE, holder=by)
    answers = list(answer_set.answers.order_by("n"))
    fields.setdefault("duration_ms", 30_000)
    fields.setdefault("active_ms", 20_000)
    ranking = Ranking.objects.create(
        slot=slot,
        answer_set=answer_set,
        project=slot.project,
        annotator=by,
        guidelines=slot.project.guidelines.order_by("-version").first(),
        idempotency_key=uuid.uuid4(),
        is_simulated=by.is_simulated,
        **fields,
    )
    RankingItem.objects.bulk_create(
        RankingItem(ranking=ranking, answer=answer, rank=rank, position=answer.n)
        for answer, rank in zip(answers, ranks or range(1, len(answers) + 1), strict=True)
    )
    return ranking


def sha256(text: str) -> str:
    """The hash of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()
