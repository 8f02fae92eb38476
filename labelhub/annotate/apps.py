from django.apps import AppConfig


class AnnotateConfig(AppConfig):
    name = "labelhub.annotate"
    label = "annotate"
