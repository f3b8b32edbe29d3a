"""What is asked for money says beforehand, at each of its partitions, what it costs, its cap and what is missing."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_project.settings import existing_book, warehouse
from nift_assets import environment
from nift_assets.costs import price_list
from nift_assets.rows import digest
from nift_assets.secrets import redaction
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import TolerantStore
from nift_training.messages import one_line

if TYPE_CHECKING:
    from nift_assets.costs.plan import Cost, PlannedPartition, PlanRow
    from nift_assets.rows import LanguageModel

SECONDS_BETWEEN = 60
# Of 80,000 documents a plan takes seconds per teacher, and Dagster ends a sensor after a minute: as many partitions are
# looked at as fit into the first, and then it rests, so that it never takes more than this share of a core.
SECONDS_AT_A_TIME = 15
SHARE_OF_A_CORE = 0.02
# A single partition may take longer than those seconds, but Dagster has ended the sensor by then.
MOST_REST = 60 / SHARE_OF_A_CORE


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """What has been told of each partition, those still to be looked at in this round, the state that the round began
    with, and until when to rest, in seconds since 1970."""

    told: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    left: Sequence[str] = ()
    state: str = ""
    rest_until: float = 0.0


def plans_sensor(graph: Graph) -> dg.SensorDefinition:
    """Tells the plan of each paid partition as an observation of it, when it is another than the last time."""

    @dg.sensor(
        name="plans",
        minimum_interval_seconds=SECONDS_BETWEEN,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes to each partition that is asked for money what is still to be asked, what that costs, what "
        "caps it and whether the key is there: as `nift plan` does. Starts nothing and asks nobody.",
    )
    def plans(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        cursor = _read(context.cursor)
        # A clock that was put back must not make it rest until the time is again what it was.
        if 0 < cursor.rest_until - time.time() < MOST_REST:
            return dg.SkipReason("the last look took long, and the next is not due yet")
        paid = {str(partition): (partition, asked) for partition, asked in paid_partitions(graph)}
        state = _state(graph, [asked.row for _, asked in paid.values()])
        left = [name for name in cursor.left if name in paid] or (list(paid) if state != cursor.state else [])
        if not left:
            return dg.SkipReason("no table, answer or day is another than the last time")
        begun = time.monotonic()
        looked: dict[str, Mapping[str, str]] = {}
        while left and not (looked and time.monotonic() - begun > SECONDS_AT_A_TIME):
            name = left.pop(0)
            looked[name] = _planned_or_why_not(graph, paid[name][1], context)
        spent = time.monotonic() - begun
        told = {name: facts for name, facts in cursor.told.items() if name in paid} | looked
        after = Cursor(
            told=told,
            left=left,
            # What changes in the middle of a round is seen in the next.
            state=cursor.state if cursor.left else state,
            rest_until=time.time() + max(0.0, spent / SHARE_OF_A_CORE - SECONDS_BETWEEN),
        )
        return dg.SensorResult(
            asset_events=[
                dg.AssetObservation(paid[name][0].table, partition=paid[name][0].key, metadata=facts)
                for name, facts in looked.items()
                if cursor.told.get(name) != facts
            ],
            cursor=json.dumps(asdict(after)),
        )

    return plans


def _read(cursor: str | None) -> Cursor:
    """The cursor as it was left; a new one where it is that of an earlier version."""
    written = json.loads(cursor) if cursor else None
    if not isinstance(written, dict) or written.keys() != {own.name for own in fields(Cursor)}:
        return Cursor()
    return Cursor(**written)


def _state(graph: Graph, asked: Collection[LanguageModel]) -> str:
    """What the plans rest on: another text once a row of the study, a key, a table, an answer or the day is another."""
    from nift_assets.costs import plan

    study, root, now = graph.study.name, warehouse(), datetime.now(UTC)
    variables = sorted({variable for row in asked if (variable := plan.key_variable(row))})
    names = (name for variable in variables for name in (variable, f"{variable}_FILE"))
    with_key = [name for name in names if os.environ.get(name)]
    seen = [now.date().isoformat(), digest(graph.study), *with_key]
    if "://" in root or environment.ledger_url():
        # What is not on this machine's disk is looked at every hour.
        seen.append(str(now.hour))
    if "://" not in root:
        kinds = (f"{study}/*.parquet", f"{study}/*/*.parquet", "ledger.sqlite*")
        files = (path for kind in kinds for path in Path(root).glob(kind))
        seen += sorted(f"{path} {path.stat().st_mtime_ns}" for path in files if path.exists())
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()


def paid_partitions(graph: Graph) -> Iterator[tuple[Partition, PlannedPartition]]:
    """Each partition that is asked for money, with who is asked."""
    from nift_assets.costs import plan

    for step in (step for step in graph.steps if step.asks):
        for key in graph.keys(step.tables[0]):
            if not graph.partitions.is_wanted(step.tables[0], key):
                continue
            asked = plan.planned_partition(graph.study, step.tables[0], key)
            if asked is not None and not price_list.is_free(asked.row):
                yield Partition(step.tables[0], key), asked


def _planned_or_why_not(
    graph: Graph, asked: PlannedPartition, context: dg.SensorEvaluationContext
) -> Mapping[str, str]:
    """The plan of a partition; of one that cannot be planned the reason, and all others are told of."""
    try:
        return planned(graph, asked)
    except Exception as error:
        why = one_line(redaction.safe(error))
        context.log.warning(f"the plan of {asked.row.name} cannot be made: {why}")
        return {"before you launch": f"nobody can say: {why}"}


def planned(graph: Graph, asked: PlannedPartition) -> dict[str, str]:
    """What a person wants to know of a partition before it is launched."""
    from nift_assets.costs import plan

    store, book = TolerantStore(root=warehouse(), study=graph.study.name), existing_book()
    row = plan.plan_row(graph.study, asked, store=store, book=book, today=datetime.now(UTC).date())
    return _facts(graph, row, price_list.last_price(asked.row))


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
