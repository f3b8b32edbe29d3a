"""The usual intents as jobs: one per set of partitions, since a run has one partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from nift_assets.graph import OWNER
from nift_assets.steps.lineage import Graph

if TYPE_CHECKING:
    from nift_assets.steps.dagster_internals import UnresolvedAssetJobDefinition
    from nift_assets.steps.partitions import PartitionSet


@dataclass(frozen=True)
class Intent:
    """What a person wants to have made: the tables of some groups that have one row of the study for a partition."""

    name: str
    by: PartitionSet | None
    groups: frozenset[str]
    description: str
    after_audit: bool = False


INTENTS = [
    Intent("articles", None, frozenset({"data"}), "The sample and its halves: what everything else starts from."),
    Intent(
        "teacher_data_set",
        "teacher",
        frozenset({"completions"}),
        "One teacher's data set, or several in a back-fill: it is asked, then filtered. A paid teacher costs money "
        "here and nowhere else; nift plan says how much.",
    ),
    Intent(
        "teacher_data_set_after_audit",
        "teacher",
        frozenset({"completions"}),
        "What waits for the audit: what it drops of a teacher, and the data set without that.",
        after_audit=True,
    ),
    Intent("published_set", "reference_set", frozenset({"data"}), "One data set of others, fetched and checked."),
    Intent("training_set", "training_set", frozenset({"training"}), "One training set, and its files for trainers."),
    Intent("control", "control", frozenset({"audits"}), "One control of the audit; its maker is paid."),
    Intent("audit", "audit", frozenset({"audits"}), "What the auditor says of one source; the auditor is paid."),
    Intent("backbone", "backbone", frozenset({"models"}), "One backbone, fetched from the Hub or made on the spot."),
    Intent("adapter", "adapter", frozenset({"models"}), "One LoRA adapter, trained. Needs a GPU beyond the demo."),
    Intent(
        "model",
        "model",
        frozenset({"models", "benchmarks"}),
        "One model from its weights to its judgments: merged, asked, judged. The judge is paid.",
    ),
    Intent("score_tables", None, frozenset({"scores"}), "Every score table and the report, from the cells there are."),
]


def intent_jobs(graph: Graph) -> list[UnresolvedAssetJobDefinition]:
    """The jobs of those intents that the study has rows for."""
    tables_by_intent = [(intent, tables(graph, intent)) for intent in INTENTS]
    return [
        dg.define_asset_job(
            intent.name,
            selection=dg.AssetSelection.assets(*names),
            description=intent.description,
            tags={"nift/per": intent.by or "study"},
            metadata={"owner": OWNER},
        )
        for intent, names in tables_by_intent
        if names
    ]


def tables(graph: Graph, intent: Intent) -> list[str]:
    """The tables of an intent, upstream first."""
    steps = [
        step
        for step in graph.steps
        if step.partitions == intent.by and step.group in intent.groups and not step.by_hand
        if (graph.follows_own_audit(step) if intent.after_audit else not graph.reads_own_audit(step))
    ]
    return [table for step in steps for table in step.tables]
