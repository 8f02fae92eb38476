"""What people ask for about accounts and tokens; every write leaves an audit line."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from labelhub.accounts import rules
from labelhub.accounts.models import ApiToken, AuditEntry, User


def audit(*, by: User | None, action: str, target: object, **details: Any) -> None:
    """Write one line of the audit log; call it inside the transaction of the write it speaks of."""
    AuditEntry.objects.create(
        actor=by if by and by.pk else None,
        actor_name=by.get_username() if by else "system",
        action=action,
        target=_name(target),
        details=details,
    )


def _name(target: object) -> str:
    key = getattr(target, "pk", None)
    kind = type(target).__name__.lower()
    return f"{kind}:{key}" if key is not None else str(target)[:120]


@transaction.atomic
def create_user(
    *,
    username: str,
    password: str | None,
    by: User | None,
    is_superuser: bool = False,
    is_simulated: bool = False,
    one_time: bool = True,
) -> User:
    """Make an account. Without a password nobody can sign in with it (simulated annotators)."""
    user = User(
        username=username,
        is_superuser=is_superuser,
        is_staff=is_superuser,
        is_simulated=is_simulated,
        must_change_password=one_time and password is not None,
    )
    user.set_password(password)
    user.save()
    audit(
        by=by,
        action="user.create",
        target=user,
        username=username,
        simulated=is_simulated,
    )
    return user


@transaction.atomic
def change_password(*, user: User, password: str) -> None:
    """Set a password of the person's own."""
    user.set_password(password)
    user.must_change_password = False
    user.save(update_fields=["password", "must_change_password"])
    audit(by=user, action="user.change_password", target=user)


def set_preferences(*, user: User, language: str | None = None, theme: str | None = None) -> None:
    """Remember language and theme; a matter of taste, so the audit log does not hear of it."""
    if language is not None:
        user.language = language
    if theme is not None:
        user.theme = theme
    user.save(update_fields=["language", "theme"])


@transaction.atomic
def create_token(
    *,
    user: User,
    name: str,
    scopes: list[str],
    by: User,
    expires: datetime | None = None,
) -> tuple[ApiToken, str]:
    """Make an API token; the secret is returned this once and never again."""
    secret = rules.new_secret()
    token = ApiToken.objects.create(
        user=user,
        name=name,
        prefix=rules.shown_prefix(secret),
        sha256=rules.token_hash(secret),
        scopes=sorted(set(scopes)),
        expires=expires,
    )
    audit(by=by, action="token.create", target=token, scopes=token.scopes)
    return token, secret


@transaction.atomic
def revoke_token(*, token: ApiToken, by: User) -> None:
    """End a token at once."""
    token.revoked = timezone.now()
    token.save(update_fields=["revoked"])
    audit(by=by, action="token.revoke", target=token)


def use_token(*, secret: str) -> ApiToken | None:
    """Find the living token behind a secret, and note at most once a minute that it was used."""
    now = timezone.now()
    token = (
        ApiToken.objects.select_related("user")
        .filter(sha256=rules.token_hash(secret), revoked__isnull=True, user__is_active=True)
        .filter(Q(expires__isnull=True) | Q(expires__gt=now))
        .first()
    )
    if token and (token.last_used is None or token.last_used < now - timedelta(minutes=1)):
        ApiToken.objects.filter(pk=token.pk).update(last_used=now)
    return token
