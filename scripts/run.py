"""LabelHub's one command, behind `./run`: set up what is missing, then do what was asked.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):
    sys.exit("LabelHub needs Python 3.11 or newer, this is %d.%d." % sys.version_info[:2])

import ast
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scripts.install import node_tool, prepare
from scripts.terminal import BIN, PYTHON, ROOT, Failure, advice_for, become, call, manage, say, step

USAGE = """\
LabelHub: rankings by people become a better language model.

  ./run                    set up what is missing, start everything and print the address;
                           Ctrl-C ends every process
  ./run setup [--browser]  only set up (with --browser: also what the tests need)
  ./run test [ARGUMENTS]   the whole test suite; arguments go to pytest
  ./run check              lint, types, import contracts, migrations, templates, settings
  ./run format             format the code
  ./run bench [NAME]       one benchmark; without a name, which there are
  ./run screenshots        the pictures of the documents; --all: every page
  ./run manage COMMAND     manage.py in the environment: ./run manage autopilot --help
  ./run help               this text

Environment:
  PORT, LABELHUB_HOST      where the web server listens (8000, 127.0.0.1)
  DATABASE_URL, REDIS_URL  servers of your own instead of the embedded SQLite and Valkey
  LABELHUB_VAR             the folder of all state (var)
  PYTHON                   the interpreter that makes the environment
  TORCH_INDEX_URL          where PyTorch comes from, for example
                           https://download.pytorch.org/whl/cpu for a build without CUDA"""

# `./run manage` with one of these must not touch the database first.
WITHOUT_DATABASE = {
    *("check", "makemigrations", "migrate", "makemessages", "collectstatic"),
    *("help", "--help", "-h", "--version"),
}
# The whole suite in a process for each core, up to four; the tests of one file stay together.
SIDE_BY_SIDE = [
    "--numprocesses=auto", "--maxprocesses=4", "--dist=loadfile", "--no-loadscope-reorder",
]  # fmt: skip
# One thread for each library: two that spin against a busy neighbour cost 10 to 50 times.
TEST_ENVIRON = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}
PRODUCTION_ENVIRON = {
    "LABELHUB_SECRET_KEY": secrets.token_urlsafe(64),
    "LABELHUB_DEBUG": "0",
    "LABELHUB_HTTPS": "1",
    "LABELHUB_ALLOWED_HOSTS": "labelhub.example.org",
    "LABELHUB_TRUSTED_ORIGINS": "https://labelhub.example.org",
}


# --- run


def run_demo() -> None:
    """Set up, then start everything."""
    require_free_port()
    prepare(database=True)
    become([PYTHON, ROOT / "manage.py", "up"])


def require_free_port() -> None:
    """Refuse before the long set-up, not after it, if the web server could not listen."""
    text = os.environ.get("PORT") or "8000"
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Failure(f"PORT={text} is no port: choose a number from 1 to 65535.")
    host = os.environ.get("LABELHUB_HOST") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(text)))
        except OSError as error:
            raise Failure(
                f"Port {text} of {host} cannot be used ({error.strerror}): end the program that "
                "has it (perhaps LabelHub itself runs already), or choose another port, for "
                f"example: PORT={int(text) + 1} ./run"
            ) from None


def run_setup(arguments: list[str]) -> None:
    """Only set up."""
    if unknown := set(arguments) - {"--browser"}:
        raise Failure(f"./run setup takes --browser or nothing, not {' '.join(sorted(unknown))}.")
    tests = "--browser" in arguments
    prepare(dev=tests, browser=tests, database=True)
    say("Everything is set up.")


def run_manage(arguments: list[str]) -> None:
    """Set up, then hand over to manage.py."""
    prepare(database=bool(arguments) and arguments[0] not in WITHOUT_DATABASE)
    become([PYTHON, ROOT / "manage.py", *arguments])


# --- test


def run_test(arguments: list[str]) -> None:
    """Set up with browser, then run the tests."""
    prepare(dev=True, browser=True)
    if not arguments:
        test_javascript()
    say("==> Running the tests …")
    become([PYTHON, "-m", "pytest", *(arguments or SIDE_BY_SIDE)], TEST_ENVIRON | bytecode())


def bytecode() -> dict[str, str]:
    """Environment in which the tests' many processes compile Django once, not once each, also where
    Python was told to keep no bytecode; beside the sources there is none then either.
    """
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return {}
    folder = str(ROOT / "var" / "bytecode")
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": folder}


def test_javascript() -> None:
    """Run the tests of the pages' scripts."""
    tests = sorted((ROOT / "tests" / "js").glob("*.test.*js"))
    node = node_tool("node")
    if not tests:
        return
    if node is None:
        say("The tests of the pages' scripts are left out: there is no Node.js.")
        return
    with step("Testing the pages' scripts"):
        call([node, "--test", *tests], advice="A test of the pages' scripts failed (see above).")


