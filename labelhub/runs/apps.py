from django.apps import AppConfig


class RunsConfig(AppConfig):
    name = "labelhub.runs"
    label = "runs"
