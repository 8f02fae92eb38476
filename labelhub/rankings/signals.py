"""What other rooms may listen to."""

from django.dispatch import Signal

# Sent after the commit of a ranking, with ranking_id and project_id.
ranking_submitted = Signal()
