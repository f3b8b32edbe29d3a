"""The counts of the fault tests: one line per row of faults, printed at the end of a session."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

Counts = Callable[[str, str], None]
Counted = dict[str, list[str]]
COUNTED = pytest.StashKey[Counted]()


@pytest.fixture(scope="session")
def counts(pytestconfig: pytest.Config) -> Counts:
    """Takes what was counted for a row of faults, `counts("T1", "5 kills, 2,000 keys, 0 lost")`; shown at the end."""
    counted = pytestconfig.stash.setdefault(COUNTED, {})

    def count(row: str, line: str) -> None:
        counted.setdefault(row, []).append(line)

    return count


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of several hands its counts to the one that prints."""
    if hasattr(session.config, "workerinput"):
        session.config.workeroutput["counted"] = session.config.stash.get(COUNTED, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: WorkerController) -> None:
    output: dict[str, Any] = getattr(node, "workeroutput", None) or {}  # none of one that crashed
    counted = node.config.stash.setdefault(COUNTED, {})
    for row, lines in output.get("counted", {}).items():
        counted.setdefault(row, []).extend(lines)


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
