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
    """Collects what a browser would send of the form with one id, wherever its fields stand.

    Choices that are not taken send nothing; several taken ones of one name are a list.
    """

    def __init__(self, form_id: str) -> None:
        super().__init__()
        self.form_id, self.inside = form_id, False
        self.fields: dict[str, Any] = {}
        self.letters: dict[str, int] = {}  # card letter → answer id
        self._select = self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        at = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.inside = at.get("id") == self.form_id
        if not self.inside and at.get("form") != self.form_id and tag != "option":
            return
        if tag == "article":
            self.letters[at["data-letter"]] = int(at["data-id"])
        if tag == "input":
            self._input(at)
        if tag == "textarea":
            self._text = at["name"]
            self.fields[self._text] = ""
        if tag == "select":
            self._select = at["name"]
            self.fields[self._select] = ""
        if tag == "option" and self._select and "selected" in at:
            self.fields[self._select] = at["value"]

    def _input(self, at: dict[str, str]) -> None:
        name, value = at["name"], at.get("value", "on")
        if at["type"] == "checkbox":
            if "checked" in at:
                self.fields.setdefault(name, []).append(value)
        elif at["type"] != "radio" or "checked" in at:
            self.fields[name] = at.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._text:
            self.fields[self._text] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.inside = False
        if tag == "textarea":
            self._text = ""
        if tag == "select":
            self._select = ""


def _read(response: HttpResponse) -> _Form:
    parser = _Form("ranking")
    parser.feed(response.content.decode())
    return parser


def form_of(response: HttpResponse) -> dict[str, Any]:
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
    return {**read.fields, **named(read.letters, "rank", places)}


def named(letters: Mapping[str, int], field: str, values: Mapping[str, object]) -> dict[str, Any]:
    """Values by letter as form fields: `named(letters, "critique", {"B": "Too long."})`."""
    return {f"{field}-{letters[letter]}": value for letter, value in values.items()}


def rank(client: Client, slot: Slot, places: Mapping[str, object] | Sequence[int]) -> HttpResponse:
    """Open the board and submit this order."""
    return client.post(board_url(slot), filled(client.get(board_url(slot)), places))
