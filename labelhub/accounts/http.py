"""Requests with a known person behind them, for the type checker: views under `login_required`."""

from __future__ import annotations

from django.http import HttpRequest

from labelhub.accounts.models import User


class PersonRequest(HttpRequest):
    """A request of somebody who is signed in."""

    user: User
