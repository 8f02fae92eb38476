"""The page of one's own API tokens, under /accounts/tokens/."""

from __future__ import annotations

from django.urls import path

from labelhub.api import views_tokens

app_name = "tokens"
urlpatterns = [
    path("", views_tokens.tokens, name="tokens"),
    path("<int:pk>/revoke/", views_tokens.revoke, name="revoke"),
]
