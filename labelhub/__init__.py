"""LabelHub: rankings by people become a better language model.

The Celery app is loaded here so that `@shared_task` functions bind to it in every process.
"""

from labelhub.celery import app as celery_app

__all__ = ["celery_app"]
