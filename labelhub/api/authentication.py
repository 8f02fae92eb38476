"""Token authentication: `Authorization: Bearer lh_…`. Only the token's hash is stored."""

from __future__ import annotations

from django.utils.translation import gettext as _
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from labelhub.accounts.actions import use_token
from labelhub.accounts.models import ApiToken, User


class TokenAuthentication(BaseAuthentication):
    """`request.auth` is the ApiToken, whose scopes the permission classes read."""

    keyword = "Bearer"

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        parts = get_authorization_header(request).decode("latin-1").split()
        if not parts or parts[0].lower() != self.keyword.lower():
            return None
        if len(parts) != 2:
            raise AuthenticationFailed(_("Write the header as: Authorization: Bearer TOKEN."))
        token = use_token(secret=parts[1])
        if token is None:
            raise AuthenticationFailed(_("This token is unknown, expired or revoked."))
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return self.keyword
