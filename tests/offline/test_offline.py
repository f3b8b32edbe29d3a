"""The commands that need no network ask for none, in a network that has nothing but its loopback (X12)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import offline
from tests.conftest import NIFT, PROJECT

pytestmark = pytest.mark.skipif(not offline.permitted(), reason=offline.REASON)


def ran(command: list[str], folder: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    notes = folder / "notes"
    own = {"NIFT_WAREHOUSE": str(folder / "warehouse"), "DAGSTER_HOME": str(folder / "home"), "NIFT_STUDY": "demo"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "DO_NOT_TRACK"))}
    (folder / "home").mkdir()
    done = subprocess.run(
        offline.alone(command),
        env=offline.noting(environment | own, notes),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, offline.asked(notes)


def test_what_asks_for_another_machine_is_noted_and_reaches_nobody(tmp_path: Path) -> None:
    code = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname())
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as refused:
    print(refused.strerror)
"""
    done, asked = ran([sys.executable, "-c", code], tmp_path)
    assert done.stdout == "Network is unreachable\n", done.stderr
    assert [line.split()[:2] for line in asked] == [
        ["socket.getaddrinfo", "192.0.2.1"],
        ["socket.connect", "192.0.2.1"],
    ]


@pytest.mark.fault("X12")
def test_tables_are_made_without_asking_for_another_machine(tmp_path: Path) -> None:
    """With nothing set that forbids it: what is shipped asks for nothing by itself."""
    done, asked = ran([NIFT, "run", "halves"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "warehouse" / "demo").is_dir()
    assert asked == []
