"""What the Dagster instance remembers of the checks, and the tables as they are documented with it."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from expectations import contract as contracts
from nift_assets.assets import partitions
from nift_assets.assets.graph import steps
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Step
from nift_assets.docs import LastResult, Stored, Table
from nift_assets.store import Store

# So many runs of one check are looked through for the last of every partition.
RUNS_PER_PARTITION = 10


def documented(store: Store, instance: dg.DagsterInstance | None) -> list[Table]:
    """All tables of the active study, from articles to scores, with the last results the instance knows of."""
    # Models are made from nothing of ours, so they would come first.
    ordered = sorted(steps(), key=lambda step: step.group != "data")
    return [_table(step, name, store, instance) for step in ordered for name in step.tables]


def _table(step: Step, name: str, store: Store, instance: dg.DagsterInstance | None) -> Table:
    promised = contracts.load(name)
    keys = partitions.keys(STUDY, step.partitions)
    read_by = [table for other in steps() if name in other.inputs for table in other.tables]
    return Table(
        contract=promised,
        group=step.group,
        made_by=" and ".join(sorted(step.kinds)),
        partitions=step.partitions.replace("_", " ") if step.partitions else None,
        upstream=[*([step.source] if step.source else []), *step.inputs],
        downstream=read_by,
        stored=[Stored(partition=key, rows=store.rows(name, key)) for key in keys],
        results={test.name: _last(instance, name, test.name, keys) for test in promised.tests} if instance else {},
    )


def _last(instance: dg.DagsterInstance, table: str, test: str, keys: list[str | None]) -> list[LastResult]:
    """The last result of one check on each partition the study has, in the study's order."""
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(table), test), limit=RUNS_PER_PARTITION * len(keys) + 1
    )
    found: dict[str | None, LastResult] = {}
    for record in history:  # the newest first
        evaluation = record.event.asset_check_evaluation if record.event else None
        if evaluation is not None and evaluation.partition not in found:
            found[evaluation.partition] = LastResult(
                partition=evaluation.partition,
                passed=evaluation.passed,
                message=evaluation.description or "",
                at=datetime.fromtimestamp(record.create_timestamp, UTC),
            )
    return [found[key] for key in keys if key in found]
