"""What was stored before versions were digests of code is up to date: nobody pays for it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import polars as pl
import pytest

from nift_assets import takeover
from nift_assets.steps.lineage import Graph, Partition, ordered
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from tests.demo import GRAPH, STUDY

# What the footers of the demo's warehouse held when the code of 92d1d38 lay in this folder: data, inputs.
FOLDER = Path("/srv/nift")
BEFORE: dict[str, tuple[str, str]] = json.loads(Path(__file__).with_name("before.json").read_text(encoding="utf-8"))
# Made of the names, sizes and times of the corpus's files, and the times are those of a checkout.
TIMED = {"raw_sample", "raw_sample_rejects"}
# What is drawn otherwise today: the report, and the tables that are shown with a plot of the same kind. The funnel says
# nothing any more of filters that were not run.
OUTDATED = TIMED | {"report", "figure_2", "mt_bench_categories", "training_costs", "funnel"}
# What is made by portions of the documents today, where the code that does it is the table's own. The rows are the
# same, so that nothing made from them is outdated.
OUTDATED |= {"contamination_removals", "training_sets", "training_files"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A warehouse of before, without its rows."""
    filled = Store(str(tmp_path), STUDY.name)
    for place, (data, inputs) in BEFORE.items():
        table, _, key = place.partition("/")
        path = filled.path(table, key or None)
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded = {"nift.data": data, "nift.inputs": inputs}
        pl.DataFrame({"x": [1]}).write_parquet(path, metadata=recorded)
    return filled


def outdated(store: Store, graph: Graph = GRAPH) -> set[str]:
    """The tables with a partition that is stored and would be made again."""
    return {
        place.table
        for place in (Partition(table, key) for table in graph.tables for key in graph.keys(table))
        if graph.partitions.is_wanted(*place) and store.version(*place) and not graph.is_current(store, place)
    }


def test_all_that_was_up_to_date_is_up_to_date_wherever_the_code_lay(store: Store) -> None:
    assert outdated(store) == {place.partition("/")[0] for place in BEFORE}
    takeover.take_over(GRAPH, store, [Path("/elsewhere"), FOLDER])
    assert outdated(store) == OUTDATED


def test_it_is_taken_over_once_and_no_table_is_written(store: Store) -> None:
    tables = {path: path.read_bytes() for path in store.folder().rglob("*.parquet")}
    takeover.take_over(GRAPH, store, [FOLDER])
    written = store.folder(".versions.json").read_bytes()
    takeover.take_over(GRAPH, store, [Path("/elsewhere")])
    assert store.folder(".versions.json").read_bytes() == written
    assert {path: path.read_bytes() for path in store.folder().rglob("*.parquet")} == tables


def test_what_was_stale_stays_stale(store: Store) -> None:
    other = {"nift.data": "0" * 64, "nift.inputs": BEFORE["mt_bench_answers/pico"][1]}
    pl.DataFrame({"x": [2]}).write_parquet(store.path("mt_bench_answers", "pico"), metadata=other)
    takeover.take_over(GRAPH, store, [FOLDER])
    assert not GRAPH.is_current(store, Partition("mt_bench_judgments", "pico"))
    assert GRAPH.is_current(store, Partition("mt_bench_judgments", "pico-instruct"))
    assert outdated(store) == OUTDATED | {"mt_bench_judgments", "response_endings"}


def test_what_counts_as_an_older_version_of_the_code_is_stale(store: Store) -> None:
    raised = {"lora_adapters": replace(GRAPH.tables["lora_adapters"], code_version="2")}
    graph = ordered(STUDY, [raised.get(step.tables[0], step) for step in GRAPH.steps])
    takeover.take_over(graph, store, [FOLDER])
    assert outdated(store, graph) == OUTDATED | {"lora_adapters"}


def test_dagster_is_told_the_versions_it_remembers_until_the_code_changes() -> None:
    told = {table: takeover.known_to_dagster(STUDY, step, table) for table, step in GRAPH.tables.items()}
    assert told["lora_adapters"] == "c05ef342f3ec"
    assert told["mt_bench_answers"] == told["ifeval"] == "575cdb91b673"
    assert told["halves"] == "02cc0a9c7c82"
    for name in ("lora_adapters", "halves"):
        assert takeover.known_to_dagster(STUDY, replace(GRAPH.tables[name], code_version="2"), name) == "2"


def test_an_empty_warehouse_is_left_alone(tmp_path: Path) -> None:
    takeover.take_over(GRAPH, Store(str(tmp_path), STUDY.name))
    assert list(tmp_path.iterdir()) == []


def test_where_the_code_lay_is_read_from_the_catalogue_of_a_moved_warehouse(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    frame = pl.DataFrame({"x": [1]})
    for table, key in (("halves", None), ("completions", "echo")):
        store = Store(str(before / "data" / "warehouse"), STUDY.name)
        store.write(table, key, frame, Version(data=data_version(frame), inputs="0"))
    (before / "data" / "warehouse" / "nift.duckdb").unlink()
    with duckdb.connect(before / "data" / "warehouse" / "nift.duckdb") as catalogue:
        catalogue.execute(f'create schema "{STUDY.name}"')
        for table, files in (("halves", "halves.parquet"), ("completions", "completions/[!.]*.parquet")):
            place = before / "data" / "warehouse" / STUDY.name / files
            catalogue.execute(f"create view \"{STUDY.name}\".{table} as from read_parquet('{place}')")
    assert takeover.folders_before(store, before) == []
    before.rename(after)
    assert takeover.folders_before(Store(str(after / "data" / "warehouse"), STUDY.name), after) == [before]
