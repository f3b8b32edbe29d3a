"""The steps from a corpus to halves at the size of the paper's: how much memory a run of Dagster needs for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus import bench
from tests.counting import Counts

MOST_MB = 850


@pytest.mark.fault("S11", runs="sampling and cutting: 850 MB")
@pytest.mark.slow
def test_eighty_thousand_articles_are_sampled_cut_checked_and_stored_within_bounds(
    tmp_path: Path, counts: Counts
) -> None:
    bench.generate(tmp_path, "long")
    results = [bench.run(f"the step {table}", tmp_path) for table in ("raw_sample", "halves")]
    peaks = ", ".join(f"{result.what} {result.peak_mb:.0f} MB" for result in results)
    counts("S11", f"80,000 documents of {bench.text_bytes(tmp_path / 'long') / 1e6:.0f} MB, most memory: {peaks}")
    assert max(result.peak_mb for result in results) < MOST_MB
