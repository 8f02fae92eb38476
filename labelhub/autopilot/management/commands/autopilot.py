"""`manage.py autopilot`: turn the loop with simulated annotators and say what came of it."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from labelhub.autopilot.driver import RoundFailed, drive_round
from labelhub.autopilot.preferences import PREFERENCES
from labelhub.autopilot.setup import ensure_base, ensure_project
from labelhub.lib.errors import Refused
from labelhub.lib.services import ServiceError, Services
from labelhub.rounds.rules import RoundConfig

# Lines of progress are repeated at most this often.
SAY_EVERY = 5.0


class Command(BaseCommand):
    """Prepare, start what is missing, drive the rounds, end what was started, print a table."""

    help = "Turn the loop with simulated annotators whose preference is hidden from the trainer."

    def add_arguments(self, parser: ArgumentParser) -> None:
        defaults = RoundConfig()
        parser.add_argument("--project", required=True, help="name of a simulated project")
        parser.add_argument("--rounds", type=int, default=1)
        parser.add_argument(
            "--prompts", type=int, help=f"prompts to rank (default {defaults.prompts})"
        )
        parser.add_argument(
            "--answers", type=int, default=defaults.answers, help="answers per prompt"
        )
        parser.add_argument("--steps", type=int, help=f"PPO steps (default {defaults.steps})")
        parser.add_argument("--preference", choices=sorted(PREFERENCES), default="positive")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument(
            "--model", default="smollm2", help="smollm2, tiny, or a registered base"
        )
        parser.add_argument("--json", type=Path, help="write the figures to this file")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["rounds"] < 1:
            raise CommandError("--rounds must be at least 1.")
        services = Services(settings.BASE_DIR, settings.VAR, say=self.say)
        call_command("migrate", verbosity=0, interactive=False)
        try:
            entries = self._drive(services, options)
        except (Refused, RoundFailed, ServiceError) as error:
            raise CommandError(str(error)) from None
        except KeyboardInterrupt:
            raise CommandError("Stopped; the round keeps its checkpoint.") from None
        finally:
            services.stop()
        self._table(entries)

    def _drive(self, services: Services, options: dict[str, Any]) -> list[dict[str, Any]]:
        self.say(f"Preparing the model {options['model']} …")
        base = ensure_base(options["model"])
        project = ensure_project(options["project"], base, answers=options["answers"])
        started = services.start("valkey", "cpu", "gpu")
        if started:
            self.say(f"Started for this command: {', '.join(started)}.")
        entries: list[dict[str, Any]] = []
        for n in range(options["rounds"]):
            entry = drive_round(
                project,
                PREFERENCES[options["preference"]],
                config=round_config(options, base.parameters),
                seed=options["seed"] + n,
                say=Progress(self.say),
                workers_alive=lambda: _require_alive(services),
            )
            entries.append(entry)
            if options["json"]:
                write_json(options["json"], entries)
        return entries

    def say(self, line: str) -> None:
        """Print at once, also into a pipe."""
        self.stdout.write(line)
        self.stdout.flush()

    def _table(self, entries: list[dict[str, Any]]) -> None:
        self.say("")
        self.say("round  rankings  reward acc. (95 %)    KL     hidden before → after  gain (95 %)")
        for entry in entries:
            self.say(table_row(entry))


class Progress:
    """Says a line of progress when the stage changes, and else once in a few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.line = self.stage = ""
        self.at = 0.0

    def __call__(self, line: str) -> None:
        stage, now = line.split(":")[0], time.monotonic()
        if line != self.line and (stage != self.stage or now - self.at > SAY_EVERY):
            self.line, self.stage, self.at = line, stage, now
            self.say(line)


def table_row(entry: dict[str, Any]) -> str:
    """One round as one line, each figure with its interval."""
    reward, hidden = entry["reward"], entry["hidden"]
    accuracy = "too few pairs".ljust(19)
    if reward["heldout_accuracy"] is not None and reward["ci95"]:
        low, high = reward["ci95"]
        accuracy = f"{reward['heldout_accuracy']:.2f} ({low:.2f} to {high:.2f})"
    gain_low, gain_high = hidden["ci95_of_gain"]
    return (
        f"{entry['round']:>5}  {entry['rankings']:>8}  "
        f"{accuracy}  "
        f"{entry['policy']['kl']:>6.2f}  "
        f"{hidden['before']:>+6.2f} → {hidden['after']:<+6.2f}       "
        f"{hidden['gain']:+.2f} ({gain_low:+.2f} to {gain_high:+.2f}), n = {hidden['prompts']}"
    )


def round_config(options: dict[str, Any], parameters: int) -> dict[str, Any]:
    """The command's settings as a round's; a model of few parameters gets smaller ones."""
    config: dict[str, Any] = dict(SMALL) if parameters < 20_000_000 else {}
    # Simulated annotators rank everything in order: there is nothing to choose first.
    config["reward_ensemble"] = 1
    for name in ("prompts", "answers", "steps"):
        if options[name] is not None:
            config[name] = options[name]
    return config


# A whole round of a tiny model fits into two minutes on two cores.
SMALL = {"prompts": 80, "steps": 10, "max_new_tokens": 24}


def write_json(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write the file anew after each round, so that an end midway keeps the finished ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps({"rounds": entries}, indent=1), encoding="utf-8")
    temporary.replace(path)


def _require_alive(services: Services) -> None:
    """Start anew what another program had started and has ended; a fallen child is an error."""
    if lost := services.lost(("valkey", "cpu", "gpu")):
        services.start(*lost)
    if fallen := services.fallen():
        raise ServiceError(services.obituary(fallen[0]))
