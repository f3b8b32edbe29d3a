"""What is asked of another machine in a network that has nothing but its loopback is noted (X12)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import offline
from tests.conftest import PROJECT

pytestmark = pytest.mark.skipif(not offline.permitted(), reason=offline.REASON)

CODE = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname())
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as refused:
    print(refused.strerror)
"""


def test_what_asks_for_another_machine_is_noted_and_reaches_nobody(tmp_path: Path) -> None:
    command = offline.alone([sys.executable, "-c", CODE])
    environment = offline.noting(os.environ, tmp_path)
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout == "Network is unreachable\n", done.stderr
    assert [line.split()[:2] for line in offline.asked(tmp_path)] == [
        ["socket.getaddrinfo", "192.0.2.1"],
        ["socket.connect", "192.0.2.1"],
    ]
