"""Running the whole graph of a study, two partitions at a time, skipping what is up to date."""

from __future__ import annotations

import logging
import multiprocessing
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project import failures, progress_file, worker
from dagster_project.lost_runs import COMMAND_TAG
from dagster_project.processes import start_warm
from dagster_project.progress_file import ProgressLine, ProgressReader
from dagster_project.resources import store
from nift_assets import benchmarks
from nift_assets.benchmarks.scoring import files
from nift_assets.near_names import near
from nift_assets.steps.dagster_internals import MAX_RETRIES_TAG, RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from nift_assets.steps.lineage import Graph, Partition, PartitionStates, upstream_first
from nift_assets.steps.table import Step
from nift_assets.store import Store
from nift_assets.study import Study
from nift_training import artifacts, gpus

# On a machine without GPUs; else there is one for each, and one that asks meanwhile.
AT_ONCE = 2
# What workspace.yaml calls our code location, and Dagster the definitions in it.
LOCATION, REPOSITORY = "nift", "__repository__"
LOOK_SECONDS = 0.5
TOLD = (logging.INFO, logging.WARNING)
DATA, SCORES = "data", "scores"
# The tables whose rows name a folder of ours, which has a manifest.
WITH_FOLDERS = ("backbones", "training_files", "lora_adapters", "merged_models")
AGAIN = ", after the others"


@dataclass(frozen=True)
class PartitionRun:
    """The steps of one partition that are run one after the other, in one Dagster run, for those of their tables that
    are wanted; `waits_for` names other runs."""

    name: str
    key: str | None
    steps: tuple[str, ...]
    tables: tuple[str, ...]
    waits_for: frozenset[str]

    @property
    def partitions(self) -> list[Partition]:
        """The partition of each of its tables."""
        return [Partition(table, self.key) for table in self.tables]


@dataclass(frozen=True)
class RunOutcome:
    """What a run did: the tables it had to make, how long it took, and the one line that says why it failed.

    `stopped_by` is the cause where a provider or a cap ended the asking: quota, authentication, budget, …; `awaited`
    are the reviews of people, where these are all that is missing.
    """

    tables: tuple[str, ...]
    seconds: float
    error: str | None = None
    stopped_by: str | None = None
    awaited: str | None = None

    @property
    def has_failed(self) -> bool:
        return self.error is not None and self.awaited is None


def runs(graph: Graph) -> list[PartitionRun]:
    """All runs of a study, upstream before downstream, without what is made by hand: one per partition key, and two
    without partitions (what stands before the first partitioned table and what is made from all partitions).
    Where a key's tables feed another key's that feed it again (a teacher, its audit, what the audit drops), the rest is
    a run of its own."""
    members: dict[str, dict[Step, tuple[str, ...]]] = {}
    keys: dict[str, str | None] = {}
    for step in graph.steps:
        for key in [] if step.by_hand else graph.keys(step.tables[0]):
            if wanted := tuple(table for table in step.tables if graph.partitions.is_wanted(table, key)):
                name = _run_of(graph, step, key)
                members.setdefault(name, {})[step] = wanted
                keys[name] = key
    planned = [
        PartitionRun(
            name,
            keys[name],
            tuple(step.tables[0] for step in steps),
            tuple(table for wanted in steps.values() for table in wanted),
            _waits_for(graph, name, steps, keys[name]),
        )
        for name, steps in members.items()
    ]
    return sorted(planned, key=lambda run: run.name != DATA)


