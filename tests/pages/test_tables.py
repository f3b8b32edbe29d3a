"""The paper's tables of a study: every cell of its rows, measured or not, in order, and no score lost on the way."""

from __future__ import annotations

import polars as pl
import pytest

from expectations import contract
from expectations.frames import conform, schema
from expectations.runner import check
from nift_assets import sql, studies

DEMO = studies.load("demo")
SELECTIONS = ("table_1", "table_2", "table_3", "table_4", "table_5", "table_6", "table_7", "table_15", "figure_2")
UNMEASURED = DEMO.models[0].name


def empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema=schema(contract.load(table)))


def inputs() -> dict[str, pl.DataFrame]:
    """Scores of every model but the first, on every benchmark and task."""
    scored = [
        {"model": model.name, "benchmark": benchmark.name, "score": 5.0, "low": 4.0, "high": 6.0, "complete": True}
        for model in DEMO.models[1:]
        for benchmark in DEMO.benchmarks
    ]
    tasks = [
        {"model": model.name, "task": "demo_facts", "score": 25.0, "stderr": 10.0, "samples": 16}
        for model in DEMO.models[1:]
    ]
    rows = {"benchmark_scores": scored, "open_llm_leaderboard": tasks, "lora_adapters": []}
    return {name: pl.DataFrame(given, schema=schema(contract.load(name)), orient="row") for name, given in rows.items()}


def made(name: str, frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    model = sql.compile(name)
    rows = {f"{sql.STUDY_PREFIX}{kind}": sql.study_rows(DEMO, kind) for kind in model.studies}
    return conform(sql.run(model, {**frames, **rows}, None), contract.load(name))


def failed(table: str, frame: pl.DataFrame, frames: dict[str, pl.DataFrame]) -> set[str]:
    promised = contract.load(table)
    rows = sql.named_study_rows(DEMO, (test.arguments.get("sql", "") for test in promised.tests))
    return {result.name for result in check(frame, promised, {**frames, **rows}) if not result.passed}


@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    given = inputs()
    return given | {"score_cells": made("score_cells", given)}


@pytest.mark.parametrize("table", SELECTIONS)
def test_the_demo_has_rows_of_every_table_in_the_studys_order(table: str, frames: dict[str, pl.DataFrame]) -> None:
    rows = made(table, frames)
    column = "model" if table == "table_1" else "name"
    filling = [model.name for model in DEMO.models if any(cell.table == table for cell in model.cells)]
    assert rows[column].unique(maintain_order=True).to_list() == filling
    assert failed(table, rows, frames) == set()


def test_a_cell_nobody_has_measured_keeps_its_place(frames: dict[str, pl.DataFrame]) -> None:
    blank = frames["score_cells"].filter(pl.col("name") == UNMEASURED)
    assert blank.height == len(DEMO.models[0].cells)
    assert blank["score"].null_count() == blank.height
    assert made("table_1", frames).row(0, named=True)["mt_bench"] is None
    assert failed("score_cells", frames["score_cells"], frames) == set()


def test_a_task_has_the_interval_of_its_standard_error(frames: dict[str, pl.DataFrame]) -> None:
    task = made("table_15", frames).filter(pl.col("benchmark") == "demo_facts", pl.col("score").is_not_null())
    assert task.select("score", "low", "high").unique().rows() == [pytest.approx((25.0, 5.4, 44.6))]


def test_another_judge_than_the_papers_is_named_beside_the_number(frames: dict[str, pl.DataFrame]) -> None:
    (note,) = made("table_5", frames)["note"].unique()
    assert note == "judged by echo-comparer in the place of gpt-4-1106-preview"


def test_a_score_or_a_cell_that_is_lost_fails_the_checks(frames: dict[str, pl.DataFrame]) -> None:
    cells = frames["score_cells"]
    assert failed("score_cells", cells[:-1], frames) == {"every_cell_of_the_study_is_there_once"}
    assert failed("score_cells", cells.with_columns(pl.col("score") + 1), frames) == {"every_score_has_its_cell"}
    table = made("table_1", frames)
    assert failed("table_1", table[:-1], frames) == {"every_cell_is_in_the_table"}
    assert failed("table_1", table.with_columns(pl.col("oll") + 1), frames) == {"every_cell_is_in_the_table"}
