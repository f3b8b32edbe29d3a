"""The whole graph as Dagster assets, each guarded: run the function, hold the frame against its contract, then write.

Blocking asset checks alone do not do this: they guard one run only, and after the write. Here an ERROR check that
fails stops the step before anything is stored, so the last good version stays and nobody downstream reads a bad one.
"""

import importlib
import pkgutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl

from expectations import contract as contracts
from expectations.contract import Contract
from expectations.frames import Stacked, Table, conform, height, schema
from expectations.runner import ExpectationResult, check, columns_read
from expectations.runner import failing_rows as failing_rows_of
from nift_assets import assets, benchmarks, takeover
from nift_assets.benchmarks.scoring import files as benchmark_files
from nift_assets.checks import check_stored, inputs_of_tests
from nift_assets.pages.viewer import links
from nift_assets.rows import Benchmark
from nift_assets.steps import approvals, code_references, failing_rows, lineage, samples, tracking
from nift_assets.steps import inputs as stored_inputs
from nift_assets.steps.check_results import MESSAGE
from nift_assets.steps.context import Context
from nift_assets.steps.dagster_internals import BACKFILL_ID_TAG
from nift_assets.steps.failing_rows import KeptRows
from nift_assets.steps.inputs import StoredInputs
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.steps.table import Declaration, Step, TableOutput
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import Version, version_of, write_portions
from nift_training import memory

