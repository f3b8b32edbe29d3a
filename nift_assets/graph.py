"""The whole graph as Dagster assets, each guarded: run the function, hold the frame against its contract, then write.

Blocking asset checks alone do not do this: they guard one run only, and after the write. Here an ERROR check that
fails stops the step before anything is stored, so the last good version stays and nobody downstream reads a bad one.
"""

import importlib
import pkgutil
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from expectations import contract as contracts
from expectations.contract import Contract, ContractTest
from expectations.frames import Table, conform, height, portions, schema
from expectations.runner import ExpectationResult, check
from nift_assets import assets, benchmarks, sql, takeover
from nift_assets.assets.sql_models import absent, removals, results_of
from nift_assets.benchmarks.scoring import files as benchmark_files
from nift_assets.rows import Benchmark
from nift_assets.steps import approvals, lineage
from nift_assets.steps.check_results import MESSAGE
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.steps.table import Declaration, Step, TableOutput
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import Version, version_of, write_portions
from nift_training import memory

OWNER = "team:nift"
NEEDS = "nift/needs"
SAMPLE_ROWS = 5
SAMPLE_CHARACTERS = 100
RESOURCES = {"store", "ledger", "pipes"}


@dataclass(frozen=True)
class LoadedTable:
    """What a step is handed of one of its inputs: the rows of some partitions, and the version of each file read."""

    rows: pl.DataFrame
    versions: Mapping[Partition, Version | None]


@dataclass(frozen=True)
class CheckedRows:
    """Rows that keep their contract and the version they are to be stored under: all the IO manager ever writes."""

    rows: Table
    version: Version
    files: Mapping[str, bytes]
    metadata: Mapping[str, Any]


def build(study: Study) -> Graph:
    """The graph of a study: every step that a module of `assets` declares, and what its `steps(study)` give."""
    return lineage.ordered(study, [declaration.of(study) for declaration in _declared(study)])


def _declared(study: Study) -> Iterator[Declaration]:
    for module_info in pkgutil.iter_modules(assets.__path__):
        module = importlib.import_module(f"{assets.__name__}.{module_info.name}")
        yield from (value for value in vars(module).values() if isinstance(value, Declaration))
        if steps := getattr(module, "steps", None):
            yield from steps(study)


def following(graph: Graph) -> list[str]:
    """The tables that are made by themselves after their inputs, where automation is switched on."""
    return [table for step in graph.steps if step.follows for table in step.tables]


def asset_definitions(graph: Graph) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """All assets of a study: one per table, the corpus they start from, and the files of the benchmarks."""
    study = graph.study
    corpus = dg.AssetSpec(
        study.corpus.name,
        description=f"The corpus of the study {study.name!r}: one web article per row, made elsewhere.",
        group_name="corpus",
        kinds={"huggingface", "parquet"} if study.corpus.location.startswith("hf://") else {"text"},
        owners=[OWNER],
        metadata={
            "location": study.corpus.location,
            "licence": study.corpus.licence,
            "revision": study.corpus.revision or "",
        },
    )
    return [corpus, *map(_benchmark, study.benchmarks), *(asset_definition(graph, step) for step in graph.steps)]


def _benchmark(benchmark: Benchmark) -> dg.AssetSpec:
    files = [
        dg.TableRecord({name: str(value) for name, value in file.items()})
        for file in benchmark_files.described(benchmark, benchmarks.load(benchmark.name).PUBLISHED)
    ]
    return dg.AssetSpec(
        benchmark_files.source(benchmark),
        description=f"The files of {benchmark.name}, in the layout their authors published.",
        group_name="benchmarks",
        kinds={"json"},
        owners=[OWNER],
        metadata={
            "location": benchmark.location,
            **({"files": dg.MetadataValue.table(files)} if files else {}),
            **({"tasks": [task.name for task in benchmark.tasks]} if benchmark.tasks else {}),
        },
    )


