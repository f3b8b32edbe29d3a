"""Where tables and folders lie: one Parquet file per asset partition under a root, and a DuckDB catalogue of views.

Everything is written to a temporary name, flushed to the disk and renamed, so a reader sees the old file or the
whole new one. A table carries its own versions in the Parquet footer, so it does not depend on Dagster's database.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

import polars as pl
from filelock import FileLock
from upath import UPath

from expectations import contract, frames
from expectations.frames import Table
from nift_assets import catalogue, table_files
from nift_assets.table_files import DamagedTable, StoredTable, Version, naming_the_disk
from nift_training import artifacts, file_locks

TAKEN_OVER = ".versions.json"
BYTES_COPIED_AT_ONCE = 2**20


@dataclass(frozen=True)
class Store:
    """The tables and folders of one study under a root: a local folder or an address such as `s3://bucket/nift`."""

    root: str
    study: str

    def folder(self, *parts: str) -> Path:
        """A place under the study's folder; the parts are row names, which are safe as folder names."""
        return cast("Path", UPath(self.root, self.study, *parts))

    def path(self, table: str, partition: str | None) -> Path:
        """The Parquet file of one table, or of one partition of it."""
        return self.folder(table, f"{partition}.parquet") if partition else self.folder(f"{table}.parquet")

    def version(self, table: str, partition: str | None) -> Version | None:
        """What is stored for a partition by its footer, or None if nothing is; DamagedTable if that cannot be read."""
        path = self.path(table, partition)
        return table_files.version(path, place(table, partition)) if path.exists() else None

    def check(self, table: str, partition: str | None) -> Version | None:
        """What is stored for a partition, or None if nothing is; DamagedTable if its rows are not those written."""
        path = self.path(table, partition)
        return table_files.check(path, place(table, partition)) if path.exists() else None

    def checked_path(self, table: str, partition: str | None) -> Path:
        """The file of a partition for whoever reads it otherwise; DamagedTable if its rows are not those written."""
        self.check(table, partition)
        return self.path(table, partition)

    def taken_over(self, inputs: str) -> str | None:
        """What a digest of before the takeover counts as, if it is one (see `takeover`)."""
        taken: dict[str, str] = json.loads(self._taken_over.read_text()) if self.has_taken_over() else {}
        return taken.get(inputs)

    def has_taken_over(self) -> bool:
        return self._taken_over.exists()

    def take_over(self, inputs: Mapping[str, str]) -> None:
        """From now on each digest of the inputs of a stored table counts as the other."""
        self.write_bytes(json.dumps(inputs, indent=0, sort_keys=True).encode(), TAKEN_OVER)

    @property
    def _taken_over(self) -> Path:
        return self.folder(TAKEN_OVER)

    def rows(self, table: str, partition: str | None) -> int | None:
        """How many rows are stored for a partition, from the footer alone, or None if nothing is."""
        path = self.path(table, partition)
        return table_files.height(path, place(table, partition)) if path.exists() else None

    def read(self, table: str, partition: str | None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """What is stored of a partition, or of some columns of it, without reading the others; those that came into
        the contract after it was stored are null if they may be. DamagedTable if it is not what was written."""
        nullable = frames.nullable(contract.load(table)) if columns and contract.is_known(table) else {}
        return table_files.read(self.path(table, partition), place(table, partition), columns, nullable).rows

    def find(self, table: str, partition: str | None, columns: Sequence[str] | None = None) -> pl.DataFrame | None:
        """As `read`, None where nothing is stored."""
        return self.read(table, partition, columns) if self.path(table, partition).exists() else None

    def stored(self, table: str, partition: str | None) -> StoredTable | None:
        """What is stored of a partition with the version of the very file that was read, None if nothing is."""
        try:
            return table_files.read(self.path(table, partition), place(table, partition))
        except FileNotFoundError:
            return None

    def table(self, table: str) -> Table:
        """A table without partitions as the file it lies in, to be read by portions; of a remote root as a frame."""
        return self.checked_path(table, None) if not self.is_remote else self.read(table, None)

    @contextmanager
    def held(
        self, table: str, partition: str | None, needed: Sequence[str] = ()
    ) -> Iterator[tuple[Table, Version] | None]:
        """What is stored of a partition, to be read by portions and more than once as it is now, and its version; None
        if nothing is. DamagedTable for what lacks a column that is needed. Of a remote root it is a frame."""
        if self.is_remote:
            stored = self.stored(table, partition)
            yield None if stored is None else (stored.rows, stored.version)
            return
        with ExitStack() as stack:
            try:
                path = self.path(table, partition)
                here = stack.enter_context(table_files.held(path, place(table, partition), needed))
            except FileNotFoundError:
                here = None
            yield here

    def write(self, table: str, partition: str | None, rows: Table, version: Version) -> Path:
        """Store a table whole or not at all; the catalogue shows it from then on. A file is one of `write_portions`."""
        path = self.path(table, partition)
        shown = None if self.is_remote else catalogue.columns_shown(Path(self.root), path, partitioned=bool(partition))
        with replacing(path) as temporary, temporary.open("wb") as file:
            if isinstance(rows, Path):
                with rows.open("rb") as draft:
                    shutil.copyfileobj(draft, file, BYTES_COPIED_AT_ONCE)
            else:
                table_files.write_frame(file, rows, version, place(table, partition))
        if shown is None or shown != catalogue.columns(path):
            self.refresh_catalogue()
        return path

    def write_bytes(self, content: bytes, *parts: str) -> Path:
        """Store a file that is not a table (a page, a picture) whole or not at all."""
        path = self.folder(*parts)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def refresh_catalogue(self) -> None:
        """Make the views of `nift.duckdb` anew; on a remote root there is none: DuckDB files are local."""
        if not self.is_remote:
            catalogue.refresh(Path(self.root), replacing)

    @contextmanager
    def writing(self, table: str, partition: str | None) -> Iterator[None]:
        """Keeps two runs from working on one partition at a time (promise P8): the second is refused, not queued.

        A remote root has no such lock; there the caller has to see to it.
        """
        if self.is_remote:
            yield
            return
        lock = self._begun(table, partition)
        if lock is None:
            # A step of this process whose output could not be stored may be a generator that waits for its end in a
            # circle of references.
            gc.collect()
            lock = self._begun(table, partition)
        if lock is None:
            raise ValueError(f"another run is making {place(table, partition)} right now; wait until it ends")
        try:
            yield
        finally:
            lock.release()

    def _begun(self, table: str, partition: str | None) -> FileLock | None:
        with self._nobody_begins():
            return file_locks.take(self._locks / f"{table}.{partition or 'all'}")

    def forget(self) -> None:
        """Delete all tables and folders of the study; ValueError while any run is making one."""
        with self._nobody_begins():
            if at_work := self._at_work():
                raise ValueError(
                    f"a run is making {at_work[0]} of {self.study} right now; wait until it ends, or cancel it, before "
                    "you start over"
                )
            if self.folder().exists():
                shutil.rmtree(self.folder())

    def remove_unnamed_folders(self) -> None:
        """Delete the folders of weights that no stored row names any more; nothing while any run is making something,
        which may be one of them or made from one, nor what a damaged row may have named."""
        with self._nobody_begins():
            if self._at_work():
                return
            named: set[str] = set()
            for file in self.folder().glob("*/[!.]*.parquet"):
                try:
                    row = self.read(file.parent.name, file.stem)
                except DamagedTable:
                    return
                named |= set(row["folder"]) if "folder" in row.columns else set()
            for weights in (folder for folder in self.folder().glob("[!.]*/*/[!.]*") if folder.is_dir()):
                aside = weights.parents[1] / f".{weights.parent.name}.parquet.damaged"
                if str(weights.relative_to(self.folder())) not in named and not aside.exists():
                    shutil.rmtree(weights)
                    weights.with_name(f".{weights.name}.inputs").unlink(missing_ok=True)

    def set_aside(self, table: str, partition: str | None, look: Callable[[], str | None] | None = None) -> str | None:
        """Put a damaged table out of the way, beside where it lay, so that it counts as not made; what was wrong with
        it in a line, None if nothing was, or if a run is making it anew. `look` says what is wrong where that is
        another thing than the table's file."""
        look = look or partial(self._damage, table, partition)
        path = self.path(table, partition)
        kept = path.with_name(f".{path.name}.damaged")
        if look() is None:
            return None
        with suppress(ValueError), self.writing(table, partition):
            if damage := look():  # still: somebody may have made it anew
                path.rename(kept)
                self.refresh_catalogue()
                return f"{damage}; the damaged file is kept as {kept.name}"
        return None

    def _damage(self, table: str, partition: str | None) -> str | None:
        try:
            self.check(table, partition)
        except DamagedTable as damage:
            return str(damage)
        return None

    @property
    def is_remote(self) -> bool:
        """Whether the root is an address, and not a folder of this machine."""
        return "://" in self.root

    @property
    def _locks(self) -> Path:
        return Path(self.root, ".locks", self.study)

    @contextmanager
    def _nobody_begins(self) -> Iterator[None]:
        """Meanwhile no run takes the lock of a partition of the study."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with file_locks.waited_for(self._locks / ".all"):
            yield

    def _at_work(self) -> list[str]:
        """The partitions whose lock somebody holds, who is alive: the end of a process releases what it held."""
        return [path.name for path in sorted(self._locks.glob("[!.]*")) if not file_locks.is_free(path)]


@dataclass(frozen=True)
class TolerantStore(Store):
    """A store to which a damaged table is as one that was not made; what was found stands in `damaged`, by the file."""

    damaged: dict[str, str] = field(default_factory=dict, compare=False)

    def find(self, table: str, partition: str | None, columns: Sequence[str] | None = None) -> pl.DataFrame | None:
        try:
            return super().find(table, partition, columns)
        except DamagedTable as damage:
            self.damaged[str(self.path(table, partition))] = str(damage)
            return None

    @contextmanager
    def held(
        self, table: str, partition: str | None, needed: Sequence[str] = ()
    ) -> Iterator[tuple[Table, Version] | None]:
        with ExitStack() as stack:
            try:
                here = stack.enter_context(super().held(table, partition, needed))
            except DamagedTable as damage:
                self.damaged[str(self.path(table, partition))] = str(damage)
                here = None
            yield here


def place(table: str, partition: str | None) -> str:
    """A partition in words: `completions/echo`."""
    return f"{table}/{partition}" if partition else table


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `artifacts.replacing`, for what lies in the warehouse: where its disk is full, the error says what to do."""
    remedy = "set NIFT_WAREHOUSE to a folder on a larger disk, and run again; what was complete is kept"
    with naming_the_disk(path.parent, remedy), artifacts.replacing(path) as temporary:
        yield temporary
