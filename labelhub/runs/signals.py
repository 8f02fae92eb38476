"""What rooms above may listen to."""

from django.dispatch import Signal

# Sent after the commit with `run_id` when a run finished, failed or stopped.
run_ended = Signal()
