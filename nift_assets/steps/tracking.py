"""What the tracker of `NIFT_TRACKER` is told of a step: losses by the process that trains, scores and costs from here.

Nothing that is made depends on it: the setting is part of no version, and a tracker that is down fails no step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import polars as pl

from nift_assets import environment
from nift_assets.near_names import near
from nift_assets.steps.context import Context
from nift_assets.store import TolerantStore
from nift_training.tracking import trackers
from nift_training.tracking.follower import Follower
from nift_training.tracking.measurements import Opening, run_name

# Of what a step that asks has found, what it cost, and what it is called there.
COSTS = {
    "cost_usd": "usd",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "requests_sent": "requests",
}
SHORT = 8


def setting() -> str | None:
    """Who is told, None if nobody. ValueError in one line for what names no tracker or one that is not installed."""
    if (wanted := environment.tracker()) is None:
        return None
    name = wanted.partition(":")[0]
    if name not in trackers.CLIENTS:
        known = ", ".join(trackers.CLIENTS)
        raise ValueError(
            f"{environment.TRACKER} names the tracker {name!r} and there is none of that name; use one of {known}"
            f"{near(name, trackers.CLIENTS)}"
        )
    trackers.parse(wanted)
    return wanted


def options(context: Context) -> dict[str, object]:
    """What the process that trains a partition is told of the tracker; nothing where there is none."""
    if (chosen := setting()) is None:
        return {}
    version = context.graph.inputs_version(context.store, context.partition)
    return {"tracker": chosen, "tracked_as": _run(context, context.partition.table, context.key, version)}


def send_costs(context: Context, table: str, version: str, found: Mapping[str, object]) -> None:
    """What a partition of a table that asks has cost so far, as the metadata of its step says."""
    numbers = {f"cost/{COSTS[name]}": value for name, value in found.items() if name in COSTS}
    _send(context, {_run(context, table, context.key, version): {k: float(str(v)) for k, v in numbers.items()}})


def send_scores(context: Context) -> None:
    """Every stored score with its interval: a run per model and version of its weights."""
    if setting() is None:
        return
    # What a run is called is not worth a failed step.
    store = TolerantStore(root=context.store.root, study=context.store.study)
    scores = store.find("benchmark_scores", None)
    numbers = {}
    for (model,), rows in scores.group_by("model", maintain_order=True) if scores is not None else ():
        weights = store.find("merged_models", str(model), ["digest"])
        version = "" if weights is None else weights["digest"][0]
        numbers[_run(context, "benchmark_scores", str(model), version)] = _scores(rows)
    _send(context, numbers)


def _scores(rows: pl.DataFrame) -> dict[str, float | None]:
    return {
        f"scores/{row['benchmark']}{end}": row[column]
        for row in rows.iter_rows(named=True)
        for column, end in (("score", ""), ("low", "_low"), ("high", "_high"))
    }


def _run(context: Context, table: str, row: str, version: str) -> str:
    return run_name(context.study.name, table, row, version[:SHORT])


def _send(context: Context, numbers_by_run: Mapping[str, Mapping[str, float | None]]) -> None:
    if (chosen := setting()) is None:
        return
    with Follower(chosen, context.dagster.log.warning) as follower:
        for run, numbers in numbers_by_run.items():
            follower.begin(Opening(run=run, seconds=time.time()))
            follower.tell(0, numbers)
            follower.end()
