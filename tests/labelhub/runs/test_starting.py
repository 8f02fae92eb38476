"""Starting a run of any stage: how its inputs are named, what is refused, what it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelhub.accounts.models import User
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.runs import launcher, rules
from labelhub.runs.actions import start_run
from labelhub.runs.folder import read_lines, run_folder, write_lines
from labelhub.runs.inputs import find_inputs
from labelhub.runs.models import Corpus, Run
from labelhub.runs.stages import FIRST, facts, makes, schema
from tests.factories import make_project, make_prompt, make_version
from tests.labelhub.runs.things import asked_of, make_things, sets_of_inputs, start
from trainer.config import CONFIGS

pytestmark = pytest.mark.django_db


@pytest.fixture
def things(project: Project, ann: User) -> dict[str, Any]:
    """One of everything that a stage can read, as it is named from outside."""
    return make_things(project, ann)


def test_no_input_of_a_stage_is_left_out_here() -> None:
    tried = {(stage, role) for stage, roles, _config in sets_of_inputs() for role in roles}
    assert tried == {(stage, role) for stage in CONFIGS for role in facts(stage).kinds}


# --- every stage


def test_a_run_can_be_of_every_stage_of_the_trainer() -> None:
    assert list(Run.Stage.values) == list(CONFIGS)
    assert set(FIRST) == set(CONFIGS)


@pytest.mark.parametrize("stage", CONFIGS)
def test_the_settings_that_come_first_exist(stage: str) -> None:
    assert set(FIRST[stage]) <= {knob.name for knob in facts(stage).knobs}


@pytest.mark.parametrize("stage", CONFIGS)
def test_every_input_of_a_stage_is_of_a_known_kind(stage: str) -> None:
    known = {*rules.VERSION_KINDS, *rules.SNAPSHOT_KINDS, *rules.ROW_KINDS, *rules.OTHER_KINDS}
    assert set(facts(stage).kinds.values()) <= known


@pytest.mark.parametrize("stage", CONFIGS)
def test_a_stage_describes_itself_in_json(stage: str) -> None:
    told = json.loads(json.dumps(schema(stage)))
    defaults = {name: one["default"] for name, one in told["config"]["properties"].items()}
    CONFIGS[stage].from_json(defaults)  # the schema's own defaults are taken
    assert set(told["inputs"]) == set(facts(stage).kinds)


@pytest.mark.parametrize(("stage", "roles", "config"), sets_of_inputs(), ids=str)
def test_each_stage_starts_with_each_set_of_inputs(
    project: Project,
    things: dict[str, Any],
    var: Path,
    stage: str,
    roles: tuple[str, ...],
    config: dict[str, Any],
) -> None:
    run = start(project, stage, asked_of(things, stage, roles), **config)
    folder = launcher.prepare_folder(run)
    spec = json.loads((folder / "spec.json").read_text())
    assert set(spec["inputs"]) == set(roles)
    for said in spec["inputs"].values():
        if isinstance(said, str):
            assert (folder / said).stat().st_size > 0
        else:
            assert set(said) == {"path", "sha256"}
    launcher.check_spec(stage, spec["config"], spec["inputs"], spec["seed"])


@pytest.mark.parametrize("stage", ["generate", "bestofn", "evaluate"])
def test_what_a_run_wrote_can_be_scored(
    project: Project, things: dict[str, Any], var: Path, stage: str
) -> None:
    wrote = Run.objects.create(project=project, stage=stage, state="finished")
    lines = [{"id": "a", "prompt": [{"role": "user", "content": "Why?"}], "text": "So."}]
    write_lines(run_folder(wrote.pk) / "out" / "answers.jsonl", lines)
    run = start(project, "score", {"reward": things["reward"], "answers": {"run": wrote.pk}})
    folder = launcher.prepare_folder(run)
    spec = json.loads((folder / "spec.json").read_text())
    assert list(read_lines(folder / spec["inputs"]["answers"])) == lines


@pytest.mark.parametrize(
    ("change", "asked", "words"),
    [
        ({"state": "failed"}, {}, "is no answers"),
        ({"stage": "ppo"}, {}, "is no answers"),
        ({}, {"number": 3}, "name nothing besides the run"),
        ({}, {"run": 0}, "Give a number"),
    ],
)
def test_answers_of_a_run_that_has_none_are_refused(
    project: Project,
    things: dict[str, Any],
    change: dict[str, str],
    asked: dict[str, int],
    words: str,
) -> None:
    wrote = Run.objects.create(
        **{"project": project, "stage": "generate", "state": "finished"} | change
    )
    inputs = {"reward": things["reward"], "answers": {"run": wrote.pk} | asked}
    with pytest.raises(Refused, match=words) as refusal:
        start(project, "score", inputs)
    assert refusal.value.details["role"] == "answers"


# --- what comes out


@pytest.mark.parametrize(
    ("stage", "config", "kind"),
    [
        ("pretrain", {}, "base"),
        ("pretrain", {"objective": "masked"}, "encoder"),
        ("sft", {}, "sft"),
        ("sft", {"method": "prompt"}, "sft"),
        ("reward", {}, "reward"),
        ("ppo", {}, "policy"),
        ("prefer", {"method": "rloo"}, "policy"),
        ("bestofn", {}, "policy"),
        ("generate", {}, None),
        ("evaluate", {}, None),
        ("score", {}, None),
    ],
)
def test_what_a_stage_leaves(stage: str, config: dict[str, Any], kind: str | None) -> None:
    assert rules.output_kind(stage, config) == kind
    assert (kind in makes(stage)) or (kind is None and makes(stage) == [])


# --- what is refused


@pytest.mark.parametrize(
    ("stage", "role", "said", "words"),
    [
        ("ppo", "policy", "everyday/encoder-v1", "is no policy"),
        ("ppo", "reward", "everyday/policy-v1", "is no reward"),
        ("sft", "base", "everyday/encoder-v1", "is no base"),
        ("reward", "base", "everyday/reward-v1", "is no base"),
        ("ppo", "policy", "nobody", "no model version “nobody”"),
        ("ppo", "policy", 7, "Give a name"),
        ("ppo", "policy", ["tiny-base"], "Give a name"),
        ("reward", "rankings", "one", "Give a number"),
        ("reward", "rankings", True, "Give a number"),
        ("reward", "rankings", 10**30, "Give a number"),
        ("reward", "rankings", 99_999, "no snapshot 99999"),
        ("sft", "dreams", 1, "does not read this"),
        ("ppo", "prompts", [99_999], "not in this project"),
        ("ppo", "prompts", "all", "list of numbers, or an object"),
        ("ppo", "prompts", {"colour": "red"}, "list of numbers, or an object"),
        ("ppo", "prompts", {"held_out": 1}, "list of numbers, or an object"),
        ("ppo", "prompts", {"number": 0}, "Give a number"),
        ("ppo", "prompts", {"language": "tlh"}, "no such prompt"),
        ("score", "answers", {"version": "nobody"}, "no such answer"),
        ("pretrain", "text", "nowhere", "no text “nowhere”"),
    ],
)
def test_a_wrong_input_is_refused_by_its_role(
    project: Project, things: dict[str, Any], stage: str, role: str, said: Any, words: str
) -> None:
    asked = asked_of(things, stage, CONFIGS[stage].needs[0])
    with pytest.raises(Refused, match=words) as refused:
        start(project, stage, asked | {role: said})
    assert (refused.value.details["role"], refused.value.status) == (role, 400)
    assert Run.objects.filter(state="queued").count() == 0


def test_a_snapshot_of_the_wrong_kind_is_refused(project: Project, things: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="is no pairs"):
        start(project, "sft", {"base": "tiny-base", "pairs": things["rankings"]})


@pytest.mark.parametrize("stage", ["ppo", "bestofn", "prefer"])
def test_no_policy_learns_from_a_held_out_prompt(
    project: Project, things: dict[str, Any], stage: str
) -> None:
    asked = asked_of(things, stage, ("policy", "reward"))
    held_out = make_prompt(project, held_out=True)
    for prompts in ([held_out.pk], {"held_out": True}, {}):
        with pytest.raises(Refused, match="held out"):
            start(project, stage, {**asked, "prompts": prompts}, **_only_rloo(stage))
    start(project, stage, {**asked, "prompts": {"held_out": False}}, **_only_rloo(stage))


@pytest.mark.parametrize("watched", [{}, {"held_out": False}], ids=str)
def test_no_policy_is_watched_on_prompts_that_it_learns_from(
    project: Project, things: dict[str, Any], watched: dict[str, bool]
) -> None:
    asked = asked_of(things, "ppo", ("policy", "reward", "prompts"))
    with pytest.raises(Refused, match=f"watch it on others: {things['prompts'][0]}") as refused:
        start(project, "ppo", asked | {"heldout": watched})
    assert (refused.value.details["role"], refused.value.status) == ("heldout", 400)
    start(project, "ppo", asked | {"heldout": {"held_out": True}})


def _only_rloo(stage: str) -> dict[str, str]:
    return {"method": "rloo"} if stage == "prefer" else {}


def test_what_is_another_projects_is_not_there(
    project: Project, things: dict[str, Any], mallory: User
) -> None:
    elsewhere = make_project("elsewhere", admins=[mallory])
    make_version("elsewhere/base-v1", project=elsewhere, number=1)
    with pytest.raises(Refused, match="no model version"):
        start(project, "generate", {"policy": "elsewhere/base-v1", "prompts": things["prompts"]})
    with pytest.raises(Refused, match="no snapshot"):
        start(elsewhere, "sft", {"base": "tiny-base", "pairs": things["pairs"]})
    with pytest.raises(Refused, match="no text"):
        start(elsewhere, "pretrain", {"text": "tales"})
    with pytest.raises(Refused, match="belongs to another project"):
        start_run(
            project=elsewhere, stage="pretrain", config={}, seed=0, by=None,
            inputs={"text": Corpus.objects.get()},
        )  # fmt: skip


# --- choosing


def test_prompts_are_drawn_with_the_seed_by_language_and_number(project: Project) -> None:
    zh = [make_prompt(project, language="zh").pk for _ in range(6)]
    make_prompt(project, language="en")
    make_prompt(project, language="zh", retired=True)
    make_version("tiny-base")

    def drawn(seed: int, **choice: Any) -> list[int]:
        asked = {"policy": "tiny-base", "prompts": choice}
        return find_inputs(project, "generate", asked, seed).rows["prompts"]

    assert drawn(0, language="zh") == zh
    assert drawn(0, language="zh", number=100) == zh
    three = drawn(1, language="zh", number=3)
    assert (len(three), set(three) < set(zh), drawn(1, language="zh", number=3)) == (3, True, three)
    assert {tuple(drawn(seed, language="zh", number=3)) for seed in range(5)} != {tuple(three)}
    assert len(drawn(0)) == 7
