"""What is made by portions of the documents is what would be made of all at once, and no step holds a whole table."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from expectations import contract
from expectations.frames import Rows, conform, in_groups, schema
from nift_assets import filters, graph
from nift_assets.filters import exact_duplicates, near_duplicates
from nift_assets.rows import Filter
from nift_assets.steps import inputs
from nift_assets.steps.lineage import Partition
from nift_assets.steps.table import TableOutput
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version, write_portions
from tests import demo
from tests.demo import GRAPH, STUDY

TEACHER = "echo"
# From the corpus to the trainer's files: what has a row per document, or is made from that.
BY_DOCUMENT = {
    "halves": None,
    "halves_rejects": None,
    "completions": TEACHER,
    "completion_rejects": TEACHER,
    "filtered_completions": TEACHER,
    "training_sets": "echo-filtered",
    "training_files": "echo-filtered",
    **{filters.table(row): TEACHER for row in STUDY.filters},
}
MADE_HERE = [name for name in BY_DOCUMENT if name not in ("halves", "completions", "training_files")]
WORDS = ["the", "ferry", "Left", "without", "its", "horn", "again", "and", "nobody", "Sure", "knew", "why"]


@pytest.fixture(scope="module", params=[0, 7, 40], ids="{} documents".format)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with halves, completions of every status and what the filters drop, of so many documents; to be read."""
    made = Store(str(tmp_path_factory.mktemp("store")), STUDY.name)
    _fill(made, request.param)
    return made


@pytest.mark.parametrize("table", MADE_HERE)
def test_a_table_comes_out_the_same_however_its_documents_are_cut(store: Store, table: str) -> None:
    whole = rows_of(store, table, at_once=1_000)
    for at_once in (3, 16):
        assert rows_of(store, table, at_once=at_once).equals(whole), at_once


def test_documents_of_another_sample_are_not_cut_by_its_ranks(tmp_path: Path) -> None:
    store = Store(str(tmp_path), STUDY.name)
    _fill(store, 30)
    # The sample was drawn anew, and the teacher has not been asked since: a document has another rank in each.
    halves = store.read("halves", None)
    _write(store, "halves", None, halves.with_columns(sample_rank=29 - pl.col("sample_rank")).sort("sample_rank"))
    with inputs.held(GRAPH, store, Partition("uppercase_start_removals", TEACHER)) as held:
        assert len(list(held.portions("sample_rank", 5))) == 1
    for table in ("uppercase_start_removals", "training_sets", "contamination_removals"):
        assert rows_of(store, table, at_once=4).equals(rows_of(store, table, at_once=1_000))


def test_a_table_out_of_order_is_one_portion(tmp_path: Path) -> None:
    store = Store(str(tmp_path), STUDY.name)
    _fill(store, 30)
    _write(store, "completions", TEACHER, store.read("completions", TEACHER).reverse())
    whole = rows_of(store, "filtered_completions", at_once=1_000)
    assert rows_of(store, "filtered_completions", at_once=4).equals(whole)
    assert whole["sample_rank"].is_sorted()


def test_every_document_comes_once_and_all_about_it_together(store: Store) -> None:
    with inputs.held(GRAPH, store, Partition("uppercase_start_removals", TEACHER)) as held:
        portions = list(held.portions("sample_rank", 3))
        for frames in portions:
            ids = frames["halves"]["document_id"].to_list()
            assert set(frames["completions"]["document_id"]) <= set(ids)
            assert len(ids) <= 3
        assert [name for frames in portions for name in frames["halves"]["document_id"]] == held.frame("halves")[
            "document_id"
        ].to_list()


def test_inputs_stay_what_they_were_whatever_is_put_in_their_place(tmp_path: Path) -> None:
    store = Store(str(tmp_path), STUDY.name)
    _fill(store, 20)
    before = store.read("completions", TEACHER)
    with inputs.held(GRAPH, store, Partition("filtered_completions", TEACHER)) as held:
        _write(store, "completions", TEACHER, before.with_columns(completion=pl.lit("other")))
        assert held.frame("completions").equals(before)
        version = held.versions[Partition("completions", TEACHER)]
        assert version is not None
        assert version.data == data_version(before)


