"""One line of progress, for whoever is watching: a person at a terminal or Dagster's event log."""

import os
import sys


def under_pipes() -> bool:
    """Whether Dagster Pipes started this process."""
    return "DAGSTER_PIPES_CONTEXT" in os.environ


def say(line: str) -> None:
    """Prints the line to stderr and, under Pipes, logs it as an event."""
    print(line, file=sys.stderr, flush=True)
    if under_pipes():
        from dagster_pipes import PipesContext

        # A verb called as a function inside somebody else's Pipes process has no session of its own.
        if PipesContext.is_initialized():
            PipesContext.get().log.info(line)
