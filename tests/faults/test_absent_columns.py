"""Tables without a column of their contract, as an earlier version made them or another program: every reader goes on,
with what is null there, or says in one line which column is missing and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from expectations import contract
from expectations.frames import nullable, schema
from nift_assets import benchmarks
from nift_assets.costs import plan
from nift_assets.differences import comparison, funnels, score_differences, states
from nift_assets.pages.viewer import links
from nift_assets.steps import coverage
from nift_assets.store import Store
from nift_assets.table_files import LacksColumn, version_of
from tests.demo import GRAPH, STUDY
from tests.differences import small_study
from tests.differences.small_study import SET, TEACHER, Document, SmallStudy
from tests.page_reader import Reading
from tests.pages import viewer_store

SMALL = SmallStudy(
    documents=[Document(id="a"), Document(id="b", found="2 words"), Document(id="c", status="refused")],
    followed={"m": [True, False, True]},
)
COMPARED = {
    "raw_sample": None,
    "halves": None,
    "completions": TEACHER,
    "short_removals": TEACHER,
    "training_sets": SET,
    "funnel": None,
    "ifeval": "m",
}
BENCHMARK = next(row.name for row in viewer_store.DEMO.benchmarks if benchmarks.is_judged(row.name))
SHOWN = {
    "halves": None,
    "completions": "echo",
    "uppercase_start_removals": "echo",
    "filtered_completions": "echo",
    "completion_rejects": "echo",
    "content_audit": "original",
    benchmarks.answers_table(BENCHMARK): "pico",
    benchmarks.results_table(BENCHMARK): "pico",
}
PAGES = (
    links.ROOT,
    links.pairs(),
    links.pair(viewer_store.document(1)),
    f"{links.pairs()}?search=plain",
    links.rejects(),
    links.answers(BENCHMARK, *viewer_store.MODELS),
)
PLANNED = {"halves": None, "completions": "original", benchmarks.answers_table(BENCHMARK): "pico"}


def without_each(store: Store, table: str, partition: str | None) -> Iterator[str]:
    """Takes one column after the other from a stored table; at the end it is whole again."""
    path = store.path(table, partition)
    whole, rows, inputs = path.read_bytes(), pl.read_parquet(path), store.version(table, partition)
    assert inputs is not None
    for column in rows.columns:
        less = rows.drop(column)
        viewer_store.write(store, table, partition, less)
        yield column
    path.write_bytes(whole)


def compared(before: Path, after: Path) -> None:
    both = states.of_folder(before, "small", "b"), states.of_folder(after, "small", "a")
    with comparison.opened(*both) as opened:
        for place in opened.places():
            opened.of(place)
    funnels.compare(*both)
    score_differences.compare(*both)


@pytest.mark.parametrize(("table", "partition"), COMPARED.items())
def test_a_comparison_goes_on_without_a_column_or_names_it(table: str, partition: str | None, tmp_path: Path) -> None:
    small_study.store(tmp_path / "before", SMALL)
    after = small_study.store(tmp_path / "after", SMALL)
    for column in without_each(after, table, partition):
        for states_ in ((tmp_path / "before", tmp_path / "after"), (tmp_path / "after", tmp_path / "before")):
            try:
                compared(*states_)
            except ValueError as error:
                said = str(error)
                assert column in said, "what may be null is null"
                assert table in said
                assert "\n" not in said
                assert column not in nullable(contract.load(table))


@pytest.mark.parametrize(("table", "partition"), SHOWN.items())
def test_the_viewer_shows_the_rest_or_names_the_column(table: str, partition: str | None, tmp_path: Path) -> None:
    store = viewer_store.filled(str(tmp_path))
    for column in without_each(store, table, partition):
        client = TestClient(viewer_store.application(store))
        for path in (*PAGES, links.table(table)):
            answer = client.get(path)
            if answer.status_code != 200:
                assert column in " ".join(Reading(answer.text).text.split()), f"{path} without {column}"
                assert column not in nullable(contract.load(table))


@pytest.mark.parametrize(("table", "partition"), PLANNED.items())
@pytest.mark.parametrize("reader", ["plan", "coverage"])
def test_a_plan_goes_on_without_a_column(reader: str, table: str, partition: str | None, tmp_path: Path) -> None:
    store = viewer_store.filled(str(tmp_path))
    today = plan.date(2026, 11, 21)
    read: Callable[[], object] = {
        "plan": lambda: plan.plan(STUDY, store=store, book=None, today=today),
        "coverage": lambda: coverage.covered(GRAPH, store, None, today),
    }[reader]
    for _ in without_each(store, table, partition):
        assert read()


def test_what_may_be_null_is_null_and_what_may_not_is_named(tmp_path: Path) -> None:
    store = Store(root=str(tmp_path), study="s")
    rows = viewer_store.frame("completions", [{"document_id": "a"}])
    less = rows.drop("detail", "completion")
    store.write("completions", "t", less, version_of(less, ""))
    read = store.read("completions", "t", ["detail", "document_id"])
    assert read.to_dicts() == [{"detail": None, "document_id": "a"}]
    assert read.schema["detail"] == schema(contract.load("completions"))["detail"]
    with pytest.raises(
        LacksColumn, match=r"completions/t\.parquet has no column completion, .* `nift run completions "
    ):
        store.read("completions", "t", ["document_id", "completion"])
