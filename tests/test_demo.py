"""The whole line on the demo study, as a person runs it: every table, every check, and nothing done twice."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest

from dagster_project import run_study
from nift_assets import graph
from nift_assets.store import Store
from nift_assets.studies.demo import STUDY
from nift_training import file_locks
from tests import offline
from tests.conftest import PROJECT, Demo, instance_at, nift_here

TABLES = {
    "raw_sample",
    "raw_sample_rejects",
    "halves",
    "halves_rejects",
    "completions",
    "completion_rejects",
    "uppercase_start_removals",
    "prompt_echo_removals",
    "contamination_removals",
    "audited_removals",
    "filtered_completions",
    "funnel",
    "control_texts",
    "content_audit",
    "reference_sets",
    "training_sets",
    "training_files",
    "backbones",
    "lora_adapters",
    "merged_models",
    "mt_bench_answers",
    "mt_bench_judgments",
    "arena_hard_answers",
    "arena_hard_judgments",
    "ifeval",
    "open_llm_leaderboard",
    "benchmark_scores",
    "score_cells",
    *(f"table_{number}" for number in (*range(1, 10), 15)),
    "figure_2",
    "text_numbers",
    "mt_bench_categories",
    "training_costs",
    "response_endings",
    "response_examples",
    "reviews",
    "review_agreement",
    "report",
}


@pytest.fixture(scope="module")
def instance(demo: Demo) -> Iterator[dg.DagsterInstance]:
    with instance_at(demo.home) as opened:
        yield opened


def table(demo: Demo, name: str) -> pl.DataFrame:
    with duckdb.connect(demo.warehouse / "nift.duckdb", read_only=True) as catalogue:
        return catalogue.sql(f"from demo.{name}").pl()


def scores(printed: str) -> str:
    """The score table in what the demo printed."""
    return printed[printed.index("\nmodel ") : printed.index("* incomplete")]


def test_the_work_of_the_demo_fits_into_two_minutes_of_two_cores(demo: Demo) -> None:
    """Counted in CPU seconds of a machine at its usual pace: what else it is doing is not the demo's time."""
    print(f"the demo took {demo.cpu_seconds:.0f} CPU s at {demo.pace:.1f} times the usual pace")
    assert demo.cpu_seconds < 2 * 120 * demo.pace


@pytest.mark.fault("X12")
def test_the_whole_line_runs_in_a_network_of_its_own_and_asks_nobody(demo: Demo) -> None:
    """With nothing set that forbids it."""
    if demo.asked is None:
        pytest.skip(offline.REASON)
    assert demo.asked == []


def test_the_demo_prints_a_line_per_model_and_says_that_the_scores_mean_nothing(demo: Demo) -> None:
    for model in STUDY.models:
        assert any(line.startswith(model.name) for line in demo.printed.splitlines())
    assert "Demo scores mean nothing" in demo.printed
    assert str(demo.warehouse / "demo" / "report.html") in demo.printed


def test_every_table_can_be_queried_by_name(demo: Demo) -> None:
    with duckdb.connect(demo.warehouse / "nift.duckdb", read_only=True) as catalogue:
        found = {
            row[0]
            for row in catalogue.sql("select view_name from duckdb_views() where schema_name = 'demo'").fetchall()
        }
    assert found == TABLES


def test_every_halves_row_rejoins_to_its_document(demo: Demo) -> None:
    halves, sample = table(demo, "halves"), table(demo, "raw_sample")
    joined = halves.join(sample, on="document_id")
    assert joined.height == halves.height >= 64
    assert (joined["first_half"] + joined["second_half"]).equals(joined["text"], check_names=False)


def test_no_completion_vanishes_between_the_tables(demo: Demo) -> None:
    """Each is kept, or rejected with its status, or dropped by a filter that its teacher names."""
    completions = table(demo, "completions")
    for teacher in STUDY.teachers:
        parts = [
            table(demo, name).filter(pl.col("teacher") == teacher.name).select("document_id")
            for name in ("filtered_completions", "completion_rejects", *(f"{f}_removals" for f in teacher.filters))
        ]
        kept, rejected, *dropped = parts
        mine = completions.filter(pl.col("teacher") == teacher.name).select("document_id")
        assert pl.concat(parts).unique().sort("document_id").equals(mine.sort("document_id"))
        for other in (rejected, *dropped):
            assert kept.join(other, on="document_id").is_empty()


