"""`manage.py up`: the whole of LabelHub in one terminal; Ctrl-C ends all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from labelhub.lib.env import env_int
from labelhub.lib.services import START_ORDER, TITLES, Interrupted, ServiceError, Services

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Command(BaseCommand):
    """Start broker, demo, web server and workers; watch them; end them."""

    help = "Start everything that LabelHub needs on this machine; Ctrl-C ends it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--no-demo", action="store_true", help="do not make the demo project at the first start"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        port = env_int("PORT", 8000)
        if not 0 < port < 65536:
            raise CommandError(f"PORT={port} is no port: choose a number from 1 to 65535.")
        host = os.environ.get("LABELHUB_HOST") or "127.0.0.1"
        self.services = Services(
            settings.BASE_DIR, settings.VAR, host=host, port=port, say=self.say
        )
        previous = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            self._run(demo=not options["no_demo"])
        except Interrupted:
            pass  # asked for while starting; what was started is ended below
        except ServiceError as error:
            raise CommandError(str(error)) from None
        finally:
            self._stop()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def say(self, sentence: str) -> None:
        """Print one line at once, also into a pipe."""
        self.stdout.write(sentence)
        self.stdout.flush()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.services.interrupt()

    def _run(self, *, demo: bool) -> None:
        begin = time.monotonic()
        self.services.require_free_port()
        self.services.start("valkey")
        if demo:
            self._prepare_demo()
        self.say("Starting the web server and the workers …")
        self.services.start(*START_ORDER)
        took = time.monotonic() - begin
        self.say(f"\nLabelHub is ready at {self.services.address} ({took:.0f} s). Ctrl-C ends it.")
        self.say(f"What the processes write is in {settings.VAR / 'log'}.")
        self._watch()

    def _prepare_demo(self) -> None:
        """Make demo model, project and accounts at the first start; prints one-time passwords."""
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "demo", "--if-missing"]
        with subprocess.Popen(command, cwd=settings.BASE_DIR) as child:
            while child.poll() is None:
                if self.services.interrupted:
                    child.terminate()
                    raise Interrupted
                time.sleep(0.1)
        if child.returncode:
            raise ServiceError(
                "The demo could not be made (see above): mend that and start again; "
                "what is done already is kept. `./run manage up --no-demo` starts without it."
            )

    def _watch(self) -> None:
        """Wait for the wish to stop; take over what another program started and ended."""
        while not self.services.interrupted:
            if fallen := self.services.fallen():
                raise ServiceError(
                    self.services.obituary(fallen[0]) + " Everything else is ended too."
                )
            lost = self.services.lost(START_ORDER)
            if lost:
                self.say("Taking over " + " and ".join(TITLES[name] for name in lost) + ".")
                self.services.start(*lost)
            time.sleep(0.5)

    def _stop(self) -> None:
        if not self.services.owns_any:
            return
        self.say("Ending everything; Ctrl-C again does not wait for open work.")
        begin = time.monotonic()
        self.services.stop()
        self.say(f"Everything has ended ({time.monotonic() - begin:.1f} s).")
