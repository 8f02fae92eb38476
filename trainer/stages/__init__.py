"""The stages, one module each, read from top to bottom. A stage never imports another.

Each has `run(context) -> report`: it reads the inputs that `context` names, writes `out/`, and
returns a report that can be written as JSON. It raises `events.Stopped` after saving when it was
asked to stop, and `events.RunError` with one sentence when it cannot go on.
"""
