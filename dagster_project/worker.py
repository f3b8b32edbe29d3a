"""What a worker process does before anything else; light, so that it is done before Dagster is imported."""

from __future__ import annotations

import multiprocessing
import os
import threading

from nift_training.verbs import end_with_parent

# Held while a run is going.
AT_WORK = threading.Lock()


def begin(log: str) -> None:
    """Sends what the worker and its processes print to a file, the terminal being for the progress, and ends the worker
    with the command that started it."""
    end_with_parent()
    threading.Thread(target=_end_behind_the_run, daemon=True).start()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def _end_behind_the_run() -> None:
    """Ends a worker whose command has gone, once the run it is in has stopped and kept what was paid for.

    To a run the system's signal is an interruption, and behind it the worker would wait for ever for the next.
    """
    command = multiprocessing.parent_process()
    assert command is not None, "a worker is started by a command"
    command.join()
    AT_WORK.acquire()
    os._exit(1)
