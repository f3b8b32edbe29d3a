"""A frame that keeps its contract passes every test; one defect fails exactly the test that is about it."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expectations import contract, frames, runner
from tests.expectations import bench

HALVES = """
table: halves
description: One row per document.
columns:
  - {name: document_id, type: VARCHAR, description: Which document., tests: [not_null]}
  - name: teacher
    type: VARCHAR
    description: Who wrote.
    tests:
      - accepted_values: {values: [echo, shout]}
  - name: first_half
    type: VARCHAR
    description: The text before the cut.
    tests:
      - not_null
      - length_between: {min: 2, max: 20000}
  - name: second_half
    type: VARCHAR
    description: The text after the cut.
    tests:
      - matches: {regex: "^[^A-Z']"}
  - name: cut
    type: BIGINT
    description: Characters before the cut.
    tests:
      - between: {min: 1}
  - name: fraction
    type: DOUBLE
    description: Where the cut fell.
    tests:
      - between: {max: 1, name: fraction_at_most_one}
  - {name: kept, type: BOOLEAN, description: Whether it is kept.}
  - name: source_id
    type: VARCHAR
    description: The document it is from.
    tests:
      - relationships: {to: raw_sample, field: id}
  - {name: serial, type: BIGINT, description: A number of its own., tests: [unique]}
tests:
  - row_count: {min: 2, max: 100000}
  - unique: {columns: [document_id, teacher]}
  - expression: {name: cut_is_the_length, sql: "cut = length(first_half)  -- characters"}
  - share: {name: kept_share, sql: kept, min: 0.5, max: 1, severity: warn}
  - no_rows:
      name: halves_rejoin
      sql: |
        select document_id from this join raw_sample on source_id = id
        where first_half || second_half <> text
