"""Running everything: what waits for what, and what goes on when something fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dagster_project import run_study
from dagster_project.run_study import PartitionRun, RunOutcome
from nift_assets import graph, studies
from nift_assets.store import Store
from tests.demo import GRAPH, STUDY

RUNS = {run.name: run for run in run_study.runs(GRAPH)}


def test_the_corpus_is_read_before_anything_else_and_the_scores_come_last() -> None:
    names = list(RUNS)
    assert names[0] == "data"
    assert {"model pico", "model pico-instruct.echo-filtered.lora-base"} <= RUNS["scores"].waits_for


def test_a_partition_waits_for_exactly_what_it_is_made_from() -> None:
    assert RUNS["teacher echo"].waits_for == {"data"}
    assert RUNS["backbone pico-instruct"].waits_for == {"backbone pico"}
    assert RUNS["teacher local"].waits_for == {"data", "backbone pico"}
    assert RUNS["training_set echo-filtered"].waits_for == {"data", "teacher echo"}
    assert RUNS["adapter pico.echo-filtered"].waits_for == {"training_set echo-filtered", "backbone pico"}
    assert RUNS["model pico"].waits_for == {"backbone pico"}
    assert RUNS["model pico-instruct.echo-filtered.lora-base"].waits_for == {
        "backbone pico-instruct",
        "adapter pico.echo-filtered",
    }


def test_a_set_waits_for_an_audit_only_if_it_leaves_out_what_was_flagged() -> None:
    assert "teacher original, after the others" in RUNS["training_set original-audited"].waits_for
    assert RUNS["training_set original"].waits_for == {"data", "teacher original"}


def test_an_audit_waits_for_its_source_and_a_planted_one_for_the_documents_it_is_planted_in() -> None:
    assert RUNS["audit original"].waits_for == {"data", "teacher original"}
    assert RUNS["audit planted"].waits_for == {"data", "teacher original"}
    assert RUNS["audit random_dialogue"].waits_for == {"data", "control random_dialogue"}
    assert RUNS["control random_dialogue"].waits_for == frozenset()


def test_what_an_audit_drops_of_a_teacher_is_run_after_the_audit() -> None:
    """In the paper's study an audit is made from its teacher, and a filter of the teacher from the audit."""
    planned = run_study.runs(graph.build(studies.load("paper")))
    found = {run.name: (run.steps, sorted(run.waits_for)) for run in planned}
    teacher = "teacher gpt-4-0125-preview"
    assert {"completions", "uppercase_start_removals"} <= set(found[teacher][0])
    assert found[f"audit {teacher[8:]}"][1] == ["data", teacher]
    steps, waits_for = found[f"{teacher}{run_study.AGAIN}"]
    assert {"audited_removals", "filtered_completions"} <= set(steps)
    assert waits_for == [f"audit {teacher[8:]}", teacher]
    done: set[str] = set()
    while new := [name for name, (_, waits_for) in found.items() if name not in done and done.issuperset(waits_for)]:
        done.update(new)
    assert done == found.keys(), "no run waits for one that waits for it"


def ready(outcomes: dict[str, RunOutcome], *, idle: bool = True) -> set[str]:
    waiting = [run for run in RUNS.values() if run.name not in outcomes]
    return {run.name for run in run_study._ready(waiting, outcomes, idle=idle)}


def outcome(error: str | None = None) -> RunOutcome:
    return RunOutcome((), 0.0, error)


def test_nothing_starts_after_a_corpus_that_cannot_be_read() -> None:
    assert "data" in ready({})
    assert ready({"data": outcome("no such file")}) == set()


def test_a_failed_teacher_stops_its_own_branch_only_and_the_scores_are_made_of_the_rest() -> None:
    outcomes = {name: outcome() for name in RUNS if name != "scores"}
    for name in ("training_set echo-filtered", "adapter pico.echo-filtered", "model pico.echo-filtered.lora"):
        del outcomes[name]
    outcomes["teacher echo"] = outcome("the provider went away")
    del outcomes["model pico-instruct.echo-filtered.lora-base"]
    assert ready(outcomes, idle=False) == set()
    assert ready(outcomes, idle=True) == {"scores"}


def test_every_run_waits_only_for_runs_there_are() -> None:
    for run in RUNS.values():
        assert isinstance(run, PartitionRun)
        assert run.waits_for <= RUNS.keys() - {run.name}


def wanted(*tables: str, chosen: tuple[str, ...] = (), only: bool = False, scores: bool = False) -> dict[str, set[str]]:
    found = run_study.needed(GRAPH, list(RUNS.values()), tables, chosen, only=only, scores=scores)
    assert all(run.waits_for <= {other.name for other in found} for run in found)
    return {run.name: set(run.steps) for run in found}


def test_one_teachers_data_set_takes_the_articles_that_teacher_and_what_its_own_filters_drop() -> None:
    found = wanted("filtered_completions", chosen=("echo",))
    assert found.pop("data") == {"raw_sample", "halves"}
    assert {name.removesuffix(run_study.AGAIN) for name in found} == {"teacher echo"}
    made = {"completions", "filtered_completions", "prompt_echo_removals", "uppercase_start_removals"}
    assert set().union(*found.values()) == made


def test_a_model_takes_its_adapter_its_training_set_and_the_foundation_of_its_backbone() -> None:
    name = "pico-instruct.echo-filtered.lora-base"
    found = wanted("merged_models", chosen=(name,))
    assert found.keys() == {
        *("data", "teacher echo", "training_set echo-filtered", "backbone pico", "backbone pico-instruct"),
        *("adapter pico.echo-filtered", f"model {name}"),
    }
    assert found[f"model {name}"] == {"merged_models"}


def test_a_table_takes_what_it_is_made_from_and_nothing_else_unless_asked() -> None:
    assert wanted("raw_sample") == {"data": {"raw_sample"}}
    asked = wanted("raw_sample", scores=True)
    assert asked == {"data": {"raw_sample"}, "scores": set(RUNS["scores"].steps)}
    assert wanted("raw_sample", only=True, scores=True) == asked
    assert "report" not in wanted("benchmark_scores")["scores"]


def test_a_score_table_takes_every_model_or_only_itself() -> None:
    assert {name for name in RUNS if name.startswith("model ")} < wanted("table_1").keys()
    assert wanted("table_1", only=True) == {"scores": {"table_1"}}


def test_all_tables_take_every_run() -> None:
    assert wanted(*GRAPH.tables) == {run.name: set(run.steps) for run in RUNS.values()}


@pytest.mark.parametrize(
    ("tables", "chosen", "says"),
    [
        (("tabel_1",), (), "there is no table 'tabel_1'"),
        (("completions",), ("gpt",), "makes no completions of 'gpt'"),
        (("table_1",), ("echo",), "makes no table_1 of 'echo'"),
    ],
)
def test_a_table_or_partition_there_is_not_is_named(
    tables: tuple[str, ...], chosen: tuple[str, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        wanted(*tables, chosen=chosen)


def test_questions_that_are_not_there_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path), study="demo")
    assert run_study.without_questions(GRAPH, [*RUNS.values()], store) == []
    gone = [
        replace(row, location=str(tmp_path / "nowhere")) if row.name == "ifeval" else row for row in STUDY.benchmarks
    ]
    without = graph.build(replace(STUDY, benchmarks=tuple(gone)))
    runs = run_study.runs(without)
    (line,) = run_study.without_questions(without, runs, store)
    assert "input_data.jsonl: ifeval has no such file" in line
    data = run_study.needed(without, runs, ["training_sets"], only=False)
    assert run_study.without_questions(without, data, store) == []
