"""The usual intents, as jobs of the UI, by `dg launch` and by `nift run`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.definitions import definitions, defs
from dagster_project.jobs import INTENTS, tables
from dagster_project.settings import dagster_home
from nift_assets import graph, studies
from tests.conftest import PROJECT, nift, nift_here
from tests.demo import GRAPH


def test_every_intent_is_a_job_with_the_partitions_of_its_rows() -> None:
    intents = [intent for intent in INTENTS if tables(GRAPH, intent)]
    assert {"articles", "teacher_data_set", "model", "score_tables"} <= {intent.name for intent in intents}
    for intent in intents:
        job = defs.resolve_job_def(intent.name)
        assert job.description
        made = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
        assert made == set(tables(GRAPH, intent)), intent.name
        assert job.partitions_def == GRAPH.partitions.definition(intent.by), intent.name
    assert set(tables(GRAPH, INTENTS[0])) >= {"raw_sample", "halves"}
    assert {"completions", "completion_rejects"} <= set(tables(GRAPH, INTENTS[1]))


def test_together_the_intents_make_every_table() -> None:
    together = {table for intent in INTENTS for table in tables(GRAPH, intent)}
    # The funnel is of all teachers and follows them, what people say follows their verdicts; what goes to the Hub is
    # asked for by name.
    assert GRAPH.tables.keys() - together <= {"funnel", "reviews", "review_agreement"} | {
        name for name, step in GRAPH.tables.items() if step.by_hand
    }
    after = next(set(tables(GRAPH, intent)) for intent in INTENTS if intent.after_audit)
    assert after == {"audited_removals", "filtered_completions"}


def test_what_the_guide_types_into_the_lineage_selects_tables() -> None:
    guide = (PROJECT / "dagster_project" / "guides" / "back-fills.md").read_text()
    graph = defs.resolve_asset_graph()
    found = re.findall(r"`((?:key|group|tag):[^`]+)`", guide)
    assert len(found) >= 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        for selection in found:
            assert len(dg.AssetSelection.from_string(selection).resolve(graph)) >= 2, selection


@pytest.mark.parametrize("study", ["paper", "today"])
def test_the_jobs_of_every_study_resolve(study: str) -> None:
    found = definitions(graph.build(studies.load(study))).resolve_all_job_defs()
    jobs = {job.name: job.partitions_def and len(job.partitions_def.get_partition_keys()) for job in found}
    assert {"articles", "teacher_data_set", "training_set", "model", "score_tables"} <= jobs.keys()
    assert (jobs["teacher_data_set"] or 0) >= 2


def dg_launch(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("dg")), "launch", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_one_teachers_data_set_is_made_by_dg_launch_and_then_only_the_rest_by_nift_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    dagster_home("demo")
    environment = dict(os.environ)
    articles = dg_launch(environment, "--job", "articles")
    assert articles.returncode == 0, articles.stdout + articles.stderr
    teacher = dg_launch(environment, "--job", "teacher_data_set", "--partition", "echo")
    assert teacher.returncode == 0, teacher.stdout + teacher.stderr
    after = dg_launch(environment, "--job", "teacher_data_set_after_audit", "--partition", "echo")
    assert after.returncode == 0, after.stdout + after.stderr
    one = dg_launch(environment, "--assets", "funnel")
    assert one.returncode == 0, one.stdout + one.stderr
    assert (tmp_path / "warehouse" / "demo" / "filtered_completions" / "echo.parquet").exists()
    assert (tmp_path / "warehouse" / "demo" / "funnel.parquet").exists()
    ran = nift("run", "filtered_completions", "--partition", "echo", environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert "= data: up to date" in ran.stdout
    assert "= teacher echo: up to date" in ran.stdout
    ran = nift("run", "training_sets", "--partition", "echo-filtered", environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert "✓ training_set echo-filtered: 1 tables" in ran.stdout
    with dg.DagsterInstance.get() as instance:
        assert instance.get_materialized_partitions(dg.AssetKey("completions")) == {"echo"}
        assert instance.get_materialized_partitions(dg.AssetKey("training_sets")) == {"echo-filtered"}


def test_a_choice_without_a_table_is_one_line(tmp_path: Path) -> None:
    refused = nift_here("run", "--partition", "echo", environment={**os.environ, "DAGSTER_HOME": str(tmp_path)})
    assert (refused.returncode, refused.stderr) == (
        1,
        "error: --partition, --only and --scores are about tables; name them\n",
    )
