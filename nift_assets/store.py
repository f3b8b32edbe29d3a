"""Where tables and folders lie: one Parquet file per asset partition under a root, and a DuckDB catalogue of views.

Everything is written to a temporary name, flushed to the disk and renamed, so a reader sees the old file or the
whole new one. A table carries its own versions in the Parquet footer, so it does not depend on Dagster's database.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
from numpy.typing import NDArray
from upath import UPath

from expectations.frames import Table
from nift_training import artifacts, file_locks

CATALOGUE = "nift.duckdb"
TAKEN_OVER = ".versions.json"
ROWS_COPIED_AT_ONCE = 1_000
BYTES_COPIED_AT_ONCE = 2**20
# What is compressed together, and unpacked together by who reads it: of articles some 10 MB.
ROWS_PER_GROUP = 2_048


@dataclass(frozen=True)
class Version:
    """What a stored table is: `data` is the digest of its rows, `inputs` of everything it was made from."""

    data: str
    inputs: str

    def as_metadata(self) -> dict[str, str]:
        """As it stands in the footer of the table's file."""
        return {"nift.data": self.data, "nift.inputs": self.inputs}


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
        """What is stored for a partition, or None if nothing is."""
        path = self.path(table, partition)
        if not path.exists():
            return None
        with path.open("rb") as file:
            metadata = pl.read_parquet_metadata(file)
        return Version(data=metadata["nift.data"], inputs=metadata["nift.inputs"])

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
        from pyarrow import parquet

        path = self.path(table, partition)
        if not path.exists():
            return None
        with path.open("rb") as file:
            return int(parquet.read_metadata(file).num_rows)

    def read(self, table: str, partition: str | None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """What is stored of a partition, or of some columns of it, without reading the others."""
        with self.path(table, partition).open("rb") as file:
            return pl.read_parquet(file, columns=None if columns is None else list(columns))

    def table(self, table: str) -> Table:
        """A table without partitions as the file it lies in, to be read by portions; of a remote root as a frame."""
        path = self.path(table, None)
        return path if "://" not in self.root else self.read(table, None)

    def write(self, table: str, partition: str | None, rows: Table, version: Version) -> Path:
        """Store a table whole or not at all; the catalogue shows it from then on. A file is one of `write_portions`."""
        path = self.path(table, partition)
        with replacing(path) as temporary, temporary.open("wb") as file:
            if isinstance(rows, Path):
                with rows.open("rb") as draft:
                    shutil.copyfileobj(draft, file, BYTES_COPIED_AT_ONCE)
            else:
                rows.write_parquet(file, metadata=version.as_metadata(), row_group_size=ROWS_PER_GROUP)
        self._refresh_catalogue()
        return path

    def write_bytes(self, content: bytes, *parts: str) -> Path:
        """Store a file that is not a table (a page, a picture) whole or not at all."""
        path = self.folder(*parts)
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        return path

    def _refresh_catalogue(self) -> None:
        """Make the views of `nift.duckdb` anew: a schema per study, a view per table, over the files there are.

        It is made whole and renamed, so nobody who has it open is disturbed; the lock keeps two writers from replacing
        a newer list by an older one. On a remote root there is no catalogue: DuckDB files are local.
        """
        if "://" in self.root:
            return
        import duckdb

        root = Path(self.root)
        with (
            file_locks.waited_for(root / f".{CATALOGUE}.lock"),
            replacing(root / CATALOGUE) as temporary,
            duckdb.connect(temporary) as catalogue,
        ):
            for study, table, files in _tables(root):
                catalogue.execute(f'create schema if not exists "{study}"')
                quoted = files.replace("'", "''")
                # A file that is not ours or is damaged costs its own view, not everybody's.
                with suppress(duckdb.Error):
                    catalogue.execute(
                        f'create view "{study}"."{table}" as '
                        f"select * from read_parquet('{quoted}', union_by_name = true)"
                    )

    @contextmanager
    def writing(self, table: str, partition: str | None) -> Iterator[None]:
        """Keeps two runs from working on one partition at a time (promise P8): the second is refused, not queued.

        A remote root has no such lock; there the caller has to see to it.
        """
        if "://" in self.root:
            yield
            return
        locks = Path(self.root, ".locks", self.study)
        locks.mkdir(parents=True, exist_ok=True)
        place = f"{table}/{partition}" if partition else table
        refusal = f"another run is making {place} right now; wait until it ends"
        with file_locks.locked(locks / f"{table}.{partition or 'all'}", refusal):
            yield

    def remove_unnamed_folders(self) -> None:
        """Delete the folders of weights that no stored row names any more; nobody may be writing to the study."""
        named: set[str] = set()
        for file in self.folder().glob("*/[!.]*.parquet"):
            row = self.read(file.parent.name, file.stem)
            named |= set(row["folder"]) if "folder" in row.columns else set()
        for weights in (folder for folder in self.folder().glob("*/*/*") if folder.is_dir()):
            if str(weights.relative_to(self.folder())) not in named:
                shutil.rmtree(weights)


def data_version(frame: pl.DataFrame) -> str:
    """The sha256 of a table's rows: equal exactly if names, types and values are, however the frame came about."""
    digest = RowsDigest()
    digest.add(frame)
    return digest.hexdigest()


class RowsDigest:
    """The digest of a table that is seen a portion at a time: the same however its rows are cut into portions.

    Arrow's own bytes would not do: they hold what lies hidden under nulls and how the text was chunked.
    """

    def __init__(self) -> None:
        self._hashed: dict[str, hashlib._Hash] = {}

    def add(self, frame: pl.DataFrame) -> None:
        for column in frame:
            self._add(f"{column.name}\0{column.dtype}", column)

    def hexdigest(self) -> str:
        parts = "".join(f"{name}\0{hashed.hexdigest()}\0" for name, hashed in self._hashed.items())
        return hashlib.sha256(parts.encode()).hexdigest()

    def _add(self, name: str, values: pl.Series) -> None:
        """Where the nulls are, how long texts and lists are, and what is in them: numbers as they are in memory."""
        self._update(f"{name}\0null", values.is_null().to_numpy())
        present = values.drop_nulls()
        if isinstance(values.dtype, pl.List):
            self._update(f"{name}\0length", present.list.len().to_numpy())
            self._add(f"{name}\0item", present.explode())
        elif values.dtype == pl.String:
            self._update(f"{name}\0length", present.str.len_bytes().to_numpy())
            for start in range(0, max(len(present), 1), ROWS_COPIED_AT_ONCE):
                self._update(f"{name}\0text", "".join(present.slice(start, ROWS_COPIED_AT_ONCE)).encode())
        else:
            self._update(f"{name}\0value", present.to_numpy())

    def _update(self, part: str, content: NDArray[Any] | bytes) -> None:
        self._hashed.setdefault(part, hashlib.sha256()).update(
            content if isinstance(content, bytes) else content.tobytes()
        )


def write_portions(file: Path, portions: Iterable[pl.DataFrame], inputs: str) -> Version:
    """Write a table to a file a portion at a time, and what it is into the footer: as `Store.write` would, but nothing
    is held in memory and nothing stored yet. There has to be one portion, though it may be empty."""
    from pyarrow import parquet

    digest, writer = RowsDigest(), None
    with telling_of_a_full_disk(file.parent, "set TMPDIR to a folder on a larger disk; nothing was stored"):
        try:
            for portion in portions:
                digest.add(portion)
                rows = portion.to_arrow(compat_level=pl.CompatLevel.oldest())
                writer = writer or parquet.ParquetWriter(file, rows.schema, compression="zstd", use_dictionary=False)
                writer.write_table(rows, row_group_size=max(1, rows.num_rows))
            assert writer is not None, "no portion, so nobody knows which columns"
            version = Version(data=digest.hexdigest(), inputs=inputs)
            writer.add_key_value_metadata(version.as_metadata())
        finally:
            if writer is not None:
                writer.close()
    return version


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `artifacts.replacing`, for what lies in the warehouse: where its disk is full, the error says what to do."""
    remedy = "set NIFT_WAREHOUSE to a folder on a larger disk, and run again; what was complete is kept"
    with telling_of_a_full_disk(path.parent, remedy), artifacts.replacing(path) as temporary:
        yield temporary


@contextmanager
def telling_of_a_full_disk(folder: Path, remedy: str) -> Iterator[None]:
    """OSError that names the folder and what to do where its disk has no room for what is written in the block."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        free = shutil.disk_usage(folder).free
        raise OSError(
            errno.ENOSPC, f"the disk of {folder} is full ({free:,} bytes free): free some space, or {remedy}"
        ) from None


def _tables(root: Path) -> Iterator[tuple[str, str, str]]:
    """Study, table and files of everything stored under a local root; a folder of partitions goes before a file."""
    for study in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = {p.stem: str(p.resolve()) for p in study.glob("[!.]*.parquet")}
        parts = {
            p.name: f"{p.resolve()}/[!.]*.parquet"
            for p in study.iterdir()
            if p.is_dir() and any(p.glob("[!.]*.parquet"))
        }
        for table, location in sorted((files | parts).items()):
            yield study.name, table, location
