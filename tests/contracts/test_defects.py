"""Each of many planted defects, one by one, stops the write: nothing is stored, and what was there stays as it was."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from dagster_project.io_manager import ParquetIOManager
from expectations import contract
from expectations.frames import Table, conform
from expectations.runner import check
from nift_assets import sql
from nift_assets.graph import asset_definition
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Partition
from nift_assets.steps.table import Step, TableOutput
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from tests.counting import Counts
from tests.demo import GRAPH, STUDY

TEACHER, SET, REFERENCE = "echo", "echo-filtered", "instructions"
PARTITIONS = {"teacher": TEACHER, "training_set": SET, "reference_set": REFERENCE, None: None}
TEXTS = [f"Article {number} goes on\n\nfor several words – and then some more." for number in range(6)]


def named(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def good() -> dict[str, pl.DataFrame]:
    """Frames of the tables from article to training set that keep all their promises."""
    raw = pl.DataFrame({"text": TEXTS}).select(
        pl.Series("document_id", [named(text) for text in TEXTS]),
        pl.int_range(len(TEXTS)).alias("sample_rank"),
        "text",
        pl.Series("words", [len(text.split()) for text in TEXTS]),
        pl.lit("articles.jsonl").alias("file"),
        pl.int_range(len(TEXTS)).alias("row"),
    )
    cuts = [text.index(" words") for text in TEXTS]
    halves = raw.select("document_id", "sample_rank", "words").with_columns(
        pl.Series("first_half", [text[:cut] for text, cut in zip(TEXTS, cuts, strict=True)]),
        pl.Series("second_half", [text[cut:] for text, cut in zip(TEXTS, cuts, strict=True)]),
        pl.Series("cut", [len(text[:cut].split()) for text, cut in zip(TEXTS, cuts, strict=True)]),
    )
    completions = raw.select("document_id", "sample_rank").with_columns(
        pl.lit(TEACHER).alias("teacher"),
        pl.Series("status", ["ok", "ok", "ok", "truncated", "refused", "ok"]),
        pl.Series("completion", [" words.", "Sure!", " words.", " wor", "", " words."]),
        pl.Series("finish_reason", ["stop", "stop", "stop", "length", "content_filter", "stop"]),
        pl.lit("echo/continue").alias("answered_by"),
        pl.lit(False).alias("echoes_prompt"),
        pl.lit(0.0).alias("temperature"),
        *(pl.lit(9, pl.Int64).alias(name) for name in ("max_tokens", "input_tokens", "output_tokens")),
        *(pl.lit(None, pl.String).alias(name) for name in ("fingerprint", "detail", "system_prompt", "api_version")),
        pl.Series("request_key", [named(text) * 2 for text in TEXTS]),
    )
    ok = completions.filter(status="ok").select("document_id", "teacher", "sample_rank", "completion")
    kept = ok.filter(pl.col("completion") != "Sure!")
    published = [("Name a colour.", "Green."), ("Count to two.", "One, two.")]
    frames = {
        "raw_sample": raw,
        "halves": halves,
        "completions": completions,
        "filtered_completions": kept,
        "training_sets": kept.join(halves, on="document_id").select(
            "document_id",
            "teacher",
            "sample_rank",
            pl.lit(SET).alias("training_set"),
            pl.col("first_half").alias("prompt"),
            pl.col("completion").alias("response"),
        ),
        "reference_sets": pl.DataFrame(
            {
                "source": REFERENCE,
                "row_id": [f"{REFERENCE}-{row}" for row in range(24)],
                "row": range(24),
                "document_id": [named("".join(published[row % 2])) for row in range(24)],
                "prompt": [published[row % 2][0] for row in range(24)],
                "response": [published[row % 2][1] for row in range(24)],
            }
        ),
    }
    return {name: conform(frame, contract.load(name)) for name, frame in frames.items()}


GOOD = good()
MADE: dict[str, pl.DataFrame] = {}
Plant = Callable[[pl.DataFrame], pl.DataFrame]


def put(column: str, value: object, *, row: int = 0) -> Plant:
    """One cell changed."""
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value, frame.schema[column])).otherwise(column).alias(column)
    )


def put_expression(expression: pl.Expr, *, row: int = 0) -> Plant:
    name = expression.meta.output_name()
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(expression).otherwise(name).alias(name)
    )


# The table, the defect, and the test that must speak of it.
DEFECTS: list[tuple[str, str, Plant, str]] = [
    ("raw_sample", "text_changed", put("text", "Another text."), "document_id_is_the_digest_of_the_text"),
    ("raw_sample", "document_twice", lambda frame: pl.concat([frame, frame.head(1)]), "document_id_unique"),
    ("raw_sample", "rank_missing", lambda frame: frame[1:], "rows_are_in_sample_order"),
    ("halves", "character_lost", put_expression(pl.col("second_half").str.head(-1)), "halves_rejoin_to_the_document"),
    ("halves", "cut_too_early", put("cut", 1), "cut_is_in_the_middle_half"),
    ("halves", "document_left_out", lambda frame: frame[:-1], "every_document_of_two_words_is_cut"),
    ("halves", "null_half", put("second_half", None), "second_half_not_null"),
    ("completions", "unknown_status", put("status", "fine"), "status_accepted_values"),
    ("completions", "status_does_not_fit", put("status", "truncated"), "status_follows_from_reason_and_text"),
    ("completions", "another_document", put("document_id", "0" * 32), "document_id_relationships"),
    ("completions", "document_skipped", lambda frame: frame[1:], "no_document_is_skipped"),
    ("completions", "answered_twice", lambda frame: pl.concat([frame, frame[-1:]]), "document_id_teacher_unique"),
    ("completions", "key_is_no_digest", put("request_key", "sk-secret"), "request_key_matches"),
    ("completions", "negative_tokens", put("output_tokens", -1), "output_tokens_between"),
    (
        "completions",
        "most_are_lost",
        lambda frame: frame.with_columns(status=pl.lit("exhausted"), finish_reason=pl.lit(None), completion=pl.lit("")),
        "most_are_answered",
    ),
    ("filtered_completions", "one_vanished", lambda frame: frame[1:], "every_ok_completion_is_kept_or_dropped"),
    ("filtered_completions", "text_changed", put("completion", " word."), "completions_are_unchanged"),
    ("training_sets", "halves_swapped", put("prompt", "Article 5"), "prompts_are_the_first_halves"),
    ("training_sets", "response_of_another", put("response", " words, too."), "responses_are_completions"),
    ("training_sets", "empty_response", put("response", " \n"), "response_has_words"),
    ("training_sets", "order_lost", lambda frame: frame.reverse(), "rows_are_in_sample_order"),
    ("training_sets", "another_teacher", put("teacher", "original"), "no_more_pairs_than_the_row_says"),
    ("training_sets", "nothing_to_train_on", lambda frame: frame.clear(), "row_count"),
    ("training_sets", "column_missing", lambda frame: frame.drop("sample_rank"), "columns_as_declared"),
    ("training_sets", "number_as_text", lambda frame: frame.cast({"sample_rank": pl.String}), "columns_as_declared"),
    ("reference_sets", "row_lost", lambda frame: frame[:-1], "as_many_rows_as_were_published"),
    ("reference_sets", "text_changed", put("response", "Red."), "document_id_is_the_digest_of_the_texts"),
    ("reference_sets", "order_lost", lambda frame: frame.reverse(), "rows_are_in_published_order"),
    ("reference_sets", "null_response", put("response", None), "response_not_null"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which every table is as it should be."""
    made = Store(root=str(tmp_path_factory.mktemp("warehouse")), study=STUDY.name)
    read = {
        upstream
        for name in GOOD
        for upstream in GRAPH.tables[name].inputs
        if GRAPH.tables[upstream].partitions in PARTITIONS
    }
    frames = {name: empty(name) for name in read} | {"uppercase_start_removals": removals()} | GOOD
    for name, frame in frames.items():
        made.write(
            name, PARTITIONS[GRAPH.tables[name].partitions], frame, Version(data=data_version(frame), inputs="before")
        )
    return made


