"""One line of progress, for whoever is watching: a person at a terminal or Dagster's event log."""

import os
import sys


def under_pipes() -> bool:
    """Whether Dagster Pipes started this process; of several that work together the first one speaks for all."""
    return "DAGSTER_PIPES_CONTEXT" in os.environ and is_first()


def is_first() -> bool:
    """Whether this is the only process of a run or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    """Prints the line to stderr and, under Pipes, logs it as an event; of several processes only the first does."""
    if not is_first():
        return
    print(line, file=sys.stderr, flush=True)
    if under_pipes():
        from dagster_pipes import PipesContext

        # A verb called as a function inside somebody else's Pipes process has no session of its own.
        if PipesContext.is_initialized():
            PipesContext.get().log.info(line)
