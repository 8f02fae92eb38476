"""The address that invitations lead to; short, since people pass it on."""

from __future__ import annotations

from django.urls import path

from labelhub.annotate.join import join

app_name = "join"
urlpatterns = [path("<str:secret>/", join, name="join")]
