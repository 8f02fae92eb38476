"""The tutorial: sets with a known ranking on the real board, each followed by a lesson.

It is a way to learn by, not an examination: the known ranking and its reasons are shown after each
set, and whoever is not near enough yet reads them again and does the same sets once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User
from labelhub.annotate.access import project_or_404
from labelhub.annotate.board import Turn, letters, make_board, shown_answers
from labelhub.annotate.guidelines import under_heading
from labelhub.annotate.orders import Order, order_of
from labelhub.annotate.submission import proved_slot_or_404, submitted
from labelhub.assignments.actions import claim_tutorial
from labelhub.assignments.models import Slot
from labelhub.assignments.queries import get_own_slot_or_404
from labelhub.lib.errors import Refused
from labelhub.lib.markdown import render as markdown
from labelhub.projects.actions import qualify
from labelhub.projects.models import Project
from labelhub.projects.queries import membership_of
from labelhub.rankings.models import Ranking
from labelhub.rankings.tutorial import Lesson, Standing, lesson_of, standing_of

SAME, NEAR, PARTLY, APART = 0.999, 0.6, 0.2, -0.2


@dataclass(frozen=True)
class LessonCard:
    """One answer in the lesson: where it stands, where it was put, and what that changes."""

    letter: str
    html: SafeString
    known: int
    mine: int
    differences: tuple[str, ...]  # against cards that stand further down


@dataclass(frozen=True)
class LessonPage:
    """The context of annotate/lesson.html."""

    lesson: Lesson
    turns: list[Turn]
    cards: list[LessonCard]
    mine: Order
    known: Order
    standing: Standing
    number: int  # of this set in the tutorial, from 1

    @property
    def verdict(self) -> str:
        """How near the two orders are, in words."""
        return nearness(self.lesson.tau)

    @property
    def tau(self) -> float:
        """Kendall's tau-b, without a minus before zero."""
        return self.lesson.tau + 0.0

    @property
    def explanation(self) -> SafeString:
        """Why the known ranking is so."""
        return under_heading(self.lesson.gold.explanation, level=2)

    @property
    def differs(self) -> bool:
        """Whether any two cards stand otherwise than known."""
        return any(card.differences for card in self.cards)


def nearness(tau: float) -> str:
    """What a rank correlation means, in words."""
    if tau >= SAME:
        return _("Just as known: every pair stands as it should.")
    if tau >= NEAR:
        return _("Near to the known order.")
    if tau >= PARTLY:
        return _("Near in part: some pairs stand the other way round.")
    if tau > APART:
        return _("Little in common with the known order.")
    return _("Rather the reverse of the known order.")


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def tutorial(request: PersonRequest, slug: str) -> HttpResponse:
    """Say what the tutorial is and how one stands; POST goes on with it, or begins anew."""
    project = project_or_404(request.user, slug)
    if request.method == "POST":
        return _go_on(request, project)
    standing = standing_of(request.user, project)
    context = {
        "project": project,
        "here": "tutorial",
        "standing": standing,
        "lessons": [_row(lesson, request.user) for lesson in standing.lessons],
        "qualified": is_qualified(request.user, project),
    }
    return render(request, "annotate/tutorial.html", context)


def _row(lesson: Lesson, user: User) -> dict[str, object]:
    names = letters(shown_answers(lesson.slot, user))
    return {
        "lesson": lesson,
        "verdict": nearness(lesson.tau),
        "mine": order_of(lesson.mine, names),
        "known": order_of(lesson.known, names),
    }


def _go_on(request: PersonRequest, project: Project) -> HttpResponse:
    _note_if_passed(request.user, project)
    again = request.POST.get("again") == "yes"
    try:
        slot = claim_tutorial(project=project, by=request.user, again=again)
    except Refused as refusal:
        messages.error(request, refusal.message)
        slot = None
    if slot is None:
        return redirect("annotate:tutorial", project.slug)
    return redirect("annotate:tutorial-set", project.slug, slot.pk)


def is_qualified(user: User, project: Project) -> bool:
    """Whether real work is given to this person as far as the tutorial goes."""
    membership = membership_of(user, project)
    return membership is None or membership.qualified_at is not None


