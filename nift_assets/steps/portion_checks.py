"""What the first portions of a table say of all of it, before the rest is paid for."""

from __future__ import annotations

import math
from dataclasses import replace

import polars as pl

from expectations import contract
from expectations.frames import conform
from expectations.runner import check

# Of fewer rows nothing is said; of more a share counts that chance alone would hardly make of one that is allowed.
LEAST_ROWS, STANDARD_ERRORS = 20, 3.0


class PortionChecks:
    """The tests of a table's contract that too many rows can fail and that refuse it then, over the portions so far."""

    def __init__(self, table: str) -> None:
        promised = contract.load(table)
        refusing = [test for test in promised.tests if test.kind == "share" and test.severity == "error"]
        self._most = {test.name: float(test.arguments["max"]) for test in refusing if test.arguments.get("max")}
        self._contract = replace(promised, tests=tuple(test for test in refusing if test.name in self._most))
        self._failing = dict.fromkeys(self._most, 0.0)
        self._rows = 0

    def add(self, rows: pl.DataFrame) -> str | None:
        """Counts the rows of one more portion; why the table is all but sure to be refused, None where it is not."""
        if not self._most or rows.is_empty():
            return None
        self._rows += rows.height
        for result in check(conform(rows, self._contract), self._contract):
            self._failing[result.name] += (result.share or 0.0) * rows.height
            share, most = self._failing[result.name] / self._rows, self._most[result.name]
            chance = STANDARD_ERRORS * math.sqrt(most * (1 - most) / self._rows)
            if self._rows >= LEAST_ROWS and share > most + chance:
                failing = f"{self._failing[result.name]:,.0f} of the first {self._rows:,} rows"
                return f"{failing} fail {result.name}, and at most {most:.0%} may"
        return None
