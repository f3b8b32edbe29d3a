"""Write, audit, publish: what Dagster does with a frame that breaks its contract, and what is left where it was."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from dagster_project import run_study
from dagster_project.io_manager import ParquetIOManager
from expectations import contract as contracts
from expectations.frames import Table, portions, schema
from nift_assets import catalogue, corpus
from nift_assets.corpus import halves as cutting
from nift_assets.graph import asset_definition
from nift_assets.pages.viewer import links
from nift_assets.steps import samples
from nift_assets.steps.context import Context
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from tests.conftest import PROJECT, instance_at, nift_here
from tests.demo import GRAPH, STUDY, assets

TEXTS = [f"Article {i} goes on\n\nfor several words – and then some more." for i in range(4)]
MARKUP = "<img src=x onerror=alert(1)> <b>and</b> [a link](javascript:alert(2)) | and | so on " + "for long " * 400

Change = Callable[[pl.DataFrame], Any]


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance on the disk, configured as `nift` configures its own."""
    home = tmp_path_factory.mktemp("home")
    configuration = PROJECT / "dagster_project" / "instance" / "dagster.yaml"
    (home / "dagster.yaml").write_bytes(configuration.read_bytes())
    with instance_at(home) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store that holds a sample of a few documents and nothing else."""
    made = Store(root=str(tmp_path / "warehouse"), study=STUDY.name)
    write(made, "raw_sample", None, sampled(TEXTS))
    return made


def sampled(texts: list[str]) -> pl.DataFrame:
    rows = [(corpus.document_id(text), rank, text, len(text.split()), "t.txt", rank) for rank, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=schema(contracts.load("raw_sample")), orient="row")


def write(store: Store, table: str, partition: str | None, frame: pl.DataFrame) -> None:
    store.write(table, partition, frame, Version(data=data_version(frame), inputs=""))


def materialize(
    instance: dg.DagsterInstance,
    store: Store,
    *selection: str,
    partition: str | None = None,
    functions: Mapping[str, Callable[..., Any]] | None = None,
) -> dg.ExecuteInProcessResult:
    """One run of the selected tables of the real graph, some with another function than their own; of the graph as much
    is there as they are made from."""
    definitions = {table: assets()[GRAPH.tables[table].tables[0]] for table in made_from(*selection)}
    for table, function in (functions or {}).items():
        # A function in the place of one that reads what is stored is handed frames.
        definitions[table] = asset_definition(
            GRAPH, dataclasses.replace(GRAPH.tables[table], function=function, streams=False)
        )
    return dg.materialize(
        list(dict.fromkeys(definitions.values())),
        selection=list(selection),
        partition_key=partition,
        instance=instance,
        resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
        raise_on_error=False,
    )


def made_from(*tables: str) -> set[str]:
    """The tables and all that they are made from, of those that are made together the first."""
    first = {GRAPH.tables[table].tables[0] for table in tables}
    above = {name for table in first for name in GRAPH.tables[table].inputs}
    return first | made_from(*above) if above else first


def halves_that(change: Change) -> dict[str, Callable[..., Any]]:
    """The halves as they should be, changed."""

    def halves(context: Context, raw_sample: Table) -> Any:
        return change(cutting.halve(pl.concat(portions(raw_sample)), seed=STUDY.corpus.seed))

    return {"halves": halves}


def completions_that(change: Change) -> dict[str, Callable[..., Any]]:
    """Completions as they should be for the teacher of the partition, changed."""

    def completions(context: Context, halves: pl.DataFrame, backbones: pl.DataFrame) -> Any:
        said = {"status": "ok", "completion": " And so on.", "finish_reason": "stop", "answered_by": "m"}
        columns = {"teacher": context.key, **said, "request_key": "0" * 64}
        numbers = [pl.lit(1, pl.Int64).alias(name) for name in ("input_tokens", "output_tokens", "max_tokens")]
        texts = ("fingerprint", "detail", "system_prompt", "api_version")
        nothing = [pl.lit(None, pl.String).alias(name) for name in texts]
        sent = [pl.lit(False).alias("echoes_prompt"), pl.lit(0.0).alias("temperature"), *nothing]
        values = [pl.lit(value).alias(name) for name, value in columns.items()]
        return change(halves.select("document_id", "sample_rank").with_columns(*values, *numbers, *sent))

    return {"completions": completions}


def as_it_is(frame: pl.DataFrame) -> pl.DataFrame:
    return frame


def without_its_last_word(frame: pl.DataFrame) -> pl.DataFrame:
    """Halves that no longer rejoin, in two rows of four."""
    return frame.with_columns(
        pl.when(pl.col("sample_rank") < 2)
        .then(pl.col("second_half").str.strip_chars_end("."))
        .otherwise(pl.col("second_half"))
        .alias("second_half")
    )


def cut_off(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.lit("truncated").alias("status"), pl.lit("length").alias("finish_reason"))


def on_disk(store: Store) -> dict[str, tuple[bytes, int]]:
    """Every file of the study but its locks and the rows that failed, with its bytes and the time it was written."""
    return {
        str(path.relative_to(store.folder())): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(Path(str(store.folder())).rglob("*"))
        if path.is_file() and not {".locks", ".failing"} & {*path.parts}
    }


def recorded(instance: dg.DagsterInstance, table: str, check: str, run_id: str) -> dg.AssetCheckEvaluation:
    """What the instance's database, not the run's result, says of a check in a run."""
    key = dg.AssetCheckKey(dg.AssetKey(table), check)
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    (record,) = [record for record in history if record.run_id == run_id]
    assert record.event is not None
    evaluation = record.event.asset_check_evaluation
    assert evaluation is not None
    return evaluation


def shown(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def test_a_good_frame_is_written_and_all_its_checks_are_recorded_as_passed(
    instance: dg.DagsterInstance, store: Store
) -> None:
    run = materialize(instance, store, "halves", functions=halves_that(as_it_is))
    assert run.success
    written = store.read("halves", None)
    assert (written["first_half"] + written["second_half"]).to_list() == TEXTS
    checks = [test.name for test in contracts.load("halves").tests]
    assert {check: recorded(instance, "halves", check, run.run_id).passed for check in checks} == dict.fromkeys(
        checks, True
    )


@pytest.mark.parametrize("earlier", [True, False], ids=["over a good version", "over nothing"])
def test_a_frame_that_breaks_an_error_expectation_is_not_written_and_stops_what_is_downstream(
    earlier: bool, instance: dg.DagsterInstance, store: Store
) -> None:
    if earlier:
        assert materialize(instance, store, "halves", functions=halves_that(as_it_is)).success
    before = on_disk(store)
    run = materialize(
        instance,
        store,
        "halves",
        "completions",
        partition="original",
        functions=halves_that(without_its_last_word) | completions_that(as_it_is),
    )
    assert not run.success
    assert on_disk(store) == before
    failed = [event.step_key for event in run.all_events if event.is_step_failure]
    assert failed == ["halves"]
    assert [event.step_key for event in run.all_events if event.is_step_start] == ["halves"]
    assert not [event for event in run.all_events if event.is_step_materialization]


def test_a_failed_error_check_is_recorded_with_its_numbers_though_nothing_is_written(
    instance: dg.DagsterInstance, store: Store
) -> None:
    run = materialize(instance, store, "halves", functions=halves_that(without_its_last_word))
    found = recorded(instance, "halves", "halves_rejoin_to_the_document", run.run_id)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    named = [corpus.document_id(text) for text in TEXTS[:2]]
    message = f"2 rows came back: {', '.join(named)}"
    told = shown(found)
    assert told.items() >= {"message": message, "rows": 4, "failing": 2, "observed": 2}.items()
    assert told["examples"] == named
    # What was refused can be read: which rows, and whole in the file beside the table.
    assert isinstance(found.metadata["failing_rows"], dg.TableMetadataValue)
    assert [record.data["document_id"] for record in found.metadata["failing_rows"].records] == named
    kept = pl.read_parquet(store.folder(".failing", "halves", "halves_rejoin_to_the_document.parquet"))
    assert [text.endswith("more") for text in kept["second_half"]] == [True, True]
    assert "failing" not in {name for _, name, _ in catalogue.tables(Path(store.root))}
    assert found.description is None, "the UI reads it as Markdown, and what is quoted is data"
    # The checks that held are recorded beside it, so that one sees what is right, too.
    assert recorded(instance, "halves", "first_half_has_cut_words", run.run_id).passed
    (failure,) = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert failure.user_failure_data.description == (
        f"nothing was written, the last good version stays: halves: halves_rejoin_to_the_document: {message}"
    )


def test_a_frame_that_breaks_only_a_warning_is_written_and_the_check_shows_it(
    instance: dg.DagsterInstance, store: Store
) -> None:
    assert materialize(instance, store, "halves").success
    run = materialize(instance, store, "completions", partition="echo", functions=completions_that(cut_off))
    assert run.success
    assert store.read("completions", "echo")["status"].to_list() == ["truncated"] * 4
    found = recorded(instance, "completions", "few_are_truncated", run.run_id)
    assert (found.passed, found.severity, found.partition) == (False, dg.AssetCheckSeverity.WARN, "echo")
    message = "100% of 4 completions (4 rows), expected at most 2%"
    told = shown(found)
    assert told.items() >= {"message": message, "rows": 4, "share": 1.0, "observed": 1.0}.items()
    assert told["all_of_them"] == "/study/look/failing/completions/echo/few_are_truncated"
    # The query works when it is pasted, from the folder where `nift` is at home.
    kept = store.folder(".failing", "completions", "echo", "few_are_truncated.parquet")
    assert pl.read_parquet(kept).equals(store.read("completions", "echo"))
    asked = nift_here(*shlex.split(told["query"])[1:], environment={"NIFT_WAREHOUSE": store.root, **os.environ})
    assert (asked.returncode, "truncated" in asked.stdout) == (0, True), asked.stderr
    # A run whose rows all keep the contract leaves none behind.
    assert materialize(instance, store, "completions", partition="echo", functions=completions_that(as_it_is)).success
    assert not store.folder(".failing").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.drop("cut"), "cut is missing, declared BIGINT"),
        (lambda frame: frame.with_columns(pl.col("cut").cast(pl.String)), "cut is String, declared BIGINT (Int64)"),
        (lambda frame: frame.with_columns(surplus=1), "surplus is not declared"),
        (lambda frame: frame.clear(), "row_count: 0 rows, expected at least 1"),
        (lambda frame: None, "'NoneType' object is not iterable"),
    ],
    ids=["missing", "mistyped", "surplus", "no rows", "no frame at all"],
)
def test_a_frame_of_another_shape_is_not_written_and_the_reason_is_named(
    change: Change, says: str, instance: dg.DagsterInstance, store: Store
) -> None:
    before = on_disk(store)
    run = materialize(instance, store, "halves", functions=halves_that(change))
    assert not run.success
    assert on_disk(store) == before
    (failure,) = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    assert says in f"{failure.user_failure_data} {failure.error}"


def test_a_bad_partition_of_one_teacher_leaves_the_others_theirs(instance: dg.DagsterInstance, store: Store) -> None:
    def completions(context: Context, **frames: pl.DataFrame) -> Any:
        function = completions_that(swapped if context.key == "echo" else as_it_is)["completions"]
        return function(context, **frames)

    def swapped(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.lit("0" * 32).alias("document_id"))

    assert materialize(instance, store, "halves").success
    made = {
        teacher: materialize(
            instance,
            store,
            "completions",
            partition=teacher,
            functions={"completions": completions},
        ).success
        for teacher in ("echo", "original")
    }
    assert made == {"echo": False, "original": True}
    assert not store.path("completions", "echo").exists()
    assert store.read("completions", "original").height == 4
    # What is made from one teacher alone does not ask for the other.
    assert materialize(instance, store, "uppercase_start_removals", partition="original").success
    assert store.path("uppercase_start_removals", "original").exists()


def test_checks_are_executed_alone_on_what_is_stored_and_make_nothing(
    instance: dg.DagsterInstance, store: Store
) -> None:
    assert materialize(instance, store, "halves").success
    broken = without_its_last_word(store.read("halves", None))
    write(store, "halves", None, broken)
    before = on_disk(store)
    keys = [
        dg.AssetCheckKey(dg.AssetKey("halves"), name)
        for name in ("halves_rejoin_to_the_document", "first_half_has_cut_words")
    ]
    run = dg.materialize(
        [assets()["halves"], assets()["raw_sample"]],
        selection=dg.AssetSelection.checks(*keys),
        instance=instance,
        resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
        raise_on_error=False,
    )
    assert "1 blocking asset check failed" in reason(run)
    assert {check.check_name: check.passed for check in run.get_asset_check_evaluations()} == {
        "halves_rejoin_to_the_document": False,
        "first_half_has_cut_words": True,
    }
    assert not run.asset_materializations_for_node("halves")
    assert on_disk(store) == before
    assert store.folder(".failing", "halves", "halves_rejoin_to_the_document.parquet").exists()


def test_what_is_made_is_checked_whole_whatever_checks_were_selected(
    instance: dg.DagsterInstance, store: Store
) -> None:
    definitions = [assets()["raw_sample"], asset_definition(GRAPH, halves_step(without_its_last_word))]
    made = dg.AssetSelection.assets("halves").without_checks()
    for selection in (
        made,
        made | dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("halves"), "first_half_has_cut_words")),
    ):
        run = dg.materialize(
            definitions,
            selection=selection,
            instance=instance,
            resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
            raise_on_error=False,
        )
        assert not run.success
        assert store.version("halves", None) is None
        assert not recorded(instance, "halves", "halves_rejoin_to_the_document", run.run_id).passed
        assert recorded(instance, "halves", "first_half_has_cut_words", run.run_id).passed


def halves_step(change: Change) -> Any:
    return dataclasses.replace(GRAPH.tables["halves"], function=halves_that(change)["halves"], streams=False)


def test_what_a_person_has_to_mend_is_one_sentence_and_a_defect_keeps_its_trace(
    instance: dg.DagsterInstance, store: Store
) -> None:
    run = materialize(instance, store, "filtered_completions", partition="echo")
    (failure,) = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    assert failure.user_failure_data is not None
    assert str(failure.user_failure_data.description).endswith("has not been made yet; materialize it first")
    # On the page of the run the sentence stands alone, and no check that was not run counts as failed.
    (stored,) = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.step_key and is_failure(entry)]
    assert stored is not None
    assert stored.step_failure_data.error is not None
    assert stored.step_failure_data.error.stack == []
    ends = [event for entry in instance.all_logs(run.run_id) if (event := entry.dagster_event) and event.is_failure]
    assert len(ends) == 2, "the step's and the run's"
    assert not [event for event in ends if "_ending_in_one_line" in str(event.event_specific_data)]
    checks = [
        dg.AssetCheckKey(dg.AssetKey("filtered_completions"), test.name)
        for test in contracts.load("filtered_completions").tests
    ]
    assert not instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)

    def defective(frame: pl.DataFrame) -> pl.DataFrame:
        return pl.DataFrame([{"a": int("no number")}])

    run = materialize(instance, store, "halves", functions=halves_that(defective))
    (stored,) = [entry.dagster_event for entry in instance.all_logs(run.run_id) if entry.step_key and is_failure(entry)]
    assert stored is not None
    assert stored.step_failure_data.error is not None
    cause = stored.step_failure_data.error.cause
    assert cause is not None
    assert any("defective" in line for line in cause.stack)


def is_failure(entry: dg.EventLogEntry) -> bool:
    return entry.dagster_event is not None and entry.dagster_event.is_step_failure


def test_runs_of_a_command_are_runs_of_the_code_location_as_those_of_the_ui(
    instance: dg.DagsterInstance, store: Store
) -> None:
    """The timeline shows what has an origin in a code location of the workspace, and nothing else."""
    with run_study.shown_in_the_timeline(instance):
        inside = materialize(instance, store, "halves", functions=halves_that(as_it_is))
    outside = materialize(instance, store, "halves", functions=halves_that(as_it_is))
    (location,) = yaml.safe_load((PROJECT / "workspace.yaml").read_text())["load_from"]
    label = f"__repository__@{location['python_module']['location_name']}"
    found = {run.run_id: run for run in instance.get_runs()}
    assert found[inside.run_id].remote_job_origin is not None
    assert found[inside.run_id].remote_job_origin.repository_origin.get_label() == label
    assert [run.run_id for run in instance.get_runs(dg.RunsFilter(tags={".dagster/repository": label}))] == [
        inside.run_id
    ]
    assert found[outside.run_id].remote_job_origin is None


def test_a_text_is_folded_where_the_page_does_not_fold_and_is_otherwise_as_it_is() -> None:
    long, wide = "word " * 60, "\u6587" * 150
    for text in (long, wide, f"  {long}\n\n{long}"):
        card = str(samples.of(pl.DataFrame({"text": [text]})).value)
        lines = card.splitlines()[3:-1]
        assert max(map(len, lines)) <= samples.LINE_CHARACTERS
        assert "".join(lines) == text.replace("\n", "")


def test_an_exception_leaves_the_last_good_version(instance: dg.DagsterInstance, store: Store) -> None:
    assert materialize(instance, store, "halves").success
    before = on_disk(store)

    def torn(frame: pl.DataFrame) -> pl.DataFrame:
        raise RuntimeError("the machine is on fire")

    run = materialize(instance, store, "halves", functions=halves_that(torn))
    assert not run.success
    assert on_disk(store) == before


def test_a_score_table_is_made_from_the_partitions_there_are(instance: dg.DagsterInstance, store: Store) -> None:
    model = STUDY.models[2].name
    row = {
        "model": model,
        "question_id": 81,
        "category": "writing",
        "run": 0,
        "turn": 1,
        "judge": "j",
        "status": "ok",
        "judgment": "[[7]]",
        "rating": 7.0,
        "reading": "verdict",
        "published_rating": 7.0,
        "request_key": "0" * 64,
    }
    frame = pl.DataFrame([row, {**row, "turn": 2, "rating": 4.0}], schema=schema(contracts.load("mt_bench_judgments")))
    write(store, "mt_bench_judgments", model, frame)
    run = materialize(instance, store, "benchmark_scores")
    assert run.success
    assert store.read("benchmark_scores", None).select("model", "benchmark", "score").rows() == [
        (model, "mt_bench", 5.5)
    ]


def test_a_sample_is_cards_of_whole_texts_in_which_markup_is_text(instance: dg.DagsterInstance, store: Store) -> None:
    hostile = f"{MARKUP} ```` out of ``` the fence\n````\n<script>alert(3)</script>"
    write(store, "raw_sample", None, sampled([hostile, *TEXTS]))
    run = materialize(instance, store, "halves")
    (made,) = run.asset_materializations_for_node("halves")
    sample = made.metadata["sample"]
    assert isinstance(sample, dg.MarkdownMetadataValue)
    written = store.read("halves", None).row(0, named=True)
    page = f"[the whole row]({links.row('halves', None, {'document_id': written['document_id']})})"
    assert str(sample.value).count(written["document_id"]) == str(sample.value).count(page) == 1
    inside, outside = [], []
    fence = None
    for line in str(sample.value).splitlines():
        if fence is None and line.startswith("```"):
            fence = line.removesuffix("text")
        elif line == fence:
            fence = None
        else:
            (outside if fence is None else inside).append(line)
    assert fence is None
    for column in ("first_half", "second_half"):
        assert "".join(written[column].splitlines()) in "".join(inside), "a text is whole"
    assert not [
        line
        for line in outside
        if re.search(r"[<\[]|!\[|alert", re.sub(r"`[^`]*`", "", line))
        if not line.startswith("[the whole row]")
    ]


def test_tables_that_are_made_together_are_both_written_or_neither(instance: dg.DagsterInstance, store: Store) -> None:
    before = on_disk(store)
    run = materialize(
        instance,
        store,
        *("raw_sample", "raw_sample_rejects"),
        functions={"raw_sample": lambda context: {"raw_sample": sampled(TEXTS[:1])}},
    )
    assert not run.success
    assert on_disk(store) == before


def reason(run: dg.ExecuteInProcessResult) -> str:
    """What the first failed step of a run says was wrong."""
    error = next(event.step_failure_data.error for event in run.all_events if event.is_step_failure)
    assert error is not None
    return (error.cause or error).message


def test_a_partition_whose_input_was_never_made_is_refused_not_made_empty(
    instance: dg.DagsterInstance, store: Store
) -> None:
    assert materialize(instance, store, "halves").success
    run = materialize(instance, store, "filtered_completions", partition="echo")
    assert not run.success
    assert "completions/echo has not been made yet; materialize it first" in reason(run)
    assert store.version("filtered_completions", "echo") is None


def test_a_second_writer_of_a_partition_is_refused_while_the_first_is_at_work(
    instance: dg.DagsterInstance, store: Store
) -> None:
    assert materialize(instance, store, "halves").success
    with store.writing("completions", "echo"):
        run = materialize(instance, store, "completions", partition="echo", functions=completions_that(as_it_is))
        other = materialize(instance, store, "completions", partition="original", functions=completions_that(as_it_is))
    assert "another run is making completions/echo right now" in reason(run)
    assert store.version("completions", "echo") is None
    assert other.success
    assert materialize(instance, store, "completions", partition="echo", functions=completions_that(as_it_is)).success


def test_what_the_study_does_not_want_is_neither_asked_nor_stored_nor_an_error(
    instance: dg.DagsterInstance, store: Store
) -> None:
    """Dagster has the cell as a partition, since a run has one key for all its tables: *Missing* would launch it."""
    key = next(model.name for model in STUDY.models if model.measured_on == ("mt_bench",))
    table = "arena_hard_judgments"
    assert not GRAPH.partitions.is_wanted(table, key)
    write(store, "arena_hard_answers", key, pl.DataFrame(schema=schema(contracts.load("arena_hard_answers"))))
    run = materialize(instance, store, table, partition=key)  # without a ledger: a question would be an error
    assert run.success
    assert store.version(table, key) is None
    assert key not in instance.get_materialized_partitions(dg.AssetKey(table))
    (seen,) = [event.asset_observation_data.asset_observation for event in run.all_events if event.is_asset_observation]
    assert (seen.asset_key, seen.partition) == (dg.AssetKey(table), key)
    assert "the study does not want" in str(seen.metadata["left out"].value)


def test_of_what_is_made_together_only_what_the_study_wants_is_made(instance: dg.DagsterInstance, store: Store) -> None:
    key = next(model.name for model in STUDY.models if model.measured_on == ("mt_bench",))
    asked: list[str] = []

    def evaluations(context: Context, wanted: list[str], merged_models: pl.DataFrame) -> Any:
        asked.extend(wanted)
        raise RuntimeError("enough is known")

    merged = dict.fromkeys(schema(contracts.load("merged_models"))) | {"model": key}
    write(store, "merged_models", key, pl.DataFrame([merged], schema=schema(contracts.load("merged_models"))))
    answers = ("mt_bench_answers", "arena_hard_answers", "ifeval")
    materialize(instance, store, *answers, partition=key, functions={"mt_bench_answers": evaluations})
    assert asked == ["mt_bench_answers"]
