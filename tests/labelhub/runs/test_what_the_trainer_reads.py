"""What the launcher writes into a run's folder, read by the trainer's own readers.

Nothing is written here the way the trainer likes it: everything comes out of the database.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db.models import QuerySet

from labelhub.accounts.models import User
from labelhub.projects.models import Project
from labelhub.prompts.models import Prompt as StoredPrompt
from labelhub.rankings.models import Ranking as StoredRanking
from labelhub.rankings.models import RankingItem
from labelhub.runs import gathering, launcher, rules
from labelhub.runs.actions import take_snapshot
from labelhub.runs.folder import run_folder, write_lines
from labelhub.runs.models import Run, Snapshot
from tests.factories import make_answer_set, make_prompt, make_ranking, make_version
from tests.labelhub.runs.things import asked_of, kind_of, sets_of_inputs, start
from trainer.config import load_spec, resolve_path
from trainer.corpus import read_texts
from trainer.data import (
    Answer,
    Messages,
    Pair,
    Prompt,
    Ranking,
    read_answers,
    read_pairs,
    read_prompts,
    read_rankings,
)
from trainer.policy_reports import kl_curves
from trainer.stages.evaluate import read_history

pytestmark = pytest.mark.django_db

ASKED: Messages = (
    {"role": "system", "content": "简短回答。"},
    {"role": "user", "content": "Why is\u2028the sky blue?"},
)
TEXTS = ["It scatters.", "", "散射 🌈", 'Because "so".\nThat is all.']
TALES = "Once upon a time.\n\n从前有座山。\n"
STEPS = [
    {"step": 0, "kl": 0.0, "reward": -0.25, "entropy": 2.0},
    {"step": 1, "kl": 0.5, "reward": 0.5, "entropy": None},
]
READERS: dict[str, Callable[[Path], Any]] = {
    "rankings": read_rankings,
    "pairs": read_pairs,
    "prompts": read_prompts,
    "held-out prompts": read_prompts,
    "answers": read_answers,
    "text": lambda path: [one.text for one in read_texts(path, "paragraphs")],
    "report": read_history,
}


@pytest.fixture
def said(project: Project, ann: User, var: Path) -> StoredRanking:
    """ann's ranking of four answers: the third is clearly the best, two of the others tie."""
    prompt = make_prompt(project, messages=list(ASKED))
    answer_set = make_answer_set(project, prompt=prompt, answers=TEXTS)
    ranking = make_ranking(answer_set, ann, [2, 3, 1, 2])
    RankingItem.objects.filter(ranking=ranking, rank=1).update(gap=RankingItem.Gap.CLEARLY)
    answer_set.answers.update(logprob=-3.5, finished=False)
    return ranking


@pytest.fixture
def things(project: Project, said: StoredRanking, tmp_path: Path) -> dict[str, Any]:
    """One of everything, with what the trainer checks: folders that are what their hash says."""
    for name, kind in (("small", "base"), ("encoder", "encoder"), ("reward", "reward")):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(name)
        sha256 = launcher.seal_folder(folder)
        make_version(name, kind=kind, project=project, folder=str(folder), sha256=sha256)
    tales = gathering.TextFile("tales.txt", io.BytesIO(TALES.encode()))
    gathering.add_corpus(project=project, name="tales", files=[tales], by=None)
    rows: QuerySet[StoredRanking] = StoredRanking.objects.all()
    ppo = Run.objects.create(
        project=project, stage="ppo", state="finished", report={"history": STEPS}
    )
    return {
        "writer": "small", "backbone": "encoder", "reward": "reward", "tokenizer": "small",
        "rankings": take_snapshot(project=project, rankings=rows, by=None).pk,
        "pairs": gathering.take_pairs(project=project, kind="best", by=None).pk,
        "text": "tales", "report": ppo.pk, "prompts": [said.answer_set.prompt_id],
        "held-out prompts": [make_prompt(project, "Held out?", held_out=True).pk], "answers": {},
    }  # fmt: skip


