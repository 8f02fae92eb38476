"""What other rooms may listen to."""

from django.dispatch import Signal

# Sent after the commit of an opinion or a decision on a set that is to be ranked or compared, with
# ranking_id and project_id. Nobody waits for known rankings, repeats and the tutorial.
ranking_submitted = Signal()

# Sent after the commit of anything that ends the wish for opinions other than a ranking, with
# answer_set_ids: whoever waits for those opinions should look again.
slots_closed = Signal()
