from django.apps import AppConfig


class RankingsConfig(AppConfig):
    name = "labelhub.rankings"
    label = "rankings"
