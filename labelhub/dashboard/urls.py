"""Addresses of the dashboard. What ends in `live/` answers with a part of a page."""

from django.urls import path

from labelhub.dashboard import posts, views

app_name = "dashboard"

_PROJECT = "<slug:slug>/"
_ROUND = _PROJECT + "rounds/<int:number>/"
_RUN = _PROJECT + "runs/<int:run_id>/"

urlpatterns = [
    path("", views.home, name="home"),
    path("live/", views.home_live, name="home-live"),
    path("new/", posts.new_project, name="new"),
    path(_PROJECT, views.project, name="project"),
    path(_PROJECT + "live/", views.project_live, name="project-live"),
    path(_PROJECT + "people/", views.people, name="people"),
    path(_PROJECT + "prompts/", views.prompts, name="prompts"),
    path(_PROJECT + "guidelines/", views.guidelines, name="guidelines"),
    path(_PROJECT + "versions/", views.versions, name="versions"),
    path(_PROJECT + "versions/<int:version_id>/", views.version, name="version"),
    path(_PROJECT + "runs/", views.runs, name="runs"),
    path(_RUN, views.run, name="run"),
    path(_RUN + "live/", views.run_live, name="run-live"),
    path(_ROUND, views.round_page, name="round"),
    path(_ROUND + "live/", views.round_live, name="round-live"),
    # what is sent
    path(_PROJECT + "rounds/start/", posts.start, name="start"),
    path(_ROUND + "<slug:action>/", posts.act_on_round, name="act"),
    path(_RUN + "<slug:action>/", posts.act_on_run, name="act-run"),
    path(_PROJECT + "people/add/", posts.seat_member, name="add-member"),
    path(_PROJECT + "prompts/import/", posts.bring_prompts, name="import-prompts"),
    path(_PROJECT + "prompts/hold-out/", posts.keep_prompts, name="hold-out"),
    path(_PROJECT + "guidelines/publish/", posts.publish, name="publish-guidelines"),
    path(_PROJECT + "versions/<int:version_id>/promote/", posts.make_live, name="make-live"),
]
