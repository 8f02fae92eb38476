"""Pages for annotators."""

from __future__ import annotations

from django.urls import path

from labelhub.annotate import views

app_name = "annotate"
urlpatterns = [
    path("", views.projects, name="projects"),
    path("<slug:slug>/next/", views.next_set, name="next"),
    path("<slug:slug>/slots/<int:slot_id>/", views.board, name="board"),
    path("<slug:slug>/slots/<int:slot_id>/skip/", views.skip, name="skip"),
    path("<slug:slug>/slots/<int:slot_id>/renew/", views.renew, name="renew"),
    path("<slug:slug>/slots/<int:slot_id>/release/", views.release, name="release"),
]
