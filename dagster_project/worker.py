"""What a worker process does before anything else; light, so that it is done before Dagster is imported."""

from __future__ import annotations

import os

from nift_training.verbs import end_with_parent


def begin(log: str) -> None:
    """Sends what the worker and its processes print to a file, the terminal being for the progress, and ends the worker
    with the command that started it."""
    end_with_parent()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
