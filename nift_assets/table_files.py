"""One Parquet file per stored table: its rows, and in its footer what it is, so that it depends on no database.

Who reads it holds the rows against the digests in the footer, once per file and process: bits rot, disks cut files
short, and a copy may end in the wrong place. What differs is an error that names the file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import polars as pl
from numpy.typing import NDArray

from expectations.frames import in_groups

ROWS_COPIED_AT_ONCE = 1_000
# What is compressed together, and unpacked together by who reads it: of articles some 10 MB.
ROWS_PER_GROUP = 2_048
# How many rows of a column the first digests took at a time.
ROWS_DIGESTED_AT_FIRST = 10_000
# How a disk refuses what is written: it is full, or for this user, it is broken, or it is for reading only.
REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
# How libraries tell an error of the operating system that they hand on as a text.
_SAID = {os.strerror(number): number for number in REFUSED}
_TOLD = re.compile(rf"os error (\d+)|Errno (\d+)|{'|'.join(map(re.escape, _SAID))}")
# By these names a file that is open is opened again, also when another has its name by now.
OPEN_FILES = Path("/proc/self/fd")
_DATA, _INPUTS, _PLACE, _COLUMNS, _SEAL = (f"nift.{name}" for name in ("data", "inputs", "place", "columns", "seal"))

# The files whose rows this process has held against their footer: which file, and which columns of it.
_checked: set[tuple[object, ...]] = set()


class DamagedTable(ValueError):
    """A stored file that is not what was written."""


class LacksColumn(DamagedTable):
    """A stored file as it was written, by an earlier version of this project or by another program."""

    def __init__(self, path: Path, place: str, column: str) -> None:
        super().__init__(
            f"{path} has no column {column}, so an earlier version of this project or another program made it; "
            f"{remedy(place)}"
        )


@dataclass(frozen=True)
class Version:
    """What a stored table is: `data` is the digest of its rows, `inputs` of everything it was made from, and `columns`
    the digest of each column by its name, where they are known."""

    data: str
    inputs: str
    columns: Mapping[str, str] = field(default_factory=dict, compare=False)

    def as_metadata(self, place: str) -> dict[str, str]:
        """As it stands in the footer of the file of a place, with a seal over all of it."""
        told = {_DATA: self.data, _INPUTS: self.inputs, _PLACE: place, _COLUMNS: json.dumps(dict(self.columns))}
        return {**told, _SEAL: _seal(told)}


@dataclass(frozen=True)
class StoredTable:
    """What was read of a partition, and the version of the very file it was read from."""

    rows: pl.DataFrame
    version: Version


def read(
    path: Path,
    place: str,
    columns: Sequence[str] | None = None,
    nullable: Mapping[str, pl.DataType] = MappingProxyType({}),
) -> StoredTable:
    """The rows of a file, or some columns of them; DamagedTable if they are not those that were written.

    Of the columns that are asked for the file may lack those that are `nullable`, which are null then.
    """
    with path.open("rb") as file, _damage_named(path, place):
        version = _version(file, place)
        file.seek(0)
        wanted, columns = columns, None if columns is None else _present(path, place, file, columns, nullable)
        file.seek(0)
        rows = pl.read_parquet(file, columns=None if columns is None else list(columns))
        seen = _seen(path, file, columns)
        if seen is None or seen not in _checked:
            if columns is not None and version.columns:
                _compare_columns(rows, version)
            else:
                _compare(file, [rows] if columns is None else _portions(file), version)
            _remember(seen)
        if wanted is not None and wanted != columns:
            rows = rows.with_columns(pl.lit(None, nullable[name]).alias(name) for name in wanted if name not in rows)
            rows = rows.select(wanted)
        return StoredTable(rows, version)


def _present(
    path: Path, place: str, file: BinaryIO, columns: Sequence[str], nullable: Mapping[str, pl.DataType]
) -> list[str]:
    """The columns of a file among those that are wanted; LacksColumn if one is not there that is never null."""
    there = pl.read_parquet_schema(file)
    if absent := [name for name in columns if name not in there and name not in nullable]:
        raise LacksColumn(path, place, absent[0])
    return [name for name in columns if name in there]


def check(path: Path, place: str) -> Version:
    """The version of a file whose rows are those that were written; a portion at a time, so they need not fit into
    memory."""
    with path.open("rb") as file:
        return _checked_version(path, file, place)


@contextmanager
def held(path: Path, place: str, needed: Sequence[str] = ()) -> Iterator[tuple[Path, Version]]:
    """A file that is read more than once, as it is now, whatever is put in its place meanwhile, and its version;
    checked as by `check`. DamagedTable for one without a column that is needed."""
    with path.open("rb") as file:
        version = _checked_version(path, file, place)
        with _damage_named(path, place):
            file.seek(0)
            _present(path, place, file, needed, {})
        yield (OPEN_FILES / str(file.fileno()) if OPEN_FILES.is_dir() else path), version


def version(path: Path, place: str) -> Version:
    """What the footer of a file says, whatever its rows are."""
    with path.open("rb") as file, _damage_named(path, place):
        return _version(file, place)


def height(path: Path, place: str) -> int:
    """How many rows a file has by its footer."""
    from pyarrow import parquet

    with path.open("rb") as file, _damage_named(path, place):
        _version(file, place)
        file.seek(0)
        return int(parquet.read_metadata(file).num_rows)


def write_frame(file: BinaryIO, rows: pl.DataFrame, version: Version, place: str) -> None:
    """The rows of a frame, and what they are, as a file."""
    rows.write_parquet(file, metadata=version.as_metadata(place), row_group_size=ROWS_PER_GROUP)


def write_portions(file: Path, portions: Iterable[pl.DataFrame], inputs: str, place: str = "") -> Version:
    """Write a table to a file a portion at a time, and what it is into the footer: as `Store.write` would, but nothing
    is held in memory and nothing stored yet. There has to be one portion, though it may be empty. The file is the same
    however its rows are cut into portions."""
    from pyarrow import parquet

    digest, writer = RowsDigest(), None
    with naming_the_disk(file.parent, "set TMPDIR to a folder on a larger disk; nothing was stored"):
        try:
            for portion in in_groups(portions, ROWS_PER_GROUP):
                digest.add(portion)
                rows = portion.to_arrow(compat_level=pl.CompatLevel.oldest())
                writer = writer or parquet.ParquetWriter(file, rows.schema, compression="zstd", use_dictionary=False)
                writer.write_table(rows, row_group_size=max(1, rows.num_rows))
            assert writer is not None, "no portion, so nobody knows which columns"
            made = _digested(digest, inputs)
            writer.add_key_value_metadata(made.as_metadata(place))
        finally:
            if writer is not None:
                writer.close()
    return made


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


def version_of(frame: pl.DataFrame, inputs: str) -> Version:
    """The version of a frame that was made from these inputs."""
    digest = RowsDigest()
    digest.add(frame)
    return _digested(digest, inputs)


def _digested(digest: RowsDigest, inputs: str) -> Version:
    return Version(data=digest.hexdigest(), inputs=inputs, columns=_columns(digest))


def _columns(digest: RowsDigest) -> dict[str, str]:
    """The digest of each column by its name, with which the name of each part of the digest begins."""
    parts: dict[str, str] = {}
    for name, hashed in digest._hashed.items():
        column = name.partition("\0")[0]
        parts[column] = parts.get(column, "") + f"{name}\0{hashed.hexdigest()}\0"
    return {column: hashlib.sha256(text.encode()).hexdigest() for column, text in parts.items()}


@contextmanager
def naming_the_disk(folder: Path, remedy: str) -> Iterator[None]:
    """OSError that names the folder and what to do where its disk does not take what is written in the block, whoever
    writes: Polars, DuckDB and Arrow have errors of their own for it."""
    try:
        yield
    except Exception as error:
        number = told_by_the_system(error)
        if number not in REFUSED:
            raise
        if number == errno.ENOSPC:
            free = shutil.disk_usage(folder).free
            what = f"no space left: the disk of {folder} is full ({free:,} bytes free); free some space"
        else:
            what = f"the disk of {folder} does not take what is written ({os.strerror(number)}); mend that"
        raise OSError(number, f"{what}, or {remedy}") from None


def told_by_the_system(error: BaseException) -> int | None:
    """The operating system's number of an error that a library hands on, maybe as a text alone; None if it is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = _TOLD.search(str(error))
    if found is None:
        return None
    return int(found[1] or found[2]) if found[1] or found[2] else _SAID[found[0]]


