"""A limit on memory holds in every step from the corpus to the folder for the Hub and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.counting import Counts
from tests.scale import steps

PAIRS, MOST_MB = 80_000, 1_000


@pytest.mark.fault("S11", runs="every step from the corpus to the folder for the Hub and the report: 1,000 MiB")
@pytest.mark.slow
def test_eighty_thousand_pairs_need_little_memory_in_every_step(tmp_path: Path, counts: Counts) -> None:
    wanted = [table for table, _ in steps.STEPS]
    peaks = {result["table"]: round(result["peak_mb"]) for result in steps.measure(tmp_path / "made", PAIRS, wanted)}
    assert list(peaks) == wanted
    largest = max(peaks, key=lambda table: peaks[table])
    counts("S11", f"{PAIRS:,} pairs through {len(peaks)} steps, most memory in {largest}: {peaks[largest]} MiB")
    assert peaks[largest] < MOST_MB, peaks
