"""Version 1 of the API, under /api/v1/."""

from __future__ import annotations

from django.urls import path, re_path

from labelhub.api import (
    views_comparisons,
    views_projects,
    views_registry,
    views_runs,
    views_schema,
    views_snapshots,
)

app_name = "api"
urlpatterns = [
    path("projects/", views_projects.ApiProjects.as_view(), name="projects"),
    path("projects/<slug:slug>/", views_projects.ApiProject.as_view(), name="project"),
    path(
        "projects/<slug:slug>/sft.jsonl",
        views_projects.ApiProjectSft.as_view(),
        name="project-sft",
    ),
    path(
        "projects/<slug:slug>/consensus.jsonl",
        views_projects.ApiProjectConsensus.as_view(),
        name="project-consensus",
    ),
    path("prompts/", views_projects.ApiPrompts.as_view(), name="prompts"),
    path("snapshots/", views_snapshots.ApiSnapshots.as_view(), name="snapshots"),
    path("snapshots/<int:pk>/", views_snapshots.ApiSnapshot.as_view(), name="snapshot"),
    path(
        "snapshots/<int:pk>/rankings.jsonl",
        views_snapshots.ApiSnapshotRankings.as_view(),
        name="snapshot-rankings",
    ),
    path(
        "snapshots/<int:pk>/pairs.jsonl",
        views_snapshots.ApiSnapshotPairs.as_view(),
        name="snapshot-pairs",
    ),
    path("corpora/", views_snapshots.ApiCorpora.as_view(), name="corpora"),
    path("stages/", views_runs.ApiStages.as_view(), name="stages"),
    path("runs/", views_runs.ApiRuns.as_view(), name="runs"),
    path("runs/<int:pk>/", views_runs.ApiRun.as_view(), name="run"),
    path("runs/<int:pk>/stop/", views_runs.ApiRunStop.as_view(), name="run-stop"),
    path("runs/<int:pk>/resume/", views_runs.ApiRunResume.as_view(), name="run-resume"),
    path("runs/<int:pk>/events/", views_runs.ApiRunEvents.as_view(), name="run-events"),
    path("rounds/", views_registry.ApiRounds.as_view(), name="rounds"),
    path("rounds/<int:pk>/", views_registry.ApiRound.as_view(), name="round"),
    path("comparisons/", views_comparisons.ApiComparisons.as_view(), name="comparisons"),
    path("comparisons/<int:pk>/", views_comparisons.ApiComparison.as_view(), name="comparison"),
    path(
        "comparisons/<int:pk>/close/",
        views_comparisons.ApiComparisonClose.as_view(),
        name="comparison-close",
    ),
    path("versions/", views_registry.ApiVersions.as_view(), name="versions"),
    path("versions/<int:pk>/", views_registry.ApiVersion.as_view(), name="version"),
    path("schema/", views_schema.ApiSchemaView.as_view(), name="schema"),
    path("docs/", views_schema.ApiDocsView.as_view(), name="docs"),
    # Only addresses that end in a slash: one without still gets its redirect to the one with.
    re_path(r"^(?:.*/)?$", views_schema.ApiNowhere.as_view(), name="nowhere"),
]
