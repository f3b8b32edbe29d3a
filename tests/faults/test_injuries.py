"""Files that are not what was written: every reader names them with the remedy, and goes on with the others."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from dagster_project.check_history import documented
from dagster_project.io_manager import ParquetIOManager
from dagster_project.run_study import damaged, damaged_folders, runs
from expectations import contract as contracts
from expectations.frames import portions, schema
from nift_assets import catalogue
from nift_assets.costs import plan
from nift_assets.graph import asset_definition
from nift_assets.steps import coverage
from nift_assets.steps.lineage import Partition, PartitionStates
from nift_assets.store import Store
from nift_assets.table_files import DamagedTable, RowsDigest, Version, version_of, write_portions
from nift_training import artifacts
from tests.conftest import nift_here
from tests.counting import Counts
from tests.demo import GRAPH, STUDY
from tests.steps.test_guard import TEXTS, as_it_is, completions_that, materialize, sampled

TODAY = plan.date(2026, 11, 21)
# What the tables are that are injured: a table without partitions, and one with several.
KINDS = {"halves": None, "completions": "echo"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a sample, its halves and the completions of two teachers."""
    store = Store(root=str(tmp_path_factory.mktemp("made")), study=STUDY.name)
    sample = sampled(TEXTS)
    store.write("raw_sample", None, sample, version_of(sample, ""))
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialize(instance, store, "halves").success
        for teacher in ("echo", "original"):
            functions = completions_that(as_it_is)
            assert materialize(instance, store, "completions", partition=teacher, functions=functions).success
    return store


@pytest.fixture
def store(made: Store, tmp_path: Path) -> Store:
    shutil.copytree(made.root, tmp_path / "warehouse")
    return Store(root=str(tmp_path / "warehouse"), study=STUDY.name)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flipped(path: Path) -> None:
    """A bit of the text that is stored, where no reader of Parquet notices."""
    frame, footer = pl.read_parquet(path), pl.read_parquet_metadata(path)
    column = "first_half" if "first_half" in frame.columns else "completion"
    other = frame.with_columns(pl.col(column).str.replace("o", "p"))
    other.write_parquet(path, metadata={name: text for name, text in footer.items() if name.startswith("nift.")})


def another_partitions(path: Path) -> None:
    others = [other for other in path.parent.glob("[!.]*.parquet") if other != path]
    shutil.copyfile(others[0], path)


def forged_footer(path: Path) -> None:
    footer = {name: text for name, text in pl.read_parquet_metadata(path).items() if name.startswith("nift.")}
    pl.read_parquet(path).write_parquet(path, metadata=footer | {"nift.inputs": "0" * 64})


def without_footer(path: Path) -> None:
    pl.read_parquet(path).write_parquet(path)


INJURIES = (empty, cut, zeroed, flipped, another_partitions, forged_footer, without_footer)
# What nobody sees who looks at the footer alone.
DEEP = (flipped,)


def by_run(store: Store, table: str, key: str | None) -> str:
    """It is put aside, and counts as not made."""
    (said,) = damaged(runs(GRAPH), store)
    assert not store.path(table, key).exists()
    assert PartitionStates(GRAPH, store).state(Partition(table, key)).kind == "missing"
    assert damaged(runs(GRAPH), store) == []
    return said


def by_plan(store: Store, table: str, key: str | None) -> str:
    planned = plan.plan(STUDY, store=store, book=None, today=TODAY)
    return " ".join(planned.warnings) if table == "halves" else _read(store, table, key)


def by_coverage(store: Store, table: str, key: str | None) -> str:
    cells = coverage.covered(GRAPH, store, None, TODAY)
    said = " ".join(cell.why or "" for cell in cells)
    return said if str(store.path(table, key)) in said else _read(store, table, key)


def by_query(store: Store, table: str, key: str | None) -> str:
    environment = {"NIFT_WAREHOUSE": store.root, "PATH": ""}
    other = nift_here("query", "select count(*) from demo.raw_sample", environment=environment)
    assert other.returncode == 0, other.stderr
    ran = nift_here("query", f"select * from demo.{table}", environment=environment)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def by_docs(store: Store, table: str, key: str | None) -> str:
    shown = {each.name: each for each in documented(GRAPH, store, None)}
    assert shown["raw_sample"].stored[0].rows == len(TEXTS)
    return next(str(part.damage) for part in shown[table].stored if part.partition == key)


def by_asset(store: Store, table: str, key: str | None) -> str:
    """What is made of it fails with the line, and what is made of others is made."""
    below, partition = ("completions", "original") if table == "halves" else ("uppercase_start_removals", "echo")
    with dg.DagsterInstance.ephemeral() as instance:
        functions = completions_that(as_it_is) if below == "completions" else None
        run = materialize(instance, store, below, partition=partition, functions=functions)
        assert not run.success
        if below != "completions":
            assert materialize(instance, store, below, partition="original").success
    (failure,) = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    assert failure.error is not None
    return (failure.error.cause or failure.error).message


