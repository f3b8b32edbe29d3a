"""How far the runs of a study are: lines in place on a terminal, plain ones now and then in a log."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tqdm import tqdm

    from dagster_project.progress_file import ProgressLine
    from dagster_project.run_study import PartitionRun, RunOutcome

SAY_EVERY_SECONDS = 60.0
COUNTED = re.compile(r"\b(\d[\d,]*)(?: of |/)(\d[\d,]*)")
# What is worked out here stands before what the step says, which a narrow terminal cuts.
IN_PLACE = "        … {desc} {percentage:3.0f}%|{bar:10}| [{elapsed}<{remaining}, {rate_fmt}]{postfix}"
# The bar is one blank: without any, a line that is too long is not cut.
UNCOUNTED = "        … {desc} [{elapsed}]{bar:1}{postfix}"


@dataclass
class _Going:
    """A run that is under way, what it said last, and where a counted step began."""

    name: str
    began: float = field(default_factory=time.monotonic)
    step: str = ""
    said: str = ""
    said_at: float = field(default_factory=time.monotonic)
    first: tuple[int, float] | None = None
    bar: tqdm[None] | None = None


class RunProgress:
    """Prints a line as a run starts and ends, and in between how far its step is."""

    def __init__(self, total: int) -> None:
        self._total, self._ended = total, 0
        self._going: dict[str, _Going] = {}
        self._in_place = sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")

    def started(self, run: PartitionRun) -> None:
        self._print(f"        … {run.name}: {', '.join(run.tables)}")
        self._going[run.name] = _Going(run.name)

    def told(self, lines: Sequence[ProgressLine]) -> None:
        """What has been said since; called every half second, so that the time goes on as well."""
        for line in lines:
            if going := self._going.get(line.run):
                if going.step != line.step:
                    going.step, going.said, going.first = line.step, "", None
                    self._close(going)
                if line.at_once:
                    self._print(f"        ! {going.name}: {going.step}: {line.said}", colour="yellow")
                else:
                    going.said = line.said or going.said
        for going in self._going.values():
            if self._in_place:
                self._draw(going)
            elif going.said and time.monotonic() - going.said_at >= SAY_EVERY_SECONDS:
                self._print(f"        … {going.name}: {going.step}: {going.said}{self._left(going)}")
                going.said, going.said_at = "", time.monotonic()

    def ended(self, run: PartitionRun, outcome: RunOutcome) -> None:
        if going := self._going.pop(run.name, None):
            self._close(going)
        self._ended += 1
        count = f"[{self._ended:2}/{self._total}]"
        if outcome.awaited:
            self._print(f"{count} … {run.name}: waits for reviews after {outcome.seconds:.1f} s", colour="yellow")
        elif outcome.error:
            self._print(f"{count} ✗ {run.name}: failed after {outcome.seconds:.1f} s", colour="red")
        elif outcome.tables:
            tables = f"{len(outcome.tables)} table{'s' * (len(outcome.tables) > 1)}"
            self._print(f"{count} ✓ {run.name}: {tables} in {outcome.seconds:.1f} s")
        else:
            self._print(f"{count} = {run.name}: up to date")

    def close(self) -> None:
        """Leaves the terminal as it was found, however the runs ended."""
        for going in self._going.values():
            self._close(going)
        self._going.clear()

    def _draw(self, going: _Going) -> None:
        from tqdm import tqdm

        done, total = counted(going.said)
        if going.bar is None or going.bar.total != total:
            self._close(going)
            going.bar = tqdm(
                total=total,
                initial=done,
                desc=f"{going.name}: {going.step}" if going.step else going.name,
                bar_format=IN_PLACE if total else UNCOUNTED,
                file=sys.stdout,
                leave=False,
                dynamic_ncols=True,
                unit="",
                mininterval=0,
            )
        going.bar.n = done
        going.bar.postfix = going.said
        going.bar.refresh()

    def _close(self, going: _Going) -> None:
        if going.bar is not None:
            going.bar.close()
            going.bar = None

    def _left(self, going: _Going) -> str:
        """The rate and the time left, once a step has been counted twice."""
        from tqdm import tqdm

        (done, total), now = counted(going.said), time.monotonic()
        if not total or " left" in going.said:
            return ""
        if going.first is None:
            going.first = (done, now)
            return ""
        rate = (done - going.first[0]) / max(now - going.first[1], 1e-9)
        return f", {rate:,.1f}/s, {tqdm.format_interval((total - done) / rate)} left" if rate > 0 else ""

    def _print(self, line: str, colour: str | None = None) -> None:
        styled = click.style(line, fg=colour) if colour and not os.environ.get("NO_COLOR") else line
        if self._in_place and any(going.bar for going in self._going.values()):
            from tqdm import tqdm

            tqdm.write(styled, file=sys.stdout)
        else:
            click.echo(styled)


def counted(said: str) -> tuple[int, int | None]:
    """How many of how many, where a line says so: "12 of 80,000 answered" or "step 3/90"."""
    found = COUNTED.search(said)
    if not found:
        return 0, None
    done, total = (int(number.replace(",", "")) for number in found.groups())
    return (done, total) if 0 <= done <= total and total else (0, None)
