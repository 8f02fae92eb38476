"""The trainer: one process per stage, a run folder in, events and weights out.

It knows nothing of Django or Celery. `config`, `events`, `types` and `manifests` need no torch, so
that the process that starts a run can read its configuration and its events without loading a
tensor library.
"""
