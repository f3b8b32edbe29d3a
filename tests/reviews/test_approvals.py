"""What waits for people: a publication and a judge's scores, until enough rows carry verdicts as they are now."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project import failures
from dagster_project.io_manager import ParquetIOManager
from nift_assets import graph, reviews, rows
from nift_assets.graph import asset_definition
from nift_assets.rows import Judge, Publication, TrainingSet
from nift_assets.steps import approvals
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store
from nift_assets.study import Study
from tests.conftest import nift_here
from tests.demo import GRAPH, STUDY
from tests.reviews.test_agreement import MODELS, TEXTS, judged, stored
from tests.reviews.test_reviews import pair

DATA = Publication(name="data", repository="pairs", teacher="original", licence="cc0-1.0", needs_review=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path), study="demo")


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def with_publication(row: Publication) -> Study:
    return replace(STUDY, publications=(row,))


def with_judge(needs_review: int) -> Study:
    judges = tuple(replace(row, needs_review=needs_review) if row.name == "echo-rater" else row for row in STUDY.judges)
    return replace(STUDY, judges=judges)


def failed(instance: dg.DagsterInstance, built: Graph, store: Store, table: str, key: str | None) -> tuple[str, Any]:
    """The line that a person reads, and the result of the check, where a step stops for want of reviews."""
    step = built.tables[table]
    for above in built.upstream(Partition(table, key)):
        if key is not None and not store.path(*above).exists():
            stored(store, *above, [{"column": "that nobody reads"}])
    result = dg.materialize(
        [asset_definition(built, each) for each in (step, *built.ancestors(step))],
        selection=[table],
        partition_key=key,
        instance=instance,
        resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
        raise_on_error=False,
    )
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == approvals.CHECK]
    events = [event for event in result.all_events if event.is_step_failure]
    return failures.reason(instance, result.run_id, events) if events else "", check


def executed_alone(
    built: Graph, store: Store, instance: dg.DagsterInstance, table: str
) -> list[dg.AssetCheckEvaluation]:
    """What becomes of the check where somebody executes it and nothing else."""
    step = built.tables[table]
    result = dg.materialize(
        [asset_definition(built, each) for each in (step, *built.ancestors(step))],
        selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(table), approvals.CHECK)),
        instance=instance,
        resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
        raise_on_error=False,
    )
    return result.get_asset_check_evaluations()


def reviewed(store: Store, who: str, document: str, verdict: str, **changes: str) -> None:
    reviews.append(store, pair(who, document, verdict, teacher="original", reason="r", **{**TEXTS, **changes}))


def with_pairs(store: Store) -> None:
    documents = [f"d{number}" for number in range(5)]
    completion = {"teacher": "original", "completion": TEXTS["completion"]}
    stored(store, "completions", "original", [{"document_id": one, **completion} for one in documents])
    stored(store, "halves", None, [{"document_id": one, "first_half": TEXTS["first_half"]} for one in documents])


def test_a_publication_waits_until_so_many_of_its_pairs_as_they_are_now_have_been_kept_or_dropped(
    store: Store, instance: dg.DagsterInstance
) -> None:
    with_pairs(store)
    built = graph.build(with_publication(DATA))
    # One pair of two people, one nobody is sure of, one of an older text, one that is not the teacher's.
    for who, document, verdict in (("Ann", "d0", "keep"), ("Bob", "d0", "drop"), ("Ann", "d1", "unsure")):
        reviewed(store, who, document, verdict)
    reviewed(store, "Ann", "d2", "keep", completion=" with its horn.")
    reviews.append(store, pair("Ann", "d3", teacher="echo", **TEXTS))
    line, check = failed(instance, built, store, "hub_datasets", "original")
    assert line == (
        "nothing was written: people have reviewed 1 of the 3 pairs of original that publication 'data' needs, 2 are "
        "missing; review more on the page /study/look of `nift ui`"
    )
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert check.metadata["missing"].value == 2
    assert not store.path("hub_datasets", "original").exists()
    for document in ("d1", "d2"):
        reviewed(store, "Bob", document, "keep")
    (approval,) = approvals.awaited(built, store, Partition("hub_datasets", "original"))
    assert approval.is_given
    assert str(approval) == "people have reviewed 3 of the 3 pairs of original that publication 'data' needs"


GATED = """
from dataclasses import replace

