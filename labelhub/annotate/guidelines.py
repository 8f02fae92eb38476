"""The guidelines in any of their versions, to read, to print, and to see what changed.

Two versions are compared line by line as they were written: a person who knows the older one finds
each new sentence at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Literal

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import render
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.annotate.access import project_or_404
from labelhub.lib.markdown import render as markdown
from labelhub.projects.models import Guidelines, Project
from labelhub.rankings.rules import is_whole
from labelhub.rankings.work import last_guidelines_of

AROUND = 2  # unchanged lines that are shown on either side of a change
TOP_OF_TEXT = 4  # the highest heading that lib.markdown makes
_HEADING = re.compile(r"(</?h)([4-6])>")

Kind = Literal["same", "ins", "del", "skipped"]


@dataclass(frozen=True)
class Line:
    """One line of a comparison; `skipped` stands for so many unchanged ones."""

    kind: Kind
    text: str = ""
    count: int = 0


@dataclass(frozen=True)
class Reading:
    """The context of annotate/guidelines.html."""

    shown: Guidelines
    newest: Guidelines
    versions: Sequence[Guidelines]
    against: Guidelines | None = None
    lines: Sequence[Line] = ()
    followed: Guidelines | None = None  # by this person's latest ranking, where it is an older one

    @property
    def html(self) -> SafeString:
        """The text as it is read."""
        return under_heading(self.shown.text, level=1)

    @property
    def is_newest(self) -> bool:
        """Whether this version is in force."""
        return self.shown.version == self.newest.version

    @property
    def older(self) -> list[tuple[Guidelines, Guidelines | None]]:
        """Every version with the one before it (None before the first), newest first."""
        return [*pairwise(self.versions), (self.versions[-1], None)]

    @property
    def changed(self) -> bool:
        """Whether the two versions differ at all."""
        return any(line.kind in ("ins", "del") for line in self.lines)


def under_heading(text: str, level: int) -> SafeString:
    """Markdown of ours as it is read, its headings one below the page's own of this level.

    A text's headings begin at h4, since answers stand deep in their pages; here that would leave a
    hole in the outline. Only whole tags that the renderer made are renamed.
    """
    by = TOP_OF_TEXT - level - 1
    html = _HEADING.sub(lambda tag: f"{tag[1]}{int(tag[2]) - by}>", markdown(text))
    return mark_safe(html)  # noqa: S308 - it was safe, and only names of headings changed


@login_required
@require_safe
def guidelines(request: PersonRequest, slug: str) -> HttpResponse:
    """Show the version in force, or another; `against` says what changed since a third."""
    project = project_or_404(request.user, slug)
    context = {"project": project, "here": "guidelines", "reading": _reading(request, project)}
    return render(request, "annotate/guidelines.html", context)


def _reading(request: PersonRequest, project: Project) -> Reading | None:
    versions = list(project.guidelines.order_by("-version"))
    if not versions:
        return None
    shown = _version(request, "version", versions) or versions[0]
    against = _version(request, "against", versions)
    followed = last_guidelines_of(request.user, project)
    return Reading(
        shown=shown,
        newest=versions[0],
        versions=versions,
        against=against,
        lines=changes(against.text, shown.text) if against else (),
        followed=followed if followed and followed.version < versions[0].version else None,
    )


def _version(
    request: PersonRequest, name: str, versions: Sequence[Guidelines]
) -> Guidelines | None:
    """The version that the address names; None when it names none."""
    asked = request.GET.get(name, "")
    if not asked:
        return None
    number = int(asked) if is_whole(asked) else 0
    found = next((one for one in versions if one.version == number), None)
    if found is None:
        raise Http404(_("There is no such version of these guidelines: choose one from the list."))
    return found


def changes(before: str, after: str) -> list[Line]:
    """The lines of both texts in one order, with those far from any change left out.

    Of a changed place the old lines come first, as in every printed revision.
    """
    old, new = before.splitlines(), after.splitlines()
    steps = SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
    found: list[Line] = []
    for number, (kind, i, j, k, m) in enumerate(steps):
        if kind == "equal":
            found += _unchanged(old[i:j], first=number == 0, last=number == len(steps) - 1)
        else:
            found += [Line("del", text) for text in old[i:j]]
            found += [Line("ins", text) for text in new[k:m]]
    return found


def _unchanged(lines: list[str], *, first: bool, last: bool) -> Iterator[Line]:
    """So many of them as help to find the place: after the change before, before the next one."""
    head = [] if first else lines[:AROUND]
    tail = [] if last else lines[len(head) :][-AROUND:]
    skipped = len(lines) - len(head) - len(tail)
    yield from (Line("same", text) for text in head)
    if skipped:
        yield Line("skipped", count=skipped)
    yield from (Line("same", text) for text in tail)
