"""The page of the study: what was run, what became of it, and every score beside the paper's."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from expectations import contract as contracts
from nift_assets.pages import report as pages
from nift_assets.pages.report import CheckedTable, DataVersion, Spent
from nift_assets.rows import without_places
from nift_assets.steps import check_results, coverage, partitions
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import STEPS, Made, table
from nift_assets.store import Store
from nift_assets.study import Study
from nift_training.artifacts import read_rows

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book

FILE = "report.html"
PAGE = f"/study/{FILE}"
PLAIN = str | int | float | None


@table(
    group="scores",
    kinds={"python", "html"},
    inputs=pages.INPUTS,
    rows=lambda key, table: (_content(STUDY), pages.TEMPLATE.read_text(encoding="utf-8")),
    follows=True,
)
def report(context: dg.AssetExecutionContext, **frames: pl.DataFrame) -> Made:
    store: Store = context.resources.store
    content = pages.page(
        STUDY,
        frames,
        data_versions(store),
        spent=spent(context.resources.ledger.book),
        checked=checked(context.instance),
        losses=losses(store, frames["lora_adapters"]),
        coverage=coverage.frame(store, context.resources.ledger.book, datetime.now(UTC).date()),
    ).encode()
    row = {
        "study": STUDY.name,
        "file": FILE,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "tables": sum(frame.height > 0 for frame in frames.values()),
    }
    # `nift ui` serves it; a browser opens no file for a page.
    shown = {"page": dg.MetadataValue.url(PAGE), "file": FILE, "bytes": len(content)}
    return Made(pl.DataFrame([row]), files={FILE: content}, metadata=shown)


def _content(study: Study) -> dict[str, Any]:
    """The study with all its rows, wherever their files lie."""
    values = {field.name: getattr(study, field.name) for field in fields(study)}
    rows = {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}
    return {name: [row if isinstance(row, PLAIN) else without_places(row) for row in rows[name]] for name in rows}


def data_versions(store: Store) -> list[DataVersion]:
    """The stored version of everything the page is made from; the digest is None for what was not made yet."""
    return [
        DataVersion(table=name, partition=key, digest=version.data if (version := store.version(name, key)) else None)
        for name in pages.INPUTS
        for key in partitions.keys(STUDY, STEPS[name].partitions)
    ]


def spent(book: Book) -> list[Spent]:
    """What everybody who was asked for this study has cost, by the ledger, in the order of the study."""
    from nift_assets.ledger import report as ledger

    accounts = {account.who: account for account in ledger.report(book, study=STUDY.name).accounts}
    return [
        Spent(
            who=model.name,
            questions=account.states,
            sent=account.sent,
            input_tokens=account.input_tokens,
            output_tokens=account.output_tokens,
            usd=account.spent / 1e9,
            reserved=account.reserved / 1e9,
        )
        for model in STUDY.language_models
        if (account := accounts.get(model.name))
    ]


def checked(instance: dg.DagsterInstance) -> list[CheckedTable]:
    """How the checks of every table stand by what Dagster remembers, on each partition that the study has."""
    tables = []
    for name, step in STEPS.items():
        of_partitions = [check_results.last(instance, name, key) for key in partitions.keys(STUDY, step.partitions)]
        tests = contracts.load(name).tests
        results = {test.name: [found[test.name] for found in of_partitions if test.name in found] for test in tests}
        tables.append(CheckedTable(table=name, tests=tests, results=results))
    return tables


def losses(store: Store, lora_adapters: pl.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """The loss of each step of every adapter whose folder is still there."""
    logs = {
        adapter: store.folder(folder, "train_log.jsonl")
        for adapter, folder in lora_adapters.select("adapter", "folder").iter_rows()
    }
    return {
        adapter: [(row["step"], row["loss"]) for row in read_rows(log)] for adapter, log in logs.items() if log.exists()
    }
