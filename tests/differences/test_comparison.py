"""Two states of a study: every row that came, went or changed is counted once, under the reason that is true of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from nift_assets.differences import comparison, funnels, score_differences, states, wording
from nift_assets.differences.comparison import ChangedText, PartitionDifference
from nift_assets.differences.states import StudyState, TablePartition
from nift_assets.store import Store
from nift_assets.table_files import DamagedTable, version_of
from tests.differences.small_study import SET, TEACHER, Document, SmallStudy, store, write

COMPLETIONS, FILTERED = ("completions", TEACHER), ("filtered_completions", TEACHER)
PAIRS = ("training_sets", SET)

BEFORE = SmallStudy(
    documents=[
        Document(id="stays"),
        Document(id="gone"),
        Document(id="now refused"),
        Document(id="now found"),
        Document(id="no longer found", found="2 words"),
        Document(id="was cut off", status="truncated"),
        Document(id="answered anew"),
        Document(id="cut anew"),
        Document(id="asked warmer", temperature=0.0),
        Document(id="not asked any more"),
    ]
)
AFTER = SmallStudy(
    documents=[
        Document(id="stays"),
        Document(id="now refused", status="refused", answer=""),
        Document(id="now found", found="2 words"),
        Document(id="no longer found"),
        Document(id="was cut off"),
        Document(id="answered anew", answer="and so it ended."),
        Document(id="cut anew", first_half="Once upon", answer="a time it went on."),
        Document(id="asked warmer", temperature=1.0, answer="and so it burnt."),
        Document(id="not asked any more", is_asked=False),
        Document(id="new"),
    ]
)


def two(tmp_path: Path, before: SmallStudy, after: SmallStudy) -> tuple[StudyState, StudyState]:
    store(tmp_path / "before", before)
    store(tmp_path / "after", after)
    return states.of_folder(tmp_path / "before", "small", "b"), states.of_folder(tmp_path / "after", "small", "a")


def compared(
    states_: tuple[StudyState, StudyState], tables: tuple[str, ...] = ()
) -> dict[TablePartition, PartitionDifference]:
    with comparison.opened(*states_) as opened:
        return {place: opened.of(place) for place in opened.places(tables)}


def reasons(states_: tuple[StudyState, StudyState], place: TablePartition) -> dict[str, tuple[str, str | None]]:
    """What became of each document of a partition that differs, and why."""
    with comparison.opened(*states_) as opened:
        for each in opened.places():
            opened.of(each)
        rows = opened.differing().pl().filter(pl.col("table") == place[0], pl.col("partition").eq_missing(place[1]))
    return {row["document_id"]: (row["change"], row["reason"]) for row in rows.to_dicts()}


def test_two_copies_are_the_same_in_every_partition(tmp_path: Path) -> None:
    found = compared(two(tmp_path, BEFORE, BEFORE))
    assert len(found) == 7
    assert all(each.is_same and each.before == each.after for each in found.values())


def test_each_pair_that_came_or_went_has_the_reason_that_is_true_of_it(tmp_path: Path) -> None:
    both = two(tmp_path, BEFORE, AFTER)
    expected = {
        "gone": ("out", "not in the sample"),
        "now refused": ("out", "answer refused"),
        "now found": ("out", "dropped by short"),
        "no longer found": ("in", "dropped by short"),
        "was cut off": ("in", "answer truncated"),
        "answered anew": ("changed", "another answer"),
        "cut anew": ("changed", "another halving"),
        "asked warmer": ("changed", "asked with other parameters"),
        "not asked any more": ("out", "not asked"),
        "new": ("in", "not in the sample"),
    }
    assert reasons(both, FILTERED) == reasons(both, PAIRS) == expected
    removals = reasons(both, ("short_removals", TEACHER))
    assert removals == {"now found": ("in", "2 words"), "no longer found": ("out", "2 words")}
    assert reasons(both, ("halves", None))["cut anew"] == ("changed", "another halving")
    assert reasons(both, ("halves", None))["asked warmer"] == ("changed", "another place in the sample")


def test_what_is_counted_is_what_changed_and_in_which_columns(tmp_path: Path) -> None:
    found = compared(two(tmp_path, BEFORE, AFTER))[COMPLETIONS]
    assert (found.before, found.after, found.rows_out, found.rows_in, found.changed) == (10, 9, 2, 1, 7)
    assert found.columns == {"sample_rank": 7, "completion": 4, "request_key": 4, "status": 2, "temperature": 1}
    assert sum(found.why["changed"].values()) == found.changed
    assert wording.sentence(found) == (
        "2 rows out (1 not asked, 1 not in the sample), 1 row in (before: not in the sample), 7 rows changed "
        "(3 another answer, 2 another place in the sample, 1 another halving, 1 asked with other parameters)"
    )


def test_a_set_that_is_smaller_leaves_out_what_stands_behind_its_last_row(tmp_path: Path) -> None:
    both = two(tmp_path, SmallStudy(documents=AFTER.documents[:6]), SmallStudy(documents=AFTER.documents[:6], most=2))
    assert set(reasons(both, PAIRS).values()) == {("out", "behind the last of the set")}
    assert reasons(both, FILTERED) == {}


def test_a_filter_that_only_reports_is_no_reason(tmp_path: Path) -> None:
    reported = dataclasses.replace(BEFORE, drops=False)
    both = two(tmp_path, reported, AFTER)
    assert reasons(both, FILTERED)["now found"] == ("out", "dropped by short")
    assert "no longer found" not in {id for id, (change, _) in reasons(both, FILTERED).items() if change == "in"}


def test_a_partition_that_is_new_or_gone_is_said_whole(tmp_path: Path) -> None:
    both = two(tmp_path, BEFORE, BEFORE)
    (tmp_path / "after" / "small" / "completions" / f"{TEACHER}.parquet").unlink()
    both = both[0], states.of_folder(tmp_path / "after", "small", "a")
    assert wording.sentence(compared(both)[COMPLETIONS]) == "is gone with its 10 rows"
    assert wording.sentence(compared(both[::-1])[COMPLETIONS]) == "is new, with 10 rows"
    assert set(reasons(both, COMPLETIONS).values()) == {("out", "the whole partition is gone")}


def test_a_column_that_one_state_lacks_is_named_and_the_others_compared(tmp_path: Path) -> None:
    both = two(tmp_path, BEFORE, BEFORE)
    path = Store(root=str(tmp_path / "before"), study="small").path(*COMPLETIONS)
    write(
        Store(root=str(tmp_path / "before"), study="small"),
        *COMPLETIONS,
        pl.read_parquet(path).to_dicts(),
        without=("thoughts",),
    )
    both = states.of_folder(tmp_path / "before", "small", "b"), both[1]
    found = compared(both)[COMPLETIONS]
    assert (found.columns_in, found.changed) == (["thoughts"], 0)
    assert wording.sentence(found) == "with the column thoughts"


def rewritten(both: tuple[StudyState, StudyState], change: Callable[[pl.DataFrame], pl.DataFrame]) -> StudyState:
    """The later state with other rows in its completions."""
    root = both[1].root
    assert root is not None
    to = Store(root=str(root), study="small")
    frame = change(pl.read_parquet(to.path(*COMPLETIONS)))
    to.write(*COMPLETIONS, frame, version_of(frame, inputs="made here"))
    return states.of_folder(root, "small", "after")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: pl.concat([rows, rows]), "completions/echo: several rows of after have the key"),
        (
            lambda rows: rows.with_columns(sample_rank=pl.lit("first")),
            "completions/echo: the rows of the two states cannot be compared: Conversion Error",
        ),
    ],
    ids=["twice", "another type"],
)
def test_rows_that_cannot_be_compared_are_named_with_their_table(
    change: Callable[[pl.DataFrame], pl.DataFrame], says: str, tmp_path: Path
) -> None:
    both = two(tmp_path, BEFORE, AFTER)
    with pytest.raises(ValueError, match=says) as refused:
        compared((both[0], rewritten(both, change)))
    assert "\n" not in str(refused.value)


def test_changed_texts_come_from_both_sides(tmp_path: Path) -> None:
    with comparison.opened(*two(tmp_path, BEFORE, AFTER)) as opened:
        opened.of(COMPLETIONS)
        texts = list(opened.changed_texts(COMPLETIONS, 2))
    assert texts == [
        ChangedText(key="answered anew", column="completion", before="and so it went on.", after="and so it ended."),
        ChangedText(key="asked warmer", column="completion", before="and so it went on.", after="and so it burnt."),
    ]


def test_a_damaged_file_is_named_and_not_compared(tmp_path: Path) -> None:
    both = two(tmp_path, BEFORE, AFTER)
    path = tmp_path / "after" / "small" / "completions" / f"{TEACHER}.parquet"
    planted = pl.read_parquet(path).with_columns(completion=pl.lit("planted"))
    planted.write_parquet(path, metadata=pl.read_parquet_metadata(path))
    with pytest.raises(DamagedTable, match=r"after/small/completions/echo\.parquet is damaged"):
        compared(both)


def test_paths_with_the_characters_of_patterns_are_read_as_they_are(tmp_path: Path) -> None:
    odd = tmp_path / "what [is] *this*?"
    found = compared(two(odd, BEFORE, AFTER))[COMPLETIONS]
    assert found.changed == 7


def test_the_funnel_is_held_step_by_step(tmp_path: Path) -> None:
    steps = funnels.compare(*two(tmp_path, BEFORE, AFTER))
    assert [(step.step, step.kept_before, step.kept_after, step.found_after) for step in steps] == [
        ("asked", 10, 9, None),
        ("short", 8, 7, 1),
    ]


def test_scores_are_tested_in_pairs_and_the_same_results_are_not(tmp_path: Path) -> None:
    bad, good = [False] * 40, [True] * 36 + [False] * 4
    before = dataclasses.replace(BEFORE, followed={"same": good, "better": bad, "gone": good})
    after = dataclasses.replace(BEFORE, followed={"same": good, "better": good, "new": good})
    found = {row.model: row for row in score_differences.compare(*two(tmp_path, before, after))}
    assert found["same"].same_results
    assert found["same"].difference is None
    better = found["better"].difference
    assert better is not None
    assert (better.value, better.questions) == (90.0, 40)
    assert better.p == found["better"].p_corrected
    assert found["better"].is_significant
    assert (found["gone"].after, found["new"].before) == (None, None)
    assert found["new"].difference is None


def test_what_has_no_rows_is_not_published_so_it_is_no_difference(tmp_path: Path) -> None:
    store(tmp_path / "after", SmallStudy(documents=[Document(id="stays")]))
    published = states.of_folder(tmp_path / "after", "small", "a").as_published(TEACHER, [SET, "of another study"])
    assert set(published.files) == {COMPLETIONS, PAIRS}