def needed(
    graph: Graph,
    planned: Sequence[PartitionRun],
    tables: Collection[str],
    chosen: Collection[str] = (),
    *,
    only: bool,
    scores: bool = False,
) -> list[PartitionRun]:
    """Of all runs what it takes to have some tables, of the chosen partitions if any are; `only` these tables, from
    what there is. With `scores` all that is made of the partitions there are comes last.

    Raises ValueError for a table or a partition that the study does not have or does not want.
    """
    if unknown := sorted(set(tables) - graph.tables.keys()):
        raise ValueError(f"there is no table {unknown[0]!r}; nift tables lists them{near(unknown[0], graph.tables)}")
    wanted = {Partition(name, key) for name in tables for key in _chosen(graph, name, chosen)}
    if missing := sorted(set(chosen) - {partition.key for partition in wanted}):
        named = ", ".join(sorted(tables))
        keys = {key for name in tables for key in _chosen(graph, name, ()) if key}
        raise ValueError(
            f"the study {graph.study.name!r} makes no {named} of {missing[0]!r}; nift tables {min(tables)} lists what "
            f"it makes{near(missing[0], keys)}"
        )
    if not only:
        wanted = {*upstream_first(wanted, lambda partition: _made_from(graph, partition))}
    left = []
    for run in planned:
        if run.name == SCORES and scores:
            left.append(run)
            continue
        steps = [
            step
            for step in map(graph.tables.__getitem__, run.steps)
            if any(Partition(table, run.key) in wanted for table in step.tables)
        ]
        tables_left = (t for step in steps for t in step.tables if Partition(t, run.key) in wanted or not step.any_of)
        if steps:
            left.append(replace(run, steps=tuple(step.tables[0] for step in steps), tables=tuple(tables_left)))
    names = {run.name for run in left}
    return [replace(run, waits_for=run.waits_for & names) for run in left]


def _chosen(graph: Graph, name: str, chosen: Collection[str]) -> list[str | None]:
    keys = [key for key in graph.keys(name) if graph.partitions.is_wanted(name, key)]
    return [key for key in keys if key in chosen] if chosen and graph.tables[name].partitions else keys


def _made_from(graph: Graph, partition: Partition) -> list[Partition]:
    """What a partition is made from; an Instruct sibling that is made on the spot uses its foundation again if that is
    there."""
    foundation = _foundation(graph.study, partition)
    return [*graph.upstream(partition), *([foundation] if foundation else [])]


def _foundation(study: Study, partition: Partition) -> Partition | None:
    """The backbone that an Instruct sibling made on the spot goes on from."""
    if partition.table != "backbones":
        return None
    backbone = study.backbone(str(partition.key))
    return Partition("backbones", backbone.instruct_of) if backbone.instruct_of and backbone.source == "pico" else None


def undecided(graph: Graph, planned: Sequence[PartitionRun], store: Store) -> list[str]:
    """What a person has to decide about code whose results would else be made again, each line once."""
    stored = [
        partition
        for run in planned
        for partition in run.partitions
        if graph.tables[partition.table].undecided(partition.key, partition.table) and store.version(*partition)
    ]
    stale = [partition for partition in stored if not graph.is_current(store, partition)]
    lines = [graph.tables[partition.table].undecided(partition.key, partition.table) for partition in stale]
    return [*dict.fromkeys(line for line in lines if line)]


def damaged(planned: Sequence[PartitionRun], store: Store) -> list[str]:
    """Puts what is damaged of all that is planned aside, so that it is made again, and says what in a line each."""
    lines = [store.set_aside(*partition) for run in planned for partition in run.partitions]
    return [line for line in lines if line]


def damaged_folders(
    graph: Graph, planned: Sequence[PartitionRun], store: Store, named: Collection[str] = ()
) -> list[str]:
    """Puts the rows of folders aside in which something is missing or has another size, so that they are made again,
    and says what in a line each: of the tables that are named, and of what is read for something that is to be made.
    What nobody reads may have been deleted by who needed the room. Whether the bytes are the same is seen when they are
    read."""
    wanted: set[Partition] = set()
    lines = []
    for place in (partition for run in reversed(planned) for partition in reversed(run.partitions)):
        if place.table in WITH_FOLDERS and (place.table in named or place in wanted):
            said = store.set_aside(*place, look=partial(_damage_of_folder, graph, store, place))
            lines += [said] if said else []
        if not graph.is_current(store, place):
            wanted |= set(graph.upstream(place))
    return lines[::-1]


