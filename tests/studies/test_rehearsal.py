"""A rehearsal: the graph of a study as it is, with a thousandth of its size, tiny models and nobody who is paid."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
from pathlib import Path

import pytest

from nift_assets import sql, studies
from nift_assets.costs import plan, price_list
from nift_assets.store import Store
from nift_assets.study import Study
from nift_training.evaluate import leaderboard
from tests.conftest import nift
from tests.steps.test_coverage import TODAY

PAPER = studies.load("paper")


@pytest.mark.parametrize("name", studies.names())
def test_a_rehearsal_has_the_rows_of_its_study_and_costs_nothing(name: str, tmp_path: Path) -> None:
    study = studies.load(name)
    small = studies.rehearsed(study, 1_000)
    assert small.name == f"{name}-rehearsal"
    for kind in (
        "teachers",
        "training_sets",
        "backbones",
        "adapters",
        "models",
        "controls",
        "audits",
        "reference_sets",
    ):
        assert [row.name for row in getattr(small, kind)] == [row.name for row in getattr(study, kind)]
    assert sql.study_rows(small, "cells").equals(sql.study_rows(study, "cells"))
    assert [model.measured_on for model in small.models] == [model.measured_on for model in study.models]
    assert [backbone.instruct_of for backbone in small.backbones] == [row.instruct_of for row in study.backbones]
    assert all(price_list.is_free(row) for row in small.language_models)
    planned = plan.plan(small, store=Store(str(tmp_path), small.name), book=None, today=TODAY)
    assert planned.online.high == 0
    assert not planned.stopped()


def test_sizes_are_divided_and_something_is_left_of_each() -> None:
    small = studies.rehearsed(PAPER, 1_000)
    rows = {row.name: row.rows for row in small.training_sets}
    assert (rows["original-80k"], rows["gpt-4-0125-preview-40k"], rows["gpt-4-0125-preview-1k"]) == (80, 40, 8)
    assert rows["alpaca"] is None
    assert small.teacher("gpt-4o-mini-2024-07-18").documents == 300
    assert small.audit("alpaca").documents == 8
    assert studies.rehearsed(PAPER, 7_000).teacher("gpt-4o-mini-2024-07-18").documents == 42


def test_the_leaderboards_six_tasks_have_questions_of_ours() -> None:
    benchmark = studies.rehearsed(PAPER, 1_000).benchmark("open_llm_leaderboard")
    names = ",".join(f"{task.name}:{task.shots}" for task in benchmark.tasks)
    read = leaderboard.read_tasks(Path(benchmark.location), names)
    assert [task["task"] for task in read] == [name for name, *_ in leaderboard.SIX]
    for task, (name, metric, filter_name) in zip(read, leaderboard.SIX, strict=True):
        assert metric in [each["metric"] for each in task["metric_list"]], name
        assert filter_name in ["none", *(each["name"] for each in task.get("filter_list", []))], name


def test_the_switch_is_a_number_above_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_STUDY", "paper")
    monkeypatch.setenv("NIFT_SCALE", "1000")
    assert studies.active() == studies.rehearsed(PAPER, 1_000)
    for wrong in ("0", "-1", "1e3", "much"):
        monkeypatch.setenv("NIFT_SCALE", wrong)
        with pytest.raises(ValueError, match=f"NIFT_SCALE is '{wrong}'; give what sizes are divided by"):
            studies.active()


def test_a_study_of_ones_own_is_rehearsed_like_any_other() -> None:
    own: Study = dataclasses.replace(PAPER, name="mine", models=PAPER.models[:2], examples=())
    assert studies.rehearsed(own, 10).name == "mine-rehearsal"


@pytest.mark.slow
def test_the_papers_study_is_rehearsed_to_its_last_cell(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "NIFT_STUDY": "paper",
        "NIFT_SCALE": "1000",
        "NIFT_WAREHOUSE": str(tmp_path / "warehouse"),
        "DAGSTER_HOME": str(tmp_path / "home"),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = nift("demo", environment=environment)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ran.returncode == 0, ran.stderr
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(ran.stdout[ran.stdout.index("asset  ") :])
    print(f"the rehearsal took {seconds:.0f} CPU seconds")
    covered = nift("coverage", "--json", environment=environment)
    assert covered.returncode == 0, covered.stderr
    cells = json.loads(covered.stdout)["cells"]
    assert {cell["state"] for cell in cells if cell["kind"] != "quoted"} == {"present"}
    assert {cell["state"] for cell in cells if cell["kind"] == "quoted"} == {"impossible"}
    assert seconds < 2 * 15 * 60, "under fifteen minutes on two idle cores"