"""
RAW = pl.DataFrame({"id": ["r0", "r1", "r2"], "text": ["ab cd", "abc cd", "abcd cd"]})
GOOD = pl.DataFrame(
    {
        "document_id": ["a", "a", "b", "b"],
        "teacher": ["echo", "shout", "echo", "shout"],
        "first_half": ["ab", "ab", "abc", "abc"],
        "second_half": [" cd", " cd", " cd", " cd"],
        "cut": [2, 2, 3, 3],
        "fraction": [0.1, 0.9, None, 1.0],
        "kept": [True, True, None, False],
        "source_id": ["r0", "r0", "r1", None],
        "serial": [1, 2, 3, None],
    }
)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> contract.Contract:
    folder = tmp_path_factory.mktemp("contracts")
    (folder / "halves.yml").write_text(HALVES, encoding="utf-8")
    return contract.load("halves", folder)


def results(frame: pl.DataFrame, halves: contract.Contract) -> dict[str, runner.ExpectationResult]:
    return {result.name: result for result in runner.check(frame, halves, {"raw_sample": RAW})}


def failed(frame: pl.DataFrame, halves: contract.Contract) -> dict[str, int | None]:
    return {name: result.failing for name, result in results(frame, halves).items() if not result.passed}


def put(column: str, *values: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    return lambda frame: frame.with_columns(pl.Series(column, values, frame.schema[column], strict=False))


def test_a_frame_that_keeps_its_contract_passes_every_test_in_order(halves: contract.Contract) -> None:
    found = runner.check(GOOD, halves, {"raw_sample": RAW})
    assert [result.name for result in found] == [test.name for test in halves.tests]
    assert all(result.passed for result in found)
    assert all(not result.examples for result in found)


NAN = float("nan")
DEFECTS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], dict[str, int | None]]] = {
    "a_null_id": (put("document_id", "a", "a", None, "b"), {"document_id_not_null": 1}),
    "a_value_nobody_named": (put("teacher", "echo", "shoutt", "sh", "shout"), {"teacher_accepted_values": 2}),
    "a_null_text": (
        lambda frame: frame.with_columns(first_half=None, cut=None).cast({"first_half": pl.String, "cut": pl.Int64}),
        {"first_half_not_null": 4, "cut_is_the_length": 4},
    ),
    "a_text_too_short": (
        lambda frame: frame.with_columns(
            put("first_half", "ab", "ab", "abc", "a")(frame)["first_half"], cut=2
        ).with_columns(cut=pl.col("first_half").str.len_chars().cast(pl.Int64)),
        {"first_half_length_between": 1},
    ),
    "a_text_that_does_not_match": (
        lambda frame: put("second_half", " cd", " cd", " cd", "' cd")(frame),
        {"second_half_matches": 1},
    ),
    "a_number_below": (
        lambda frame: put("cut", 2, 2, 3, 0)(frame),
        {"cut_between": 1, "cut_is_the_length": 1},
    ),
    "a_number_above": (put("fraction", 1.1, 2.0, 0.5, 1.0), {"fraction_at_most_one": 2}),
    "not_a_number": (put("fraction", NAN, 0.5, 0.5, 1.0), {"fraction_at_most_one": 1}),
    "a_reference_to_nothing": (put("source_id", "r0", "r0", "r9", None), {"source_id_relationships": 1}),
    "a_number_twice": (put("serial", 7, 2, 3, 7), {"serial_unique": 2}),
    "large_numbers_that_floats_confuse": (put("serial", 2**53, 2**53 + 1, None, 1), {}),
    "two_nulls": (put("serial", 1, 2, None, None), {}),
    "a_pair_twice": (put("teacher", "echo", "echo", "echo", "shout"), {"document_id_teacher_unique": 2}),
    "too_few_rows": (lambda frame: frame.head(1), {"row_count": None}),
    "an_expression_that_is_false": (put("cut", 2, 2, 3, 4), {"cut_is_the_length": 1}),
    "an_expression_that_is_null": (put("cut", 2, 2, 3, None), {"cut_is_the_length": 1}),
    "a_share_out_of_bounds": (put("kept", True, None, False, None), {"kept_share": None}),
    "a_row_the_query_finds": (put("second_half", " cd", " ce", " cd", " cd"), {"halves_rejoin": 1}),
    "an_extra_column": (lambda frame: frame.with_columns(text=pl.lit("x")), {"columns_as_declared": 1}),
    "a_missing_column": (lambda frame: frame.drop("kept"), {"columns_as_declared": 1, "kept_share": None}),
    "a_mistyped_column": (
        lambda frame: frame.cast({"fraction": pl.String}),
        {"columns_as_declared": 1, "fraction_at_most_one": None},
    ),
}


@pytest.mark.parametrize(("plant", "caught"), DEFECTS.values(), ids=DEFECTS)
def test_a_planted_defect_is_caught_by_its_own_test_alone(
    plant: Callable[[pl.DataFrame], pl.DataFrame], caught: dict[str, int | None], halves: contract.Contract
) -> None:
    assert failed(plant(GOOD), halves) == caught


def test_the_rows_that_fail_a_test_are_kept_as_they_are(halves: contract.Contract, tmp_path: Path) -> None:
    """As many as were counted, rows of the table with all its columns, from memory and from a file alike."""
    for plant, caught in DEFECTS.values():
        frame = frames.conform(plant(GOOD), halves)
        found = runner.check(frame, halves, {"raw_sample": RAW})
        kept = runner.failing_rows(frame, halves, found, {"raw_sample": RAW})
        counted = {name: number for name, number in caught.items() if number and name != "columns_as_declared"}
        if caught == {"kept_share": None}:
            counted = {"kept_share": 3}  # there are too few of the others
        if caught == {"halves_rejoin": 1}:
            counted = {"halves_rejoin": 2}  # the query names the document, which both teachers were given
        assert {name: rows.height for name, rows in kept.items()} == counted
        declared = {column.name: column.dtype for column in halves.columns}
        for rows in kept.values():
            assert dict(rows.schema) == declared
            assert set(map(repr, rows.rows())) <= set(map(repr, frame.select(*declared).rows()))
        frame.write_parquet(tmp_path / "frame.parquet", row_group_size=1)
        in_file = runner.failing_rows(tmp_path / "frame.parquet", halves, found, {"raw_sample": RAW})
        assert {name: sorted(map(str, rows.rows())) for name, rows in in_file.items()} == {
            name: sorted(map(str, rows.rows())) for name, rows in kept.items()
        }


def test_of_failing_rows_no_more_is_kept_than_a_person_reads(
    halves: contract.Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = pl.concat([GOOD] * 100).with_columns(cut=pl.lit(0, pl.Int64))
    found = runner.check(many, halves, {"raw_sample": RAW})
    kept = runner.failing_rows(many, halves, found, {"raw_sample": RAW})
    assert kept["cut_between"].height == runner.FAILING_ROWS
    twice = kept["document_id_teacher_unique"].select("document_id", "teacher").rows()
    assert twice == sorted(twice, key=twice.index), "rows that are equal stand below each other"
    monkeypatch.setattr(runner, "FAILING_BYTES", 2_000)
    fewer = runner.failing_rows(many, halves, found, {"raw_sample": RAW})
    assert 1 <= fewer["cut_between"].height < runner.FAILING_ROWS


@pytest.mark.parametrize(
    ("holding", "rows", "bounds", "says"),
    [
        (64, 66, {"max": 0.2}, "97% of 66 halves (64 rows), expected at most 20%"),
        (1, 1, {"max": 0.02}, "100% of 1 halves (1 row), expected at most 2%"),
        (201, 1000, {"max": 0.2}, "20.1% of 1,000 halves (201 rows), expected at most 20%"),
        (20001, 100000, {"max": 0.2}, "20.001% of 100,000 halves (20,001 rows), expected at most 20%"),
        (99999, 100000, {"min": 1.0}, "99.999% of 100,000 halves (99,999 rows), expected at least 100%"),
        (0, 7, {"min": 0.25, "max": 0.75}, "0% of 7 halves (0 rows), expected between 25% and 75%"),
    ],
)
def test_a_share_is_told_in_per_cent_and_rows(
    holding: int, rows: int, bounds: dict[str, float], says: str, halves: contract.Contract
) -> None:
    arguments = {"sql": "kept", "min": None, "max": None} | bounds
    test = contract.ContractTest(
        name="kept_share", kind="share", column=None, severity="warn", description="", arguments=arguments
    )
    only = contract.Contract(table="halves", description="", columns=halves.columns, tests=(test,), unit_tests=())
    frame = pl.concat([GOOD.head(1)] * rows).with_columns(kept=pl.int_range(rows) < holding)
    (found,) = runner.check(frame, only)
    assert found.message == says


def test_a_test_that_cannot_be_run_says_why(halves: contract.Contract) -> None:
    found = results(GOOD.drop("cut").cast({"fraction": pl.Float32}), halves)
    assert found["columns_as_declared"].observed == (
        "cut is missing, declared BIGINT; fraction is Float32, declared DOUBLE (Float64)"
    )
    assert found["cut_is_the_length"].message == "not run: cut is missing, declared BIGINT"
    assert {name for name, result in found.items() if not result.passed} == {
        "columns_as_declared",
        "cut_between",
        "fraction_at_most_one",
        "cut_is_the_length",
    }


def test_a_frame_without_columns_fails_everything_but_raises_nothing(halves: contract.Contract) -> None:
    found = results(pl.DataFrame(), halves)
    assert not any(result.passed for result in found.values())
    assert found["row_count"].observed == 0


def test_an_empty_table_keeps_every_promise_but_the_row_count(halves: contract.Contract) -> None:
    empty = pl.DataFrame(schema=frames.schema(halves))
    assert failed(empty, halves) == {"row_count": None}
    assert results(empty, halves)["kept_share"].observed is None


def test_a_failure_comes_with_count_share_values_and_rows(halves: contract.Contract) -> None:
    found = results(put("cut", 0, 2, -1, 3)(GOOD), halves)["cut_between"]
    assert (found.rows, found.failing, found.share, found.observed) == (4, 2, 0.5, "0, -1")
    assert (found.kind, found.column, found.examples) == ("between", "cut", ("a", "b"))
    assert found.message == "2 of 4 rows fail with 0, -1: a, b"


def test_a_share_is_observed_and_its_warning_stays_a_warning(halves: contract.Contract) -> None:
    found = results(put("kept", True, False, False, False)(GOOD), halves)["kept_share"]
    assert (found.passed, found.severity, found.share, found.observed) == (False, "warn", 0.25, 0.25)
    assert found.message == "25% of 4 halves (1 row), expected between 50% and 100%"


def test_a_query_that_returns_rows_names_them(halves: contract.Contract) -> None:
    found = results(put("second_half", " ce", " cd", " ce", " cd")(GOOD), halves)["halves_rejoin"]
    assert (found.failing, found.observed, sorted(found.examples)) == (2, 2, ["a", "b"])


def test_examples_are_few_and_short(halves: contract.Contract) -> None:
    many = pl.concat([GOOD] * 5).with_columns(
        document_id=pl.lit("x" * 500) + pl.int_range(20).cast(pl.String), teacher=pl.lit("y" * 500)
    )
    found = results(many.with_columns(document_id=pl.int_range(20).cast(pl.String) + "x" * 500), halves)
    assert [len(example) for example in found["teacher_accepted_values"].examples] == [80] * 5
    assert found["teacher_accepted_values"].observed == "yyyyyy"


def test_no_text_is_handed_to_great_expectations(halves: contract.Contract) -> None:
    secret = GOOD.with_columns(
        first_half=pl.lit("s" * 9000), second_half=pl.lit("s" * 9000), teacher=pl.lit("s" * 9000)
    )
    with runner._connect({"this": secret, "raw_sample": RAW}) as connection:
        projection = runner.projection(connection, halves)
        summary = runner.summary(connection, halves, 0)
    texts = projection.select_dtypes("str")
    assert set(texts.columns) == {"teacher_accepted_values"}
    assert texts["teacher_accepted_values"].str.len().max() < 32
    assert summary.select_dtypes("str").empty


def test_results_are_paired_by_name_whatever_their_order(
    halves: contract.Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    from great_expectations.datasource.fluent.interfaces import Batch

    validate = Batch.validate

    def backwards(*args: object, **options: object) -> object:
        report = validate(*args, **options)
        report.results.reverse()
        return report

    defect = put("serial", 7, 2, 3, 7)(GOOD)
    straight = results(defect, halves)
    monkeypatch.setattr(Batch, "validate", backwards)
    assert results(defect, halves) == straight


def test_bad_sql_names_contract_test_and_reason(tmp_path: Path) -> None:
    for sql, reason in [("cuts > 1", "cuts"), ("cut >", "syntax error"), ("sum(cut) > 1", "GROUP BY")]:
        bad = HALVES.replace('"cut = length(first_half)  -- characters"', sql)
        (tmp_path / "halves.yml").write_text(bad, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"^halves\.yml, test cut_is_the_length: .*{reason}"):
            runner.check(GOOD, contract.load("halves", tmp_path), {"raw_sample": RAW})


def test_an_input_that_was_not_given_is_named(halves: contract.Contract) -> None:
    with pytest.raises(ValueError, match=r"test halves_rejoin: .*raw_sample"):
        runner.check(GOOD, halves)


def test_contract_sql_reaches_neither_files_nor_our_variables(tmp_path: Path) -> None:
    RAW.write_parquet(tmp_path / "raw_sample.parquet")
    RAW.write_parquet(tmp_path / "another.parquet")
    inputs = [RAW, tmp_path / "raw_sample.parquet"]
    sources = ("read_csv('/etc/hostname')", f"read_parquet('{tmp_path}/another.parquet')", "frame")
    for source, raw in itertools.product(sources, inputs):
        sealed = HALVES.replace(
            "select document_id from this join raw_sample on source_id = id", f"select 1 from {source}"
        )
        (tmp_path / "halves.yml").write_text(sealed.replace("where first_half || second_half <> text", ""))
        with pytest.raises(ValueError, match="test halves_rejoin"):
            runner.check(GOOD, contract.load("halves", tmp_path), {"raw_sample": raw})


def test_a_table_that_lies_in_a_file_is_checked_as_one_in_memory(halves: contract.Contract, tmp_path: Path) -> None:
    RAW.write_parquet(tmp_path / "raw [1].parquet")
    for number, change in enumerate([put("serial", 1, 1, 3, 4), lambda frame: frame.drop("kept"), lambda frame: frame]):
        changed = change(GOOD)
        changed.write_parquet(tmp_path / f"{number}.parquet", row_group_size=1)
        in_memory = runner.check(changed, halves, {"raw_sample": RAW})
        assert (
            runner.check(tmp_path / f"{number}.parquet", halves, {"raw_sample": tmp_path / "raw [1].parquet"})
            == in_memory
        )


@settings(max_examples=25)
@given(serials=st.lists(st.none() | st.integers(-3, 3), max_size=12))
def test_duplicates_are_counted_as_python_counts_them(halves: contract.Contract, serials: list[int | None]) -> None:
    frame = pl.DataFrame({"serial": serials}, schema={"serial": pl.Int64})
    twice = sum(serial is not None and serials.count(serial) > 1 for serial in serials)
    assert results(frame, _only(halves, "serial"))["serial_unique"].failing == twice


@settings(max_examples=10)  # each is a whole check
@given(texts=st.lists(st.none() | st.text(max_size=6), max_size=12))
def test_texts_are_measured_in_characters_and_nulls_are_no_failure(
    halves: contract.Contract, texts: list[str | None]
) -> None:
    frame = pl.DataFrame({"first_half": texts}, schema={"first_half": pl.String})
    found = results(frame, _only(halves, "first_half"))
    assert found["first_half_length_between"].failing == sum(text is not None and len(text) < 2 for text in texts)
    assert found["first_half_not_null"].failing == texts.count(None)


def _only(halves: contract.Contract, column: str) -> contract.Contract:
    return contract.Contract(
        table="halves",
        description="One column.",
        columns=tuple(each for each in halves.columns if each.name == column),
        tests=tuple(test for test in halves.tests if test.column == column),
        unit_tests=(),
    )


def test_eighty_thousand_long_documents_take_about_a_cpu_second(halves: contract.Contract) -> None:
    rows = 80_000
    raw = pl.select(id=pl.int_range(rows).cast(pl.String)).with_columns(
        text=pl.concat_str("id", pl.lit(" word" * 1000))
    )
    frame = raw.select(
        document_id="id",
        teacher=pl.lit("echo"),
        first_half=pl.col("text").str.head(2500),
        second_half=pl.col("text").str.slice(2500),
        cut=pl.lit(2500, pl.Int64),
        fraction=pl.lit(0.5),
        kept=pl.lit(True),
        source_id="id",
        serial=pl.int_range(rows),
    )
    runner.check(frame.head(0), halves, {"raw_sample": raw})
    started = time.process_time()
    found = runner.check(frame, halves, {"raw_sample": raw})
    took = time.process_time() - started
    print(f"{rows} rows, {frame.estimated_size('mb'):.0f} MB, {len(found)} tests: {took:.2f} CPU s")
    assert all(result.passed for result in found)
    assert took < 8


def test_the_bench_of_the_real_contracts_runs_and_finds_nothing_wrong() -> None:
    measured = list(bench.measured(2 * runner.PORTION + 1))
    print(*measured, sep="\n")
    assert [(each.table, each.failed) for each in measured] == [
        (name, []) for name in ("raw_sample", "halves", "completions", "filtered_completions", "training_sets")
    ]
