"""Running the whole graph of the active study, two partitions at a time, skipping what is up to date."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from dagster_project import failures, worker
from dagster_project.definitions import defs
from dagster_project.lost_runs import COMMAND_TAG
from dagster_project.processes import start_warm
from dagster_project.resources import store
from nift_assets.steps import partitions
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import STEPS, Step
from nift_assets.store import Store

AT_ONCE = 2
DATA, SCORES = "data", "scores"
AGAIN = ", after the others"

# An Instruct sibling that is made on the spot uses its foundation again if that is there.
FOUNDATIONS = {
    backbone.name: backbone.instruct_of
    for backbone in STUDY.backbones
    if backbone.instruct_of and backbone.source == "pico"
}


@dataclass(frozen=True)
class Run:
    """The steps of one partition that are run one after the other, in one Dagster run, for those of their tables that
    are wanted; `waits_for` names other runs."""

    name: str
    key: str | None
    steps: tuple[str, ...]
    tables: tuple[str, ...]
    waits_for: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """What a run did: the tables it had to make, how long it took, and the one line that says why it failed.

    `stopped_by` is the cause where a provider or a cap ended the asking: quota, authentication, budget, …
    """

    tables: tuple[str, ...]
    seconds: float
    error: str | None = None
    stopped_by: str | None = None


def runs(steps: Sequence[Step]) -> list[Run]:
    """All runs of the active study, upstream before downstream, without what is made by hand: one per partition key,
    and two without partitions (what stands before the first partitioned table and what is made from all partitions).
    Where a key's tables feed another key's that feed it again (a teacher, its audit, what the audit drops), the rest is
    a run of its own."""
    members: dict[str, list[Step]] = {}
    keys: dict[str, str | None] = {}
    for step in steps:
        for key in [] if step.by_hand else partitions.keys(STUDY, step.partitions):
            if not any(partitions.is_wanted(STUDY, table, key) for table in step.tables):
                continue
            name = _run_of(step, key)
            members.setdefault(name, []).append(step)
            keys[name] = key
    planned = [
        Run(
            name,
            keys[name],
            tuple(step.tables[0] for step in found),
            tuple(t for step in found for t in step.tables if partitions.is_wanted(STUDY, t, keys[name])),
            _waits_for(name, found, keys[name]),
        )
        for name, found in members.items()
    ]
    return sorted(planned, key=lambda run: run.name != DATA)


def needed(planned: Sequence[Run], tables: Collection[str], chosen: Collection[str] = (), *, only: bool) -> list[Run]:
    """Of all runs what it takes to have some tables, of the chosen partitions if any are, and then what is made of all
    partitions there are; `only` these tables, from what there is.

    Raises ValueError for a table or a partition that the study does not have or does not want.
    """
    if unknown := sorted(set(tables) - STEPS.keys()):
        raise ValueError(f"there is no table {unknown[0]!r}; nift docs lists them")
    wanted = {(name, key) for name in tables for key in _chosen(name, chosen)}
    if missing := sorted(set(chosen) - {key for _, key in wanted}):
        named = ", ".join(sorted(tables))
        raise ValueError(f"the study {STUDY.name!r} makes no {named} of {missing[0]!r}; nift coverage lists its rows")
    if not only:
        wanted = _closure(wanted)
    left = []
    for run in planned:
        if run.name == SCORES and not only:
            left.append(run)
            continue
        steps = tuple(step for step in run.steps if any((t, run.key) in wanted for t in STEPS[step].tables))
        whole = (t for step in steps for t in STEPS[step].tables if (t, run.key) in wanted or not STEPS[step].any_of)
        if steps:
            left.append(replace(run, steps=steps, tables=tuple(whole)))
    names = {run.name for run in left}
    return [replace(run, waits_for=run.waits_for & names) for run in left]


def _chosen(name: str, chosen: Collection[str]) -> list[str | None]:
    partitioned = STEPS[name].partitions
    keys = [key for key in partitions.keys(STUDY, partitioned) if partitions.is_wanted(STUDY, name, key)]
    return [key for key in keys if key in chosen] if chosen and partitioned else keys


def _closure(wanted: Iterable[tuple[str, str | None]]) -> set[tuple[str, str | None]]:
    """Those partitions and all they are made from."""
    found: set[tuple[str, str | None]] = set()
    waiting = list(wanted)
    while waiting:
        name, key = place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += STEPS[name].upstream(key)
            if foundation := _foundation(name, key):
                waiting.append((name, foundation))
    return found


def _foundation(name: str, key: str | None) -> str | None:
    """The backbone that an Instruct sibling made on the spot goes on from."""
    return FOUNDATIONS.get(str(key)) if name == "backbones" else None


def undecided(planned: Sequence[Run], store: Store) -> list[str]:
    """What a person has to decide about code whose results would else be made again, each line once."""
    open_lines = {
        (run.key, table): line
        for run in planned
        for table in run.tables
        if (line := STEPS[table].undecided(run.key, table))
    }
    return [
        *dict.fromkeys(
            line
            for (key, table), line in open_lines.items()
            if store.version(table, key) and not STEPS[table].is_current(store, key, table)
        )
    ]


def execute(
    planned: Sequence[Run], *, log: Path, started: Callable[[Run], None], ended: Callable[[Run, Outcome], None]
) -> dict[str, Outcome]:
    """Runs everything, upstream first; what depends on a failed run is left out of the answer.

    The first run, which reads the corpus, goes alone: if that fails nothing else has begun. The score tables come
    last and are made of what there is, so one failed teacher does not cost the scores of the others.
    """
    outcomes: dict[str, Outcome] = {}
    waiting = list(planned)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(AT_ONCE, mp_context=context, initializer=worker.begin, initargs=(str(log),)) as pool:
        going: dict[Future[Outcome], Run] = {}
        while True:
            for run in _ready(waiting, outcomes, idle=not going):
                if len(going) == AT_ONCE or (going and not outcomes):
                    break
                waiting.remove(run)
                started(run)
                going[pool.submit(execute_one, run)] = run
            if not going:
                return outcomes
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                run = going.pop(future)
                outcomes[run.name] = _outcome(future)
                ended(run, outcomes[run.name])


def execute_one(run: Run) -> Outcome:
    """One Dagster run, in this process, of those steps of a partition that are not up to date."""
    start_warm()
    started = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        tables = _stale(run, instance)
        if not tables:
            return Outcome((), 0.0)
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            partition_key=run.key,
            asset_selection=[dg.AssetKey(name) for name in tables],
            instance=instance,
            raise_on_error=False,
            tags={COMMAND_TAG: "demo"},
        )
        failed = [event for event in result.all_events if event.is_step_failure]
        error = None if result.success else failures.reason(instance, result.run_id, failed)
        return Outcome(tables, time.monotonic() - started, error, failures.stopped_by(failed))


def _ready(waiting: Sequence[Run], outcomes: Mapping[str, Outcome], *, idle: bool) -> list[Run]:
    """The runs that can start now: those whose upstream is done; the scores when nothing else is left to do."""
    done = {name for name, outcome in outcomes.items() if outcome.error is None}
    if DATA in outcomes.keys() - done:
        return []
    ready = [run for run in waiting if run.waits_for <= done]
    return ready or [run for run in waiting if idle and run.name == SCORES]


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        raise ValueError(
            "a process of this command was killed, perhaps for want of memory; run it again: what was complete is kept"
        ) from None


def _run_of(step: Step, key: str | None) -> str:
    if step.partitions:
        return f"{step.partitions} {key}" + (AGAIN if step.returns else "")
    return SCORES if _below_partitions(step) else DATA


def _below_partitions(step: Step) -> bool:
    return any(STEPS[name].partitions or _below_partitions(STEPS[name]) for name in step.inputs)


def _waits_for(name: str, steps: Iterable[Step], key: str | None) -> frozenset[str]:
    needed = {_run_of(STEPS[upstream], source) for step in steps for upstream, source in step.upstream(key)}
    if foundation := next((_foundation(step.tables[0], key) for step in steps), None):
        needed.add(_run_of(STEPS["backbones"], foundation))
    return frozenset(needed - {name})


def _stale(run: Run, instance: dg.DagsterInstance) -> tuple[str, ...]:
    """The tables of a run that are not up to date, or that stand below one that is made again."""
    stale: list[str] = []
    for name in run.steps:
        step = STEPS[name]
        if any(upstream in stale for upstream in step.inputs):
            stale += step.tables
        else:
            unseen = [table for table in step.tables if not _known(instance, table, run.key)]
            stale += dict.fromkeys(
                [*step.stale(store(), run.key), *(unseen if step.any_of or not unseen else step.tables)]
            )
    return tuple(table for table in stale if table in run.tables)


def _known(instance: dg.DagsterInstance, table: str, key: str | None) -> bool:
    """Whether Dagster has seen the table being made, so that the UI shows it."""
    if key is None:
        return instance.get_latest_materialization_event(dg.AssetKey(table)) is not None
    return key in instance.get_materialized_partitions(dg.AssetKey(table))
