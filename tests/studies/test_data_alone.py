"""A study that wants data alone: a corpus and teachers, and no row of any other kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dagster_project import run_study
from nift_assets import graph
from nift_assets.rows import Corpus, Teacher
from nift_assets.study import Study
from tests.conftest import nift_here

FILE = """
from nift_assets.studies import Corpus, Study, Teacher

STUDY = Study(
    name="bare",
    title="Data alone",
    corpus=Corpus(name="mine", location="{folder}", licence="mine"),
    teachers=(Teacher(name="echo", provider="echo", model="continue"),),
)
"""


def bare() -> Study:
    """As little as a study can have."""
    corpus = Corpus(name="mine", location="articles", licence="mine")
    return Study(
        name="bare",
        title="Data alone",
        corpus=corpus,
        teachers=(Teacher(name="echo", provider="echo", model="continue"),),
    )


def test_a_corpus_and_teachers_are_a_study_whose_every_table_can_be_run() -> None:
    built = graph.build(bare())
    names = [run.name for run in run_study.runs(built)]
    assert names == ["data", "teacher echo", "scores"]
    wanted = run_study.needed(built, run_study.runs(built), ("filtered_completions",), only=False)
    assert [run.tables for run in wanted] == [
        ("raw_sample", "raw_sample_rejects", "halves"),
        ("completions", "uppercase_start_removals", "filtered_completions"),
    ]
    assert graph.asset_definitions(built)


def test_what_only_looks_works_on_data_alone(tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text(FILE.format(folder=tmp_path))
    (tmp_path / "a.txt").write_text("An article goes on for some words. " * 20)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    environment = ours | {"NIFT_STUDY": str(tmp_path / "bare.py"), "NIFT_WAREHOUSE": str(tmp_path / "warehouse")}
    for command, says in (
        ("plan", "together"),
        ("coverage", "no row that fills a cell"),
        ("docs", "Documentation: "),
        ("ledger", "nothing has been asked"),
    ):
        said = nift_here(command, environment=environment)
        assert (said.returncode, said.stderr) == (0, "")
        assert says in said.stdout


def test_what_a_row_names_and_the_study_has_none_of_is_told_so() -> None:
    with pytest.raises(ValueError, match="names 'pico', which is none of the backbones: the study has none"):
        Study(
            name="bare",
            title="Data alone",
            corpus=bare().corpus,
            teachers=(Teacher(name="local", provider="local", model="pico", max_tokens=8),),
        )
