"""Pages for annotators."""

from __future__ import annotations

from django.urls import path

from labelhub.annotate import desk, guidelines, history, me, review, seat, tutorial, views

app_name = "annotate"
urlpatterns = [
    path("", desk.projects, name="projects"),
    path("<slug:slug>/next/", desk.next_set, name="next"),
    path("<slug:slug>/guidelines/", guidelines.guidelines, name="guidelines"),
    path("<slug:slug>/tutorial/", tutorial.tutorial, name="tutorial"),
    path("<slug:slug>/tutorial/<int:slot_id>/", tutorial.tutorial_set, name="tutorial-set"),
    path("<slug:slug>/tutorial/<int:slot_id>/lesson/", tutorial.lesson, name="lesson"),
    path("<slug:slug>/review/", review.review, name="review"),
    path("<slug:slug>/review/<int:slot_id>/", review.review_set, name="review-set"),
    path("<slug:slug>/me/", me.me, name="me"),
    path("<slug:slug>/history/", history.history, name="history"),
    path("<slug:slug>/history/<int:ranking_id>/", history.ranking, name="ranking"),
    path("<slug:slug>/history/<int:ranking_id>/correct/", history.correct, name="correct"),
    path("<slug:slug>/slots/<int:slot_id>/", views.board, name="board"),
    path("<slug:slug>/slots/<int:slot_id>/skip/", views.skip, name="skip"),
    path("<slug:slug>/slots/<int:slot_id>/flag/", views.flag, name="flag"),
    path("<slug:slug>/slots/<int:slot_id>/renew/", views.renew, name="renew"),
    path("<slug:slug>/slots/<int:slot_id>/ahead/", views.ahead, name="ahead"),
    path("<slug:slug>/slots/<int:slot_id>/release/", views.release, name="release"),
    # one's own seat
    path("<slug:slug>/hand-back/", seat.hand_back, name="hand-back"),
    path("<slug:slug>/pause/", seat.pause, name="pause"),
    path("<slug:slug>/resume/", seat.resume, name="resume"),
    path("<slug:slug>/leave/", seat.leave, name="leave"),
]
