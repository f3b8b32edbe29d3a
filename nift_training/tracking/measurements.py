"""What a tracker is told, as lines of JSON: how a run begins, what is measured, and how it ended."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

UNSAFE = re.compile(r"[^\w.@+-]")


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a run begins: its name, what it is made with, when, and the first step that is told of, None without steps.

    A run of a name that the tracker has goes on.
    """

    run: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float
    first_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Some finite numbers by their names, at a step, and when they were measured, in seconds since 1970."""

    step: int
    seconds: float
    numbers: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class RunEnding:
    """How a run ended: whether the work came to its end."""

    finished: bool


Told = Opening | Measurement | RunEnding
KINDS: Mapping[str, type[Told]] = {kind.__name__: kind for kind in (Opening, Measurement, RunEnding)}


def as_line(told: Told) -> str:
    """What a tracker is told, as one line."""
    return json.dumps([type(told).__name__, asdict(told)])


def of_line(line: str) -> Told:
    """What a line tells."""
    kind, fields = json.loads(line)
    return KINDS[kind](**fields)


def run_name(*parts: str) -> str:
    """A run's name, which is a folder as well: its parts with what no tracker stumbles over, a slash between them."""
    safe = [UNSAFE.sub("-", part) for whole in parts for part in whole.split("/")]
    return "/".join(part for part in safe if part.strip("."))


class RunOfTracker(Protocol):
    """An open run of a tracker. Its module has it as `start(place, opening)`; any exception is tried again later."""

    def send(self, measurements: Sequence[Measurement]) -> None:
        """Hands them over; they may have been sent before, where a try has failed."""
        ...

    def end(self, *, finished: bool) -> None:
        """Closes the run, as finished or as failed."""
        ...
