"""How a learning rate goes on over a run: shares of the peak rate, for stages that share one.

Choices: a share depends on the step alone, so a run that is resumed needs nothing kept.
"""


def linear(step: int, total: int, warmup: float = 0.0) -> float:
    """Share of the peak rate: linear up over the warm-up, then linear down to 0."""
    rising = max(1, round(warmup * total))
    return min((step + 1) / rising, (total - step) / max(1, total - rising + 1), 1.0)