def asset_definition(graph: Graph, step: Step) -> dg.AssetsDefinition:
    """The Dagster asset (or assets made together) of one step, with one check per expectation of its contracts."""
    promised = {name: contracts.load(name) for name in step.tables}
    tests = [test for contract in promised.values() for test in contract.tests]
    named = (text for test in tests for text in (test.arguments.get("sql", ""), test.arguments.get("to", "")))
    study_rows = sql.named_study_rows(graph.study.without_places(), named)
    may_be_left_out = step.any_of or any(graph.partitions.is_sparse(name) for name in step.tables)
    outs = {name: _out(graph, step, contract, is_required=not may_be_left_out) for name, contract in promised.items()}

    @dg.multi_asset(
        name=step.function.__name__ if step.any_of else step.tables[0],
        outs=outs,
        can_subset=may_be_left_out,
        ins={}
        if step.streams
        else {name: dg.AssetIn(name, partition_mapping=_mapping(graph, step, name)) for name in step.inputs},
        deps=_deps(graph, step),
        internal_asset_deps=_deps_of_each(step),
        partitions_def=graph.partitions.definition(step.partitions),
        check_specs=[
            *(spec for contract in promised.values() for spec in _check_specs(graph, step, contract)),
            *approvals.specs(graph, step.tables, step.partitions),
        ],
        required_resource_keys=RESOURCES,
        # Without a schema Dagster takes whatever is typed into a run's configuration, and keeps it: a key, for one.
        config_schema={},
        pool=step.pool,
    )
    def compute(context: dg.AssetExecutionContext, **loaded: LoadedTable) -> Iterator[Any]:
        here = _context(graph, step, context)
        store, key = here.store, here.partition.key
        tables = {name: table.rows for name, table in loaded.items()}
        # Not of what is stored by now, which another run may have made since these were read.
        read = {place: version for table in loaded.values() for place, version in table.versions.items()}
        selected = [name for name in step.tables if name in context.op_execution_context.selected_output_names]
        wanted = [name for name in selected if graph.partitions.is_wanted(name, key)]
        for name in (name for name in selected if name not in wanted):
            _leave_out(context, Partition(name, key))
        if not wanted:
            return
        with store.writing(step.tables[0], key), tempfile.TemporaryDirectory(prefix="nift-tables-") as drafts:
            graph.refuse_missing_inputs(store, here.partition, read)
            # Before anything is made: a publication may be pushed while it is.
            approved = list(_approved(graph, store, wanted, key))
            yield from (result for result, _ in approved if not result.passed)
            if waiting := [why for _, why in approved if why]:
                raise dg.Failure(description=f"nothing was written: {'; '.join(waiting)}", allow_retries=False)
            versions = {name: graph.inputs_version(store, Partition(name, key), read=read) for name in wanted}
            started = time.monotonic()
            with memory.watched() as peak:
                outputs = _made(_run(step, here, wanted, tables), promised)
                outputs_by_table = {
                    name: _drafted(what, promised[name], Path(drafts, name), Partition(name, key), versions[name])
                    for name, what in outputs.items()
                }
            spent = {"seconds": round(time.monotonic() - started, 3)}
            if peak.mb is not None:
                spent["peak_mb"] = round(peak.mb, 1)
            # Of tables that are made together all are there before the first is written.
            assert outputs_by_table.keys() == set(wanted), (
                f"{step.function.__name__} made {list(outputs_by_table)}, not {wanted}"
            )
            inputs = {
                **tables,
                **absent(graph.study),
                **_read_by_itself(graph, step, store, tests),
                **study_rows,
                **removals(graph.study, tables),
                **results_of(graph.study, tables),
            }
            results = {name: check(what.rows, promised[name], inputs) for name, what in outputs_by_table.items()}
            recorded = [
                _check_result(name, result) for name, results_of_table in results.items() for result in results_of_table
            ]
            recorded += [result for result, _ in approved]
            if errors := _errors(results):
                yield from recorded
                message = f"nothing was written, the last good version stays: {'; '.join(errors)}"
                raise dg.Failure(description=message, allow_retries=False)
            for name, what in outputs_by_table.items():
                yield _result(name, what, spent, key)
            # Recorded behind the write, or Dagster would count the checks for the version before this one.
            yield from recorded
            if step.afterwards:
                step.afterwards(here, tables)

    return compute


