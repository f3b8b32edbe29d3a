"""Coverage: every cell of the tables is present, stale, missing or impossible, and what it says to run fills it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dagster_project.command_line import coverage_table
from expectations import contract
from expectations.frames import schema
from nift_assets import graph, studies
from nift_assets.ledger.book import Book
from nift_assets.steps import coverage
from nift_assets.steps.coverage import CellCoverage
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store, place
from nift_assets.table_files import version_of, write_frame
from tests.conftest import Demo, nift_here
from tests.demo import GRAPH, STUDY

TODAY = date(2026, 11, 21)
LIVING_DAY = date(2025, 1, 1)  # when all of the paper's teachers, judges and auditors could be asked
SCORES = [
    {"model": model.name, "benchmark": benchmark, "score": 5.0}
    for model in STUDY.models
    for benchmark in STUDY.measured_on(model)
]


def stored(
    store: Store, table: str, key: str | None, frame: pl.DataFrame | None = None, data: str | None = None
) -> None:
    """A partition as a step would leave it, without its rows: recorded as made from what is stored upstream now.

    Without the catalogue, which is made anew with each of some hundred tables.
    """
    rows = empty(table) if frame is None else frame
    version = version_of(rows, GRAPH.inputs_version(store, Partition(table, key)))
    store.path(table, key).parent.mkdir(parents=True, exist_ok=True)
    with store.path(table, key).open("wb") as file:
        write_frame(file, rows, version if data is None else replace(version, data=data), place(table, key))


@cache
def empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema=schema(contract.load(table)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all tables of the active study are made of one another."""
    folder = tmp_path_factory.mktemp("made")
    filled = Store(str(folder), STUDY.name)
    for table in GRAPH.tables:
        for key in GRAPH.keys(table):
            if GRAPH.partitions.is_wanted(table, key):
                stored(filled, table, key, pl.DataFrame(SCORES) if table == "benchmark_scores" else None)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Store:
    """A store of one's own in which all tables of the active study are made of one another."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Store(str(tmp_path), STUDY.name)


def states(store: Store, graph: Graph = GRAPH) -> dict[tuple[str, str, str], CellCoverage]:
    return {(cell.table, cell.name, cell.benchmark): cell for cell in coverage.covered(graph, store, None, TODAY)}


def test_of_a_finished_study_every_cell_is_present(store: Store) -> None:
    found = states(store)
    assert {cell.state for cell in found.values()} == {"present"}
    assert {cell.command for cell in found.values()} == {None}
    filling = [*STUDY.models, *STUDY.audits, *STUDY.quoted]
    examples = {(row.table, model) for row in STUDY.examples for model in (row.before, row.after)}
    assert len(found) == sum(len(row.cells) for row in filling) + len(examples)


def test_what_is_deleted_is_missing_and_everything_else_is_still_there(store: Store) -> None:
    store.path("mt_bench_judgments", "pico").unlink()
    found = states(store)
    lost = {place: cell for place, cell in found.items() if cell.state != "present"}
    assert lost.keys() == {place for place in found if place[1:] == ("pico", "mt_bench")}
    for cell in lost.values():
        assert (cell.state, cell.why) == ("missing", "mt_bench_judgments/pico has not been made")
        assert (cell.command, cell.usd) == ("nift run mt_bench_judgments --partition pico --scores", 0)


def test_what_is_made_of_something_that_is_gone_is_stale_and_says_of_what(store: Store) -> None:
    store.path("lora_adapters", "pico.local").unlink()
    stale = {place[1] for place, cell in states(store).items() if cell.state == "stale"}
    assert stale == {model.name for model in STUDY.models if model.adapter == "pico.local" and model.cells}
    assert all(
        cell.why == "lora_adapters/pico.local has not been made"
        for cell in states(store).values()
        if cell.state == "stale"
    )


def test_what_is_made_of_other_data_than_is_there_now_is_stale(store: Store) -> None:
    stored(store, "mt_bench_answers", "pico", data="other rows")
    stale = {place[1:] for place, cell in states(store).items() if cell.state == "stale"}
    assert stale == {("pico", "mt_bench")}


def test_a_changed_row_makes_stale_what_is_made_with_it(store: Store) -> None:
    from tests.studies.test_studies import changed

    kind = graph.build(changed("judges", 0, system_prompt="Be kind."))
    stale = {place[2] for place, cell in states(store, kind).items() if cell.state == "stale"}
    assert stale == {"mt_bench"}


def test_a_number_that_no_table_shows_yet_is_missing(store: Store) -> None:
    kept = [row for row in SCORES if (row["model"], row["benchmark"]) != ("pico", "mt_bench")]
    stored(store, "benchmark_scores", None, pl.DataFrame(kept))
    assert states(store)["table_1", "pico", "mt_bench"].why == "benchmark_scores does not have it yet"
    stored(store, "benchmark_scores", None, pl.DataFrame(SCORES))
    store.path("table_1", None).unlink()
    found = states(store)
    assert {cell.state for place, cell in found.items() if place[0] == "table_1"} == {"missing"}
    assert {cell.state for place, cell in found.items() if place[0] not in ("table_1", "example")} == {"present"}


def covered(folder: Path, *options: str, **variables: str) -> dict[str, Any]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("NIFT_", "OPENAI_", "ANTHROPIC"))}
    ran = nift_here("coverage", "--json", *options, environment={**ours, "NIFT_WAREHOUSE": str(folder), **variables})
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert isinstance(found, dict)
    return found


def test_of_the_paper_what_nobody_answers_any_more_is_impossible_and_the_rest_has_a_price(tmp_path: Path) -> None:
    found = covered(tmp_path, NIFT_STUDY="paper")
    study = studies.load("paper")
    filling = [*study.models, *study.audits, *study.quoted]
    assert len(found["cells"]) == sum(len(row.cells) for row in filling) + 2 * len(study.examples)
    by_cell = {(cell["table"], cell["name"], cell["benchmark"]): cell for cell in found["cells"]}
    rated = by_cell["table_1", "llama-2-7b", "mt_bench"]
    assert rated["state"] == "impossible"
    assert rated["why"].startswith("gpt-4-0613 (judge): retired since 2026-10-23")
    magpie = by_cell["table_7", "llama-3-8b.magpie-align-v0.1.full", "ifeval"]
    assert (magpie["state"], magpie["why"]) == ("impossible", "quoted from the cards of MAGPIE's own models")
    bare = by_cell["table_1", "llama-2-7b", "open_llm_leaderboard"]
    assert (bare["state"], bare["usd"]) == ("missing", 0)
    assert bare["command"] == "NIFT_STUDY=paper nift run open_llm_leaderboard --partition llama-2-7b --scores"
    if date.today() < date(2027, 1, 14):
        taught = by_cell["table_7", "llama-3-8b.gpt-4o-mini-2024-07-18-300k.lora", "ifeval"]
        assert taught["state"] == "missing"
        assert 100 < taught["usd"] < 115, "300,000 completions of gpt-4o-mini"


def test_a_price_is_that_of_the_teacher_and_of_the_judges_calls_about_this_model(tmp_path: Path) -> None:
    from nift_assets.costs import plan

    study, empty = studies.load("paper"), Store(str(tmp_path), "paper")
    whole = plan.plan(study, store=empty, book=None, today=LIVING_DAY)
    judge = next(line for line in whole.lines if line.name == "gpt-4-0613")
    parts = [
        plan.plan_row(study, asked, store=empty, book=None, today=LIVING_DAY)
        for model in study.models
        if "mt_bench" in study.measured_on(model)
        and (asked := plan.planned_partition(study, "mt_bench_judgments", model.name))
    ]
    assert sum(part.requests or 0 for part in parts) == judge.requests
    assert judge.online is not None
    assert sum(part.online.expected for part in parts if part.online) == pytest.approx(judge.online.expected)
    audits = [plan.planned_partition(study, "content_audit", audit.name) for audit in study.audits]
    asked_once = [plan.plan_row(study, a, store=empty, book=None, today=LIVING_DAY).requests or 0 for a in audits if a]
    assert sum(asked_once) == next(line.requests for line in whole.lines if line.role == "audit")
    assert plan.planned_partition(study, "lora_adapters", "llama-2-7b.original-80k") is None


def test_the_text_has_a_paragraph_per_table_and_only_those_asked_for(store: Store) -> None:
    store.path("mt_bench_judgments", "pico").unlink()
    cells = coverage.covered(GRAPH, store, None, TODAY)
    said = coverage_table.render(coverage_table.chosen(cells, ["table_1"]))
    assert said.startswith("table_1: ")
    assert (
        "· pico mt_bench: mt_bench_judgments/pico has not been made; "
        "free: nift run mt_bench_judgments --partition pico --scores" in said
    )
    assert "table_8" not in said
    counts = coverage_table.as_json(cells)["tables"]
    assert sum(count for table in counts.values() for count in table.values()) == len(cells)
    with pytest.raises(ValueError, match="no cell of the study is of 'table_16'; there are table_1"):
        coverage_table.chosen(cells, ["table_16"])


def test_the_frame_of_the_report_has_a_row_per_cell(store: Store) -> None:
    made = coverage.frame(GRAPH, store, None, TODAY)
    assert made.height == len(coverage.covered(GRAPH, store, None, TODAY))
    assert made.schema == coverage.SCHEMA
    assert set(made["state"]) == {"present"}


def test_answers_that_are_paid_for_are_not_priced_again(tmp_path: Path) -> None:
    """An empty ledger changes no price; it is there to be asked."""
    from nift_assets.costs import plan

    study, empty = studies.load("today"), Store(str(tmp_path), "today")
    asked = plan.planned_partition(study, "completions", "gpt-4o-mini-2024-07-18")
    assert asked
    book = Book(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    lines = [plan.plan_row(study, asked, store=empty, book=each, today=TODAY) for each in (None, book)]
    assert lines[0] == lines[1]


def test_the_command_of_a_missing_cell_fills_it(demo: Demo, tmp_path: Path) -> None:
    environment = demo.copy(tmp_path).environment()

    def cells() -> list[dict[str, Any]]:
        ran = nift_here("coverage", "--json", environment=environment)
        assert ran.returncode == 0, ran.stderr
        return list(json.loads(ran.stdout)["cells"])

    assert {cell["state"] for cell in cells()} == {"present"}
    Path(tmp_path / "warehouse", STUDY.name, "content_audit", "random_dialogue.parquet").unlink()
    missing = {cell["command"] for cell in cells() if cell["state"] != "present"}
    assert missing == {"nift run content_audit --partition random_dialogue --scores"}
    ran = nift_here(*missing.pop().split()[1:], environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert "training_set" not in ran.stdout, "only what it is made of is looked at"
    assert {cell["state"] for cell in cells()} == {"present"}
