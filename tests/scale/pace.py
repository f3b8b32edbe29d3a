"""How fast this machine is just now, to be read beside every figure."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

STEPS = 5_000_000


@dataclass(frozen=True)
class Took:
    """What some work took: seconds by the clock, CPU seconds of this process, and the machine's pace behind it."""

    seconds: float
    cpu: float
    pace: float

    def said(self, count: int) -> str:
        """So many of something per second, with the CPU time of each."""
        return (
            f"{count / self.seconds:>8,.0f}/s {1e6 * self.cpu / count:>5.0f} us CPU each "
            f"({self.seconds:.2f} s, pace {self.pace:.2f})"
        )


def timed(work: Callable[[], T]) -> tuple[T, Took]:
    """What some work returns, and what it took."""
    cpu, began = cpu_seconds(), time.monotonic()
    done = work()
    seconds, used = time.monotonic() - began, cpu_seconds() - cpu
    return done, Took(seconds, used, pace())


def pace() -> float:
    """Seconds that a loop of five million steps takes by the clock: 0.25 on a quick machine with nothing else to do."""
    began, step = time.monotonic(), 0
    while step < STEPS:
        step += 1
    return time.monotonic() - began


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
