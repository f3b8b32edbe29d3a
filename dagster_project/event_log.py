"""Dagster's own SQLite event log, with its connections kept open.

Dagster opens a connection for every event and closes it again. The close of a database's last connection copies its
write-ahead log into the file and waits for the disk, and so does every commit: with three events per asset check that
was a third of what a small study costs. Here the connections stay, and a commit is on the disk when the log is copied;
a kill loses nothing, a power cut at most the last events of a run, whose tables are found again by their own versions.
"""

from __future__ import annotations

import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from nift_assets.steps.dagster_internals import (
    ConfigurableClassData,
    SqliteEventLogStorage,
    SqlPollingEventWatcher,
    create_db_conn_string,
)

# The index of all runs and the latest runs; each open database is three file descriptors.
MOST_OPEN = 8
BUSY_SECONDS = 60
# A run's database without events, of this version's schema. Dagster takes every *.db for one of a run.
EMPTY = f".empty-{dg.__version__}"


@dataclass(frozen=True)
class _Open:
    engine: sa.Engine
    file: os.stat_result


class EventLog(SqliteEventLogStorage):
    """The event log under `$DAGSTER_HOME/history/runs`, where Dagster's own would be, file for file the same."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._tables_seen: set[str] = set()
        self._watcher: SqlPollingEventWatcher | None = None
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> EventLog:
        return cls(str(Path(config_value["base_dir"]) / "history" / "runs"), inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        # The lock makes one connection per database enough.
        with self._db_lock, self._engine(shard).begin() as connection:
            yield connection

    def _engine(self, shard: str) -> sa.Engine:
        """The engine of one database, made anew if its file is not the one that was opened."""
        opened = self._open.get(shard)
        if opened and _is_same(opened.file, self.path_for_shard(shard)):
            self._open.move_to_end(shard)
            return opened.engine
        if opened:
            self._close(shard)
        engine = sa.create_engine(
            create_db_conn_string(self._base_dir, shard),
            poolclass=sa.pool.StaticPool,
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _relax)
        if shard not in self._initialized_dbs:
            if not self._begun(shard):
                self._initdb(engine)
            self._initialized_dbs.add(shard)
        self._open[shard] = _Open(engine, os.stat(self.path_for_shard(shard)))
        while len(self._open) > MOST_OPEN:
            self._close(next(iter(self._open)))
        return engine

    def has_table(self, table_name: str) -> bool:
        """Asked for each check's result; Dagster's opens a database of its own for it. No table goes away again."""
        if table_name not in self._tables_seen and super().has_table(table_name):
            self._tables_seen.add(table_name)
        return table_name in self._tables_seen

    def _begun(self, shard: str) -> bool:
        """Whether the database of a run was missing and is there now: a copy of an empty one, which costs a thousandth
        of what it costs to make its tables and to look up which version of Dagster's schema they are."""
        path, empty = Path(self.path_for_shard(shard)), Path(self._base_dir, EMPTY)
        if path.exists():
            return False
        if not empty.exists():
            self._make_empty(empty)
        with tempfile.NamedTemporaryFile(dir=self._base_dir, prefix=EMPTY) as copy:
            copy.write(empty.read_bytes())
            copy.flush()
            with suppress(OSError):  # another process was faster, or the disk has no links: then as Dagster does it
                os.link(copy.name, path)
                return True
        return False

    def _make_empty(self, empty: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self._base_dir, prefix=EMPTY) as folder:
            made = Path(folder, "empty.db")
            engine = sa.create_engine(create_db_conn_string(folder, "empty"), poolclass=sa.pool.NullPool)
            self._initdb(engine)
            engine.dispose()
            made.replace(empty)

    def store_event(self, event: dg.EventLogEntry) -> None:
        super().store_event(without_trace(event))

    def store_asset_check_event(self, event: dg.EventLogEntry, event_id: int | None) -> None:
        """Of a check what became of it, not that it was intended: what a step that fails beforehand, for want of a key
        for one, has not run is shown as it stood, where Dagster would show every check of it as failed."""
        if event.dagster_event_type is not dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
            super().store_asset_check_event(event, event_id)

    def _close(self, shard: str) -> None:
        self._initialized_dbs.discard(shard)
        self._open.pop(shard).engine.dispose()

    def wipe(self) -> None:
        with self._db_lock:
            for shard in list(self._open):
                self._close(shard)
            self._tables_seen.clear()
        super().wipe()

    # Dagster's watches the database's file, which does not change while the connections stay open.

    def watch(self, run_id: str, cursor: str | None, callback: Any) -> None:
        self._watcher = self._watcher or SqlPollingEventWatcher(self)
        self._watcher.watch_run(run_id, cursor, callback)

    def end_watch(self, run_id: str, handler: Any) -> None:
        if self._watcher:
            self._watcher.unwatch_run(run_id, handler)

    def dispose(self) -> None:
        if self._watcher:
            self._watcher.close()
        with self._db_lock:
            for shard in list(self._open):
                self._close(shard)


def without_trace(event: dg.EventLogEntry) -> dg.EventLogEntry:
    """An event as it is shown: where a step has ended with a sentence of its own, for a person to act on, the page of
    its run has that sentence and not the lines of Dagster's code below it."""
    if event.dagster_event is None or not (event.dagster_event.is_step_failure or event.dagster_event.is_failure):
        return event
    shown = _said_alone(event.dagster_event)
    return event if shown is event.dagster_event else event._replace(dagster_event=shown)


def _said_alone(event: dg.DagsterEvent) -> dg.DagsterEvent:
    """The failure of a step, or of the run for it, without a stack where the step says itself what is wrong."""
    if event.is_step_failure:
        data = event.step_failure_data
        if data.user_failure_data is None or data.error is None or not data.error.stack:
            return event
        return event._replace(event_specific_data=data._replace(error=data.error._replace(stack=[])))
    # A run that was ended for another reason has no such step, and other failures are no run's.
    failure: Any = event.event_specific_data
    first = getattr(failure, "first_step_failure_event", None)
    if first is None or (said := _said_alone(first)) is first:
        return event
    error = failure.error._replace(stack=[]) if failure.error else None
    return event._replace(event_specific_data=failure._replace(first_step_failure_event=said, error=error))


def _is_same(opened: os.stat_result, path: str) -> bool:
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    return (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)


def _relax(connection: Any, _: Any) -> None:
    connection.execute("pragma synchronous = normal")
