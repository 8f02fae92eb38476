"""The audit log only grows: the database itself refuses every other change."""

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from labelhub.accounts.actions import audit
from labelhub.accounts.models import AuditEntry, User
from tests.factories import make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def entry(ann: User) -> AuditEntry:
    audit(by=ann, action="project.create", target="project:1", slug="everyday")
    return AuditEntry.objects.get()


def refuses(change: object, *args: object, **kwargs: object) -> None:
    with (
        pytest.raises(IntegrityError, match="the audit log is append-only"),
        transaction.atomic(),
    ):
        change(*args, **kwargs)  # type: ignore[operator]


def test_a_line_says_who_did_what_to_what(entry: AuditEntry, ann: User) -> None:
    assert (entry.actor, entry.actor_name, entry.action) == (ann, "ann", "project.create")
    assert (entry.target, entry.details) == ("project:1", {"slug": "everyday"})


def test_a_line_cannot_be_changed(entry: AuditEntry) -> None:
    refuses(AuditEntry.objects.update, actor_name="mallory")
    entry.action = "nothing"
    refuses(entry.save)
    assert AuditEntry.objects.get().action == "project.create"


def test_a_line_cannot_be_removed(entry: AuditEntry) -> None:
    refuses(AuditEntry.objects.all().delete)
    refuses(AuditEntry.objects.all()._raw_delete, using="default")
    assert AuditEntry.objects.count() == 1


def test_a_line_cannot_be_removed_on_the_side(entry: AuditEntry) -> None:
    statement = {
        "sqlite": "INSERT OR REPLACE INTO accounts_auditentry"
        " SELECT id, at, 'mallory', action, target, details, actor_id FROM accounts_auditentry",
        "postgresql": "TRUNCATE accounts_auditentry",
    }[connection.vendor]
    refuses(connection.cursor().execute, statement)
    assert AuditEntry.objects.get().actor_name == "ann"


def test_the_lines_of_somebody_who_is_gone_stay(entry: AuditEntry, ann: User) -> None:
    ann.delete()
    assert AuditEntry.objects.get().actor_name == "ann"


def test_new_lines_are_welcome(entry: AuditEntry) -> None:
    audit(by=make_user("cid"), action="project.create", target="project:2")
    audit(by=None, action="runs.sweep", target="runs")
    assert list(AuditEntry.objects.order_by("id").values_list("actor_name", flat=True)) == [
        "ann",
        "cid",
        "system",
    ]


@pytest.mark.django_db(transaction=True)
def test_the_clean_up_after_a_test_puts_the_triggers_back(entry: AuditEntry) -> None:
    from django.core.management import call_command

    call_command("flush", interactive=False, verbosity=0)
    assert AuditEntry.objects.count() == 0
    audit(by=None, action="runs.sweep", target="runs")
    with pytest.raises(DatabaseError, match="append-only"):
        AuditEntry.objects.all().delete()