def _approved(
    graph: Graph, store: Store, tables: Sequence[str], key: str | None
) -> Iterator[tuple[dg.AssetCheckResult, str]]:
    """The check of each table that waits for people in this study, and the line that says what for, empty if for
    nothing."""
    for spec in approvals.specs(graph, tables, graph.tables[tables[0]].partitions):
        table = spec.asset_key.to_user_string()
        awaited = approvals.awaited(graph, store, Partition(table, key))
        why = "; ".join(str(approval) for approval in awaited if not approval.is_given)
        yield approvals.check_result(table, awaited), why


def _leave_out(context: dg.AssetExecutionContext, partition: Partition) -> None:
    """Says that a partition is no row's business. A run has one key for all its tables, so Dagster offers it; it is
    neither made nor stored, nobody is asked, and what is made from it is left out too."""
    why = f"the study does not want {partition}: nothing is asked or made (`measured_on` in its row says what is)"
    context.log.info(why)
    context.log_event(dg.AssetObservation(partition.table, partition=partition.key, metadata={"left out": why}))


def _context(graph: Graph, step: Step, context: dg.AssetExecutionContext) -> Context:
    resources = context.resources
    return Context(
        graph=graph,
        partition=Partition(step.tables[0], context.partition_key if step.partitions else None),
        store=resources.store,
        ledger=resources.ledger,
        pipes=resources.pipes,
        dagster=context,
    )


def _run(step: Step, context: Context, wanted: Sequence[str], tables: Mapping[str, pl.DataFrame]) -> Any:
    return step.function(context, wanted, **tables) if step.any_of else step.function(context, **tables)


def _read_by_itself(graph: Graph, step: Step, store: Store, tests: Sequence[ContractTest]) -> dict[str, Table]:
    """The inputs without partitions that a step was not handed and that the tests of its contract name."""
    named = {word for test in tests for text in test.arguments.values() for word in re.findall(r"\w+", str(text))}
    return {
        name: store.table(name)
        for name in step.inputs
        if step.streams and name in named and graph.tables[name].partitions is None
    }


def _made(value: Any, promised: Mapping[str, Contract]) -> dict[str, TableOutput]:
    several = value if isinstance(value, dict) else dict.fromkeys(promised, value)
    return {name: what if isinstance(what, TableOutput) else TableOutput(what) for name, what in several.items()}


def _drafted(output: TableOutput, contract: Contract, draft: Path, place: Partition, inputs: str) -> CheckedRows:
    """A table as it is going to be checked and stored; rows that come a portion at a time go to the file `draft`."""
    if isinstance(output.rows, pl.DataFrame):
        frame = conform(output.rows, contract)
        return CheckedRows(frame, version_of(frame, inputs), output.files, output.metadata)
    rows = (conform(portion, contract) for portion in output.rows)
    first = next(rows, pl.DataFrame(schema=schema(contract)))
    version = write_portions(draft, chain([first], rows), inputs, str(place))
    return CheckedRows(draft, version, output.files, output.metadata)


def _errors(results: Mapping[str, Sequence[ExpectationResult]]) -> list[str]:
    return [
        f"{name}: {result.name}: {result.message}"
        for name, results_of_table in results.items()
        for result in results_of_table
        if not result.passed and result.severity == "error"
    ]


def _mapping(graph: Graph, step: Step, name: str) -> dg.PartitionMapping | None:
    return graph.partitions.mapping(graph.tables[name].partitions, step.partitions)


