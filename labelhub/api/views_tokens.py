"""The page on which a person makes and ends the tokens of his programs.

A token's secret is in one answer only, the one to the form that made it, and is stored nowhere:
that is why the page does not redirect after it. The answer may not be kept by any cache.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from labelhub.accounts.actions import create_token, revoke_token
from labelhub.accounts.models import ApiToken, User

# Days until a token ends by itself; the empty choice never does.
LIFETIMES = [
    ("30", gettext_lazy("in 30 days")),
    ("90", gettext_lazy("in 90 days")),
    ("365", gettext_lazy("in a year")),
    ("", gettext_lazy("never")),
]


class TokenForm(forms.Form):
    """What a new token is to be called, may do, and when it ends."""

    name = forms.CharField(
        max_length=80,
        label=gettext_lazy("Name"),
        error_messages={"required": gettext_lazy("Give it a name by which you will know it.")},
    )
    scopes = forms.MultipleChoiceField(
        choices=ApiToken.Scope.choices,
        widget=forms.CheckboxSelectMultiple,
        label=gettext_lazy("What it may do"),
        error_messages={"required": gettext_lazy("Allow it at least one thing.")},
    )
    days = forms.ChoiceField(choices=LIFETIMES, required=False, label=gettext_lazy("It ends"))


@never_cache
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def tokens(request: HttpRequest) -> HttpResponse:
    """List one's own tokens, and make one."""
    user = cast(User, request.user)
    form = TokenForm(request.POST or None, initial={"scopes": ["read"], "days": "90"})
    context: dict[str, Any] = {"form": form}
    if request.method == "POST" and form.is_valid():
        days = form.cleaned_data["days"]
        made, context["secret"] = create_token(
            user=user,
            name=form.cleaned_data["name"],
            scopes=form.cleaned_data["scopes"],
            by=user,
            expires=timezone.now() + timedelta(days=int(days)) if days else None,
        )
        context |= {"made": made, "form": TokenForm(initial=form.initial)}
    status = 400 if request.method == "POST" and "made" not in context else 200
    context |= {"rows": own_tokens(user), "now": timezone.now()}
    return render(request, "api/tokens.html", context, status=status)


@login_required
@require_POST
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """End one of one's own tokens at once; an ended one stays ended."""
    user = cast(User, request.user)
    token = ApiToken.objects.filter(user=user, pk=pk).first()
    if token is None:
        raise Http404(gettext("There is no such token among yours."))
    if token.revoked is None:
        revoke_token(token=token, by=user)
    messages.success(request, gettext("The token “%(name)s” is ended.") % {"name": token.name})
    return redirect("tokens:tokens")


def own_tokens(user: User) -> list[dict[str, Any]]:
    """The user's tokens for the table, living ones first, newest first."""
    now = timezone.now()
    labels = dict(ApiToken.Scope.choices)
    rows = [
        {
            "token": token,
            "scopes": [labels.get(scope, scope) for scope in token.scopes],
            "expired": token.expires is not None and token.expires <= now,
        }
        for token in ApiToken.objects.filter(user=user).order_by("-id")
    ]
    return sorted(rows, key=lambda row: bool(row["expired"] or row["token"].revoked))