def test_the_funnel_ends_in_what_is_kept_and_its_plot_is_in_the_ui(demo: Demo, instance: dg.DagsterInstance) -> None:
    funnel = table(demo, "funnel")
    kept = table(demo, "filtered_completions").group_by("teacher").len()
    last = funnel.filter(pl.col("step") == "kept").join(kept, on="teacher", how="left")
    assert last["teacher"].to_list() == [teacher.name for teacher in STUDY.teachers]
    assert last["kept"].to_list() == last["len"].fill_null(0).to_list()
    reported = funnel.filter(pl.col("is_filter") & ~pl.col("drops"))
    assert set(reported["step"]) >= {"contamination"}
    event = instance.get_latest_materialization_event(dg.AssetKey("funnel"))
    assert event is not None
    assert event.asset_materialization is not None
    assert "data:image/png;base64," in str(event.asset_materialization.metadata["funnel"])


def test_every_source_is_audited_and_planted_attacks_stand_beside_the_same_documents(demo: Demo) -> None:
    audited = {row["source"]: row for row in table(demo, "table_8").iter_rows(named=True)}
    assert audited.keys() == {audit.name for audit in STUDY.audits}
    assert all(row["documents"] > 0 for row in audited.values())
    assert audited["planted"]["flips"] is not None
    assert set(table(demo, "content_audit")["verdict"]) == {"yes", "no", "invalid"}


def test_every_table_and_figure_of_the_paper_has_numbers_of_the_demos_own(
    demo: Demo, instance: dg.DagsterInstance
) -> None:
    for name in ("table_2", "table_3", "table_4", "table_5", "table_6", "table_7", "table_15", "text_numbers"):
        assert table(demo, name)["score"].null_count() == 0, name
    assert table(demo, "table_1")["mt_bench"].null_count() == 0
    (audited,) = table(demo, "table_9").iter_rows(named=True)
    assert audited["before"] is not None
    assert audited["after"] is not None
    sizes = table(demo, "figure_2")
    assert sizes["pairs"].is_sorted()
    assert sizes["pairs"].n_unique() == 2
    for name in ("figure_2", "cost_against_score", "mt_bench_categories"):
        event = instance.get_latest_materialization_event(
            dg.AssetKey("training_costs" if name == "cost_against_score" else name)
        )
        assert event is not None
        assert event.asset_materialization is not None
        assert "data:image/svg+xml;base64," in str(event.asset_materialization.metadata[name])


def test_answers_are_laid_side_by_side_and_their_ends_are_counted(demo: Demo) -> None:
    examples = table(demo, "response_examples")
    assert examples["name"].to_list() == [example.name for example in STUDY.examples]
    assert examples.select("question", "before_answer", "after_answer").null_count().sum_horizontal().item() == 0
    endings = table(demo, "response_endings")
    assert set(endings["benchmark"]) == {"mt_bench", "arena_hard"}
    assert endings["ended"].min() < 50 < endings["ended"].max(), "the Instruct sibling ends, its foundation does not"


def test_every_branch_of_the_filters_has_rows(demo: Demo) -> None:
    assert set(table(demo, "completion_rejects")["reason"]) >= {"truncated", "empty", "refused"}
    assert "echo" in set(table(demo, "uppercase_start_removals")["teacher"])


def test_text_comes_out_of_the_models(demo: Demo) -> None:
    answers = table(demo, "arena_hard_answers")
    assert set(answers["model"]) == {m.name for m in STUDY.models if "arena_hard" in STUDY.measured_on(m)}
    assert (answers["answer"].str.len_chars() > 20).mean() > 0.5


def test_lora_base_is_the_instruct_sibling_with_the_foundation_models_adapter(demo: Demo) -> None:
    models = {row["model"]: row for row in table(demo, "merged_models").iter_rows(named=True)}
    merged = models["pico-instruct.echo-filtered.lora-base"]
    digests = {row["backbone"]: row["digest"] for row in table(demo, "backbones").iter_rows(named=True)}
    adapters = {row["adapter"]: row for row in table(demo, "lora_adapters").iter_rows(named=True)}
    assert merged["backbone_digest"] == digests["pico-instruct"]
    assert merged["adapter_digest"] == adapters["pico.echo-filtered"]["digest"]
    assert adapters["pico.echo-filtered"]["backbone_digest"] == digests["pico"]
    assert len({row["digest"] for row in models.values()}) == len(models)


def test_every_partition_is_known_to_dagster(demo: Demo, instance: dg.DagsterInstance) -> None:
    made = {
        name: instance.get_materialized_partitions(dg.AssetKey(name))
        for name in ("completions", "training_sets", "lora_adapters", "merged_models", "mt_bench_judgments")
    }
    assert made == {
        "completions": {"original", "local", "echo"},
        "training_sets": {training_set.name for training_set in STUDY.training_sets},
        "lora_adapters": {adapter.name for adapter in STUDY.adapters},
        "merged_models": {model.name for model in STUDY.models},
        "mt_bench_judgments": {model.name for model in STUDY.models},
    }


