from django.apps import AppConfig


class RoundsConfig(AppConfig):
    name = "labelhub.rounds"
    label = "rounds"

    def ready(self) -> None:
        """Connect the receivers."""
        from labelhub.rounds import receivers  # noqa: F401, PLC0415 - models must be loaded first
