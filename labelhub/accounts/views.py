"""Sign in and out, a password of one's own, language and theme. All of it plain forms."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm, SetPasswordForm
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from labelhub.accounts import actions, queries
from labelhub.accounts.forms import PreferencesForm
from labelhub.accounts.http import PersonRequest
from labelhub.accounts.models import User

YEAR = 60 * 60 * 24 * 365


@login_required
def home(request: PersonRequest) -> HttpResponse:
    """Show everybody the door that is theirs: those who steer a project see its dashboard first."""
    steers = queries.steers_any_project(request.user)
    return redirect("dashboard:home" if steers else "annotate:projects")


class SignIn(LoginView):
    """The sign-in page; a browser that is new to the person learns their language."""

    template_name = "accounts/login.html"
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Sign in, then speak the person's language."""
        response = super().form_valid(form)
        user = form.get_user()
        if isinstance(user, User) and user.language:
            _speak(response, user.language)
        return response


@sensitive_post_parameters()
@login_required
def password(request: PersonRequest) -> HttpResponse:
    """Choose a password of one's own; a one-time password, just typed, is not asked for again."""
    user, one_time = request.user, request.user.must_change_password
    form_class = SetPasswordForm if one_time else PasswordChangeForm
    form = form_class(user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        actions.change_password(user=user, password=form.cleaned_data["new_password1"])
        update_session_auth_hash(request, user)
        messages.success(request, _("Your new password is set."))
        return redirect("home")
    context = {"form": form, "one_time": one_time}
    return render(request, "accounts/password.html", context, status=422 if form.errors else 200)


@require_POST
def preferences(request: HttpRequest) -> HttpResponse:
    """Change language or theme and go back to the page where that was asked."""
    response = redirect(_way_back(request))
    form = PreferencesForm(request.POST)
    if not form.is_valid():
        messages.error(request, _("There is no such language or theme: choose one from the bar."))
        return response
    language, theme = form.cleaned_data["language"], form.cleaned_data["theme"]
    if isinstance(request.user, User):
        actions.set_preferences(user=request.user, language=language or None, theme=theme)
    if language:
        _speak(response, language)
    return response


def _way_back(request: HttpRequest) -> str:
    """The page named by `next` if it is one of ours (an open redirect would serve phishers)."""
    back = request.POST.get("next", "")
    ours = url_has_allowed_host_and_scheme(
        back, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return back if ours else reverse("home")


def _speak(response: HttpResponse, language: str) -> None:
    """Remember the language in the cookie that LocaleMiddleware reads."""
    response.set_cookie(
        settings.LANGUAGE_COOKIE_NAME,
        language,
        max_age=YEAR,
        samesite="Lax",
        httponly=True,
        secure=settings.SESSION_COOKIE_SECURE,
    )
