"""Starting a stage by its form, and bringing what it learns from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import translation

from labelhub.accounts.models import User
from labelhub.dashboard.forms_runs import INPUT, ROLES, SETTING, RunForm
from labelhub.projects.models import Project
from labelhub.registry.models import LivePolicy
from labelhub.runs.folder import run_folder, write_lines
from labelhub.runs.models import Corpus, Run, Snapshot
from labelhub.runs.stages import facts
from tests import factories
from trainer.config import CONFIGS

pytestmark = pytest.mark.django_db
Clients = dict[str, Client]


@pytest.fixture
def stocked(project: Project, ann: User) -> Project:
    """A project that has something in every role."""
    factories.make_version("tiny-base")
    for kind in ("policy", "reward", "encoder"):
        factories.make_version(f"everyday/{kind}-v1", kind=kind, project=project, number=1)
    factories.make_ranking(factories.make_answer_set(project), ann)
    factories.make_prompt(project, held_out=True)
    Corpus.objects.create(project=project, name="tales", files=1, size=1, folder="f", sha256="0")
    return project


def address(stage: str) -> str:
    return reverse("dashboard:new-run", args=["everyday", stage])


def as_sent(project: Project, stage: str, **changes: Any) -> dict[str, Any]:
    """What a browser sends when nothing but `changes` was touched."""
    form = RunForm(project, stage)
    sent: dict[str, Any] = {}
    for name in form.fields:
        value = form[name].initial
        if value is not None and value is not False and value != "":
            sent[name] = "on" if value is True else value
    sent |= changes
    return {name: value for name, value in sent.items() if value is not None}


def freeze(client: Client, kind: str) -> Snapshot:
    client.post(reverse("dashboard:take-snapshot", args=["everyday", kind]))
    return Snapshot.objects.latest("pk")


# --- the form is the trainer's own settings


@pytest.mark.parametrize("stage", CONFIGS)
def test_every_setting_and_input_has_its_field(stocked: Project, stage: str) -> None:
    form = RunForm(stocked, stage)
    knobs = {SETTING + knob.name for knob in facts(stage).knobs}
    roles = {INPUT + role for role in facts(stage).kinds}
    assert knobs | roles | {"seed"} <= set(form.fields)
    assert {field.name for field in (*form.first(), *form.more())} == knobs
    assert set(facts(stage).kinds) <= set(ROLES)


@pytest.mark.parametrize("stage", CONFIGS)
def test_the_form_as_it_comes_asks_for_the_defaults(
    stocked: Project, clients: Clients, stage: str
) -> None:
    for kind in ("rankings", "best"):
        freeze(clients["ada"], kind)
    page = clients["ada"].get(address(stage))
    assert page.status_code == 200
    response = clients["ada"].post(address(stage), as_sent(stocked, stage))
    run = Run.objects.first()
    assert run is not None, response.context["form"].errors
    assert response["Location"] == reverse("dashboard:run", args=["everyday", run.pk])
    assert (run.stage, run.config, run.seed) == (stage, {}, 0)


def test_help_is_in_the_readers_language(stocked: Project) -> None:
    with translation.override("zh-hans"):
        hint = RunForm(stocked, "sft")[SETTING + "method"].help_text
    assert hint.startswith("lora：")


# --- what is sent


def test_what_was_changed_is_asked_for_and_nothing_else(stocked: Project, clients: Clients) -> None:
    changes = {
        "set_steps": "3", "set_kl_coef": "0.1", "set_lora": None, "seed": "7",
        "input_prompts": "free", "input_prompts_number": "1",
    }  # fmt: skip
    sent = as_sent(stocked, "ppo", **changes)
    clients["ada"].post(address("ppo"), sent)
    run = Run.objects.get()
    assert run.config == {"steps": 3, "kl_coef": 0.1, "lora": False}
    assert (run.seed, len(run.data["prompts"])) == (7, 1)
    assert {link.role: str(link.thing) for link in run.inputs.all()} == {
        "policy": "everyday/policy-v1",
        "reward": "everyday/reward-v1",
    }


@pytest.mark.parametrize(
    ("stage", "field", "value", "words"),
    [
        ("ppo", "set_steps", "0", "give 1 or more"),
        ("ppo", "set_steps", "two", "give a whole number"),
        ("ppo", "set_steps", "1.5", "give a whole number"),
        ("ppo", "set_steps", "9" * 30, "give 2147483647 or less"),
        ("ppo", "set_lr", "nan", "give a number"),
        ("ppo", "set_kl_control", "magic", "magic"),
        ("ppo", "set_episodes_per_step", "7", "multiple of config.answers_per_prompt"),
        ("ppo", "input_policy", "nobody", "nobody"),
        ("ppo", "input_prompts", "held_out", "held out"),
        ("ppo", "input_prompts_ids", "1, two", "whole numbers"),
        ("ppo", "input_prompts_ids", "999999", "not in this project"),
        ("ppo", "seed", "-1", "0"),
    ],
)
def test_a_wrong_value_comes_back_beside_its_field_and_nothing_is_lost(
    stocked: Project, clients: Clients, stage: str, field: str, value: str, words: str
) -> None:
    sent = as_sent(stocked, stage, set_temperature="0.5", **{field: value})
    if field == "input_prompts_ids":
        sent["input_prompts"] = ""
    response = clients["ada"].post(address(stage), sent)
    assert response.status_code == 400
    form = response.context["form"]
    named = "input_prompts" if value == "999999" else field
    assert words in " ".join(form.errors[named])
    assert "spec.json" not in " ".join(form.errors[named])
    assert form["set_temperature"].value() == "0.5"
    assert form[field].value() == value
    assert not Run.objects.exists()


# What was changed, the field that it comes back at, the sentence there: English, 简体中文.
CONTRADICTIONS: list[tuple[str, dict[str, str], str, str, str]] = [
    ("prefer", {"input_reward": "everyday/reward-v1"}, "input_reward",
     "the method dpo does not read the input reward; leave it out.",
     "方法 dpo 不读取输入 reward；"),
    ("prefer", {"set_method": "rloo"}, "input_reward",
     "the method rloo misses the input reward, prompts;", "方法 rloo 缺少输入 reward, prompts；"),
    ("ppo", {"set_ptx_coef": "0.5"}, "input_pairs", "there are no pairs to go on learning from;",
     "没有可继续学习的问答对；"),
    ("ppo", {"input_pairs": "PAIRS"}, "input_pairs", "would have no effect", "不会起作用"),
    ("evaluate", {"input_policy": "tiny-base"}, "input_policy", "a reward model is tested",
     "测试的是奖励模型"),
    ("sft", {"set_micro_batch_size": "3"}, "set_batch_size",
     "give a multiple of config.micro_batch_size (3).", "config.micro_batch_size（3）的倍数"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "changes", "field", "english", "chinese"), CONTRADICTIONS)
def test_settings_and_inputs_that_contradict_each_other_are_refused_at_the_field(
    stocked: Project, clients: Clients, stage: str, changes: dict[str, str], field: str,
    english: str, chinese: str,
) -> None:  # fmt: skip
    freeze(clients["ada"], "rankings")
    pairs = freeze(clients["ada"], "best")
    changes = {name: value.replace("PAIRS", str(pairs.pk)) for name, value in changes.items()}
    for language, words in (("en", english), ("zh-hans", chinese)):
        response = clients["ada"].post(
            address(stage), as_sent(stocked, stage, **changes), HTTP_ACCEPT_LANGUAGE=language
        )
        assert response.status_code == 400
        (said,) = response.context["form"].errors[field]
        assert words in said
        assert "spec.json" not in said
    assert not Run.objects.exists()


def test_a_mistake_behind_more_settings_opens_them(stocked: Project, clients: Clients) -> None:
    page = clients["ada"].post(address("ppo"), as_sent(stocked, "ppo", set_gamma="2"))
    assert b'<details id="more-settings" open>' in page.content


def test_what_is_missing_is_said_beside_its_field(project: Project, clients: Clients) -> None:
    factories.make_version("tiny-base")
    response = clients["ada"].post(address("sft"), {"seed": "0"})
    assert response.status_code == 400
    errors = response.context["form"].errors
    assert set(errors) == {"input_base", "input_pairs"}
    assert "choose one" in errors["input_base"][0]
    assert "there is none yet" in errors["input_pairs"][0]


def test_of_several_sets_of_inputs_the_nearest_is_asked_for(
    stocked: Project, clients: Clients
) -> None:
    chosen = {"input_policy": "tiny-base", "input_reward": "everyday/reward-v1"}
    response = clients["ada"].post(address("prefer"), {"seed": "0", "set_method": "rloo", **chosen})
    # Of dpo only the rankings are missing, too; but more of what rloo reads is there.
    assert set(response.context["form"].errors) == {"input_prompts"}


def test_a_field_that_is_wrong_is_not_also_missing(stocked: Project, clients: Clients) -> None:
    wrong = {"input_policy": "tiny-base", "input_prompts_ids": "one", "seed": "0"}
    errors = clients["ada"].post(address("generate"), wrong).context["form"].errors
    assert set(errors) == {"input_prompts_ids"}


def test_the_settings_of_the_machine_come_last(stocked: Project) -> None:
    names = [field.name for field in RunForm(stocked, "ppo").more()]
    assert {"set_threads", "set_device"} <= set(names[-6:])
    assert "set_lr" in names[:12]


def test_no_such_stage_no_such_page(stocked: Project, clients: Clients) -> None:
    assert clients["ada"].get(address("dream")).status_code == 404


# --- from a thing to the forms that can take it


def starts(page: Any) -> dict[str, str]:
    """The links of a page to forms, by stage and role."""
    return {f"{link.stage.value} {link.role}": link.url for link in page.context["starts"]}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("base", {"pretrain Tokenizer of", "sft Base", "generate Policy", "reward Base",
                  "ppo Policy", "prefer Policy", "bestofn Policy", "evaluate Policy"}),
        ("encoder", {"pretrain Tokenizer of", "reward Base"}),
        ("reward", {"ppo Reward model", "prefer Reward model", "bestofn Reward model",
                    "evaluate Reward model", "score Reward model"}),
    ],
)  # fmt: skip
def test_a_version_leads_to_the_forms_that_can_take_it_with_itself_chosen(
    stocked: Project, clients: Clients, kind: str, expected: set[str]
) -> None:
    version = factories.make_version(f"everyday/{kind}-v9", kind=kind, project=stocked, number=9)
    page = clients["ada"].get(reverse("dashboard:version", args=["everyday", version.pk]))
    found = starts(page)
    assert set(found) == expected
    for url in found.values():
        assert url.replace("&", "&amp;") in page.content.decode()
        form = clients["ada"].get(url).context["form"]
        assert version.name in [field.initial for group in form.read() for field in group]


def test_a_reward_model_begins_the_method_that_reads_it(stocked: Project, clients: Clients) -> None:
    freeze(clients["ada"], "rankings")
    form = clients["ada"].get(address("prefer"), {"input_reward": "everyday/reward-v1"})
    sent = as_sent(stocked, "prefer") | {
        field.name: field.initial or ""
        for group in (*form.context["form"].read(), form.context["form"].first())
        for field in group
    }
    assert clients["ada"].post(address("prefer"), sent).status_code == 302
    run = Run.objects.get()
    assert run.config == {"method": "rloo"}
    assert set(run.inputs.values_list("role", flat=True)) == {"policy", "reward"}


def test_a_policy_is_evaluated_against_the_live_one(stocked: Project) -> None:
    live = factories.make_version("everyday/policy-v2", kind="policy", project=stocked, number=2)
    LivePolicy.objects.create(project=stocked, version=live)
    form = RunForm(stocked, "evaluate", initial={"input_reference": live.name})
    assert form["input_policy"].initial == "everyday/policy-v1"
    assert (form["input_reference"].initial, form["input_rankings"].initial) == (live.name, "")


def test_frozen_data_and_reports_lead_on_too(stocked: Project, clients: Clients) -> None:
    for kind in ("rankings", "best"):
        freeze(clients["ada"], kind)
    page = clients["ada"].get(reverse("dashboard:data", args=["everyday"]))
    found = [
        (link.stage.value, str(link.role), link.url.partition("?")[2])
        for _thing, links in (*page.context["snapshots"], *page.context["corpora"])
        for link in links
    ]
    pairs, rankings = Snapshot.objects.order_by("-pk")
    assert found == [
        ("sft", "Pairs", f"input_pairs={pairs.pk}"),
        ("reward", "Rankings", f"input_rankings={rankings.pk}"),
        ("prefer", "Rankings", f"input_rankings={rankings.pk}"),
        ("evaluate", "Rankings", f"input_rankings={rankings.pk}"),
        ("pretrain", "Text", "input_text=tales"),
    ]
    ppo = Run.objects.create(project=stocked, stage="ppo", state="finished")
    page = clients["ada"].get(reverse("dashboard:run", args=["everyday", ppo.pk]))
    assert list(starts(page)) == ["evaluate Figures of a PPO run"]
    ppo.state = "failed"
    ppo.save()
    page = clients["ada"].get(reverse("dashboard:run", args=["everyday", ppo.pk]))
    assert starts(page) == {}


def test_winners_are_kept_from_the_page_of_their_run(
    stocked: Project, clients: Clients, var: Path
) -> None:
    run = Run.objects.create(project=stocked, stage="bestofn", state="finished")
    winner = {"prompt": [{"role": "user", "content": "Why?"}], "answer": "So.", "id": "a"}
    write_lines(run_folder(run.pk) / "out" / "pairs.jsonl", [winner])
    where = reverse("dashboard:act-run", args=["everyday", run.pk, "winners"])
    assert where in clients["ada"].get(f"/dashboard/everyday/runs/{run.pk}/").content.decode()
    page = clients["ada"].post(where, follow=True)
    snapshot = Snapshot.objects.get()
    assert (
        f"{reverse('dashboard:new-run', args=['everyday', 'sft'])}?input_pairs={snapshot.pk}"
        in (page.content.decode())
    )
    assert where not in page.content.decode()  # once is enough


def test_the_answers_of_a_run_are_scored_from_its_page(stocked: Project, clients: Clients) -> None:
    wrote = Run.objects.create(project=stocked, stage="generate", state="finished")
    page = clients["ada"].get(reverse("dashboard:run", args=["everyday", wrote.pk]))
    (url,) = starts(page).values()
    form = clients["ada"].get(url).context["form"]
    assert form["input_answers"].value() == f"run:{wrote.pk}"
    sent = as_sent(stocked, "score", input_answers=f"run:{wrote.pk}")
    assert clients["ada"].post(address("score"), sent).status_code == 302
    run = Run.objects.latest("pk")
    assert run.inputs.get(role="answers").source == wrote
    again = clients["ada"].get(address("score"), {"from": run.pk}).context["form"]
    assert again["input_answers"].value() == f"run:{wrote.pk}"


def test_a_link_to_a_thing_of_another_project_leads_nowhere(
    stocked: Project, clients: Clients, mallory: User
) -> None:
    other = factories.make_project("elsewhere", admins=[mallory])
    factories.make_version("elsewhere/policy-v1", kind="policy", project=other, number=1)
    for query in ({"input_base": "elsewhere/policy-v1"}, {"input_pairs": "99"}):
        assert clients["ada"].get(address("sft"), query).status_code == 404
    assert clients["ada"].get(address("sft"), {"utm": "x", "set_lr": "0.1"}).status_code == 200


# --- again


def test_the_same_again_begins_with_what_the_run_had(stocked: Project, clients: Clients) -> None:
    prompt = stocked.prompts.filter(held_out=False).first()
    assert prompt is not None
    changes = {
        "set_steps": "3", "set_lora": None, "seed": "7", "input_policy": "tiny-base",
        "input_prompts": "", "input_prompts_ids": str(prompt.pk),
    }  # fmt: skip
    clients["ada"].post(address("ppo"), as_sent(stocked, "ppo", **changes))
    first = Run.objects.get()
    form = clients["ada"].get(address("ppo"), {"from": first.pk}).context["form"]
    again = {
        name: "on" if form[name].value() is True else form[name].value()
        for name in form.fields
        if form[name].value() is not False and form[name].value() not in (None, "")
    }
    clients["ada"].post(address("ppo"), again)
    second = Run.objects.latest("pk")
    assert second.pk != first.pk
    assert (second.config, second.seed, second.data) == (first.config, 7, first.data)
    assert set(second.inputs.values_list("role", "version")) == set(
        first.inputs.values_list("role", "version")
    )


# --- what runs learn from


def test_rankings_and_best_answers_are_frozen_by_a_button(
    stocked: Project, clients: Clients
) -> None:
    assert freeze(clients["ada"], "rankings").holds == "rankings"
    assert freeze(clients["ada"], "best").holds == "pairs"
    page = clients["ada"].get(reverse("dashboard:data", args=["everyday"]))
    assert "best answers of the rankings" in page.content.decode()
    ideal = clients["ada"].post(
        reverse("dashboard:take-snapshot", args=["everyday", "ideal"]), follow=True
    )
    assert "Nobody wrote an ideal answer yet." in ideal.content.decode()
    assert Snapshot.objects.count() == 2


def test_pairs_are_brought_and_a_wrong_line_is_named(project: Project, clients: Clients) -> None:
    where = reverse("dashboard:bring-pairs", args=["everyday"])
    pair = json.dumps({"prompt": "Why?", "answer": "Because."})
    assert clients["ada"].post(where, {"text": pair}).status_code == 302
    assert Snapshot.objects.get().kind == "file"
    wrong = clients["ada"].post(where, {"text": f"{pair}\n{{}}"})
    assert wrong.status_code == 400
    assert "Line 2:" in wrong.content.decode()


def test_files_of_text_are_brought_under_one_name(
    project: Project, clients: Clients, var: Path
) -> None:
    where = reverse("dashboard:bring-text", args=["everyday"])
    files = [SimpleUploadedFile(f"{n}.txt", b"Once upon a time.") for n in range(2)]
    response = clients["ada"].post(where, {"name": "tales", "texts": files})
    assert response.status_code == 302
    assert (Corpus.objects.get().files, Corpus.objects.get().size) == (2, 34)
    for sent in ({"name": "more"}, {"name": "tales", "texts": files[:1]}):
        assert clients["ada"].post(where, sent).status_code == 400


# --- lists and files


def test_the_list_of_runs_is_narrowed(project: Project, clients: Clients) -> None:
    for stage, state in (("sft", "failed"), ("sft", "finished"), ("ppo", "failed")):
        Run.objects.create(project=project, stage=stage, state=state, step=3, total=9)

    def shown(**query: str) -> list[str]:
        page = clients["ada"].get(reverse("dashboard:runs", args=["everyday"]), query)
        return [run.stage for run in page.context["page"]]

    assert shown() == ["ppo", "sft", "sft"]
    assert shown(stage="sft") == ["sft", "sft"]
    assert shown(stage="sft", state="failed") == ["sft"]
    assert shown(stage="sft", state="queued") == []
    assert shown(stage="nonsense") == ["ppo", "sft", "sft"]


def test_of_a_runs_folder_only_what_may_be_kept_is_given(
    project: Project, clients: Clients, var: Path
) -> None:
    run = Run.objects.create(project=project, stage="bestofn", state="finished")
    out = run_folder(run.pk) / "out"
    out.mkdir(parents=True)
    (out / "pairs.jsonl").write_text('{"prompt": [], "answer": "a"}\n')
    (out / "model.safetensors").write_text("weights")
    where = reverse("dashboard:run-file", args=["everyday", run.pk, "pairs.jsonl"])
    response = clients["ada"].get(where)
    assert b"".join(response) == b'{"prompt": [], "answer": "a"}\n'
    assert where in clients["ada"].get(f"/dashboard/everyday/runs/{run.pk}/").content.decode()
    for name in ("model.safetensors", "spec.json", "..%2Fspec.json"):
        assert clients["ada"].get(where.replace("pairs.jsonl", name)).status_code == 404
