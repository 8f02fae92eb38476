"""Asks the database to break a promise, and checks that it is this promise that it names."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection, models, transaction


def refused_by(model: type[models.Model], name: str, change: Callable[[], object]) -> None:
    """The change must fail because of the model's constraint `name`."""
    constraint = {one.name: one for one in model._meta.constraints}[name]
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        change()
    assert _names(model, constraint) in str(refused.value)


def _names(model: type[models.Model], constraint: models.BaseConstraint) -> str:
    """How the database names it: SQLite lists a unique constraint's columns instead of its name.

    (Of one over expressions it has no columns to list, and gives the name.)
    """
    unique = isinstance(constraint, models.UniqueConstraint) and constraint.fields
    if connection.vendor == "sqlite" and unique:
        columns = [model._meta.get_field(field).column for field in constraint.fields]
        return ", ".join(f"{model._meta.db_table}.{column}" for column in columns)
    return constraint.name


def names_of(*some: type[models.Model]) -> set[tuple[type[models.Model], str]]:
    """All constraints of these models: what a table of tests must cover."""
    return {(model, one.name) for model in some for one in model._meta.constraints}
