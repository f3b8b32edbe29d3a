"""What people have said becomes a table, drops what they drop, and makes nothing else stale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import polars as pl
import pytest

from expectations import contract
from expectations.frames import conform, schema
from expectations.runner import check
from nift_assets import filters, graph, reviews
from nift_assets.filters import reviewed
from nift_assets.reviews import Review
from nift_assets.rows import Filter
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store
from nift_assets.table_files import version_of
from tests.demo import GRAPH, STUDY, context
from tests.reviews.test_reviews import compared, pair

TEXTS = {"first_half": "The ferry left", "completion": " without its horn."}


@pytest.fixture
def store(tmp_path: Any) -> Store:
    return Store(root=str(tmp_path), study="demo")


def said(*verdicts: tuple[str, str, str], older: bool = False) -> list[Review]:
    """Verdicts of people on documents, as (who, document, verdict); whoever drops says "loops"."""
    texts = {**TEXTS, "completion": " with its horn."} if older else TEXTS
    return [
        pair(who, document, verdict, reason="loops" if verdict == "drop" else "", **texts)
        for who, document, verdict in verdicts
    ]


def candidates(*documents: str) -> pl.DataFrame:
    return pl.DataFrame([{"document_id": name, "sample_rank": rank, **TEXTS} for rank, name in enumerate(documents)])


def dropped(store: Store, **options: str) -> dict[str, str]:
    made = reviewed.removals(candidates(*"abcd"), reviews=reviews.frame(reviews.read(store)), **options)
    return dict(made.rows.select("document_id", "reason").iter_rows())


def test_the_majority_of_the_last_verdicts_drops_without_a_name_and_as_many_for_as_against_keep(store: Store) -> None:
    reviews.append(
        store,
        *said(("Ann", "a", "drop"), ("Bob", "a", "keep"), ("Eve", "a", "drop")),
        *said(("Ann", "b", "drop"), ("Bob", "b", "keep"), ("Eve", "b", "unsure")),
        *said(("Ann", "c", "drop"), ("Ann", "c", "keep"), ("Bob", "c", "unsure")),
        *said(("Bob", "d", "drop"), ("Eve", "d", "unsure")),
    )
    assert dropped(store) == {
        "a": "2 of 3 people drop it: loops",
        "d": "1 of 1 people drop it: loops",
    }
    assert dropped(store, drops="any").keys() == {"a", "b", "d"}
    assert dropped(store, drops="all").keys() == {"d"}
    with pytest.raises(ValueError, match=r"drops='most'; give one of majority, any, all"):
        dropped(store, drops="most")


def test_a_verdict_on_an_older_text_drops_nothing_and_is_counted(store: Store) -> None:
    reviews.append(store, *said(("Ann", "a", "drop"), ("Bob", "b", "drop"), older=True), *said(("Eve", "b", "drop")))
    made = reviewed.removals(candidates(*"abcd"), reviews=reviews.frame(reviews.read(store)))
    assert made.rows["document_id"].to_list() == ["b"]
    assert made.metadata == {"pairs_reviewed": 1, "pairs_people_disagree_on": 0, "verdicts_on_older_texts": 2}


def test_before_anybody_has_reviewed_nothing_is_dropped_and_the_table_is_empty(store: Store) -> None:
    assert dropped(store) == {}
    made = GRAPH.tables["reviews"].function(context(store, "reviews"))
    assert made.rows.schema == schema(contract.load("reviews"))
    assert made.rows.is_empty()


def test_the_table_keeps_its_contract_and_a_broken_one_does_not(store: Store) -> None:
    reviews.append(store, *said(("Ann", "a", "drop"), ("Ann", "a", "keep")), compared("left", "zephyr", "alpaca"))
    promised = contract.load("reviews")
    rows = conform(GRAPH.tables["reviews"].function(context(store, "reviews")).rows, promised)
    assert rows.schema == schema(promised)
    assert [result.name for result in check(rows, promised) if not result.passed] == []
    broken = rows.with_columns(is_latest=True, reason=pl.lit(""), shown_first=pl.lit("zephyr"))
    assert {result.name for result in check(broken, promised) if not result.passed} == {
        "a_verdict_is_on_a_pair_or_on_two_answers",
        "what_is_dropped_has_a_reason",
        "one_verdict_of_a_person_on_a_row_is_the_latest",
    }


def reviewing() -> Graph:
    """The demo's graph with the filter in its rows, and a teacher that names it."""
    teachers = tuple(replace(row, filters=(*row.filters, "reviewed")) for row in STUDY.teachers)
    return graph.build(replace(STUDY, teachers=teachers, filters=(*STUDY.filters, Filter(name="reviewed"))))


def test_a_new_verdict_makes_the_removals_stale_and_nothing_that_does_not_rest_on_them(store: Store) -> None:
    built, by_table = reviewing(), {}

    def versions() -> dict[str, str]:
        keys = {table: built.keys(table) for table in built.tables}
        shown = {table: some if table == "reviewed_removals" else some[:1] for table, some in keys.items()}
        places = [Partition(table, key) for table, some in shown.items() for key in some]
        return {str(place): built.inputs_version(store, place) for place in places}

    def snapshot() -> None:
        rows = reviews.frame(reviews.read(store))
        store.write("reviews", None, rows, version_of(rows, built.inputs_version(store, Partition("reviews", None))))

    snapshot()
    assert built.is_current(store, Partition("reviews", None))
    by_table["before"] = versions()
    reviews.append(store, *said(("Ann", "a", "drop")))
    assert not built.is_current(store, Partition("reviews", None))
    snapshot()
    changed = {place for place, version in versions().items() if version != by_table["before"][place]}
    assert changed - {"review_agreement"} == {"reviews", *(f"reviewed_removals/{row.name}" for row in STUDY.teachers)}


def test_the_filter_drops_of_the_teacher_whose_pairs_were_read_alone(store: Store) -> None:
    reviews.append(store, *said(("Ann", "a", "drop")))
    every, halves = reviews.frame(reviews.read(store)), candidates("a").select("document_id", "first_half")
    for teacher, expected in (("echo", ["a"]), ("local", [])):
        completions = candidates("a").select(
            "document_id", "sample_rank", "completion", status=pl.lit("ok"), teacher=pl.lit(teacher)
        )
        step = reviewing().tables["reviewed_removals"]
        made = step.function(context(store, "reviewed_removals", teacher), completions, halves, every)
        assert made.rows["document_id"].to_list() == expected
        assert made.rows["filter"].to_list() == ["reviewed"] * len(expected)


def test_a_row_sets_the_rule_and_not_the_verdicts() -> None:
    filters.check(Filter(name="reviewed", options={"drops": "any"}))
    with pytest.raises(ValueError, match="has no option 'reviews'; it takes drops"):
        filters.check(Filter(name="reviewed", options={"reviews": "mine"}))
