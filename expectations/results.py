"""What became of a table's checks when they last ran, by what Dagster remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from expectations.contract import ContractTest


@dataclass(frozen=True, kw_only=True)
class LastResult:
    """What became of a test when it was last run on one partition; None is the partition of an unpartitioned table."""

    partition: str | None
    passed: bool
    message: str
    at: datetime


@dataclass(frozen=True)
class CheckResult:
    """The last result of one check of a stored table."""

    table: str
    partition: str | None
    check: str
    severity: str
    result: LastResult

    @property
    def place(self) -> str:
        """The table with its partition, as it is named in a line."""
        return f"{self.table}/{self.partition}" if self.partition else self.table


def verdict(test: ContractTest, results: Sequence[LastResult]) -> str:
    """How a test stands: `passed` on every partition it was run on, `failed`, `warned` if it only warns, `not run`."""
    if not results:
        return "not run"
    if all(result.passed for result in results):
        return "passed"
    return "failed" if test.severity == "error" else "warned"
