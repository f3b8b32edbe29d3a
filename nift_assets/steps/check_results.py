"""What the Dagster instance remembers of the checks: the last result of each, and whether nothing upstream failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg

from expectations import contract as contracts
from expectations.results import CheckResult, LastResult
from nift_assets.steps.dagster_internals import PartitionKeyFilter
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store

# Not the description of a check's result, which the UI reads as Markdown: a message may quote what is data.
MESSAGE = "message"


def last(instance: dg.DagsterInstance, table: str, partition: str | None) -> dict[str, LastResult]:
    """The last result of each check of one partition of a table, by the check's name; what never ran has none."""
    keys = [dg.AssetCheckKey(dg.AssetKey(table), test.name) for test in contracts.load(table).tests]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(
        keys, partition_filter=PartitionKeyFilter(key=partition)
    )
    results = {}
    for key, record in records.items():
        evaluation = record.event.asset_check_evaluation if record.event else None
        if evaluation is not None:
            message = evaluation.metadata.get(MESSAGE)
            results[key.name] = LastResult(
                partition=evaluation.partition,
                passed=evaluation.passed,
                message=str(message.value) if message else "",
                at=datetime.fromtimestamp(record.create_timestamp, UTC),
            )
    return results


def refuse_unchecked(instance: dg.DagsterInstance, store: Store, partitions: Sequence[Partition]) -> list[CheckResult]:
    """The last result of every check of the given tables; ValueError if one that counts has failed or never ran, or if
    a table is not the one that Dagster has seen."""
    check_results: list[CheckResult] = []
    for partition in partitions:
        name = partition.table
        remedy = f"materialize {name} again before it is published"
        if not _is_stored_as_seen(instance, store, *partition):
            raise ValueError(f"{partition} on the disk is not what Dagster has seen being made; {remedy}")
        results = last(instance, *partition)
        for test in contracts.load(name).tests:
            if test.name in results:
                check_results.append(CheckResult(*partition, test.name, test.severity, results[test.name]))
            elif test.severity == "error":
                raise ValueError(f"{partition}: the check {test.name} has never run on it; {remedy}")
    for checked in _failed(check_results):
        raise ValueError(
            f"{checked.place}: the check {checked.check} failed ({checked.result.message}); nothing is published"
        )
    return check_results


def _failed(results: Sequence[CheckResult]) -> Iterator[CheckResult]:
    return (checked for checked in results if checked.severity == "error" and not checked.result.passed)


def _is_stored_as_seen(instance: dg.DagsterInstance, store: Store, table: str, partition: str | None) -> bool:
    version = store.version(table, partition)
    asset = dg.AssetKey(table)
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset, asset_partitions=[partition] if partition else None), limit=1
    ).records
    if version is None or not records:
        return False
    tags = (records[0].asset_materialization.tags if records[0].asset_materialization else None) or {}
    return tags.get("dagster/data_version") == version.data[:16]