def _note_if_passed(user: User, project: Project) -> None:
    membership = membership_of(user, project)
    if membership and not membership.qualified_at and standing_of(user, project).passed:
        qualify(membership=membership)


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
def tutorial_set(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """One set on the real board; POST submits the order and goes to its lesson."""
    project = project_or_404(request.user, slug)
    action = reverse("annotate:tutorial-set", args=[slug, slot_id])
    if request.method == "POST":
        slot = proved_slot_or_404(request, project, slot_id, Slot.Kind.TUTORIAL)
        kept = submitted(request, slot, mode="tutorial", action=action)
        if not isinstance(kept, Ranking):
            return kept
        _note_if_passed(request.user, project)
        return redirect("annotate:lesson", slug, kept.slot_id)
    try:
        slot = _own_slot_or_404(request, project, slot_id)
    except Http404:
        messages.info(request, _("That page was open for too long: go on from here."))
        return redirect("annotate:tutorial", slug)
    if slot.state == Slot.State.DONE:
        return redirect("annotate:lesson", slug, slot_id)
    board = make_board(slot, request.user, mode="tutorial", action=action)
    return render(request, "annotate/board.html", {"board": board})


@login_required
@require_safe
@never_cache
def lesson(request: PersonRequest, slug: str, slot_id: int) -> HttpResponse:
    """What was ranked beside what is known, and why."""
    project = project_or_404(request.user, slug)
    slot = _own_slot_or_404(request, project, slot_id)
    if slot.state != Slot.State.DONE:
        return redirect("annotate:tutorial-set", slug, slot_id)
    context = {
        "project": project,
        "here": "tutorial",
        "page": _lesson_page(slot, request.user),
        "qualified": is_qualified(request.user, project),
    }
    return render(request, "annotate/lesson.html", context)


def _own_slot_or_404(request: PersonRequest, project: Project, slot_id: int) -> Slot:
    slot = get_own_slot_or_404(request.user, slot_id)
    if slot.project_id != project.pk or slot.kind != Slot.Kind.TUTORIAL:
        raise Http404(_("This is no set of the tutorial: go on from your project's page."))
    return slot


def _lesson_page(slot: Slot, user: User) -> LessonPage:
    one = lesson_of(slot)
    answers = shown_answers(slot, user)
    names = letters(answers)
    standing = standing_of(user, slot.project)
    done = [other.slot.pk for other in standing.lessons]
    cards = [
        LessonCard(
            letter=names[answer.pk],
            html=markdown(answer.text),
            known=one.known[answer.pk],
            mine=one.mine[answer.pk],
            differences=tuple(_differences(answer.pk, one, names)),
        )
        for answer in sorted(answers, key=lambda a: (one.known[a.pk], names[a.pk]))
    ]
    messages_of = slot.answer_set.prompt.messages
    return LessonPage(
        lesson=one,
        turns=[Turn(m["role"], markdown(m["content"])) for m in messages_of],
        cards=cards,
        mine=order_of(one.mine, names),
        known=order_of(one.known, names),
        standing=standing,
        number=done.index(slot.pk) + 1 if slot.pk in done else 0,
    )


def _differences(answer_id: int, lesson: Lesson, names: dict[int, str]) -> list[str]:
    """A sentence for each pair of this card and one further down that was put otherwise.

    Every pair is told once, at the card that comes first in the known order (by letter in a tie).
    """
    order = sorted(names, key=lambda pk: (lesson.known[pk], names[pk]))
    pairs = [other for one, other in combinations(order, 2) if one == answer_id]
    sentences = (_difference(answer_id, other, lesson) for other in pairs)
    words = {"card": names[answer_id]}
    return [
        sentence % {**words, "other": names[other]}
        for other, sentence in zip(pairs, sentences, strict=True)
        if sentence
    ]


def _difference(one: int, other: int, lesson: Lesson) -> str:
    """How the pair differs, the names of the cards still to be filled in; "" if it does not."""
    known = lesson.known[one] - lesson.known[other]  # never above 0: `one` comes first
    mine = lesson.mine[one] - lesson.mine[other]
    if (known < 0) == (mine < 0) and (known == 0) == (mine == 0):
        return ""
    if known == 0 and mine < 0:
        return _("%(card)s and %(other)s are as good as each other; you put %(card)s above.")
    if known == 0:
        return _("%(card)s and %(other)s are as good as each other; you put %(other)s above.")
    if mine == 0:
        return _("%(card)s is better than %(other)s; you tied them.")
    return _("%(card)s is better than %(other)s; you put %(other)s above.")
