"""The page of the study: what was run, what became of it, and every score beside the paper's."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from expectations import contract as contracts
from expectations.frames import Rows, schema
from nift_assets.pages import report as pages
from nift_assets.pages.overview import Made, StepTime
from nift_assets.pages.report import CheckedTable, DataVersion, SampleDocument, Spent
from nift_assets.pages.viewer import files
from nift_assets.rows import without_places
from nift_assets.steps import check_results, coverage
from nift_assets.steps.context import Context, gathered
from nift_assets.steps.lineage import Graph
from nift_assets.steps.table import TableOutput, table
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable
from nift_training.artifacts import read_rows

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book

FILE = "report.html"
PAGE = f"/study/{FILE}"
# Of one table, however often it was made.
MOST_RUNS = 2_000
GIT_SECONDS = 10
PLAIN = str | int | float | None
# What the page has of tables that have a row per document, besides the few documents that it shows.
COUNTED = {
    "raw_sample": ("document_id",),
    "halves": ("document_id", "sample_rank"),
    "completions": ("teacher", "status"),
}


@table(
    group="scores",
    kinds={"python", "html"},
    inputs=pages.INPUTS,
    rows=lambda study, key, table: (_content(study), pages.templates()),
    streams=True,
    follows=True,
)
def report(context: Context) -> TableOutput:
    graph, store = context.graph, context.store
    now = datetime.now(UTC)
    frames = {name: gathered(context, name, *COUNTED.get(name, ())) for name in pages.INPUTS}
    content = pages.page(
        context.study,
        frames | reviewed(store),
        data_versions(graph, store),
        made=Made(at=now, code=code()),
        times=times(graph, context.dagster.instance),
        spent=spent(graph.study, context.book),
        checked=checked(graph, context.dagster.instance, context.store),
        losses=losses(store, frames["lora_adapters"]),
        coverage=coverage.frame(graph, store, context.book, now.date()),
        samples=samples(context, frames["halves"]),
    ).encode()
    row = {
        "study": graph.study.name,
        "file": FILE,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "tables": sum(frame.height > 0 for frame in frames.values()),
    }
    # `nift ui` serves it; a browser opens no file for a page.
    shown = {"page": dg.MetadataValue.url(PAGE), "file": FILE, "bytes": len(content)}
    return TableOutput(pl.DataFrame([row]), files={FILE: content}, metadata=shown)


def _content(study: Study) -> dict[str, Any]:
    """The study with all its rows, wherever their files lie."""
    values = {field.name: getattr(study, field.name) for field in fields(study)}
    rows = {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}
    return {name: [row if isinstance(row, PLAIN) else without_places(row) for row in rows[name]] for name in rows}


def samples(context: Context, halves: pl.DataFrame) -> list[SampleDocument]:
    """The first documents of the sample that somebody was asked about, with what came of it; of the tables their rows
    are read and no others. `halves` are the documents and their ranks."""
    keys = context.graph.keys("completions")
    firsts = [
        halves.join(_rows(context, "completions", key, None), on="document_id", how="semi").head(pages.SAMPLES)
        for key in keys
    ]
    shown = pl.concat([halves.clear(), *firsts]).unique().sort("sample_rank").head(pages.SAMPLES)["document_id"]
    completions = [_rows(context, "completions", key, shown) for key in keys]
    return pages.samples(
        context.study.teachers,
        _rows(context, "halves", None, shown),
        pl.concat([_empty("completions"), *completions], how="diagonal"),
    )


def _rows(context: Context, table: str, key: str | None, documents: pl.Series | None) -> pl.DataFrame:
    """The rows of some documents, or no more than the ids of all; none of what is not there or is damaged."""
    try:
        with context.store.held(table, key) as stored:
            if stored is None:
                return _empty(table)
            with Rows(stored[0]) as rows:
                ids = rows.select("document_id")
                if documents is None:
                    return ids
                places = ids["document_id"].is_in(documents.implode()).arg_true()
                return pl.concat([rows.between(0, 0), *(rows.between(place, place + 1) for place in places)])
    except DamagedTable:  # which `gathered` has told
        return _empty(table)


def _empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema=schema(contracts.load(table)))


def reviewed(store: Store) -> dict[str, pl.DataFrame]:
    """How far people agree, where they have reviewed anything: no input, since a study goes on without reviews."""
    found = store.find("review_agreement", None)
    return {} if found is None else {"review_agreement": found}


def data_versions(graph: Graph, store: Store) -> list[DataVersion]:
    """The stored version of everything the page is made from; the digest is None for what is not made or damaged."""
    return [
        DataVersion(table=name, partition=key, digest=_digest(store, name, key))
        for name in pages.INPUTS
        for key in graph.keys(name)
    ]


def _digest(store: Store, table: str, key: str | None) -> str | None:
    try:
        version = store.version(table, key)
    except DamagedTable:
        return None
    return version.data if version else None


def spent(study: Study, book: Book) -> list[Spent]:
    """What everybody who was asked for this study has cost, by the ledger, in the order of the study."""
    from nift_assets.ledger import report as ledger

    accounts = {account.who: account for account in ledger.report(book, study=study.name).accounts}
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
        for model in study.language_models
        if (account := accounts.get(model.name))
    ]


def checked(graph: Graph, instance: dg.DagsterInstance, store: Store) -> list[CheckedTable]:
    """How the checks of every table stand by what Dagster remembers, on each partition that the study has."""
    tables, kept = [], files.failing(store)
    for name in graph.tables:
        of_partitions = [check_results.last(instance, name, key) for key in graph.keys(name)]
        tests = contracts.load(name).tests
        results = {
            test.name: [of_partition[test.name] for of_partition in of_partitions if test.name in of_partition]
            for test in tests
        }
        rows = [(file.partition, test) for file, test in kept if file.table == name]
        tables.append(CheckedTable(table=name, tests=tests, results=results, kept=rows))
    return tables


def times(graph: Graph, instance: dg.DagsterInstance) -> list[StepTime]:
    """How long the last step took that made each table, by what Dagster remembers, in the order of the graph."""
    found = []
    for name, step in graph.tables.items():
        records = instance.fetch_materializations(dg.AssetKey(name), limit=MOST_RUNS).records
        seconds: dict[str | None, float] = {}
        for record in records:  # the newest first
            made = record.asset_materialization
            if made and made.partition not in seconds and "seconds" in made.metadata:
                seconds[made.partition] = float(str(made.metadata["seconds"].value))
        of_study = [seconds[key] for key in graph.keys(name) if key in seconds]
        if of_study and name == step.tables[0]:
            found.append(StepTime(table=name, group=step.group, partitions=len(of_study), seconds=sum(of_study)))
    return found


def code() -> str:
    """What made the page: the package's version and, where it is a checkout, the commit and whether files differ."""
    name = f"nift {version('nift')}"
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return name
    git = ("git", "-C", str(root), "describe", "--always", "--dirty=, with changes", "--exclude=*")
    try:
        described = subprocess.run(git, capture_output=True, text=True, timeout=GIT_SECONDS, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout of somebody else's
        return name
    return f"{name}, commit {described}"


def losses(store: Store, lora_adapters: pl.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """The loss of each step of every adapter whose folder is still there."""
    logs = {
        adapter: store.folder(folder, "train_log.jsonl")
        for adapter, folder in lora_adapters.select("adapter", "folder").iter_rows()
    }
    return {
        adapter: [(row["step"], row["loss"]) for row in read_rows(log)] for adapter, log in logs.items() if log.exists()
    }
