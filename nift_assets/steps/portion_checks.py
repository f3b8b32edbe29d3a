"""What the first portions of a table say of all of it, before the rest is paid for."""

from __future__ import annotations

import math

import duckdb
import polars as pl

from expectations import contract

# Of fewer rows nothing is said; of more a share counts that chance alone would hardly make of one that is allowed.
LEAST_ROWS, STANDARD_ERRORS = 20, 3.0


class PortionChecks:
    """The tests of a table's contract that too many rows can fail and that refuse it then, over the portions so far."""

    def __init__(self, table: str) -> None:
        tests = contract.load(table).tests
        refusing = [test for test in tests if test.kind == "share" and test.severity == "error"]
        self._tests = [test for test in refusing if test.arguments.get("max") is not None]
        self._failing = dict.fromkeys((test.name for test in self._tests), 0)
        self._rows = 0

    def add(self, rows: pl.DataFrame) -> str | None:
        """Counts the rows of one more portion; why the table is all but sure to be refused, None where it is not."""
        if not self._tests or rows.is_empty():
            return None
        counts = ", ".join(f"count(*) filter (where {test.arguments['sql']})" for test in self._tests)
        with duckdb.connect() as connection:
            connection.register("portion", rows)
            found = connection.execute(f"select {counts} from portion").fetchone()
        self._rows += rows.height
        for test, failing in zip(self._tests, found or (), strict=True):
            self._failing[test.name] += failing
            share, most = self._failing[test.name] / self._rows, float(test.arguments["max"])
            chance = STANDARD_ERRORS * math.sqrt(most * (1 - most) / self._rows)
            if self._rows >= LEAST_ROWS and share > most + chance:
                return (
                    f"{self._failing[test.name]:,} of the first {self._rows:,} rows fail {test.name}, and at most "
                    f"{most:.0%} may"
                )
        return None
