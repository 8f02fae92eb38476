"""Pairs and texts: what goes in, what is refused, and that nothing half-done is left."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from labelhub.accounts.models import AuditEntry, User
from labelhub.lib.errors import Refused
from labelhub.projects.models import Project
from labelhub.runs import gathering
from labelhub.runs.folder import run_folder, write_lines
from labelhub.runs.gathering import (
    TEXT_ENDINGS,
    TextFile,
    add_corpus,
    import_pairs,
    take_pairs,
    take_winners,
    text_files_of,
)
from labelhub.runs.models import Corpus, Run, RunInput, Snapshot
from labelhub.runs.progress import end_run
from labelhub.runs.queries import snapshot_lines
from tests.factories import make_answer_set, make_prompt, make_ranking, make_version
from trainer.corpus import KINDS
from trainer.manifests import folder_hash, verify_manifest, write_manifest

pytestmark = pytest.mark.django_db


def answers_in(snapshot: Snapshot) -> list[str]:
    return [row["answer"] for row in snapshot_lines(snapshot)]


# --- winners of a run


@pytest.fixture
def chosen(project: Project, var: Path) -> Run:
    """A finished best-of-n run with two winners, one of them to a prompt that is held out now."""
    asked = [{"role": "user", "content": "Held out?"}]
    held_out = make_prompt(project, messages=asked, held_out=True)
    held_out.sha256 = gathering.messages_hash(asked)
    held_out.save()
    run = Run.objects.create(project=project, stage="bestofn", state="finished")
    policy, reward = (
        make_version(f"everyday/{kind}-v1", kind=kind, project=project, number=1)
        for kind in ("policy", "reward")
    )
    for role, version in (("policy", policy), ("reward", reward)):
        RunInput.objects.create(run=run, role=role, version=version)
    winners = [
        {"prompt": [{"role": "user", "content": asked}], "answer": said, "id": said, "score": 1.5}
        for asked, said in (("Why?", "Because."), ("Held out?", "Yes."))
    ]
    write_lines(run_folder(run.pk) / "out" / "pairs.jsonl", winners)
    return run


def test_winners_become_pairs_without_those_to_prompts_held_out_since(
    chosen: Run, ann: User
) -> None:
    snapshot = take_winners(run=chosen, by=ann)
    assert (snapshot.kind, snapshot.holds, snapshot.source) == ("winners", "pairs", chosen)
    asked = [{"role": "user", "content": "Why?"}]
    assert list(snapshot_lines(snapshot)) == [{"prompt": asked, "answer": "Because."}]
    assert snapshot.count == 1
    assert AuditEntry.objects.filter(action="snapshot.take").exists()


@pytest.mark.parametrize("change", [{"state": "failed"}, {"stage": "sft"}])
def test_only_a_finished_run_of_the_best_of_n_has_winners(
    chosen: Run, change: dict[str, str]
) -> None:
    Run.objects.filter(pk=chosen.pk).update(**change)
    chosen.refresh_from_db()
    with pytest.raises(Refused, match="Only a finished run"):
        take_winners(run=chosen, by=None)
    assert not Snapshot.objects.exists()


def test_what_is_learned_from_winners_descends_from_who_wrote_and_who_chose_them(
    chosen: Run,
) -> None:
    snapshot = take_winners(run=chosen, by=None)
    run = Run.objects.create(project=chosen.project, stage="sft", state="running", attempt=1)
    base = make_version("tiny-base")
    RunInput.objects.create(run=run, role="base", version=base)
    RunInput.objects.create(run=run, role="pairs", snapshot=snapshot)
    out = run_folder(run.pk) / "out"
    write_lines(out / "report.json", [{}])
    write_manifest(out)
    assert end_run(run, code=0) == "finished"
    run.refresh_from_db()
    assert run.output is not None
    parents = run.output.parent_links.values_list("role", "parent__name")
    assert dict(parents) == {
        "base": "tiny-base", "writer": "everyday/policy-v1", "judge": "everyday/reward-v1",
    }  # fmt: skip


# --- pairs from rankings


def test_best_takes_each_first_answer_once_and_all_that_tie_for_it(
    project: Project, ann: User, ben: User
) -> None:
    both = make_answer_set(project, answers=["a", "b", "c"])
    make_ranking(both, ann, [2, 1, 3])
    make_ranking(both, ben, [3, 1, 2])
    make_ranking(make_answer_set(project, answers=["d", "e", "f"]), ann, [1, 1, 2])
    make_ranking(make_answer_set(project, answers=["g", "h"]), ann, [1, 1])  # says nothing
    make_ranking(make_answer_set(project, answers=["", "i"]), ann, [1, 2])  # nothing to learn
    held_out = make_prompt(project, held_out=True)
    make_ranking(make_answer_set(project, prompt=held_out, answers=["j", "k"]), ann, [1, 2])
    snapshot = take_pairs(project=project, kind="best", by=ann)
    assert (answers_in(snapshot), snapshot.count) == (["b", "d", "e"], 3)
    assert snapshot.holds == "pairs"
    lines = b"".join(
        json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in snapshot_lines(snapshot)
    )
    assert snapshot.sha256 == hashlib.sha256(lines).hexdigest()


def test_ideal_takes_what_annotators_wrote_and_freezes_it(project: Project, ann: User) -> None:
    written = make_ranking(make_answer_set(project), ann, ideal_answer="So it should be.")
    plain = make_ranking(make_answer_set(project), ann)
    snapshot = take_pairs(project=project, kind="ideal", by=ann)
    assert answers_in(snapshot) == ["So it should be."]
    for ranking in (written, plain):
        ranking.refresh_from_db()
    assert written.frozen_at is not None
    assert plain.frozen_at is None


@pytest.mark.parametrize("kind", ["ideal", "best", "rankings", "file"])
def test_where_there_is_nothing_to_learn_no_snapshot_is_left(project: Project, kind: str) -> None:
    with pytest.raises(Refused):
        take_pairs(project=project, kind=kind, by=None)
    assert not Snapshot.objects.exists()


# --- pairs from a file


def test_pairs_from_a_file_are_kept_as_the_trainer_reads_them(project: Project, ada: User) -> None:
    messages = [{"role": "user", "content": "你好？"}]
    lines = [
        json.dumps({"prompt": "Why?", "answer": "Because.\u2028So."}, ensure_ascii=False),
        "",
        json.dumps({"prompt": messages, "answer": "你好！"}),
    ]
    snapshot = import_pairs(project=project, lines=lines, by=ada)
    assert list(snapshot_lines(snapshot)) == [
        {"prompt": [{"role": "user", "content": "Why?"}], "answer": "Because.\u2028So."},
        {"prompt": messages, "answer": "你好！"},
    ]
    assert (snapshot.kind, snapshot.count) == ("file", 2)
    assert AuditEntry.objects.filter(action="snapshot.take").count() == 1


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ({"prompt": "Why?", "answer": " "}, "answer"),
        ({"prompt": "Why?"}, "answer"),
        ({"prompt": [], "answer": "a"}, "list of messages"),
        ({"prompt": "Held out?", "answer": "a"}, "held out"),
        ("no json", "JSON"),
    ],
)
def test_one_wrong_line_refuses_all_and_is_named(project: Project, line: Any, word: str) -> None:
    messages = [{"role": "user", "content": "Held out?"}]
    digest = gathering.messages_hash(messages)
    prompt = make_prompt(project, messages=messages, held_out=True)
    type(prompt).objects.filter(pk=prompt.pk).update(sha256=digest)
    good = json.dumps({"prompt": "Why?", "answer": "Because."})
    bad = line if isinstance(line, str) else json.dumps(line)
    with pytest.raises(Refused, match=rf"Line 2: .*{word}"):
        import_pairs(project=project, lines=[good, bad], by=None)
    assert not Snapshot.objects.exists()


# --- texts


def file(name: str, body: bytes) -> TextFile:
    return TextFile(name, io.BytesIO(body))


def test_the_names_of_text_files_are_those_that_the_trainer_reads() -> None:
    assert set(TEXT_ENDINGS) == set(KINDS)


def test_a_text_lies_whole_and_hashed_in_a_folder_of_its_own(
    project: Project, ada: User, var: Path
) -> None:
    files = [
        file("a.txt", "春眠不觉晓".encode()),
        file("b.txt.gz", gzip.compress(b"12345")),
        file("c.jsonl", b'{"text": "c"}\n\n'),
    ]
    corpus = add_corpus(project=project, name=" tales ", files=files, by=ada)
    folder = Path(corpus.folder)
    assert (corpus.name, corpus.files, corpus.size) == ("tales", 3, 15 + 5 + 15)
    assert verify_manifest(folder) == []
    assert corpus.sha256 == folder_hash(folder)
    assert [path.name for path in (var / "corpora").iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("name", "body", "word"),
    [
        ("a.pdf", b"text", "a.pdf"),
        ("a.txt", b"\xff\xfe", "UTF-8"),
        ("a.txt", "é".encode()[:1], "UTF-8"),
        ("a.txt.gz", b"not packed", "gzip"),
        ("a.txt.gz", gzip.compress(b"torn off", mtime=0)[:-4], "gzip"),
        ("a.jsonl", b'{"text": "a"}\n{"words": "b"}\n', "line 2"),
        ("a.jsonl", b'{"text": "a"', "line 1"),
        ("a.json", b'{"text": "a"}', "list of objects"),
        ("a.json", b"[1]", "list of objects"),
        ("a.txt", b"", "no text"),
        ("../../a.txt", b"x" * 2000, "more than"),
        ("a.txt.gz", gzip.compress(b"x" * 2000, mtime=0), "more than"),
    ],
)
def test_what_is_no_text_is_refused_and_leaves_nothing(
    project: Project, var: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: bytes, word: str
) -> None:
    monkeypatch.setattr(gathering, "MOST_TEXT", 1000)
    with pytest.raises(Refused, match=word):
        add_corpus(project=project, name="t", files=[file(name, body)], by=None)
    assert not Corpus.objects.exists()
    assert list((var / "corpora").iterdir()) == []


def test_a_name_stands_for_one_text(project: Project, var: Path) -> None:
    add_corpus(project=project, name="t", files=[file("a.txt", b"a")], by=None)
    with pytest.raises(Refused, match="already"):
        add_corpus(project=project, name="t", files=[file("a.txt", b"b")], by=None)
    add_corpus(project=None, name="t", files=[file("a.txt", b"a")], by=None)
    assert Corpus.objects.count() == 2


@pytest.mark.parametrize("name", ["", " ", "a/b", "x" * 81, "a\nb"])
def test_a_text_has_a_name_that_can_be_shown(project: Project, var: Path, name: str) -> None:
    with pytest.raises(Refused):
        add_corpus(project=project, name=name, files=[file("a.txt", b"a")], by=None)


def test_a_folder_of_this_machine_is_brought_for_the_whole_house(
    tmp_path: Path, var: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "old"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "deep" / "a.txt").write_text("b")
    (source / "SOURCE.md").write_text("where it is from")
    call_command("add_text", str(source))
    corpus = Corpus.objects.get()
    assert (corpus.project, corpus.name, corpus.files) == (None, "old", 2)
    assert "old: 2 files" in capsys.readouterr().out
    assert len(list(text_files_of(source / "a.txt"))) == 1


def test_a_text_that_has_a_name_is_brought_by_it(
    tmp_path: Path, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELHUB_DATA", str(tmp_path))
    assert gathering.texts_at_hand() == []
    (tmp_path / "pretrain_zh").mkdir()
    (tmp_path / "pretrain_zh" / "poems.json").write_text('[{"paragraphs": ["春眠不觉晓"]}]')
    assert gathering.texts_at_hand() == ["pretrain_zh"]
    call_command("add_text", "pretrain_zh")
    assert Corpus.objects.get().name == "pretrain_zh"
    assert gathering.texts_at_hand() == []
    with pytest.raises(CommandError, match="LABELHUB_DATA"):
        call_command("add_text", "pretrain_en")
