"""The counts of the fault tests: one line per row of faults, printed at the end of a session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Counts = Callable[[str, str], None]
COUNTED = pytest.StashKey[dict[str, list[str]]]()


@pytest.fixture(scope="session")
def counts(pytestconfig: pytest.Config) -> Counts:
    """Takes what was counted for a row of faults, `counts("T1", "5 kills, 2,000 keys, 0 lost")`; shown at the end."""
    counted = pytestconfig.stash.setdefault(COUNTED, {})

    def count(row: str, line: str) -> None:
        counted.setdefault(row, []).append(line)

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints one line per count, in the order of the rows, and writes them to the file that NIFT_TEST_COUNTS names."""
    counted = dict(sorted(config.stash.get(COUNTED, {}).items(), key=lambda row: (row[0][0], row[0][1:].zfill(8))))
    if not counted:
        return
    terminalreporter.section("faults")
    for row, lines in counted.items():
        for line in lines:
            terminalreporter.write_line(f"{row}: {line}")
    if place := os.environ.get("NIFT_TEST_COUNTS"):
        Path(place).write_text(json.dumps(counted, indent=1, ensure_ascii=False) + "\n")
