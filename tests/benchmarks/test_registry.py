"""A benchmark is one file and one row: nothing else has to be told of it, and no part of it can be forgotten."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from dagster_project.command_line import main
from expectations import contract
from expectations.frames import schema
from nift_assets import benchmarks, graph
from nift_assets.costs import plan
from nift_assets.filters import contamination
from nift_assets.pages import report
from nift_assets.rows import Benchmark, Cell
from nift_assets.steps import coverage
from nift_assets.store import Store
from nift_assets.studies import demo

QUESTION = "How many gulls sat on the rail before the ferry came in, and how many of them flew away again?"
FIFTH = '''
"""A benchmark of a test: the judge says 1 to 10, and half a point is off for nothing."""
import polars as pl

from nift_assets import providers
from nift_assets.benchmarks.scoring import files, json_lines, resampling, scores
from nift_assets.benchmarks.scoring.interface import Measure, Size, BenchmarkTable

VERSION = 1
TITLE = "Gulls"
MEASURES = (Measure(name="gulls", title=TITLE, column="Gulls (0-10)", unit="gulls per ferry", limit=10),)
PUBLISHED = ()
ASKED = "questions.jsonl"
RUNNER = "conversations"
SIZE = Size(questions=3, calls_per_question=1, input=(10, 20, 30), output=(1, 2, 3))


def check(row):
    if row.runs != 1:
        raise ValueError("gulls are counted once")


def options(row):
    return files.options(row, ASKED)


def questions(row):
    for question in files.rows(row, ASKED):
        yield question["uid"], question["prompt"]


def answers(row, model, rows):
    return BenchmarkTable(pl.DataFrame([{"model": model, "question_id": said["question_id"]} for said in rows]))


def requests(row, judge, answers):
    return [providers.request(judge, question) for question in answers["question_id"]]


def retries(requests, judged):
    return {}


def judgments(row, judge, answers, requests, judged, retried):
    return BenchmarkTable(answers.with_columns(points=pl.lit(1.0)))


def score(model, results):
    return [_measured(model, dict(results.select("question_id", "points").iter_rows()))]


def read(given):
    return [_measured(row["model"], row["gulls"]) for *_, row in json_lines.lines(given.judgments)]


def _measured(model, points):
    sample = resampling.sample([{question: (value, 1.0) for question, value in points.items()}])
    number = len(points)
    return scores.resampled(
        model, "gulls", sample, published=None, questions=number, expected=number, missing=0
    )
'''


@pytest.fixture
def fifth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Benchmark]:
    """The row of a benchmark whose file lies in another folder, with one question."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "gulls.py").write_text(FIFTH)
    (folder / "questions.jsonl").write_text(json.dumps({"uid": "one", "prompt": QUESTION}) + "\n")
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(folder)])
    yield Benchmark(name="gulls", location=str(folder), judge="echo-rater")
    benchmarks.module.cache_clear()
    sys.modules.pop("nift_assets.benchmarks.gulls", None)


def test_a_fifth_benchmark_is_looked_for_planned_shown_and_scored(fifth: Benchmark, tmp_path: Path) -> None:
    study = replace(demo.STUDY, benchmarks=(*demo.STUDY.benchmarks, fifth))
    quoting = pl.DataFrame({"document_id": ["d"], "first_half": ["He wrote: "], "completion": [QUESTION]})
    found = contamination.removals(quoting, benchmarks=[fifth])
    assert found.rows.rows() == [("d", "repeats gulls one")]
    assert found.metadata["benchmarks_looked_for"] == 1

    store = Store(root=str(tmp_path), study="demo")
    line, before = (
        next(
            each
            for each in plan.plan(rows, store=store, book=None, today=date(2024, 8, 1)).lines
            if each.name == fifth.judge
        )
        for rows in (study, demo.STUDY)
    )
    assert line.requests is not None
    assert before.requests is not None
    asked = sum("gulls" in study.measured_on(model) for model in study.models)
    assert line.requests - before.requests == asked > 0  # one question, one call
    part = plan.planned_partition(study, "gulls_judgments", study.models[0].name)
    assert part is not None
    assert part.benchmark == "gulls"

    frames = {name: pl.DataFrame(schema=schema(contract.load(name))) for name in report.INPUTS}
    page = report.page(study, frames)
    assert "Gulls" in page
    assert "gulls per ferry" in page

    (tmp_path / "judged.jsonl").write_text(json.dumps({"model": "m", "gulls": {"one": 4, "two": 6}}) + "\n")
    printed = CliRunner().invoke(main, ["score", "gulls", "--judgments", str(tmp_path / "judged.jsonl")])
    assert "m      5.00" in printed.output, printed.output


def test_a_study_of_a_fifth_benchmark_alone_has_its_graph_and_its_cells(fifth: Benchmark, tmp_path: Path) -> None:
    model = replace(demo.STUDY.models[0], cells=(Cell(table="table_1", benchmark="gulls"),))
    study = replace(demo.STUDY, models=(model,), benchmarks=(fifth,), examples=(), publications=())
    built = graph.build(study)
    assert sorted(name for name in built.tables if name.startswith("gulls")) == ["gulls_answers", "gulls_judgments"]
    assert built.tables["benchmark_scores"].inputs == ("gulls_judgments", "gulls_answers")
    assert {"mt_bench_answers", "ifeval"}.isdisjoint(built.tables)
    assert len(graph.asset_definitions(built)) > len(built.steps)
    cells = coverage.frame(built, Store(root=str(tmp_path), study="demo"), None, date(2024, 8, 1))
    ((name, state, command),) = cells.filter(benchmark="gulls").select("name", "state", "command").rows()
    assert (name, state) == (model.name, "missing")
    assert command.endswith(f"nift run gulls_judgments --partition {model.name} --scores")


@pytest.mark.parametrize("part", ["def questions", "def requests", "SIZE =", "RUNNER =", "def score"])
def test_a_benchmark_that_lacks_a_part_does_not_load(fifth: Benchmark, part: str) -> None:
    file = Path(fifth.location, "gulls.py")
    file.write_text(file.read_text().replace(part, part.replace(" ", " forgotten_") if "def" in part else f"NO_{part}"))
    with pytest.raises(ValueError, match=f"the benchmark 'gulls' lacks {part.split()[-1 if 'def' in part else 0]};"):
        replace(demo.STUDY, benchmarks=(*demo.STUDY.benchmarks, fifth))


def test_a_row_that_lacks_what_its_file_needs_does_not_load(fifth: Benchmark) -> None:
    with pytest.raises(ValueError, match="gulls are counted once"):
        benchmarks.check(replace(fifth, runs=2))
    with pytest.raises(ValueError, match="'gulls' has no judge"):
        benchmarks.check(replace(fifth, judge=None))


def test_a_benchmark_without_a_question_counts_as_missing(fifth: Benchmark) -> None:
    Path(fifth.location, "questions.jsonl").write_text("")
    asked, missing = contamination.read([fifth])
    assert (asked, [*missing]) == ({}, ["gulls"])
