from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "labelhub.registry"
    label = "registry"
