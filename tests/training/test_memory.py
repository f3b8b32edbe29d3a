"""The peak memory of a process is its own, not that of the process that started it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nift_training import memory
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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says what other processes hold")
def test_the_peak_of_a_block_is_that_of_the_largest_process_it_starts() -> None:
    hoard = "import time; held = b'x' * (400 * 2**20); time.sleep(0.6)"
    with memory.watched(seconds=0.05) as alone:
        pass
    with memory.watched(seconds=0.05) as peak:
        subprocess.run([sys.executable, "-c", hoard], check=True)
    assert alone.mb is not None
    assert peak.mb is not None
    assert max(400, alone.mb) <= peak.mb < max(500, alone.mb + 50)