def _checked_version(path: Path, file: BinaryIO, place: str) -> Version:
    with _damage_named(path, place):
        version, seen = _version(file, place), _seen(path, file, None)
        if seen is None or seen not in _checked:
            _compare(file, _portions(file), version)
            _remember(seen)
        return version


def _version(file: BinaryIO, place: str) -> Version:
    """What the footer says; of a file of before there were seals only the two digests."""
    told = pl.read_parquet_metadata(file)
    if missing := [name for name in (_DATA, _INPUTS) if name not in told]:
        raise DamagedTable(f"its footer has no {missing[0]}, so this project has not written it")
    if _SEAL not in told:
        return Version(data=told[_DATA], inputs=told[_INPUTS])
    if told[_SEAL] != _seal(told):
        raise DamagedTable("its footer was changed after it was written")
    if told[_PLACE] not in ("", place):
        raise DamagedTable(f"it is the file of {told[_PLACE]}")
    return Version(data=told[_DATA], inputs=told[_INPUTS], columns=json.loads(told[_COLUMNS]))


def _seal(told: Mapping[str, str]) -> str:
    return hashlib.sha256(
        "\0".join(told.get(name, "") for name in (_DATA, _INPUTS, _PLACE, _COLUMNS)).encode()
    ).hexdigest()