def test_every_expectation_is_an_asset_check_with_its_partition(demo: Demo, instance: dg.DagsterInstance) -> None:
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("completions"), "document_id_teacher_unique"), limit=10
    )
    evaluations = [record.event.dagster_event.event_specific_data for record in records]
    assert {e.partition for e in evaluations} == {"original", "local", "echo"}
    assert all(e.passed for e in evaluations)
    bad = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("completions"), "few_are_truncated"), limit=10
    )
    found = {e.partition: e for e in (record.event.dagster_event.event_specific_data for record in bad)}
    assert not found["echo"].passed
    assert found["echo"].severity == dg.AssetCheckSeverity.WARN
    assert found["original"].passed


def test_materializations_carry_what_a_person_looks_at(demo: Demo, instance: dg.DagsterInstance) -> None:
    def metadata(name: str) -> dict[str, object]:
        event = instance.get_latest_materialization_event(dg.AssetKey(name))
        assert event is not None
        assert event.asset_materialization is not None
        return dict(event.asset_materialization.metadata)

    assert {"dagster/row_count", "sample", "seconds", "path"} <= set(metadata("raw_sample"))
    adapters = metadata("lora_adapters")
    assert {"dagster/partition_row_count", "loss", "bytes", "tokens_per_second"} <= set(adapters)
    assert "data:image/svg+xml;base64," in str(adapters["loss"])


def test_training_reports_its_progress_to_the_event_log(demo: Demo, instance: dg.DagsterInstance) -> None:
    event = instance.get_latest_materialization_event(dg.AssetKey("lora_adapters"))
    assert event is not None
    messages = [entry.user_message for entry in instance.all_logs(event.run_id)]
    assert any("loss" in message and "step" in message for message in messages)


def test_a_second_demo_uses_everything_again(demo: Demo, tmp_path: Path) -> None:
    copied = demo.copy(tmp_path)
    with instance_at(copied.home) as instance:
        before = instance.get_runs_count()
        began = time.monotonic()
        again = nift_here("demo", environment=copied.environment())
        assert instance.get_runs_count() == before
    assert again.returncode == 0, again.stderr
    assert "✓" not in again.stdout
    assert again.stdout.count("up to date") == before
    assert scores(again.stdout) == scores(demo.printed)
    print(f"a second demo took {time.monotonic() - began:.1f} s")


def test_only_what_depends_on_a_changed_row_is_stale(demo: Demo) -> None:
    teachers = tuple(replace(row, max_tokens=7) if row.name == "echo" else row for row in STUDY.teachers)
    changed = graph.build(replace(STUDY, teachers=teachers))
    store = Store(root=str(demo.warehouse), study=STUDY.name)
    stale = [
        partition
        for run in run_study.runs(changed)
        for partition in run.partitions
        if not changed.is_current(store, partition)
    ]
    # The funnel counts by the teachers' rows, and the report shows the study.
    assert stale == [("completions", "echo"), ("funnel", None), ("report", None)]


def test_two_demos_at_once_do_not_write_the_same_tables(demo: Demo) -> None:
    with file_locks.locked(Path(demo.warehouse, ".demo.lock"), "nobody else works on the demo"):
        refused = nift_here("demo", environment=demo.environment())
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: another nift command is working on this study")


def test_weights_lie_in_folders_that_match_their_manifests(demo: Demo) -> None:
    from nift_training.artifacts import verify

    for name in ("backbones", "lora_adapters", "merged_models"):
        for row in table(demo, name).iter_rows(named=True):
            folder = demo.warehouse / "demo" / row["folder"]
            assert verify(folder).digest == row["digest"]
    leftovers = [p for p in (demo.warehouse / "demo").rglob("*") if "partial" in p.name or p.name == "making"]
    assert leftovers == []


def test_the_readmes_query_answers(demo: Demo) -> None:
    written = re.search(r'nift query "(.+)"', (PROJECT / "README.md").read_text())
    assert written is not None
    answered = nift_here("query", written[1], environment=demo.environment())
    assert answered.returncode == 0, answered.stderr
    assert "refused" in answered.stdout


def test_a_query_that_makes_no_sense_is_one_line(demo: Demo) -> None:
    refused = nift_here("query", "select nothing from nowhere", environment=demo.environment())
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