def _deps(graph: Graph, step: Step) -> list[dg.AssetDep]:
    """What Dagster hands no frame of: what is outside the graph, and the tables a step reads by itself."""
    read = [dg.AssetDep(name, partition_mapping=_mapping(graph, step, name)) for name in step.inputs if step.streams]
    return [*map(dg.AssetDep, dict.fromkeys(step.sources.values())), *read]


def _deps_of_each(step: Step) -> dict[str, set[dg.AssetKey]] | None:
    """What each table is made from, where tables that are made together have sources of their own."""
    if len({*step.sources.values()}) < 2:
        return None
    return {name: {dg.AssetKey(table) for table in (*step.inputs, step.sources[name])} for name in step.tables}


def _out(graph: Graph, step: Step, contract: Contract, *, is_required: bool) -> dg.AssetOut:
    columns = [dg.TableColumn(column.name, column.type, column.description) for column in contract.columns]
    return dg.AssetOut(
        dagster_type=Any,
        is_required=is_required,
        description=contract.description,
        group_name=step.group,
        kinds=set(step.kinds),
        owners=[OWNER],
        tags={NEEDS: step.needs},
        code_version=takeover.known_to_dagster(graph.study, step, contract.table),
        automation_condition=_condition(graph, step) if step.follows else None,
        metadata={
            **step.metadata,
            "dagster/column_schema": dg.TableSchema(columns),
            "dagster/table_name": f"{graph.study.name}.{contract.table}",
        },
    )


def _condition(graph: Graph, step: Step) -> dg.AutomationCondition[Any]:
    """When one of its inputs is new, its partition of all is there, and nobody is making one. What is stored has passed
    its ERROR checks, or it would not be: a partition that fails stops what is made from it and nothing else.
    """
    missing = dg.AutomationCondition.any_deps_missing()
    if not graph.merges_partitions(step):
        return dg.AutomationCondition.eager()
    some = dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing())
    return dg.AutomationCondition.eager().without(~missing) & some


def _check_specs(graph: Graph, step: Step, contract: Contract) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # Partitions of checks are a preview in this Dagster, which is pinned below the next minor version; without
        # them all partitions of a table share one history.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                test.name,
                asset=contract.table,
                description=test.description,
                blocking=test.severity == "error",
                metadata={"kind": test.kind, "severity": test.severity},
                partitions_def=graph.partitions.definition(step.partitions),
            )
            for test in contract.tests
        ]


def _check_result(name: str, result: ExpectationResult) -> dg.AssetCheckResult:
    shown: dict[str, Any] = {
        MESSAGE: result.message,
        "rows": result.rows,
        "failing": result.failing,
        "share": result.share,
        "observed": result.observed,
        "examples": list(result.examples) or None,
    }
    return dg.AssetCheckResult(
        asset_key=name,
        check_name=result.name,
        passed=result.passed,
        severity=dg.AssetCheckSeverity.ERROR if result.severity == "error" else dg.AssetCheckSeverity.WARN,
        metadata={label: value for label, value in shown.items() if value is not None},
    )


def _result(
    name: str, checked: CheckedRows, spent: Mapping[str, float], key: str | None
) -> dg.MaterializeResult[CheckedRows]:
    return dg.MaterializeResult(
        asset_key=name,
        value=checked,
        data_version=dg.DataVersion(checked.version.data[:16]),
        metadata={
            "dagster/partition_row_count" if key else "dagster/row_count": height(checked.rows),
            **spent,
            **checked.metadata,
            "sample": _sample(checked.rows),
        },
    )


def _sample(table: Table) -> dg.TableMetadataValue:
    """The first rows as a table of plain text: the UI shows its cells as they are, so markup in a text stays text."""
    frame = next(portions(table))
    columns = [dg.TableColumn(name, "string") for name in frame.columns]
    records = [
        dg.TableRecord({name: _shortened(value) for name, value in row.items()})
        for row in frame.head(SAMPLE_ROWS).iter_rows(named=True)
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def _shortened(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= SAMPLE_CHARACTERS else text[:SAMPLE_CHARACTERS] + " …"
