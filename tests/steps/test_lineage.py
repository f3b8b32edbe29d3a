"""The graph as a value: two studies in one process, one walk for every question, one answer to what is stale."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project import run_study
from dagster_project.definitions import definitions
from dagster_project.io_manager import ParquetIOManager
from expectations import contract
from expectations.frames import schema
from nift_assets import graph, studies
from nift_assets.rows import Filter
from nift_assets.steps import lineage
from nift_assets.steps.lineage import Graph, Partition, PartitionStates, nearest_first, upstream_first
from nift_assets.store import Store
from nift_assets.study import Study
from tests.demo import GRAPH, STUDY
from tests.steps.test_coverage import stored

SPANISH = Filter(name="spanish", rule="language", options={"languages": ("es",)})
RAW, REJECTS, HALVES = (Partition(table, None) for table in ("raw_sample", "raw_sample_rejects", "halves"))


# -- two studies in one process ----------------------------------------------------------------------------------------


def test_three_studies_in_one_process_each_have_their_own_steps_and_all_of_them_load() -> None:
    mine = replace(STUDY, name="mine", filters=(*STUDY.filters, SPANISH))
    demo, paper, own = (graph.build(study) for study in (STUDY, studies.load("paper"), mine))
    for built in (demo, paper, own):
        dg.Definitions.validate_loadable(definitions(built))
    assert own.tables.keys() - demo.tables.keys() == {"spanish_removals"}
    assert demo.tables.keys() - paper.tables.keys() == {"contamination_removals"}
    assert "spanish_removals" in own.tables["filtered_completions"].inputs
    assert "spanish_removals" not in demo.tables["filtered_completions"].inputs
    assert demo.keys("completions") == [teacher.name for teacher in STUDY.teachers]
    assert set(demo.keys("completions")) & set(paper.keys("completions")) == {"original"}


def make(built: Graph, store: Store) -> None:
    """Samples the study's articles and cuts them, as a run of Dagster does it."""
    assert dg.materialize(
        [graph.asset_definition(built, step) for step in built.steps],
        selection=[partition.table for partition in (RAW, REJECTS, HALVES)],
        resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
    ).success


def drawing(name: str, documents: int) -> Study:
    return replace(STUDY, name=name, corpus=replace(STUDY.corpus, documents=documents))


def test_two_studies_are_made_in_one_process_each_from_its_own_rows(tmp_path: Path) -> None:
    few, more = graph.build(drawing("few", 3)), graph.build(drawing("more", 5))
    stores = {built: Store(root=str(tmp_path), study=built.study.name) for built in (few, more)}
    for built, store in stores.items():
        make(built, store)
    assert [store.rows("halves", None) for store in stores.values()] == [3, 5]
    assert all(PartitionStates(built, store).is_present(HALVES) for built, store in stores.items())
    of_another = PartitionStates(more, stores[few])
    assert of_another.state(HALVES) == ("stale", "raw_sample was made from something else")


# -- the walk ----------------------------------------------------------------------------------------------------------

# What each of some nodes is made from: of those before it, so that there is no circle.
GRAPHS = st.integers(1, 12).flatmap(
    lambda nodes: st.tuples(
        *(st.lists(st.integers(0, node - 1), unique=True) if node else st.just([]) for node in range(nodes))
    )
)


def above(upstream: Mapping[int, list[int]], node: int) -> set[int]:
    return {node}.union(*(above(upstream, each) for each in upstream[node]))


@given(GRAPHS)
def test_both_walks_meet_all_that_something_is_made_from_once(found: tuple[list[int], ...]) -> None:
    upstream, last = dict(enumerate(found)), len(found) - 1
    near, far = (walk([last], upstream.__getitem__) for walk in (nearest_first, upstream_first))
    assert sorted(near) == sorted(far) == sorted(above(upstream, last))
    assert near[0] == far[-1] == last
    assert all(far.index(each) < far.index(node) for node in far for each in upstream[node])
    assert all(any(node in upstream[below] for below in near[:place]) for place, node in enumerate(near) if place)


def test_every_step_stands_behind_all_it_is_made_from() -> None:
    places = {step: place for place, step in enumerate(GRAPH.steps)}
    for step in GRAPH.steps:
        assert all(places[GRAPH.tables[name]] < places[step] for name in step.inputs)
        assert {GRAPH.tables[name] for name in step.inputs} <= set(GRAPH.ancestors(step))


def test_a_circle_and_a_table_that_is_made_twice_are_found_when_the_graph_is_built() -> None:
    circle = [replace(step, inputs=("halves",)) if "raw_sample" in step.tables else step for step in GRAPH.steps]
    with pytest.raises(CycleError, match="raw_sample"):
        lineage.ordered(STUDY, circle)
    with pytest.raises(AssertionError, match="two steps make halves"):
        lineage.ordered(STUDY, [*GRAPH.steps, replace(GRAPH.tables["halves"])])