def test_no_step_from_the_corpus_to_the_trainer_is_handed_whole_tables() -> None:
    whole = [table for table in BY_DOCUMENT if GRAPH.tables[table].is_handed_frames]
    assert not whole


@pytest.mark.parametrize("size", [1, 5, 64])
def test_looking_back_is_the_same_over_portions_of_any_size(size: int) -> None:
    chance = random.Random(size)
    texts = [_text(chance, 60) for _ in range(40)]
    for _ in range(60):
        words = chance.choice(texts).split()
        for place in chance.sample(range(len(words)), chance.choice([0, 1, 2, 9])):
            words[place] = "otherwise"
        texts.append(" ".join(words))
    candidates = pl.DataFrame(
        {"document_id": [f"d{n}" for n in range(len(texts))], "first_half": ["Once."] * len(texts), "completion": texts}
    )
    cut = [candidates.slice(start, size) for start in range(0, candidates.height, size)]
    for file in (exact_duplicates, near_duplicates):
        at_once = pl.concat(file.removals([candidates]))
        assert pl.concat(file.removals(cut)).equals(at_once)
        assert 10 < at_once.height < 90


def test_near_duplicates_are_those_that_every_earlier_document_is_compared_for() -> None:
    chance = random.Random(5)
    texts = [_text(chance, 40) for _ in range(30)]
    texts += [" ".join(text.split()[: chance.choice([39, 38, 36, 20])]) for text in texts for _ in range(3)]
    chance.shuffle(texts)
    candidates = pl.DataFrame(
        {"document_id": [f"d{n}" for n in range(len(texts))], "first_half": [""] * len(texts), "completion": texts}
    )
    kept: list[int] = []
    expected = {}
    phrases = [near_duplicates.phrases(text) for text in texts]
    for place, mine in enumerate(phrases):
        shares = ((other, len(mine & phrases[other]) / len(mine | phrases[other])) for other in kept)
        twin = next((pair for pair in shares if pair[1] >= 0.8), None)
        if twin is None:
            kept.append(place)
        else:
            expected[f"d{place}"] = f"shares {twin[1]:.0%} of its phrases with d{twin[0]}"
    removed = pl.concat(near_duplicates.removals([candidates]))
    assert dict(removed.iter_rows()) == expected
    assert len(expected) > 30


def test_a_filter_that_skips_a_portion_is_refused(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    def removals(portions: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        next(portions)
        for portion in portions:
            yield portion.select("document_id", reason=pl.lit("so it is")).clear()

    monkeypatch.setattr(exact_duplicates, "removals", removals)
    frames = {"completions": store.read("completions", TEACHER), "halves": store.read("halves", None)}
    with pytest.raises(ValueError, match="a yield for each"):
        list(filters.run_in_order(Filter(name="exact_duplicates"), [frames, frames], ()))
    monkeypatch.setattr(exact_duplicates, "removals", lambda portions: iter(()))
    with pytest.raises(ValueError, match="a yield for each"):
        list(filters.run_in_order(Filter(name="exact_duplicates"), [frames], ()))


def test_numbers_of_a_portion_add_up_and_the_rest_is_told_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path), STUDY.name)
    _fill(store, 30)
    step = GRAPH.tables["contamination_removals"]
    output = made(store, "contamination_removals", at_once=4)
    rows = list(output.rows)
    assert output.metadata["removed"] == sum(frame.height for frame in rows)
    assert "removed" in step.adds_up
    assert output.metadata["benchmarks_looked_for"] == len(STUDY.benchmarks) - output.metadata["benchmarks_missing"]