# --- check


def run_check(_: list[str]) -> None:
    """Run every check, the quick ones first, and name all that fail."""
    prepare(dev=True)
    failed = []
    for name, check in CHECKS.items():
        try:
            with step(name):
                check()
        except Failure as failure:
            say(f"    {name}: FAILED. {failure}")
            failed.append(name)
    if failed:
        raise Failure(f"{len(failed)} of {len(CHECKS)} checks failed: {'; '.join(failed)}.")
    say(f"All {len(CHECKS)} checks passed.")


def check_javascript() -> None:
    """Let Node parse every script of ours, and run their tests."""
    node = node_tool("node")
    if node is None:
        raise Failure("There is no Node.js: run ./run setup.")
    for script in sorted((ROOT / "static").rglob("*.js")):
        call([node, "--check", script], advice=f"{script.relative_to(ROOT)} is no valid script.")
    test_javascript()


def check_deployment() -> None:
    """Let Django judge the settings that production would have."""
    manage(
        *("check", "--deploy", "--fail-level", "WARNING"),
        extra=PRODUCTION_ENVIRON,
        advice="The production settings have a weakness (see above).",
    )


def check_migrations() -> None:
    """Refuse models whose migration is missing."""
    manage(
        *("makemigrations", "--check", "--dry-run"),
        advice="A migration is missing: ./run manage makemigrations APP --name WHAT_CHANGES",
    )


def tool(*command: str, advice: str) -> Callable[[], None]:
    """Return a check that calls a tool of the environment."""
    return lambda: call([BIN / command[0], *command[1:]], advice=advice)


CHECKS: dict[str, Callable[[], None]] = {
    "lint (ruff)": tool("ruff", "check", advice="Much of it mends itself: ./run format"),
    "format (ruff)": tool("ruff", "format", "--check", advice="Mend it: ./run format"),
    "import contracts": tool(
        # Its cache remembers what an import meant before the imported module was there.
        "lint-imports",
        "--no-cache",
        advice="A module imports what it must not.",
    ),
    "templates (djlint)": tool("djlint", "templates", "--lint", "--quiet", advice="See above."),
    "templates (nothing inline)": tool(
        "python", "scripts/check_templates.py", advice="Inline code would need a weaker CSP."
    ),
    "scripts (node)": check_javascript,
    "migrations": check_migrations,
    "production settings": check_deployment,
    "types (mypy)": tool("mypy", advice="See above."),
}


def run_format(_: list[str]) -> None:
    """Format the code and mend what ruff can mend."""
    prepare(dev=True)
    call([BIN / "ruff", "check", "--fix", "--exit-zero", "--quiet"], advice="See above.")
    call([BIN / "ruff", "format"], advice="See above.")


# --- measure and show


def run_bench(arguments: list[str]) -> None:
    """Run one benchmark with its arguments; without a name, tell which there are."""
    files = sorted((ROOT / "benchmarks").glob("[!_]*.py"))
    found = {file.stem: file for file in files}
    if not arguments:
        for name, file in found.items():
            say(f"./run bench {name:<10} {first_sentence(file)}")
        return
    if arguments[0] not in found:
        known = ", ".join(found) or "none"
        raise Failure(f"There is no benchmark {arguments[0]!r}; there are: {known}.")
    prepare(dev=True, database=True)
    become([PYTHON, found[arguments[0]], *arguments[1:]])


def first_sentence(file: Path) -> str:
    """Return the first line of a script's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def run_screenshots(arguments: list[str]) -> None:
    """Draw the pages in a browser."""
    prepare(dev=True, database=True, browser=True)
    become([PYTHON, ROOT / "scripts" / "screenshots.py", *arguments])


def run_help(_: list[str]) -> None:
    """Print the usage."""
    say(USAGE)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "setup": run_setup,
    "test": run_test,
    "check": run_check,
    "format": run_format,
    "bench": run_bench,
    "screenshots": run_screenshots,
    "manage": run_manage,
    "help": run_help,
    "-h": run_help,
    "--help": run_help,
}


def main(arguments: list[str]) -> int:
    """Do what the first word asks for; without a word, run the demo."""
    if arguments and arguments[0] not in COMMANDS:
        say(f"./run knows no {arguments[0]!r}.\n\n{USAGE}")
        return 2
    try:
        if arguments:
            COMMANDS[arguments[0]](arguments[1:])
        else:
            run_demo()
    except Failure as failure:
        return complain(str(failure))
    except OSError as error:
        return complain(advice_for(str(error), f"It could not be done: {error}."))
    except KeyboardInterrupt:
        say("\nInterrupted; the same command goes on where this one stopped.")
        return 130
    return 0


def complain(sentence: str) -> int:
    """Print what went wrong after everything that was said before."""
    sys.stdout.flush()
    sys.stderr.write(f"\n{sentence}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
