"""What each asset took, of Dagster's own record, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from dagster_project.command_line.text_table import table

HEADER = ["asset", "made", "seconds", "longest s", "peak MB"]
MOST = 10_000


def render(instance: dg.DagsterInstance, assets: Iterable[str], since: float, width: int | None = None) -> str:
    """One line per asset that was made since then: how many partitions, the seconds of its function all together and
    at the most, and the most memory that one of its processes held."""
    lines = []
    for name in assets:
        records = dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), after_timestamp=since)
        of_steps = [
            record.asset_materialization.metadata
            for record in instance.fetch_materializations(records, limit=MOST).records
            if record.asset_materialization
        ]
        seconds = [float(str(metadata["seconds"].value)) for metadata in of_steps]
        peaks = [float(str(metadata["peak_mb"].value)) for metadata in of_steps if "peak_mb" in metadata]
        if seconds:
            peak = f"{max(peaks):,.0f}" if peaks else "-"
            lines.append([name, str(len(seconds)), f"{sum(seconds):,.1f}", f"{max(seconds):,.1f}", peak])
    return table(HEADER, lines, width)