def _damage_of_folder(graph: Graph, store: Store, row: Partition) -> str | None:
    stored = None if store.is_remote else store.find(*row, ["folder"])
    if stored is None:
        return None
    name = str(stored["folder"][0])
    folder, is_ours = store.folder(name), name.partition("/")[0] in WITH_FOLDERS[1:]
    if not is_ours and not (folder / artifacts.MANIFEST).is_file():
        return None  # a backbone that was downloaded has none
    if row.table == "merged_models" and not folder.exists() and graph.study.model(str(row.key)).weights != "keep":
        return None
    lacks = artifacts.lacking(folder)
    return f"{lacks}, so {row} is made again" if lacks else None


def without_questions(graph: Graph, planned: Sequence[PartitionRun], store: Store) -> list[str]:
    """A line for each benchmark that models are still to answer and whose questions are not there, which else shows
    when they have been trained."""
    study = graph.study
    asked = {benchmarks.answers_table(row.name): row for row in study.benchmarks if row.location != files.HUB}
    wanted = {partition for run in planned for partition in run.partitions if partition.table in asked}
    rows = {asked[partition.table].name: asked[partition.table] for partition in sorted(wanted, key=str)}
    lines = []
    for row in rows.values():
        answered = (p for p in wanted if asked[p.table] == row)
        try:
            files.path_of(row, benchmarks.load(row.name).ASKED)
        except ValueError as error:
            if not all(graph.is_current(store, partition) for partition in answered):
                lines.append(str(error))
    return lines


def execute(
    planned: Sequence[PartitionRun],
    *,
    log: Path,
    started: Callable[[PartitionRun], None],
    ended: Callable[[PartitionRun, RunOutcome], None],
    told: Callable[[Sequence[ProgressLine]], None] = lambda _: None,
) -> dict[str, RunOutcome]:
    """Runs everything, upstream first; what depends on a failed run is left out of the answer. Meanwhile `told` is
    called every half second with what the runs say of how far they are.

    The first run, which reads the corpus, goes alone: if that fails nothing else has begun. The score tables come
    last and are made of what there is, so one failed teacher does not cost the scores of the others.
    """
    outcomes: dict[str, RunOutcome] = {}
    waiting = list(planned)
    progress = log.with_suffix(".progress")
    progress.unlink(missing_ok=True)
    reader = ProgressReader(progress)
    context = multiprocessing.get_context("spawn")
    at_once = max(AT_ONCE, len(gpus.listed()) + 1)
    with ProcessPoolExecutor(at_once, mp_context=context, initializer=worker.begin, initargs=(str(log),)) as pool:
        going: dict[Future[RunOutcome], PartitionRun] = {}
        while True:
            for run in _ready(waiting, outcomes, idle=not going):
                if len(going) == at_once or (going and not outcomes):
                    break
                waiting.remove(run)
                started(run)
                going[pool.submit(execute_one, run, progress)] = run
            if not going:
                progress.unlink(missing_ok=True)
                return outcomes
            done = wait(going, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED).done
            told(reader.lines())
            for future in done:
                run = going.pop(future)
                outcomes[run.name] = _outcome(future)
                ended(run, outcomes[run.name])


def execute_one(run: PartitionRun, progress: Path | None = None) -> RunOutcome:
    """One Dagster run, in this process, of those steps of a partition that are not up to date; what its steps say of
    how far they are goes into a file."""
    with worker.AT_WORK:
        return _execute_one(run, progress)


def _execute_one(run: PartitionRun, progress: Path | None) -> RunOutcome:
    from dagster_project.definitions import ACTIVE, defs  # the graph of this process's environment

    start_warm()
    started = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        tables = _to_make(ACTIVE, run, instance)
        if not tables:
            return RunOutcome((), 0.0)
        run_id = str(uuid.uuid4())
        if progress:
            instance.add_event_listener(run_id, partial(_hand_on, run.name, progress))
        with shown_in_the_timeline(instance):
            result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
                partition_key=run.key,
                asset_selection=[dg.AssetKey(name) for name in tables],
                instance=instance,
                raise_on_error=False,
                # The daemon of a UI would run again what was killed here; that is for who typed the command.
                tags={COMMAND_TAG: "demo", MAX_RETRIES_TAG: "0"},
                run_id=run_id,
            )
        failed = [event for event in result.all_events if event.is_step_failure]
        error = None if result.success else failures.reason(instance, result.run_id, failed)
        seconds, awaited = time.monotonic() - started, failures.awaited(failed) if error else None
        return RunOutcome(tables, seconds, error, failures.stopped_by(failed), awaited)


