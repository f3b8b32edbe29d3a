"""What is asked for money says beforehand, at each of its partitions, what it costs, its cap and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_project.settings import existing_book, warehouse
from nift_assets.costs import price_list
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import TolerantStore

if TYPE_CHECKING:
    from nift_assets.costs.plan import Cost, PlanRow

SECONDS_BETWEEN = 60


def plans_sensor(graph: Graph) -> dg.SensorDefinition:
    """Tells the plan of each paid partition as an observation of it, when it is another than the last time."""

    @dg.sensor(
        name="plans",
        minimum_interval_seconds=SECONDS_BETWEEN,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes to each partition that is asked for money what is still to be asked, what that costs, what "
        "caps it and whether the key is there: as `nift plan` does. Starts nothing and asks nobody.",
    )
    def plans(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        told: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
        now = {str(partition): (partition, facts) for partition, facts in planned(graph)}
        changed = [found for name, found in now.items() if told.get(name) != found[1]]
        return dg.SensorResult(
            asset_events=[
                dg.AssetObservation(partition.table, partition=partition.key, metadata=facts)
                for partition, facts in changed
            ],
            cursor=json.dumps({name: facts for name, (_, facts) in now.items()}),
        )

    return plans


def planned(graph: Graph) -> Iterator[tuple[Partition, dict[str, str]]]:
    """Each partition that is asked for money, with what a person wants to know before it is launched."""
    from nift_assets.costs import plan

    store, book = TolerantStore(root=warehouse(), study=graph.study.name), existing_book()
    today = datetime.now(UTC).date()
    for step in (step for step in graph.steps if step.asks):
        for key in graph.keys(step.tables[0]):
            if not graph.partitions.is_wanted(step.tables[0], key):
                continue
            asked = plan.planned_partition(graph.study, step.tables[0], key)
            if asked is None or price_list.is_free(asked.row):
                continue
            row = plan.plan_row(graph.study, asked, store=store, book=book, today=today)
            yield Partition(step.tables[0], key), _facts(graph, row, price_list.last_price(asked.row))


def _facts(graph: Graph, row: PlanRow, price: Any) -> dict[str, str]:
    known = row.requests is not None and row.missing is not None
    cap = row.cap if row.cap is not None else _billionths(price_list.budget(graph.study))
    facts = {
        "before you launch": row.status,
        "still to be asked": f"{row.missing:,} of {row.requests:,}" if known else "not known before the texts are cut",
        "that costs": _usd(row.online),
        "by batch": _usd(row.batch) if row.batch != row.online else "",
        "price": f"${price.input:g} in, ${price.output:g} out per million tokens" if price else "not known",
        "cap": "none: it is not asked before one is set" if cap is None else f"${cap / 1e9:,.2f}",
        "spent of it": f"${row.taken / 1e9:,.2f}",
        "model": f"{row.provider} {row.model}",
    }
    return {name: fact for name, fact in facts.items() if fact}


def _usd(cost: Cost | None) -> str:
    if cost is None:
        return "not known"
    return f"${cost.expected / 1e9:,.2f}, between ${cost.low / 1e9:,.2f} and ${cost.high / 1e9:,.2f}"


def _billionths(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * 1e9)
