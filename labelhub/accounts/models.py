"""Who may do what: users, API tokens and the audit log."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils.translation import gettext_lazy as _


class User(AbstractUser):
    """A person, or a simulated annotator (which can never sign in)."""

    class Theme(models.TextChoices):
        SYSTEM = "", _("as the system says")
        LIGHT = "light", _("light")
        DARK = "dark", _("dark")

    language = models.CharField(max_length=10, blank=True)
    theme = models.CharField(max_length=5, blank=True, choices=Theme.choices, default=Theme.SYSTEM)
    # Simulated annotators are marked for good: their rankings never pass for people's.
    is_simulated = models.BooleanField(default=False)
    # A password given out by a machine must be changed at the first sign-in.
    must_change_password = models.BooleanField(default=False)

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(
                condition=models.Q(is_simulated=False)
                | models.Q(is_superuser=False, is_staff=False),
                name="simulated_users_have_no_power",
            ),
        ]


class ApiToken(models.Model):
    """A program's key. Only its hash is kept; the prefix lets its owner recognise it."""

    class Scope(models.TextChoices):
        READ = "read", _("read")
        RUN = "run", _("start and stop runs")
        WRITE = "write", _("import prompts")

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    prefix = models.CharField(max_length=12)
    sha256 = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list)
    created = models.DateTimeField(auto_now_add=True)
    last_used = models.DateTimeField(null=True, blank=True)
    expires = models.DateTimeField(null=True, blank=True)
    revoked = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.prefix}… {self.name}"


class AuditEntry(models.Model):
    """One line of the audit log. A trigger in the database refuses to change or remove it."""

    at = models.DateTimeField(auto_now_add=True, db_index=True)
    # The name is kept beside the key, so that the line still speaks when the account is gone.
    actor = models.ForeignKey(
        User,
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="+",
    )
    actor_name = models.CharField(max_length=150)
    action = models.CharField(max_length=60, db_index=True)
    target = models.CharField(max_length=120)
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.actor_name} {self.action} {self.target}"
