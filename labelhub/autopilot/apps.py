from django.apps import AppConfig


class AutopilotConfig(AppConfig):
    name = "labelhub.autopilot"
    label = "autopilot"