OWNER = "team:nift"
NEEDS = "nift/needs"
OURS = ("dagster_project", "expectations", "nift_assets", "nift_training")
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
    # Checks can be executed alone where a table can be made alone; of those made together all or none are.
    can_subset = step.any_of or len(step.tables) == 1
    outs = {name: _out(graph, step, contract, is_required=not can_subset) for name, contract in promised.items()}

    @dg.multi_asset(
        name=step.function.__name__ if step.any_of else step.tables[0],
        outs=outs,
        can_subset=can_subset,
        ins={}
        if not step.is_handed_frames
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
        with _ending_in_one_line():
            yield from _computed(graph, step, promised, context, loaded)

    return compute


def _approved(
    graph: Graph, store: Store, tables: Sequence[str], key: str | None
) -> Iterator[tuple[dg.AssetCheckResult, str]]:
    """The check of each table that waits for people in this study, and the line that says what for, empty if for
    nothing."""
    for spec in approvals.specs(graph, tables, graph.tables[tables[0]].partitions):
        table = spec.asset_key.to_user_string()
        awaited = approvals.awaited(graph, store, Partition(table, key))
        yield approvals.check_result(table, awaited), approvals.waiting(awaited)


def _computed(
    graph: Graph,
    step: Step,
    promised: Mapping[str, Contract],
    context: dg.AssetExecutionContext,
    loaded: Mapping[str, LoadedTable],
) -> Iterator[Any]:
    """The selected tables, each with all its checks; of the others the checks that were selected, on what is stored."""
    here = _context(graph, step, context)
    store, key = here.store, here.partition.key
    selected = [name for name in step.tables if name in context.op_execution_context.selected_output_names]
    checked = {of.asset_key.path[-1] for of in context.selected_asset_check_keys}
    wanted = [name for name in selected if graph.partitions.is_wanted(name, key)]
    for name in (name for name in step.tables if name in {*selected, *checked} and name not in wanted):
        if graph.partitions.is_wanted(name, key):
            yield from _checked_again(here, context, name)
        else:
            _leave_out(context, Partition(name, key))
    if not wanted:
        return
    with (
        store.writing(step.tables[0], key),
        _handed(here, step, loaded) as handed,
        tempfile.TemporaryDirectory(prefix="nift-tables-") as drafts,
    ):
        here, tables, read = replace(here, inputs=handed), handed.tables, handed.versions
        graph.refuse_missing_inputs(store, here.partition, read)
        # Before anything is made: a publication may be pushed while it is.
        approved = list(_approved(graph, store, wanted, key))
        yield from (result for result, _ in approved if not result.passed)
        if waiting := [why for _, why in approved if why]:
            why = "; ".join(waiting)
            raise dg.Failure(
                description=f"nothing was written: {why}", metadata={approvals.AWAITED: why}, allow_retries=False
            )
        versions = {name: graph.inputs_version(store, Partition(name, key), read=read) for name in wanted}
        started = time.monotonic()
        with memory.watched() as peak:
            outputs = _made(_run(step, here, wanted), promised)
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
        tests = [test for contract in promised.values() for test in contract.tests]
        inputs = inputs_of_tests(graph, step, store, tests, tables)
        results = {name: check(what.rows, promised[name], inputs) for name, what in outputs_by_table.items()}
        kept = {
            name: _kept(context, store, Partition(name, key), what.rows, promised[name], results[name], inputs)
            for name, what in outputs_by_table.items()
        }
        recorded = [
            _check_result(promised[name], result, kept[name].get(result.name))
            for name, results_of_table in results.items()
            for result in results_of_table
        ]
        recorded += [result for result, _ in approved]
        if errors := _errors(results):
            yield from _recorded(context, recorded)
            message = f"nothing was written, the last good version stays: {'; '.join(errors)}"
            raise dg.Failure(description=message, allow_retries=False)
        for name, what in outputs_by_table.items():
            yield _result(name, what, spent, key)
        # Recorded behind the write, or Dagster would count the checks for the version before this one.
        yield from _recorded(context, recorded)
        if step.asks:
            for name, what in outputs_by_table.items():
                tracking.send_costs(here, name, versions[name], what.metadata)
        if step.afterwards:
            step.afterwards(here, tables)


@contextmanager
def _handed(context: Context, step: Step, loaded: Mapping[str, LoadedTable]) -> Iterator[StoredInputs]:
    """The inputs of a step and the versions that were read, not those of what is stored by now, which another run may
    have made since: the frames that Dagster has loaded, or the files held open as they are."""
    if step.is_handed_frames:
        versions = {place: version for table in loaded.values() for place, version in table.versions.items()}
        yield StoredInputs({name: table.rows for name, table in loaded.items()}, versions)
        return
    with stored_inputs.held(context.graph, context.store, context.partition) as inputs:
        yield inputs


def _checked_again(here: Context, context: dg.AssetExecutionContext, table: str) -> Iterator[dg.AssetCheckResult]:
    """The selected checks of a table, on what is stored of it."""
    place = Partition(table, here.partition.key)
    names = {check.name for check in context.selected_asset_check_keys if check.asset_key.path[-1] == table}
    # Whether people have reviewed enough can be asked before the table is made.
    approved = [result for result, _ in _approved(here.graph, here.store, [table], place.key)]
    yield from (result for result in approved if result.check_name in names)
    names -= {str(result.check_name) for result in approved}
    if not names:
        return
    checked = check_stored(here.graph, here.store, place, names)
    kept = failing_rows.keep(here.store, place, checked.failing, names)
    for result in checked.results:
        yield _check_result(contracts.load(table), result, kept.get(result.name))


def _kept(
    context: dg.AssetExecutionContext,
    store: Store,
    place: Partition,
    rows: Table,
    contract: Contract,
    results: Sequence[ExpectationResult],
    inputs: Mapping[str, Table | Stacked],
) -> dict[str, KeptRows]:
    """The rows that fail, kept beside the table; where they cannot be, the checks are told without them."""
    try:
        failing = failing_rows_of(rows, contract, results, inputs)
        return failing_rows.keep(store, place, failing, [result.name for result in results])
    except (OSError, duckdb.Error, pl.exceptions.PolarsError) as error:
        context.log.warning(f"the rows of {place} that fail were not kept: {' '.join(str(error).split())}")
        return {}


def _recorded(context: dg.AssetExecutionContext, results: Sequence[dg.AssetCheckResult]) -> Iterator[Any]:
    """Each result, also of a check that somebody has left out of the run: whatever is made is checked whole."""
    partition = context.partition_key if context.has_partition_key else None
    left_out = [result for result in results if _key(result) not in context.selected_asset_check_keys]
    for result in left_out:
        evaluation = dg.AssetCheckEvaluation(
            asset_key=_key(result).asset_key,
            check_name=_key(result).name,
            passed=result.passed,
            metadata=result.metadata,
            severity=result.severity,
            partition=partition,
        )
        context.log_event(evaluation)
    for key in dict.fromkeys(_key(result).asset_key for result in left_out):
        # What is logged reaches the instance with the next event that is yielded, and a refusal yields no other.
        why = {"checks": "all were run: what is made is checked whole, whatever was selected"}
        yield dg.AssetObservation(key, partition=partition, metadata=why)
    yield from (result for result in results if result not in left_out)


def _key(result: dg.AssetCheckResult) -> dg.AssetCheckKey:
    assert result.asset_key, "made with one"
    assert result.check_name, "made with one"
    return dg.AssetCheckKey(result.asset_key, result.check_name)


@contextmanager
def _ending_in_one_line() -> Iterator[None]:
    """What a person has to mend ends a step with its sentence and no trace of our code; a defect keeps its trace."""
    try:
        yield
    except (ValueError, OSError) as error:
        if not _is_ours(error):
            raise
        raise dg.Failure(description=str(error), allow_retries=False) from None


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised by this project, whose ValueErrors and OSErrors say all there is to say."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__")) if trace else ""
    return module.partition(".")[0] in OURS


