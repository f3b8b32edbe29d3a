"""Looking for keys in all that was written: in the bytes of each file, and in what is unpacked from it.

A Parquet file, a gzip or a zip hides every text in it from whoever looks at its bytes, and SQLite cuts long ones in
pieces.
"""

from __future__ import annotations

import gzip
import io
import sqlite3
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from pyarrow import parquet


def found(folder: Path, canaries: Mapping[str, str]) -> tuple[list[str], int]:
    """Where a canary stands, in any file of a folder, and how many files were read."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [f"{name} in {path.relative_to(folder)}" for path in files for name in inside(path, canaries)], len(files)


def inside(path: Path, canaries: Mapping[str, str]) -> list[str]:
    """The canaries that stand in a file."""
    return standing(contents(path), canaries)


def standing(parts: Iterable[bytes], canaries: Mapping[str, str]) -> list[str]:
    """The canaries that stand in any of some bytes."""
    left = {name: key.encode() for name, key in canaries.items()}
    seen: list[str] = []
    for part in parts:
        seen += [name for name, key in left.items() if key in part and name not in seen]
    return seen


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file and, if it is of a kind that hides them, its texts."""
    if path.suffix in (".db", ".sqlite"):
        yield from _database(path)
    content = path.read_bytes()
    yield content
    yield from unpacked(content)


def unpacked(content: bytes) -> Iterator[bytes]:
    """What a Parquet file, a gzip or a zip holds; nothing of any other bytes."""
    if content[:4] == content[-4:] == b"PAR1":
        table = parquet.read_table(io.BytesIO(content))
        yield repr(table.schema.metadata).encode()
        yield from (str(column.to_pylist()).encode(errors="replace") for column in table.columns)
    elif content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    elif content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def _database(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.text_factory = bytes
        for (table,) in database.execute("select name from sqlite_master where type = 'table'").fetchall():
            for row in database.execute(f'select * from "{table.decode()}"'):
                yield b"\0".join(value for value in row if isinstance(value, bytes))