from nift_assets.studies.demo import STUDY as DEMO

STUDY = replace(DEMO, judges=tuple(replace(row, needs_review=2) for row in DEMO.judges))
"""


def test_a_run_of_which_all_is_made_but_what_waits_for_people_has_not_failed(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path / "warehouse"), study="demo")
    for model in MODELS:
        answers = [{**judged(1, turn, model, 5.0), "answer": f"{model} {turn}"} for turn in (1, 2)]
        stored(store, "mt_bench_answers", model, answers)
    (tmp_path / "gated.py").write_text(GATED)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")} | {
        "NIFT_WAREHOUSE": store.root,
        "NIFT_STUDY": str(tmp_path / "gated.py"),
        "DAGSTER_HOME": str(tmp_path / "home"),
    }
    ran = nift_here("run", "benchmark_scores", "--only", environment=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("Waiting: ")]
    assert line == (
        "Waiting: people have reviewed 0 of the 2 pairs of answers that judge 'echo-rater' needs, 2 are missing; "
        "people have reviewed 0 of the 2 pairs of answers that judge 'echo-comparer' needs, 2 are missing; review "
        "more on the page /study/look of `nift ui`, then repeat this command"
    )
    assert "waits for reviews" in ran.stdout


def test_what_else_is_amiss_is_what_a_run_has_failed_of(store: Store, instance: dg.DagsterInstance) -> None:
    built = graph.build(with_judge(2))
    both = dict.fromkeys((built.tables["benchmark_scores"], built.tables["funnel"]))
    steps = both | dict.fromkeys(above for step in both for above in built.ancestors(step))
    result = dg.materialize(
        [asset_definition(built, step) for step in steps],
        selection=["benchmark_scores", "funnel"],
        instance=instance,
        resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
        raise_on_error=False,
    )
    events = sorted((event for event in result.all_events if event.is_step_failure), key=lambda event: event.step_key)
    assert [event.step_key for event in events] == ["benchmark_scores", "funnel"]
    assert "raw_sample" in failures.reason(instance, result.run_id, events)
    assert failures.awaited(events) is None
    assert failures.awaited(events[:1])
    assert failures.awaited([]) is None


def test_an_adapter_and_a_model_wait_for_reviews_of_the_pairs_that_they_have_learnt_from(store: Store) -> None:
    with_pairs(store)
    reviewed(store, "Ann", "d0", "keep")
    for named, table in (
        ({"adapter": "pico.original"}, "hub_adapters"),
        ({"model": "pico.original.lora"}, "hub_models"),
    ):
        row = replace(DATA, teacher=None, **named)
        (approval,) = approvals.awaited(graph.build(with_publication(row)), store, Partition(table, row.of))
        assert (approval.rows, approval.reviewed) == ("pairs of original", 1)


def test_the_scores_of_a_judge_wait_for_comparisons_and_its_judgments_do_not(
    store: Store, instance: dg.DagsterInstance
) -> None:
    built = graph.build(with_judge(2))
    for model in MODELS:
        answers = [{**judged(1, turn, model, 5.0), "answer": f"{model} {turn}"} for turn in (1, 2)]
        stored(store, "mt_bench_answers", model, answers)

    def compare(turn: int, said: str = "") -> None:
        reviews.append(
            store,
            reviews.of_answers(
                reviewer="Ann",
                table="mt_bench_answers",
                benchmark="mt_bench",
                question={"question_id": 1, "run": 0, "turn": turn},
                answers={model: said or f"{model} {turn}" for model in MODELS},
                versions=dict.fromkeys(MODELS, "v"),
                verdict="tie",
            ),
        )

    compare(1)
    compare(2, said="an older answer")
    line, check = failed(instance, built, store, "benchmark_scores", None)
    assert "people have reviewed 1 of the 2 pairs of answers that judge 'echo-rater' needs, 1 are missing" in line
    assert not check.passed
    # It can be asked before there is anything to score, as every check can be executed alone.
    alone = executed_alone(built, store, instance, "benchmark_scores")
    assert [(one.check_name, one.passed) for one in alone] == [(approvals.CHECK, False)]
    assert not any(approvals.awaited(built, store, Partition("mt_bench_judgments", model)) for model in MODELS)
    compare(2)
    assert approvals.waiting(approvals.of_judges(with_judge(2), store)) == ""
    assert all(approval.is_given for approval in approvals.awaited(built, store, Partition("benchmark_scores", None)))


def test_a_row_that_asks_for_no_reviews_is_what_it_was_and_so_is_all_that_is_made_of_it(store: Store) -> None:
    plain = replace(DATA, needs_review=None)
    said = {name: getattr(plain, name) for name in ("name", "repository", "teacher", "adapter", "model")}
    before = {**said, "private": True, "licence": "cc0-1.0", "terms": None}
    assert rows.digest(plain) == rows.digest(before) != rows.digest(DATA)
    judge = Judge(name="j", provider="echo", model="rate")
    assert judge.shape() == replace(judge, needs_review=7).shape()
    assert json.dumps(judge.shape())
    assert not [spec for step in GRAPH.steps for spec in approvals.specs(GRAPH, step.tables, step.partitions)]
    scores = Partition("benchmark_scores", None)
    without, asking = (graph.build(study).inputs_version(store, scores) for study in (STUDY, with_judge(2)))
    assert without != asking
    judged_by = Partition("mt_bench_judgments", MODELS[0])
    assert graph.build(with_judge(2)).inputs_version(store, judged_by) == GRAPH.inputs_version(store, judged_by)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"needs_review": 0}, "needs_review is 0; give a whole number of at least 1"),
        ({"needs_review": "50"}, "needs_review is '50'; give"),
        ({"needs_review": True}, "needs_review is True; give"),
    ],
)
def test_a_row_that_asks_for_something_else_is_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"publication 'data': {said}"):
        with_publication(replace(DATA, **changes))


def test_under_a_remote_warehouse_nobody_waits_for_reviews_that_cannot_be_given() -> None:
    remote = Store(root="memory://warehouse", study="demo")
    for study, place in (
        (with_publication(DATA), Partition("hub_datasets", "original")),
        (with_judge(2), Partition("benchmark_scores", None)),
    ):
        with pytest.raises(
            ValueError, match="the warehouse is memory://warehouse, and verdicts of people are kept in a"
        ):
            approvals.awaited(graph.build(study), remote, place)
    assert approvals.awaited(GRAPH, remote, Partition("benchmark_scores", None)) == []


def test_reviews_are_not_asked_of_pairs_that_somebody_else_published() -> None:
    published = TrainingSet(name="original", reference="instructions")
    sets = tuple(published if row.name == "original" else row for row in STUDY.training_sets)
    row = replace(DATA, teacher=None, adapter="pico.original")
    with pytest.raises(ValueError, match="needs 3 reviews, and no teacher of the study wrote its pairs; leave needs"):
        replace(STUDY, training_sets=sets, publications=(row,), audits=())


def test_what_is_counted_is_read_from_no_other_folder_than_those_of_the_study_s_models(store: Store) -> None:
    row = reviews.of_answers(
        reviewer="Ann",
        table="mt_bench_answers",
        benchmark="mt_bench",
        question={"question_id": 1},
        answers={"../../x": "a", "y": "b"},
        versions={"../../x": "v", "y": "v"},
        verdict="tie",
    )
    reviews.append(store, row)
    assert [approval.reviewed for approval in approvals.of_judges(with_judge(1), store)] == [0]