def _leave_out(context: dg.AssetExecutionContext, partition: Partition) -> None:
    """Says that a partition is no row's business. A run has one key for all its tables, so Dagster offers it; it is
    neither made nor stored, nobody is asked, and what is made from it is left out too."""
    why = f"the study does not want {partition}: nothing is asked or made (`measured_on` in its row says what is)"
    context.log.info(why)
    # A back-fill waits for each of its partitions, and counts as failed what no run has told it of.
    event = dg.AssetMaterialization if BACKFILL_ID_TAG in context.run.tags else dg.AssetObservation
    context.log_event(event(partition.table, partition=partition.key, metadata={"left out": why}))


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


def _run(step: Step, context: Context, wanted: Sequence[str]) -> Any:
    if step.streams:
        return step.function(context)
    if step.portioned_by:
        metadata: dict[str, Any] = {}
        return TableOutput(_run_by_portions(step, step.portioned_by, context, metadata), metadata)
    tables = context.inputs.tables
    return step.function(context, wanted, **tables) if step.any_of else step.function(context, **tables)


def _run_by_portions(step: Step, column: str, context: Context, metadata: dict[str, Any]) -> Iterator[pl.DataFrame]:
    """What a step makes of each portion of its documents. Of the metadata what adds up is added up, and of the rest the
    last portion's is shown."""
    for frames in context.inputs.portions(column):
        (output,) = _made(step.function(context, **frames), step.tables).values()
        sums = {name: metadata.get(name, 0) + output.metadata[name] for name in step.adds_up if name in output.metadata}
        metadata.update({**output.metadata, **sums})
        yield from [output.rows] if isinstance(output.rows, pl.DataFrame) else output.rows


def _made(value: Any, tables: Iterable[str]) -> dict[str, TableOutput]:
    several = value if isinstance(value, dict) else dict.fromkeys(tables, value)
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
    read = [
        dg.AssetDep(name, partition_mapping=_mapping(graph, step, name))
        for name in step.inputs
        if not step.is_handed_frames
    ]
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
            **code_references.metadata(graph, step, contract.table),
            **(_asked_for_money(graph, contract.table) if step.asks else {}),
        },
    )


def _asked_for_money(graph: Graph, table: str) -> dict[str, Any]:
    """What each paid partition costs and what caps it, which the UI shows before anybody presses Launch; what is still
    missing of it changes, and is told as an observation of the partition."""
    from nift_assets.costs import plan, price_list

    records = []
    for key in graph.keys(table):
        asked = plan.planned_partition(graph.study, table, key) if graph.partitions.is_wanted(table, key) else None
        if asked is None or price_list.is_free(asked.row):
            continue
        price, cap = price_list.last_price(asked.row), asked.row.budget_usd or price_list.budget(graph.study)
        cells = {
            "partition": str(key),
            "model": f"{asked.row.provider} {asked.row.model}",
            "USD per million tokens in, out": f"{price.input:g}, {price.output:g}" if price else "not known",
            "cap": f"${cap:,.2f}" if cap is not None else "none: it is not asked before one is set",
            "key": plan.key_variable(asked.row) or "none",
        }
        records.append(dg.TableRecord(cells))
    return {"asked_for_money": dg.MetadataValue.table(records)} if records else {}


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


def _check_result(contract: Contract, result: ExpectationResult, kept: KeptRows | None) -> dg.AssetCheckResult:
    shown: dict[str, Any] = {
        MESSAGE: result.message,
        "rows": result.rows,
        "failing": result.failing,
        "share": result.share,
        "observed": result.observed,
        "examples": list(result.examples) or None,
    }
    if kept is not None:
        test = next(test for test in contract.tests if test.name == result.name)
        shown |= {
            "failing_rows": samples.failing(kept.rows, columns_read(test, kept.rows.columns)),
            "all_of_them": dg.MetadataValue.url(kept.page),
            "query": kept.query,
        }
    return dg.AssetCheckResult(
        asset_key=contract.table,
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
            "sample": samples.of(checked.rows, Partition(name, key)),
            # Of the server that shows this: the rows whole, searched and compared.
            "all rows": dg.MetadataValue.url(links.table(name, key)),
        },
    )
