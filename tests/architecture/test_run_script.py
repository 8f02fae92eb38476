"""`./run`: what it says when it is asked for nonsense, and when something is missing."""

from __future__ import annotations

import errno
import gettext
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import install
from scripts.run import COMMANDS, USAGE, bytecode
from scripts.terminal import Failure, advice_for
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "run"), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHON": sys.executable} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command(tmp_path: Path) -> None:
    shown = run("help", cwd=tmp_path)  # from any folder
    assert shown.returncode == 0
    for command in COMMANDS:
        assert command.startswith("-") or f"./run {command}" in shown.stdout


def test_tests_keep_bytecode_apart_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert bytecode() == {}
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    asked = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode, sys.pycache_prefix)"]
    shown = subprocess.check_output(asked, env=os.environ | bytecode(), text=True)
    assert shown == f"False {ROOT / 'var' / 'bytecode'}\n"


def test_an_unknown_command_is_refused_with_the_usage() -> None:
    shown = run("tests")
    assert shown.returncode == 2
    assert shown.stdout == f"./run knows no 'tests'.\n\n{USAGE}\n"


def test_a_python_that_is_too_old_is_named_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 1\necho "this must not run"\n')
    old.chmod(0o755)
    shown = run("help", PYTHON=str(old))
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert f"LabelHub needs Python 3.11 or newer; found: {old}." in shown.stderr
    assert "PYTHON=/path/to/python3.11 ./run" in shown.stderr


def test_the_first_new_enough_python_of_the_path_is_taken(tmp_path: Path) -> None:
    # python3.11 is there but too old (a broken installation, say); python3 works.
    (tmp_path / "python3.11").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3.11").chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)
    for tool in ("sh", "dirname"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    shown = run("help", PYTHON="", PATH=str(tmp_path))
    assert shown.stdout == f"{USAGE}\n"


def test_a_taken_port_is_refused_before_anything_is_set_up(tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        shown = run(PORT=str(port), LABELHUB_VAR=str(tmp_path / "var"))
    assert shown.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be used (Address already in use)" in shown.stderr
    assert f"PORT={port + 1} ./run" in shown.stderr
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("port", ["0", "65536", "web", "-1"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    shown = run(PORT=port)
    assert shown.returncode == 1
    assert f"PORT={port} is no port: choose a number from 1 to 65535." in shown.stderr


def test_an_unknown_benchmark_is_refused() -> None:
    shown = run("bench", "no-such-benchmark")
    assert shown.returncode == 1
    assert "There is no benchmark 'no-such-benchmark'; there are: " in shown.stderr


def test_a_python_without_venv_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "PYTHON", tmp_path / "no" / "python")
    monkeypatch.setattr(install.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Failure, match="apt install python3-venv"):
        install.ensure_environment()


def test_without_network_the_advice_is_about_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "VENV", tmp_path)  # where pip's log goes
    nobody_listens = f"http://127.0.0.1:{free_port()}/simple"
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(Failure, match="The package registry cannot be reached"):
        install.pip(
            *("install", "--isolated", "--dry-run", "--retries", "0"),
            *("--index-url", nobody_listens, "labelhub-needs-no-such-package"),
        )
    assert "ERROR" in capfd.readouterr().err  # pip's own words were shown, too


def test_a_full_disk_is_recognised() -> None:
    said = str(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "torch.whl"))
    assert advice_for(said, "unknown").startswith("The disk is full: free about 3 GB")


def test_an_unknown_failure_keeps_its_own_advice() -> None:
    assert advice_for("ResolutionImpossible", "pip failed.") == "pip failed."


class TestDatabaseIsMigrated:
    """Asked without Django at every start, so it must be right in both directions."""

    @pytest.fixture(autouse=True)
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(install, "ROOT", tmp_path)
        monkeypatch.setattr(install, "VAR", tmp_path)
        monkeypatch.delenv("DATABASE_URL", raising=False)
        folder = tmp_path / "labelhub" / "prompts" / "migrations"
        folder.mkdir(parents=True)
        for name in ("__init__.py", "0001_initial.py", "0002_language.py"):
            (folder / name).touch()

    def record(self, tmp_path: Path, *names: str) -> None:
        with sqlite3.connect(tmp_path / "db.sqlite3") as link:
            link.execute("CREATE TABLE django_migrations (app, name)")
            rows = [("prompts", name) for name in names]
            link.executemany("INSERT INTO django_migrations VALUES (?, ?)", rows)
        link.close()

    def test_without_a_database(self) -> None:
        assert not install.migrated()

    def test_with_an_empty_database(self, tmp_path: Path) -> None:
        (tmp_path / "db.sqlite3").touch()
        assert not install.migrated()

    def test_with_a_migration_missing(self, tmp_path: Path) -> None:
        self.record(tmp_path, "0001_initial")
        assert not install.migrated()

    def test_with_all_of_them(self, tmp_path: Path) -> None:
        self.record(tmp_path, "0001_initial", "0002_language")
        assert install.migrated()

    def test_a_server_of_ones_own_is_always_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.record(tmp_path, "0001_initial", "0002_language")
        monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/labelhub")
        assert not install.migrated()


def test_translations_are_compiled_once_and_again_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "LOCALE", tmp_path)
    po = tmp_path / "zh_Hans" / "LC_MESSAGES" / "django.po"
    po.parent.mkdir(parents=True)
    # A per cent sign before a word looks like a placeholder to tools; it is none.
    po.write_text(
        'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n'
        '#, python-format\nmsgid "95 % interval"\nmsgstr "95% 区间"\n',
        encoding="utf-8",
    )
    install.compile_translations()
    with po.with_suffix(".mo").open("rb") as mo:
        assert gettext.GNUTranslations(mo).gettext("95 % interval") == "95% 区间"
    assert "Compiling the translations" in capsys.readouterr().out
    install.compile_translations()
    assert capsys.readouterr().out == ""  # nothing to do
    os.utime(po, (2_000_000_000, 2_000_000_000))
    install.compile_translations()
    assert "Compiling the translations" in capsys.readouterr().out