def expected(said: StoredRanking) -> dict[str, Any]:
    """By kind, what the trainer should understand."""
    stored = list(said.answer_set.answers.order_by("n"))
    ids = tuple(str(one.pk) for one in stored)
    asked_by = str(said.answer_set.prompt_id)
    looked_at = StoredPrompt.objects.filter(held_out=True)
    return {
        "rankings": [
            Ranking(ASKED, ids, tuple(TEXTS), (2, 3, 1, 2), (2.0, 0.0), str(said.annotator_id), 1.0)
        ],
        "pairs": [Pair(ASKED, TEXTS[2])],
        "prompts": [Prompt(asked_by, ASKED)],
        "held-out prompts": [Prompt(str(one.pk), tuple(one.messages)) for one in looked_at],
        "answers": [Answer(str(one.pk), ASKED, one.text) for one in stored],
        "text": ["Once upon a time.", "从前有座山。"],
        "report": STEPS,
    }


def path_of(run: Run, role: str) -> Path:
    """Where the trainer finds an input in the folder of the run, its hash checked."""
    folder = launcher.prepare_folder(run)
    return resolve_path(load_spec(folder).inputs[role], folder)


@pytest.mark.parametrize(("stage", "roles", "config"), sets_of_inputs(), ids=str)
def test_each_stage_understands_all_that_it_is_given(
    project: Project,
    things: dict[str, Any],
    said: StoredRanking,
    stage: str,
    roles: tuple[str, ...],
    config: dict[str, Any],
) -> None:
    run = start(project, stage, asked_of(things, stage, roles), **config)
    wanted = expected(said)
    for role in roles:
        path = path_of(run, role)
        kind = kind_of(stage, role)
        if kind in rules.VERSION_KINDS:
            assert (path / "config.json").read_text() == things[kind]
            continue
        assert READERS[kind](path) == wanted[kind]


def ideal(project: Project, said: StoredRanking) -> Snapshot:
    StoredRanking.objects.filter(pk=said.pk).update(ideal_answer="It scatters blue most.")
    return gathering.take_pairs(project=project, kind="ideal", by=None)


def brought(project: Project, said: StoredRanking) -> Snapshot:
    line = {"prompt": list(ASKED), "answer": "It scatters blue most."}
    return gathering.import_pairs(project=project, lines=[json.dumps(line)], by=None)


def won(project: Project, said: StoredRanking) -> Snapshot:
    run = Run.objects.create(project=project, stage="bestofn", state="finished")
    line = {"id": "a", "prompt": list(ASKED), "answer": "It scatters blue most.", "score": 1.5}
    write_lines(run_folder(run.pk) / "out" / "pairs.jsonl", [line])
    return gathering.take_winners(run=run, by=None)


@pytest.mark.parametrize("pick", [ideal, brought, won])
def test_pairs_are_read_wherever_they_came_from(
    project: Project,
    things: dict[str, Any],
    said: StoredRanking,
    pick: Callable[[Project, StoredRanking], Snapshot],
) -> None:
    run = start(project, "sft", {"base": "small", "pairs": pick(project, said).pk})
    assert read_pairs(path_of(run, "pairs")) == [Pair(ASKED, "It scatters blue most.")]


def test_what_a_run_wrote_is_read_as_answers(project: Project, things: dict[str, Any]) -> None:
    wrote = Run.objects.create(project=project, stage="generate", state="finished")
    line = {"id": "7-0", "prompt_id": "7", "prompt": list(ASKED), "text": "So.", "tokens": 2}
    write_lines(run_folder(wrote.pk) / "out" / "answers.jsonl", [line])
    run = start(project, "score", {"reward": "reward", "answers": {"run": wrote.pk}})
    assert read_answers(path_of(run, "answers")) == [Answer("7-0", ASKED, "So.")]


def test_the_figures_of_a_ppo_run_become_its_curve(
    project: Project, things: dict[str, Any]
) -> None:
    roles = ("policy", "reference", "reward", "prompts", "history")
    run = start(project, "evaluate", asked_of(things, "evaluate", roles))
    curve = kl_curves(read_history(path_of(run, "history")))["reward"]
    assert [(one["kl"], one["score"]) for one in curve["points"]] == [(0.0, -0.25), (0.5, 0.5)]