@contextmanager
def shown_in_the_timeline(instance: dg.DagsterInstance) -> Iterator[None]:
    """Runs that are begun meanwhile are those of our code location, as the UI's are: its timeline shows no others.

    Dagster gives an origin to what a code server starts, and has no way to say it of a run in this process.
    """
    storage, location = instance.run_storage, RegisteredCodeLocationOrigin(LOCATION)
    add_run = storage.add_run

    def add(run: dg.DagsterRun, **options: Any) -> dg.DagsterRun:
        origin = RemoteRepositoryOrigin(location, REPOSITORY).get_job_origin(run.job_name)
        return add_run(run.with_job_origin(origin), **options)

    setattr(storage, "add_run", add)  # noqa: B010  to a method nothing is assigned
    try:
        yield
    finally:
        delattr(storage, "add_run")


def _hand_on(run: str, progress: Path, event: dg.EventLogEntry) -> None:
    """Tells the command which step begins and what it says of itself; that it cannot is no reason to fail."""
    said = event.user_message if not event.is_dagster_event and event.level in TOLD else ""
    if event.step_key and (said or (event.is_dagster_event and event.get_dagster_event().is_step_start)):
        with suppress(OSError):
            at_once = event.level == logging.WARNING
            progress_file.tell(progress, ProgressLine(run, event.step_key, said, at_once))


def _ready(waiting: Sequence[PartitionRun], outcomes: Mapping[str, RunOutcome], *, idle: bool) -> list[PartitionRun]:
    """The runs that can start now: those whose upstream is done; the scores when nothing else is left to do."""
    done = {name for name, outcome in outcomes.items() if outcome.error is None}
    if DATA in outcomes.keys() - done:
        return []
    ready = [run for run in waiting if run.waits_for <= done]
    return ready or [run for run in waiting if idle and run.name == SCORES]


def _outcome(future: Future[RunOutcome]) -> RunOutcome:
    try:
        return future.result()
    except BrokenProcessPool:
        raise ValueError(
            "a process of this command was killed, perhaps for want of memory; run it again: what was complete is kept"
        ) from None


def _run_of(graph: Graph, step: Step, key: str | None) -> str:
    if step.partitions:
        return f"{step.partitions} {key}" + (AGAIN if graph.follows_own_audit(step) else "")
    return SCORES if any(above.partitions for above in graph.ancestors(step)) else DATA


def _waits_for(graph: Graph, name: str, steps: Iterable[Step], key: str | None) -> frozenset[str]:
    made_from = {above for step in steps for above in _made_from(graph, Partition(step.tables[0], key))}
    return frozenset(_run_of(graph, graph.tables[above.table], above.key) for above in made_from) - {name}


def _to_make(graph: Graph, run: PartitionRun, instance: dg.DagsterInstance) -> tuple[str, ...]:
    """The tables of a run that are not up to date, or that stand below one that is made again."""
    standing = PartitionStates(
        graph, store(graph.study), within={*run.partitions}, seen=lambda partition: _known(instance, *partition)
    )
    return tuple(partition.table for partition in run.partitions if not standing.is_present(partition))


def _known(instance: dg.DagsterInstance, table: str, key: str | None) -> bool:
    """Whether Dagster has seen the table being made, so that the UI shows it."""
    if key is None:
        return instance.get_latest_materialization_event(dg.AssetKey(table)) is not None
    return key in instance.get_materialized_partitions(dg.AssetKey(table))