def grown(models: int) -> Study:
    """The demo with so many more models, each of an adapter and a training set of its own."""
    training_set, adapter = STUDY.training_set("echo-filtered"), STUDY.adapter("pico.echo-filtered")
    model = STUDY.model("pico.echo-filtered.lora")
    more = range(models)
    return replace(
        STUDY,
        training_sets=(*STUDY.training_sets, *(replace(training_set, name=f"set-{n}") for n in more)),
        adapters=(*STUDY.adapters, *(replace(adapter, name=f"adapter-{n}", training_set=f"set-{n}") for n in more)),
        models=(*STUDY.models, *(replace(model, name=f"model-{n}", adapter=f"adapter-{n}", cells=()) for n in more)),
    )


def test_five_thousand_runs_are_planned_in_a_moment() -> None:
    large = graph.build(grown(1_667))
    began = time.process_time()
    planned = run_study.runs(large)
    seconds = time.process_time() - began
    print(f"{len(planned):,} runs are planned in {seconds:.2f} CPU s")
    assert len(planned) > 5_000
    assert seconds < 2, "0.3 s where the limit was set, 5.4 s where it grew with the square"


# -- what is stale -----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """The articles, their halves and what one teacher wrote, each as its step would leave it."""
    filled = Store(root=str(tmp_path), study=STUDY.name)
    for partition in upstream_first([Partition("filtered_completions", "echo")], GRAPH.upstream):
        stored(filled, *partition)
    stored(filled, *REJECTS)
    return filled


def test_what_is_up_to_date_is_present_and_lacks_nothing(store: Store) -> None:
    standing = PartitionStates(GRAPH, store)
    assert standing.state(Partition("filtered_completions", "echo")) == ("present", None)
    assert standing.not_present(Partition("filtered_completions", "echo")) == []


def test_what_is_gone_makes_stale_what_is_made_from_it_and_is_named_as_the_reason(store: Store) -> None:
    store.path("completions", "echo").unlink()
    standing = PartitionStates(GRAPH, store)
    why = "completions/echo has not been made"
    assert standing.state(Partition("completions", "echo")) == ("missing", why)
    assert standing.state(Partition("filtered_completions", "echo")) == ("stale", why)
    assert standing.state(Partition("filtered_completions", "original")) == (
        "missing",
        "completions/original has not been made",
    )
    assert standing.not_present(Partition("filtered_completions", "echo"))[0] == ("completions", "echo")


def test_a_table_is_stale_if_one_that_is_made_with_it_is_gone(store: Store) -> None:
    store.path(*REJECTS).unlink()
    assert PartitionStates(GRAPH, store).state(RAW) == ("stale", "raw_sample_rejects has not been made")
    assert PartitionStates(GRAPH, store).state(HALVES).kind == "stale"


def test_a_run_looks_at_its_own_tables_alone_and_makes_what_dagster_has_not_seen(store: Store) -> None:
    run = next(run for run in run_study.runs(GRAPH) if run.name == "teacher echo")
    made_here = [partition for partition in run.partitions if store.version(*partition)]
    assert {"completions", "uppercase_start_removals"} <= {partition.table for partition in made_here}
    store.path(*RAW).unlink()
    of_run = PartitionStates(GRAPH, store, within=set(run.partitions))
    assert all(of_run.is_present(partition) for partition in made_here), "another run makes the articles"
    assert not PartitionStates(GRAPH, store).is_present(made_here[0])
    unseen = PartitionStates(
        GRAPH, store, within=set(run.partitions), seen=lambda partition: partition.table != "completions"
    )
    assert {unseen.state(partition) for partition in made_here if partition.table != "completions"} == {
        ("stale", "completions/echo has not been made")
    }


def test_a_filter_that_a_teacher_does_not_name_makes_nothing_of_it_stale(store: Store) -> None:
    """`contamination` only reports."""
    reported = Partition("contamination_removals", "echo")
    assert reported not in GRAPH.upstream(Partition("filtered_completions", "echo"))
    assert PartitionStates(GRAPH, store).state(reported).kind == "missing"
    assert PartitionStates(GRAPH, store).is_present(Partition("filtered_completions", "echo"))


def test_what_a_publication_rests_on_ends_where_a_table_is_of_all_partitions() -> None:
    found = GRAPH.ancestors_of(Partition("hub_datasets", "echo"))
    assert found[0] == HALVES, "nearest first"
    assert Partition("completions", "echo") in found
    assert Partition("funnel", None) in found
    assert Partition("completions", "original") not in found, "the funnel's own, which is of all teachers"
    assert all(schema(contract.load(partition.table)) for partition in found)