def _compare(file: BinaryIO, rows: Iterable[pl.DataFrame], version: Version) -> None:
    digest = RowsDigest()
    for portion in rows:
        digest.add(portion)
    if digest.hexdigest() != version.data and (version.columns or _first_digest(file) != version.data):
        raise DamagedTable("its rows are not what was written")


def _compare_columns(rows: pl.DataFrame, version: Version) -> None:
    digest = RowsDigest()
    digest.add(rows)
    for name, found in _columns(digest).items():
        if version.columns.get(name) != found:
            raise DamagedTable(f"its column {name} is not what was written")


def _portions(file: BinaryIO) -> Iterator[pl.DataFrame]:
    from pyarrow import parquet

    stored = parquet.ParquetFile(file)
    yield pl.DataFrame(stored.schema_arrow.empty_table())
    for group in range(stored.num_row_groups):
        yield pl.DataFrame(stored.read_row_group(group, use_threads=False))


def _first_digest(file: BinaryIO) -> str:
    """The digest of a file's rows as the first tables have it in their footer: a column at a time."""
    hashed = hashlib.sha256()
    file.seek(0)
    for name in pl.read_parquet_schema(file):
        file.seek(0)
        values = pl.read_parquet(file, columns=[name])[name]
        hashed.update(f"{name}\0{values.dtype}\0".encode())
        for start in range(0, max(len(values), 1), ROWS_DIGESTED_AT_FIRST):
            _digest_at_first(hashed, values.slice(start, ROWS_DIGESTED_AT_FIRST))
    return hashed.hexdigest()


def _digest_at_first(hashed: hashlib._Hash, values: pl.Series) -> None:
    hashed.update(values.is_null().to_numpy().tobytes())
    present = values.drop_nulls()
    if isinstance(values.dtype, pl.List):
        hashed.update(present.list.len().to_numpy().tobytes())
        _digest_at_first(hashed, present.explode())
    elif values.dtype == pl.String:
        hashed.update(present.str.len_bytes().to_numpy().tobytes())
        for start in range(0, len(present), ROWS_COPIED_AT_ONCE):
            hashed.update("".join(present.slice(start, ROWS_COPIED_AT_ONCE)).encode())
    else:
        hashed.update(present.to_numpy().tobytes())


def _seen(path: Path, file: BinaryIO, columns: Sequence[str] | None) -> tuple[object, ...] | None:
    """Which file this is, so that another one, or the same one changed, is looked at again; None of a remote one."""
    if "://" in str(path):
        return None
    stat = os.fstat(file.fileno())
    which = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return (str(path), *which, None if columns is None else tuple(columns))


def _remember(seen: tuple[object, ...] | None) -> None:
    if seen is not None:
        _checked.add(seen)


@contextmanager
def _damage_named(path: Path, place: str) -> Iterator[None]:
    """DamagedTable with the file, what is wrong with it and the remedy, whatever a reader has stumbled over."""
    try:
        yield
    except LacksColumn:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        # Want of memory, of rights or of file handles says nothing about the file.
        if isinstance(error, MemoryError) or told_by_the_system(error) not in (None, errno.EIO):
            raise
        why = str(error) if isinstance(error, DamagedTable) else f"{type(error).__name__}: {error}"
        raise DamagedTable(f"{path} is damaged ({_shortened(why)}); {remedy(place)}") from None


def remedy(place: str) -> str:
    """How a person gets a damaged table back."""
    table, _, partition = place.partition("/")
    command = f"nift run {table}" + (f" --partition {partition}" if partition else "")
    return f"`{command}` makes it again, and what was paid for comes from the ledger"


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:160] + " …"
