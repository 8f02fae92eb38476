from django.apps import AppConfig


class AssignmentsConfig(AppConfig):
    name = "labelhub.assignments"
    label = "assignments"
