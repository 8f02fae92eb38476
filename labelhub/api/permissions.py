"""What a token may do. Roles are asked where the project is looked up (`lookups`)."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.request import Request

from labelhub.accounts.models import ApiToken

Scope = ApiToken.Scope


class ScopeAllows(IsAuthenticated):
    """Reading needs the scope `read`; any other method the view's `write_scope`.

    A token never does more than its owner: its scopes narrow the owner's role. A browser session
    has no scopes and is bound by the role alone.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        if not super().has_permission(request, view):
            return False
        if not isinstance(request.auth, ApiToken):
            return True
        needed = scope_needed(str(request.method), view)
        self.message = _("This token lacks the scope “%(scope)s”.") % {"scope": needed}
        return needed in request.auth.scopes


def scope_needed(method: str, view: Any) -> str:
    """The scope for a method of a view; a view that only reads has no `write_scope`."""
    if method in SAFE_METHODS:
        return Scope.READ
    return str(getattr(view, "write_scope", None) or Scope.WRITE)
