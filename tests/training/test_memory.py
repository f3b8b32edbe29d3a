"""The peak memory of a process is its own, not that of the process that started it."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import PROJECT


def test_the_peak_of_a_process_is_not_its_parents() -> None:
    kept = bytearray(b"x") * (400 * 2**20)  # what a long test session holds
    script = (
        "from nift_training.memory import peak_rss_mb; block = bytearray(b'x') * (50 * 2**20); print(peak_rss_mb())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert 50 < float(printed) < 200
    del kept
