"""Running everything: what waits for what, and what goes on when something fails."""

from __future__ import annotations

from dagster_project import line
from dagster_project.line import Outcome, Run
from nift_assets.assets.graph import steps

RUNS = {run.name: run for run in line.runs(steps())}


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


def ready(outcomes: dict[str, Outcome], *, idle: bool = True) -> set[str]:
    waiting = [run for run in RUNS.values() if run.name not in outcomes]
    return {run.name for run in line._ready(waiting, outcomes, idle=idle)}


def outcome(error: str | None = None) -> Outcome:
    return Outcome((), 0.0, error)


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
        assert isinstance(run, Run)
        assert run.waits_for <= RUNS.keys() - {run.name}
