"""A teacher's data as `datasets.load_dataset` reads it: Parquet shards, and a configuration per size, filter or audit.

Training sets that are beginnings of one another share their shards, which are cut where the smaller ones end. Texts go
from file to file a few thousand rows at a time, whatever the size of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from expectations.contract import Contract

ROWS_PER_SHARD = 20_000  # of 5 kB each: some 100 MB
ROWS_AT_A_TIME = 2_048
COMPRESSION, LEVEL = "zstd", 3


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """What a configuration is made of: stored tables of one contract below each other, and the columns taken of them.

    `key` are the columns that name a row. One that may be the beginning of another, and is then not written twice, is a
    `prefix`.
    """

    name: str
    title: str
    paths: tuple[Path, ...]
    contract: Contract
    columns: tuple[str, ...]
    key: tuple[str, ...]
    prefix: bool = False


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What `load_dataset(repository, name)` gives: its rows, and the files these are in, in order."""

    source: ShardSource
    rows: int
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.source.name


def write(folder: Path, sources: Sequence[ShardSource]) -> list[Configuration]:
    """The shards of all sources that have rows, `<configuration>/train-….parquet`; the largest prefix comes first."""
    prefixes = [source for source in sources if source.prefix]
    identities = {source.name: _identities(source) for source in prefixes}
    configurations: list[Configuration] = []
    for members in _nested(prefixes, identities):
        ends = _ends(*(len(identities[member.name]) for member in members))
        files = _write_shards(folder, members[0], ends)
        for member in members:
            until = len(identities[member.name])
            shards = tuple(file for file, end in zip(files, ends, strict=True) if end <= until)
            configurations.append(Configuration(source=member, rows=until, files=shards))
    configurations.sort(key=lambda configuration: -configuration.rows)
    for source in (source for source in sources if not source.prefix):
        if number := sum(rows(path) for path in source.paths):
            files = _write_shards(folder, source, _ends(number))
            configurations.append(Configuration(source=source, rows=number, files=tuple(files)))
    return configurations


def _nested(sources: Sequence[ShardSource], identities: dict[str, list[str]]) -> list[list[ShardSource]]:
    """The sources in groups whose first holds all others as its beginnings."""
    groups: list[list[ShardSource]] = []
    for source in sorted(sources, key=lambda source: (-len(identities[source.name]), source.name)):
        mine = identities[source.name]
        home = next((group for group in groups if identities[group[0].name][: len(mine)] == mine), None)
        if home is None:
            groups.append([source])
        else:
            home.append(source)
    return groups


def _identities(source: ShardSource) -> list[str]:
    """The name of each row, which in one teacher's data says what its texts are."""
    frames = [pl.read_parquet(path, columns=["document_id"], glob=False) for path in source.paths]
    return pl.concat(frames)["document_id"].to_list()


def rows(path: Path) -> int:
    """The rows of a Parquet file, from its footer alone."""
    from pyarrow import parquet

    return int(parquet.read_metadata(path).num_rows)


def _ends(rows: int, *cuts: int) -> list[int]:
    """Where shards end: every so many rows, at the cuts, and at the end."""
    return sorted({*range(ROWS_PER_SHARD, rows, ROWS_PER_SHARD), *cuts, rows} - {0})


def _write_shards(folder: Path, source: ShardSource, ends: Sequence[int]) -> list[str]:
    """The files of one source. The same rows are the same bytes, and cut by content within: a changed row changes a few
    pages, which is what the Hub stores of it."""
    from pyarrow import parquet

    (folder / source.name).mkdir(parents=True, exist_ok=True)
    names = [f"{source.name}/train-{place:05d}-of-{len(ends):05d}.parquet" for place in range(len(ends))]
    batches, start = _batches(source), 0
    rows_left: Any = None
    for name, end in zip(names, ends, strict=True):
        with parquet.ParquetWriter(
            folder / name,
            _schema(source),
            compression=COMPRESSION,
            compression_level=LEVEL,
            use_content_defined_chunking=True,
            write_page_index=True,
        ) as file:
            while start < end:
                rows_left = rows_left if rows_left is not None and rows_left.num_rows else next(batches)
                taken = rows_left.slice(0, end - start)
                file.write_batch(taken)
                rows_left = rows_left.slice(taken.num_rows)
                start += taken.num_rows
    return names


def _batches(source: ShardSource) -> Iterator[Any]:
    """The rows a few thousand at a time, with the types of the contract."""
    from pyarrow import parquet

    schema = _schema(source)
    for path in source.paths:
        with parquet.ParquetFile(path, pre_buffer=False) as file:  # else it keeps what it has read
            for batch in file.iter_batches(ROWS_AT_A_TIME, columns=list(source.columns)):
                yield batch.select(list(source.columns)).cast(schema)


def _schema(source: ShardSource) -> Any:
    import pyarrow as pa

    types = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}
    declared = {column.name: types[column.type] for column in source.contract.columns if column.name in source.columns}
    return pa.schema([(name, declared[name]) for name in source.columns])
