"""One of everything that the API shows, in one project."""

from __future__ import annotations

import json
from dataclasses import dataclass

from django.utils import timezone

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.prompts.models import Prompt
from labelhub.rankings.models import Ranking
from labelhub.registry.models import ModelVersion, Parent
from labelhub.rounds.models import Comparison, Round, RoundRun
from labelhub.runs.actions import take_snapshot
from labelhub.runs.gathering import import_pairs
from labelhub.runs.models import Run, RunEvent, Snapshot
from tests import factories


@dataclass
class World:
    """One of everything, in the project that ada steers."""

    project: Project
    base: ModelVersion
    policy: ModelVersion
    reward: ModelVersion
    prompt: Prompt
    ranking: Ranking
    snapshot: Snapshot
    pairs: Snapshot
    waiting: Run
    stopped: Run
    round: Round
    comparison: Comparison


def make_world(project: Project, ann: User, ada: User) -> World:
    """A ranked prompt, a snapshot of it, a waiting and a stopped run, a round, two versions."""
    base = factories.make_version("tiny-base")
    policy = factories.make_version(
        "everyday/policy-v1",
        kind="policy",
        project=project,
        number=1,
        folder="/srv/secret/place",
        metrics={"kl": 3.5},
        card="# Policy 1",
    )
    Parent.objects.create(child=policy, parent=base, role="policy")
    prompt = factories.make_prompt(project, "Why is the sky blue?")
    ranking = factories.make_ranking(factories.make_answer_set(project, prompt=prompt), ann)
    snapshot = take_snapshot(project=project, rankings=Ranking.objects.all(), by=ada)
    pair = {"prompt": "Why is grass green?", "answer": "It holds chlorophyll."}
    pairs = import_pairs(project=project, lines=[json.dumps(pair)], by=ada)
    waiting = Run.objects.create(project=project, stage="generate", created_by=ada)
    stopped = Run.objects.create(
        project=project, stage="reward", state="stopped", attempt=1, created_by=ada, output=policy
    )
    RunEvent.objects.bulk_create(
        RunEvent(
            run=stopped,
            attempt=1,
            offset=offset,
            at=timezone.now(),
            kind="metric",
            step=n,
            data={"loss": 0.5},
        )
        for n, offset in enumerate([0, 80, 160])
    )
    turn = Round.objects.create(project=project, number=1, policy_in=base, reward_base=base)
    RoundRun.objects.create(round=turn, run=stopped, stage="reward")
    reward = factories.make_version("everyday/reward-v1", kind="reward", project=project, number=1)
    factories.make_prompt(project, "Held out?", held_out=True)
    evaluation = Run.objects.create(project=project, stage="evaluate", state="finished")
    # Of the round: the same two may be compared beside it.
    comparison = Comparison.objects.create(
        project=project, round=turn, before=base, after=policy, run=evaluation, state="open"
    )
    return World(
        project, base, policy, reward, prompt, ranking, snapshot, pairs, waiting, stopped, turn,
        comparison,
    )  # fmt: skip
