"""A password that a machine gave out opens one page only: the one where it is changed."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from labelhub.accounts.models import User

_STILL_OPEN = {"accounts:password", "accounts:logout", "accounts:preferences"}
_GetResponse = Callable[[HttpRequest], HttpResponse]


class OwnPasswordFirst:
    """Sends a person with a one-time password to the page where they choose their own."""

    def __init__(self, get_response: _GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_view: object) -> HttpResponse | None:
        """Decide once the address is resolved, so that pages are told apart by name."""
        must = isinstance(request.user, User) and request.user.must_change_password
        match = request.resolver_match
        if not must or (match and match.view_name in _STILL_OPEN):
            return None
        return redirect("accounts:password")
