"""The paper's study: as many cells as the paper prints, numbers that agree with one another, and those that do not."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import polars as pl
import pytest

from nift_assets import sql, studies
from nift_assets.studies import paper, today
from nift_assets.studies.paper import numbers
from nift_assets.study import Study

STUDY = paper.STUDY
CELLS = sql.study_rows(STUDY, "cells")
# Rows of each table, and cells: 29 rows with two columns, 10 and 24 with seven, 7 with three, and so on.
COUNTS = {
    "table_1": (29, 58),
    "table_2": (21, 21),
    "table_3": (4, 4),
    "table_4": (10, 70),
    "table_5": (10, 10),
    "table_6": (3, 3),
    "table_7": (4, 8),
    "table_8": (8, 16),
    "table_9": (10, 10),
    "table_15": (24, 168),
    "figure_2": (7, 7),
    "section_5": (2, 2),
    "section_6": (1, 1),
}


def test_the_study_has_every_cell_of_the_papers_tables() -> None:
    counted = CELLS.group_by("table", maintain_order=True).agg(pl.col("name").n_unique(), pl.len())
    print(f"rows and cells per table: {counted.rows()}")
    assert {table: (rows, cells) for table, rows, cells in counted.rows()} == COUNTS
    assert {example.table for example in STUDY.examples} == {"table_10", "table_12", "table_13", "table_14"}


def test_table_1_has_the_papers_29_rows_in_its_order() -> None:
    numbered = [model for model in STUDY.models if model.row]
    assert [model.row for model in numbered] == list(range(1, 30))
    assert Counter(model.module for model in numbered) == {"none": 9, "lora": 14, "lora-base": 6}
    assert {STUDY.backbone(model.backbone).template for model in numbered} == {
        "one_shot",
        "llama-2",
        "zephyr",
        "mistral",
        "llama-3",
    }
    blank = CELLS.filter((pl.col("table") == "table_1") & pl.col("paper").is_null())["name"].to_list()
    assert [STUDY.model(name).row for name in blank] == [27, 28, 29], "no leaderboard for what was trained from 70B"


@pytest.mark.parametrize("id", numbers.TABLE_15)
def test_the_average_of_table_15_is_that_of_its_tasks_and_stands_in_table_1(id: int) -> None:
    average, *tasks = numbers.TABLE_15[id]
    assert sum(tasks) / len(tasks) == pytest.approx(average, abs=0.0051)
    assert next(row.leaderboard for row in numbers.TABLE_1 if row.id == id) == average


def test_a_number_that_stands_in_several_tables_is_the_same_in_all() -> None:
    printed: dict[tuple[str, str], set[float]] = defaultdict(set)
    for name, benchmark, number in CELLS.select("name", "benchmark", "paper").drop_nulls().iter_rows():
        printed[name, benchmark].add(number)
    assert [place for place, found in printed.items() if len(found) > 1] == []
    assert printed["llama-3-8b.gpt-4o-mini-2024-07-18-300k.lora", "arena_hard"] == {33.28}
    assert printed["mistral-7b-v0.1.claude-3-haiku-10k.lora", "mt_bench"] == {6.87}


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("table_3", [f"mistral-7b-v0.1.{training_set}.lora" for training_set, _ in numbers.TABLE_3]),
        (
            "table_5",
            [backbone for backbone, _ in numbers.TABLE_5_QUOTED]
            + [f"{backbone}.gpt-4-0125-preview-80k.{module}" for backbone, module, _ in numbers.TABLE_5],
        ),
        (
            "table_7",
            [
                f"llama-3-8b.{numbers.TABLE_7_OURS[0]}.lora",
                *(name for name, *_ in numbers.TABLE_7_QUOTED),
                numbers.TABLE_7_INSTRUCT[0],
            ],
        ),
    ],
)
def test_rows_stand_in_the_papers_order(table: str, names: list[str]) -> None:
    assert CELLS.filter(pl.col("table") == table)["name"].unique(maintain_order=True).to_list() == names


def listed(words: str) -> str:
    return next(each for each in numbers.INCONSISTENCIES if words in each)


def test_what_the_paper_says_of_its_tables_and_the_tables_do_not_is_listed() -> None:
    rows = {(row.backbone, row.module, row.training_set): row for row in numbers.TABLE_1}
    bare = {row.backbone: row for row in numbers.TABLE_1 if row.module == "none"}
    lower = [
        row.id
        for row in rows.values()
        if row.leaderboard and row.leaderboard < (bare[row.backbone].leaderboard or 0)  # nobody scores 0
    ]
    assert re.findall(r"\d+", listed("declines nowhere").split("IDs")[1]) == [str(id) for id in lower]
    worse = [r.id for r in rows.values() if r.module == "lora-base" and r.mt_bench < bare[r.backbone].mt_bench]
    assert re.findall(r"\d+", listed("adapter into its Instruct sibling").split("IDs")[1]) == [str(id) for id in worse]
    best = max((score, row) for row in numbers.TABLE_2 for score in row[2])
    assert best[0] == 9.0
    assert best[1][1] == "lora-base"
    assert "9.00" in listed("Table 2")
    assert dict(numbers.TABLE_5_QUOTED)["mistral-7b-instruct-v0.2"] > numbers.TABLE_5[0][2]
    assert "10.0 and 12.57" in listed("modestly better")
    assert numbers.TABLE_7_QUOTED[0][2] == numbers.TABLE_7_INSTRUCT[1] == 20.6
    assert "20.6" in listed("MAGPIE")
    averaged_only = [row.id for row in numbers.TABLE_1 if row.leaderboard and row.id not in numbers.TABLE_15]
    assert averaged_only == [25, 26]
    assert "IDs 25 and 26" in listed("called full")
    assert STUDY.inconsistencies == numbers.INCONSISTENCIES


def test_every_source_of_weights_and_data_is_pinned_to_a_commit() -> None:
    pinned = [*STUDY.backbones, *STUDY.reference_sets, *today.STUDY.backbones]
    assert [row.name for row in pinned if not re.fullmatch(r"[0-9a-f]{40}", row.revision or "")] == []


def test_quoted_models_are_none_of_the_models_and_say_whose_numbers_they_are() -> None:
    quoted = CELLS.filter(pl.col("kind") == "quoted")
    assert quoted["name"].unique().sort().to_list() == [
        "llama-3-8b.magpie-align-v0.1.full",
        "llama-3-8b.magpie-pro-mt-300k-v0.1.full",
        "llama-3.1-70b-instruct",
    ]
    assert not set(quoted["name"]) & {model.name for model in STUDY.models}
    assert quoted["quoted_from"].null_count() == 0


@pytest.mark.parametrize("study", [paper.STUDY, today.STUDY], ids=lambda study: study.name)
def test_a_model_is_run_on_what_its_cells_need_and_on_nothing_else(study: Study) -> None:
    shown = {name for example in study.examples for name in (example.before, example.after)}
    for model in study.models:
        needed = {study.benchmark_of(cell.benchmark) for cell in model.cells} | (
            {"arena_hard"} if model.name in shown else set()
        )
        assert needed == set(study.measured_on(model)), model.name
    trained = {model.adapter for model in study.models} - {None}
    assert trained == {adapter.name for adapter in study.adapters}, "no adapter is trained for nothing"


def test_the_study_of_today_answers_the_papers_questions_and_repeats_no_number_of_its() -> None:
    cells = sql.study_rows(today.STUDY, "cells")
    assert cells["paper"].null_count() == cells.height
    asked = set(cells["table"])
    assert asked <= set(COUNTS)
    assert {"table_1", "table_2", "table_3", "table_5", "table_8", "table_9", "table_15", "figure_2"} <= asked
    assert studies.load("today").inconsistencies == ()