def removals() -> pl.DataFrame:
    new_thought = GOOD["completions"].filter(completion="Sure!").join(GOOD["halves"], on="document_id")
    new_thought = new_thought.with_columns(filter=pl.lit("uppercase_start"), reason=pl.lit("a new thought"))
    declared = contract.load("uppercase_start_removals")
    return conform(new_thought.select(column.name for column in declared.columns), declared)


@dataclasses.dataclass(frozen=True)
class Job:
    """The real graph, each step of which makes the frames of `MADE` instead of its own, and where its runs are kept."""

    definition: dg.JobDefinition
    instance: dg.DagsterInstance


@pytest.fixture(scope="module")
def job(store: Store) -> Iterator[Job]:

    def making(step: Step) -> dg.AssetsDefinition:
        def make(context: Context, **tables: Table) -> dict[str, TableOutput]:
            frames = {name: MADE.get(name, empty(name)) for name in step.tables}
            # What may be larger than memory comes in portions, and is checked in the file they are written to.
            streamed = {"raw_sample", "halves"}
            return {name: TableOutput(iter([f[:2], f[2:]]) if name in streamed else f) for name, f in frames.items()}

        return asset_definition(GRAPH, dataclasses.replace(step, function=make))

    resources = {"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None}
    definitions = dg.Definitions(assets=[making(step) for step in GRAPH.steps], resources=resources)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Job(definitions.resolve_implicit_global_asset_job_def(), instance)


def materialize(job: Job, table: str, frame: pl.DataFrame) -> dg.ExecuteInProcessResult:
    """One run of the real asset of a table, whose function gives back `frame`."""
    MADE[table] = frame
    step = GRAPH.tables[table]
    return job.definition.execute_in_process(
        instance=job.instance,
        asset_selection=[dg.AssetKey(name) for name in step.tables],
        partition_key=PARTITIONS[step.partitions],
        raise_on_error=False,
    )


def empty(table: str) -> pl.DataFrame:
    return pl.DataFrame(schema={column.name: column.dtype for column in contract.load(table).columns})


def on_disk(store: Store) -> dict[str, tuple[bytes, int]]:
    """The tables; the rows that failed a check lie beside them."""
    return {
        str(path.relative_to(store.folder())): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(Path(str(store.folder())).rglob("*.parquet"))
        if ".failing" not in path.parts
    }


@pytest.mark.parametrize("table", GOOD)
def test_what_is_as_it_should_be_is_written(table: str, job: Job, store: Store) -> None:
    assert materialize(job, table, GOOD[table]).success
    version = store.version(table, PARTITIONS[GRAPH.tables[table].partitions])
    assert version is not None
    assert version.inputs != "before"


@pytest.mark.parametrize(
    ("table", "plant", "test"),
    [defect[0::2] + defect[3:] for defect in DEFECTS],
    ids=[f"{d[0]}-{d[1]}" for d in DEFECTS],
)
def test_a_planted_defect_is_named_and_nothing_is_written(
    table: str, plant: Plant, test: str, job: Job, store: Store
) -> None:
    before = on_disk(store)
    run = materialize(job, table, plant(GOOD[table]))
    assert not run.success
    assert on_disk(store) == before
    (failure,) = [event.step_failure_data.user_failure_data for event in run.all_events if event.is_step_failure]
    assert failure is not None
    assert f"{table}: {test}: " in str(failure.description)
    assert not [event for event in run.all_events if event.is_step_materialization]


@pytest.mark.fault("T26")
def test_reasons_to_stop_of_every_server_are_kept_and_one_that_nobody_knows_is_named_with_its_count() -> None:
    reasons = ["end_turn", "eos_token", "flushed", "MAX_TOKENS", "refusal", "flushed"]
    statuses = ["ok", "ok", "other", "truncated", "refused", "other"]
    frame = GOOD["completions"].with_columns(finish_reason=pl.Series(reasons), status=pl.Series(statuses))
    promised = contract.load("completions")
    named = (str(test.arguments.get("sql", "")) for test in promised.tests)
    given = {"halves": GOOD["halves"], **sql.named_study_rows(STUDY, named)}
    results = {result.name: result for result in check(frame, promised, given)}
    assert results["status_follows_from_reason_and_text"].passed
    assert results["every_reason_to_stop_is_known"].examples == ("flushed ended 2 answers",)
    assert results["every_reason_to_stop_is_known"].severity == "warn"


def test_completions_of_before_thoughts_had_a_column_are_up_to_date_and_go_on_as_they_are(
    job: dg.JobDefinition, store: Store
) -> None:
    place = Partition("completions", TEACHER)
    old = GOOD["completions"].drop("thoughts")
    before = store.read(*place), store.version(*place)
    version = Version(data=data_version(old), inputs=GRAPH.inputs_version(store, place))
    store.write(*place, old, version)
    try:
        assert GRAPH.is_current(store, place)
        step = GRAPH.tables["completions"]
        # A number alone, as it was: nobody who has paid for answers is told to make them again.
        assert step.version_of(TEACHER, "completions").split() == ["1", "1"]
        assert materialize(job, "training_sets", GOOD["training_sets"]).success
    finally:
        assert before[1] is not None
        store.write(*place, before[0], before[1])


def test_how_many_defects_are_planted(counts: Counts) -> None:
    counts("gate", f"{len(DEFECTS)} planted defects in {len({table for table, *_ in DEFECTS})} tables, each one caught")
    assert len(DEFECTS) >= 20
