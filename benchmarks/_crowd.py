"""A project with a crowd of annotators and a queue as long as one likes.

Choices
- Rows that stand for work in the queue are made by the database itself, one statement a table: a
  million slots take a minute. They have sets and prompts of their own, so that nothing that a claim
  looks at is shared between slots and stays warm.
- Everybody has ranked `PAST` sets before, so nobody is a newcomer and there is something to repeat;
  `GOLD` known sets are mixed in. Shares and overlaps are those that a new project has.
- The SQL is put together out of names and numbers of this file alone.
Not here: what the crowd does (`_storm.py`) and what is measured (`queue.py`).
"""

from __future__ import annotations

from django.db import connection, transaction
from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.assignments.models import Pool, Slot
from labelhub.assignments.rules import shuffle_key
from labelhub.projects.models import Guidelines, Membership, Project
from labelhub.prompts.models import Answer, AnswerSet, Prompt
from labelhub.registry.models import ModelVersion

PAST, GOLD = 30, 100
BANDS = 20  # of priority; the open slots are spread over them at random
TEXTS = ("A short answer.", "A somewhat longer answer than the other one.")

# One number a row; both databases read it.
_NUMBERS = (
    "WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < %s)"
)


@transaction.atomic
def make_project(slug: str, annotators: int) -> tuple[Project, list[User]]:
    """A project in which this many people annotate, each with a past."""
    project = Project.objects.create(slug=slug, name=slug)
    Guidelines.objects.create(project=project, version=1, text="Prefer what helps more.")
    pool = Pool.objects.create(project=project, language="en")
    crowd = User.objects.bulk_create(User(username=f"{slug}-{n}") for n in range(annotators))
    Membership.objects.bulk_create(Membership(project=project, user=user) for user in crowd)
    _make_sets(pool, AnswerSet.Purpose.GOLD, [None] * GOLD)
    _make_sets(pool, AnswerSet.Purpose.RANK, [user for user in crowd for _ in range(PAST)])
    return project, crowd


def _make_sets(pool: Pool, purpose: str, done_by: list[User | None]) -> None:
    version, _is_new = ModelVersion.objects.get_or_create(
        name="bench", defaults={"kind": ModelVersion.Kind.BASE, "folder": "-", "sha256": "0" * 64}
    )
    messages = [{"role": "user", "content": "What is it?"}]
    prompts = Prompt.objects.bulk_create(
        Prompt(project_id=pool.project_id, messages=messages, sha256=f"{purpose}-{n}")
        for n in range(len(done_by))
    )
    sets = AnswerSet.objects.bulk_create(
        AnswerSet(prompt=prompt, purpose=purpose) for prompt in prompts
    )
    Answer.objects.bulk_create(
        Answer(answer_set=one, n=n, version=version, text=text, sha256=f"{n}" * 64)
        for one in sets
        for n, text in enumerate(TEXTS)
    )
    now = timezone.now()
    Slot.objects.bulk_create(
        Slot(
            answer_set=one,
            project_id=pool.project_id,
            pool=pool,
            n=0,
            state=Slot.State.DONE,
            holder=user,
            claimed_at=now,
            shuffle=shuffle_key(one.pk, 0),
        )
        for one, user in zip(sets, done_by, strict=True)
        if user is not None
    )


def add_open_sets(project: Project, count: int, *, slots: int = 1, answers: int = 0) -> None:
    """Add this many answer sets with open slots, in bands of priority.

    `answers` may be 0 where only the queue is looked at: a claim reads no texts.
    """
    if count < 1:
        return
    pool = Pool.objects.get(project=project, language="en", skill="")
    on_postgres = connection.vendor == "postgresql"
    chance = "floor(random() * 2147483648)" if on_postgres else "abs(random() % 2147483648)"
    text = "CAST('{0}' AS jsonb)" if on_postgres else "'{0}'"
    question = text.format('[{"role": "user", "content": "What is it?"}]')
    prompt, first = _last_id(Prompt), _last_id(AnswerSet)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO prompts_prompt (id, project_id, messages, sha256, language, topic, skill,"
            f" held_out, retired, created) {_NUMBERS} SELECT i + {prompt}, {project.pk},"
            f" {question}, 'queue-' || (i + {prompt}), 'en', '', '', false, false,"
            " CURRENT_TIMESTAMP FROM numbers",
            [count],
        )
        cursor.execute(
            f"INSERT INTO prompts_answerset (id, prompt_id, purpose, retired, created) {_NUMBERS}"
            f" SELECT i + {first}, i + {prompt}, 'rank', false, CURRENT_TIMESTAMP FROM numbers",
            [count],
        )
        for n in range(answers):
            cursor.execute(
                f"INSERT INTO prompts_answer (answer_set_id, n, text, sha256, sampling, seed,"
                f" tokens, finished, names_model) {_NUMBERS} SELECT i + {first}, {n},"
                f" 'Answer {n}', '{n}', {text.format('{}')}, 0, 2, true, false FROM numbers",
                [count],
            )
        for n in range(slots):
            cursor.execute(
                f"INSERT INTO assignments_slot (answer_set_id, project_id, pool_id, n, kind,"
                f" uniform, state, priority, shuffle, created) {_NUMBERS} SELECT i + {first},"
                f" {project.pk}, {pool.pk}, {n}, 'opinion', false, 'open',"
                f" i %% {BANDS} + 1, {chance}, CURRENT_TIMESTAMP FROM numbers",
                [count],
            )
        if on_postgres:
            for model in (Prompt, AnswerSet):
                table = model._meta.db_table
                cursor.execute(
                    f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                )


def settle() -> None:
    """Let the database look at what was filled in, as it does by itself after a while."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def _last_id(model: type[Prompt] | type[AnswerSet]) -> int:
    newest = model.objects.order_by("-pk").first()
    return newest.pk if newest else 0