def _read(store: Store, table: str, key: str | None) -> str:
    with pytest.raises(DamagedTable) as found:
        store.read(table, key, ["document_id", "first_half" if table == "halves" else "completion"])
    return str(found.value)


READERS = (by_run, by_plan, by_coverage, by_query, by_docs, by_asset)
ALL = [(kind, injury, reader) for kind in KINDS for injury in INJURIES for reader in READERS]
# Every injury and every reader, but not all of them together.
QUICK = {
    (kind, injury, READERS[(i + j) % len(READERS)]) for j, kind in enumerate(KINDS) for i, injury in enumerate(INJURIES)
}


@pytest.mark.fault("S4", "S15", "S18")
@pytest.mark.parametrize(
    ("table", "injury", "reader"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in ALL],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_damaged_table_is_named_with_the_remedy_and_the_others_go_on(
    table: str, injury: Callable[[Path], None], reader: Callable[..., str], store: Store
) -> None:
    key = KINDS[table]
    injury(store.path(table, key))
    said = reader(store, table, key)
    assert str(store.path(table, key)) in said
    assert f"nift run {table}" in said
    assert "Traceback" not in said


def shortened(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


@pytest.mark.fault("S15")
@pytest.mark.parametrize("injury", [Path.unlink, shortened, lambda file: shutil.rmtree(file.parent)])
@pytest.mark.parametrize("name", ["alpaca.jsonl", "manifest.json"])
def test_a_folder_that_is_not_whole_counts_as_not_made_and_is_named(
    name: str, injury: Callable[[Path], None], tmp_path: Path
) -> None:
    """By names and sizes alone: to read 140 GB before each run is another thing."""
    store, key = Store(root=str(tmp_path), study=STUDY.name), STUDY.training_sets[0].name
    with artifacts.folder(store.folder("training_files", key, "0123"), "training_file") as draft:
        (draft.path / "alpaca.jsonl").write_text("[]")
    row = pl.DataFrame({"folder": [f"training_files/{key}/0123"]})
    store.write("training_files", key, row, version_of(row, ""))
    named = ("training_files",)
    assert damaged_folders(GRAPH, runs(GRAPH), store, named) == []
    injury(store.folder("training_files", key, "0123", name))
    alone = [run for run in runs(GRAPH) if all(place.table == "training_files" for place in run.partitions)]
    assert damaged_folders(GRAPH, alone, store) == [], "nobody reads it"
    (said,) = damaged_folders(GRAPH, runs(GRAPH), store, named)
    assert str(store.folder("training_files", key, "0123")) in said
    assert f"training_files/{key} is made again" in said or "make it again" in said
    assert store.version("training_files", key) is None
    assert damaged_folders(GRAPH, runs(GRAPH), store, named) == []


@pytest.mark.fault("S15")
@pytest.mark.parametrize("written", ["whole", "by portions", "before there were seals"])
def test_of_many_flips_none_is_read_as_other_rows(written: str, tmp_path: Path, counts: Counts) -> None:
    """Each bit may be flipped: the rows are those that were written, or the file is named."""
    rows = pl.DataFrame(
        {
            "document_id": [f"{i:032x}" for i in range(200)],
            "completion": [f"and so on, for the {i}th time" * (i % 4) for i in range(200)],
            "tokens": list(range(200)),
            "tags": [["a", str(i)] if i % 3 else None for i in range(200)],
        }
    )
    store, version = Store(root=str(tmp_path), study="s"), version_of(rows, "i")
    if written == "by portions":
        version = write_portions(tmp_path / "draft", [rows[:100], rows[100:]], "i", "completions/echo")
        store.write("completions", "echo", tmp_path / "draft", version)
    else:
        store.write("completions", "echo", rows, version)
    path = store.path("completions", "echo")
    if written == "before there were seals":
        rows.write_parquet(path, metadata={"nift.data": version.data, "nift.inputs": version.inputs})
    raw, chance, named, same = path.read_bytes(), random.Random(0), 0, 0
    for _ in range(130):
        injured = bytearray(raw)
        injured[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(injured)
        for read in (lambda: store.read("completions", "echo"), lambda: store.read("completions", "echo", ["tokens"])):
            try:
                found = read()
            except DamagedTable as damage:
                named += str(path) in str(damage)
            else:
                same += found.equals(rows.select(found.columns))
    assert named + same == 260
    assert named > same / 4
    counts(
        "S15", f"260 reads of a table with a flipped bit ({written}): {named} named, {same} as written, 0 other rows"
    )


def test_what_was_stored_before_there_were_seals_is_read(tmp_path: Path) -> None:
    """Also what is so old that its digest is another one: the literal was made by the code of then."""
    store, halves = Store(root=str(tmp_path), study="s"), 6_000
    rows = pl.DataFrame(
        {
            "a": [*range(2 * halves - 1), None],
            "t": ["é", None] * halves,
            "f": [0.5, None] * halves,
            "l": [["x", "y"], []] * halves,
            "b": [True, False] * halves,
        }
    )
    first = "d1c4fdae2095b0d327c87d9ec4589d790015d0f670d8310f5ccd1498c2695d03"
    for data in (version_of(rows, "").data, first):
        store.write("t", None, rows, version_of(rows, "i"))
        rows.write_parquet(store.path("t", None), metadata={"nift.data": data, "nift.inputs": "i"})
        assert store.version("t", None) == Version(data=data, inputs="i")
        assert store.read("t", None).equals(rows)
        assert store.read("t", None, ["t"]).equals(rows.select("t"))
        assert pl.concat(portions(store.table("t"))).equals(rows)
        for other in (rows.with_columns(pl.col("a") + 1), rows.head(-1), rows.with_columns(f=pl.lit(None, pl.Float64))):
            other.write_parquet(store.path("t", None), metadata={"nift.data": data, "nift.inputs": "i"})
            with pytest.raises(DamagedTable, match="its rows are not what was written"):
                store.read("t", None)


def test_a_file_is_held_against_its_footer_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, store = pl.DataFrame({"a": [1, 2], "t": ["x", None]}), Store(root=str(tmp_path), study="s")
    store.write("t", None, rows, version_of(rows, "i"))
    hashed: list[int] = []
    add = RowsDigest.add
    monkeypatch.setattr(RowsDigest, "add", lambda self, frame: (hashed.append(frame.height), add(self, frame))[1])
    for _ in range(3):
        store.read("t", None)
        store.check("t", None)
        store.read("t", None, ["a"])
    assert len(hashed) == 2, "once the whole, once the column"


@pytest.mark.fault("S14")
def test_versions_come_from_the_files_that_were_read(store: Store) -> None:
    """Another run may store an input after it was read and before its version is looked up."""

    class Overtaken(ParquetIOManager):
        def load_input(self, context: dg.InputContext) -> Any:
            loaded = super().load_input(context)
            if context.asset_key.path[-1] == "halves":
                halves = store.read("halves", None).head(1)
                store.write("halves", None, halves, version_of(halves, "newer"))
            return loaded

    functions = completions_that(as_it_is)
    step = GRAPH.tables["completions"]
    definitions = [
        asset_definition(GRAPH, dataclasses.replace(step, function=functions["completions"], streams=False)),
        *(asset_definition(GRAPH, GRAPH.tables[name]) for name in step.inputs),
        asset_definition(GRAPH, GRAPH.tables["raw_sample"]),
    ]
    run = dg.materialize(
        definitions,
        selection=["completions"],
        partition_key="echo",
        resources={"io_manager": Overtaken(store), "store": store, "ledger": None, "pipes": None},
    )
    assert run.success
    assert store.read("completions", "echo").height == len(TEXTS), "made from the older halves"
    assert not GRAPH.is_current(store, Partition("completions", "echo"))


def test_a_query_of_what_there_is_not_is_one_line(tmp_path: Path) -> None:
    ran = nift_here("query", "select 1", environment={"NIFT_WAREHOUSE": str(tmp_path), "PATH": ""})
    assert ran.returncode == 1
    assert ran.stderr == f"error: there are no tables under {tmp_path}; `nift demo` or `nift run` makes some\n"
    assert catalogue.NAME not in {path.name for path in tmp_path.iterdir()}


@pytest.mark.fault("S18")
def test_a_score_table_is_made_without_a_damaged_cell_and_is_stale_when_that_is_there_again(store: Store) -> None:
    columns = schema(contracts.load("mt_bench_judgments"))
    said = {"category": "writing", "judge": "j", "status": "ok", "judgment": "[[7]]", "reading": "verdict"}
    numbers = {"question_id": 81, "run": 0, "turn": 1, "rating": 7.0, "published_rating": 7.0}
    first, second = (model.name for model in STUDY.models[:2])
    for model in (first, second):
        row = {**said, **numbers, "model": model, "request_key": "0" * 64}
        frame = pl.DataFrame([row, {**row, "turn": 2}], schema=columns)
        store.write("mt_bench_judgments", model, frame, version_of(frame, ""))
    cut(store.path("mt_bench_judgments", first))
    with dg.DagsterInstance.ephemeral() as instance:
        run = materialize(instance, store, "benchmark_scores")
        logged = [entry.user_message for entry in instance.all_logs(run.run_id)]
    assert run.success
    assert store.read("benchmark_scores", None)["model"].to_list() == [second]
    assert any(line.startswith(f"left out: {store.path('mt_bench_judgments', first)} is damaged") for line in logged)
    frame = pl.DataFrame(schema=columns)
    store.write("mt_bench_judgments", first, frame, version_of(frame, ""))
    assert not GRAPH.is_current(store, Partition("benchmark_scores", None))