@pytest.mark.parametrize("cut", [1, 3, 100, 5_000])
def test_a_file_is_the_same_however_its_rows_came(cut: int, tmp_path: Path) -> None:
    frame = pl.DataFrame({"number": range(5_000), "text": [f"text {number}" * 3 for number in range(5_000)]})
    portions = [frame.slice(start, cut) for start in range(0, frame.height, cut)]
    files = [tmp_path / "whole", tmp_path / "cut"]
    versions = [write_portions(file, rows, "made from") for file, rows in zip(files, ([frame], portions), strict=True)]
    assert versions[0] == versions[1]
    assert files[0].read_bytes() == files[1].read_bytes()
    with Rows(files[1]) as rows:
        assert rows.height == 5_000
        for start, stop in [(0, 0), (0, 1), (2_040, 2_060), (4_999, 9_999), (7_000, 8_000), (0, 5_000)]:
            assert rows.between(start, stop).equals(frame[start:stop])
        assert rows.select("number").equals(frame.select("number"))


def test_groups_have_a_size_and_nothing_is_lost() -> None:
    frames = [
        pl.DataFrame({"n": range(start, stop)}, schema={"n": pl.Int64})
        for start, stop in [(0, 0), (0, 3), (3, 3), (3, 11)]
    ]
    assert [part["n"].to_list() for part in in_groups(frames, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert [part.height for part in in_groups(frames[:1], 4)] == [0]
    assert not list(in_groups([], 4))


# -- a study's tables, as small as they come -------------------------------------------------------------------------


def rows_of(store: Store, table: str, *, at_once: int) -> pl.DataFrame:
    frames = [conform(frame, contract.load(table)) for frame in made(store, table, at_once=at_once).rows]
    return pl.concat([pl.DataFrame(schema=schema(contract.load(table))), *frames])


def made(store: Store, table: str, *, at_once: int) -> TableOutput:
    """What the step of a table makes of stored inputs, so many documents at a time."""
    step, key = GRAPH.tables[table], BY_DOCUMENT[table]
    with inputs.held(GRAPH, store, Partition(table, key)) as held:
        context = dataclasses.replace(demo.context(store, table, key), inputs=held)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(inputs, "ROWS_AT_ONCE", at_once)
            (output,) = graph._made(graph._run(step, context, [table]), [table]).values()
            frames = [output.rows] if isinstance(output.rows, pl.DataFrame) else list(output.rows)
            return TableOutput(iter(frames), output.metadata)


def _fill(store: Store, documents: int) -> None:
    chance = random.Random(documents)
    ids = [f"{chance.getrandbits(128):032x}" for _ in range(documents)]
    ranks = {"document_id": ids, "sample_rank": list(range(documents))}
    texts = {name: [_text(chance, 9) for _ in ids] for name in ("first_half", "second_half")}
    halves = pl.DataFrame({**ranks, **texts})
    answers = [chance.choice(["", " "]) + _text(chance, chance.choice([3, 12, 30])) for _ in ids]
    said = {
        "teacher": [TEACHER] * documents,
        "status": [chance.choice(["ok", "ok", "ok", "truncated", "empty", "refused"]) for _ in ids],
        "completion": [chance.choice([answer, *answers[:3]]) for answer in answers],
        "echoes_prompt": [chance.random() < 0.2 for _ in ids],
    }
    completions = pl.DataFrame({**ranks, **said})
    _write(store, "raw_sample", None, halves.select("document_id", "sample_rank", text=pl.col("first_half")))
    _write(store, "halves", None, halves.filter(pl.col("sample_rank") % 9 != 5))
    _write(store, "completions", TEACHER, completions.filter(pl.col("sample_rank") % 9 != 5))
    for name in (filters.table(row) for row in STUDY.filters):
        dropped = completions.filter(pl.col("sample_rank") % 7 == 3).with_columns(
            filter=pl.lit(name.removesuffix("_removals")), reason=pl.lit("so it is")
        )
        _write(store, name, TEACHER, dropped)


def _write(store: Store, table: str, key: str | None, rows: pl.DataFrame) -> None:
    declared = schema(contract.load(table))
    empty = pl.DataFrame(schema=declared)
    given = rows.select([name for name in declared if name in rows.columns])
    frame = empty if rows.is_empty() else pl.concat([empty, given], how="diagonal_relaxed")
    frame = frame.select(list(declared)).cast(pl.Schema(declared))
    store.write(table, key, frame, Version(data=data_version(frame), inputs=""))


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words)) + "."
