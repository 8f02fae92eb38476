"""lib is an app only for its management commands, and for one wish about processes."""

import signal
from typing import Any

from celery.signals import beat_embedded_init
from django.apps import AppConfig

from labelhub.lib.guard import die_with_parent


class LibConfig(AppConfig):
    """Helpers that know no models."""

    name = "labelhub.lib"
    label = "lib"

    def ready(self) -> None:
        """Tie the scheduler inside a worker to it: a killed worker would leave it behind."""
        beat_embedded_init.connect(_end_with_the_worker, dispatch_uid="labelhub.lib.beat")


def _end_with_the_worker(**_: Any) -> None:
    die_with_parent(signal.SIGKILL)
