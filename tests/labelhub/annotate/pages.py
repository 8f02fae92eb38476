"""Read the annotators' pages as a browser would, and fill in their forms."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from labelhub.accounts.models import User
from labelhub.assignments.actions import claim_next
from labelhub.assignments.models import Slot
from labelhub.projects.models import Project


class _Form(HTMLParser):
    """Collects the fields of the form with one id: inputs and lists, in the page's order."""

    def __init__(self, form_id: str) -> None:
        super().__init__()
        self.form_id, self.inside = form_id, False
        self.fields: dict[str, str] = {}
        self.letters: dict[str, int] = {}  # card letter → answer id
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.inside = at.get("id") == self.form_id
        if not self.inside:
            return
        if tag == "article":
            self.letters[at["data-letter"]] = int(at["data-id"])
        if tag == "input":
            self.fields[at["name"]] = at.get("value", "")
        if tag == "select":
            self._select = at["name"]
            self.fields[self._select] = ""
        if tag == "option" and "selected" in at:
            self.fields[self._select] = at["value"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.inside = False


def _read(response: HttpResponse) -> _Form:
    parser = _Form("ranking")
    parser.feed(response.content.decode())
    return parser


def form_of(response: HttpResponse) -> dict[str, str]:
    """The fields of the ranking form, as the page fills them in."""
    return _read(response).fields


def letters_of(response: HttpResponse) -> dict[str, int]:
    """Which answer stands behind each card, in the page's order."""
    return _read(response).letters


def refusal_of(response: HttpResponse) -> str:
    """The one sentence that says why a form was refused."""
    found = re.search(r'id="refusal"[^>]*>([^<]*)<', response.content.decode())
    return found[1] if found else ""


def claimed(project: Project, by: User) -> Slot:
    """The next slot, with a lease as the queue gives it: its token proves for whom it is."""
    slot = claim_next(project=project, by=by)
    assert slot is not None
    return slot


def board_url(slot: Slot, name: str = "board") -> str:
    """The address of a slot's page, or of its skip, renew or release."""
    return reverse(f"annotate:{name}", args=[slot.project.slug, slot.pk])


def filled(response: HttpResponse, places: Mapping[str, object] | Sequence[int]) -> dict[str, Any]:
    """The form with a place for each card: by letter, or in the order of the cards."""
    read = _read(response)
    if not isinstance(places, Mapping):
        places = dict(zip(read.letters, places, strict=True))
    ranks = {f"rank-{read.letters[letter]}": place for letter, place in places.items()}
    return {**read.fields, **ranks}


def rank(client: Client, slot: Slot, places: Mapping[str, object] | Sequence[int]) -> HttpResponse:
    """Open the board and submit this order."""
    return client.post(board_url(slot), filled(client.get(board_url(slot)), places))
