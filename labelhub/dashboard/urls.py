"""Addresses of the dashboard. What ends in `live/` answers with a part of a page."""

from django.urls import path

from labelhub.dashboard import (
    comparisons,
    gold,
    people,
    posts,
    project_settings,
    quality,
    reports,
    starting,
    views,
)

app_name = "dashboard"

_PROJECT = "<slug:slug>/"
_ROUND = _PROJECT + "rounds/<int:number>/"
_RUN = _PROJECT + "runs/<int:run_id>/"
_COMPARISON = _PROJECT + "comparisons/<int:comparison_id>/"
_MEMBER = _PROJECT + "people/<int:membership_id>/"
_INVITATION = _PROJECT + "people/invitations/<int:invitation_id>/"

urlpatterns = [
    path("", views.home, name="home"),
    path("live/", views.home_live, name="home-live"),
    path("new/", posts.new_project, name="new"),
    path(_PROJECT, views.project, name="project"),
    path(_PROJECT + "live/", views.project_live, name="project-live"),
    path(_PROJECT + "prompts/", views.prompts, name="prompts"),
    path(_PROJECT + "guidelines/", views.guidelines, name="guidelines"),
    path(_PROJECT + "versions/", views.versions, name="versions"),
    path(_PROJECT + "versions/<int:version_id>/", views.version, name="version"),
    path(_PROJECT + "runs/", views.runs, name="runs"),
    path(_PROJECT + "runs/new/", starting.stages, name="stages"),
    path(_PROJECT + "runs/new/<slug:stage>/", starting.new_run, name="new-run"),
    path(_RUN, views.run, name="run"),
    path(_RUN + "files/<str:name>", starting.run_file, name="run-file"),
    path(_RUN + "live/", views.run_live, name="run-live"),
    path(_ROUND, views.round_page, name="round"),
    path(_ROUND + "live/", views.round_live, name="round-live"),
    # what is sent
    path(_PROJECT + "rounds/start/", posts.start, name="start"),
    path(_ROUND + "<slug:action>/", posts.act_on_round, name="act"),
    path(_RUN + "<slug:action>/", posts.act_on_run, name="act-run"),
    path(_PROJECT + "prompts/import/", posts.bring_prompts, name="import-prompts"),
    path(_PROJECT + "prompts/hold-out/", posts.keep_prompts, name="hold-out"),
    path(_PROJECT + "guidelines/publish/", posts.publish, name="publish-guidelines"),
    path(_PROJECT + "versions/<int:version_id>/promote/", posts.make_live, name="make-live"),
    # what runs learn from
    path(_PROJECT + "data/", starting.data, name="data"),
    path(_PROJECT + "data/take/<slug:kind>/", starting.take, name="take-snapshot"),
    path(_PROJECT + "data/pairs/", starting.bring_pairs, name="bring-pairs"),
    path(_PROJECT + "data/text/", starting.bring_text, name="bring-text"),
    path(_PROJECT + "data/text/<str:name>/", starting.bring_named, name="bring-named"),
    # people
    path(_PROJECT + "people/", people.people, name="people"),
    path(_PROJECT + "people/add/", people.seat_member, name="add-member"),
    path(_PROJECT + "people/invite/", people.invite, name="invite"),
    path(_INVITATION + "revoke/", people.revoke, name="revoke-invitation"),
    path(_PROJECT + "people/data/<int:user_id>/", people.person_data, name="person-data"),
    path(_MEMBER, people.member, name="member"),
    path(_MEMBER + "change/", people.change_member, name="change-member"),
    path(_MEMBER + "remove/", people.remove_member, name="remove-member"),
    path(_MEMBER + "assign/", people.assign, name="assign"),
    *(
        path(f"{_MEMBER}{action}/", people.act_on_member, {"action": action}, name=name)
        for action, name in (
            ("pause", "pause-member"),
            ("resume", "resume-member"),
            ("unassign", "unassign"),
        )
    ),
    # settings
    path(_PROJECT + "settings/", project_settings.settings, name="settings"),
    path(_PROJECT + "settings/pause/", project_settings.switch, {"paused": True}, name="pause"),
    path(
        _PROJECT + "settings/unpause/", project_settings.switch, {"paused": False}, name="unpause"
    ),
    # blind comparisons
    path(_PROJECT + "comparisons/", comparisons.comparisons, name="comparisons"),
    path(_PROJECT + "comparisons/start/", comparisons.start, name="start-comparison"),
    path(_COMPARISON, comparisons.comparison, name="comparison"),
    path(_COMPARISON + "live/", comparisons.comparison_live, name="comparison-live"),
    path(_COMPARISON + "close/", comparisons.close, name="close-comparison"),
    # known rankings
    path(_PROJECT + "gold/", gold.gold, name="gold"),
    path(_PROJECT + "gold/import/", gold.import_gold, name="import-gold"),
    path(_PROJECT + "gold/from/<int:answer_set_id>/", gold.gold_from, name="gold-from"),
    path(_PROJECT + "gold/<int:gold_id>/retire/", gold.retire_gold, name="retire-gold"),
    # what waits for an admin's eye
    path(_PROJECT + "reports/", reports.reports, name="reports"),
    path(
        _PROJECT + "reports/<slug:kind>/<int:row_id>/<slug:action>/",
        reports.act_on_report,
        name="act-on-report",
    ),
    # quality
    path(_PROJECT + "quality/", quality.quality, name="quality"),
    path(_PROJECT + "quality/live/", quality.quality_live, name="quality-live"),
    path(_PROJECT + "quality/people/<int:user_id>/", quality.person, name="quality-person"),
    path(_PROJECT + "quality/measure/", quality.measure, name="measure-quality"),
    path(_PROJECT + "quality/consensus.jsonl", quality.consensus, name="consensus"),
]
