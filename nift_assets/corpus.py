"""Reading web articles from where they lie, and drawing a sample of them that never depends on their order."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from nift_assets.studies.study import Corpus

PARQUET = (".parquet",)
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
TEXT = (".txt", ".text")
ROWS_AT_A_TIME = 2_048
# What DuckDB calls a column of JSON strings, by what the strings look like.
JSON_STRINGS = ("VARCHAR", "DATE", "TIME", "TIMESTAMP", "UUID")
LONGEST_JSON_LINE = 256 * 2**20


@dataclass(frozen=True)
class Found:
    """A document as it was found: its text (None if there is none), the file and the row in it, counted from 0."""

    text: str | None
    file: str
    row: int


@dataclass(frozen=True)
class Sample:
    """The sampled documents, and every document of the corpus that could not be sampled with the reason."""

    documents: pl.DataFrame
    rejects: pl.DataFrame


def document_id(text: str) -> str:
    """The name of a document wherever it is found: 128 bits of the sha256 of its text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def sample(corpus: Corpus) -> Sample:
    """`corpus.documents` different documents (all, if None), uniform without replacement, in sample order.

    Documents are ordered by a hash of (seed, document id), so a smaller sample is a prefix of a larger one whatever the
    order of files and rows. A text that occurs again is left out and listed, as is a row without text.
    """
    found: dict[str, tuple[str, Found]] = {}
    rejects: list[tuple[str, int, str | None, str]] = []
    for document in read(corpus):
        if document.text is None:
            rejects.append((document.file, document.row, None, "no text"))
            continue
        name = document_id(document.text)
        if name in found:
            rejects.append((document.file, document.row, name, "duplicate"))
        else:
            found[name] = (document.text, document)
    if not found:
        raise ValueError(f"{corpus.location}: no document with text in it; give a corpus with at least one")
    ranked = sorted(found, key=lambda name: _rank(name, corpus.seed))[: corpus.documents]
    rows = [
        (name, rank, text, len(text.split()), where.file, where.row)
        for rank, name in enumerate(ranked)
        for text, where in [found[name]]
    ]
    return Sample(
        documents=pl.DataFrame(rows, schema=SAMPLE_SCHEMA, orient="row"),
        rejects=pl.DataFrame(rejects, schema=REJECTS_SCHEMA, orient="row").sort("file", "row"),
    )


SAMPLE_SCHEMA = {
    "document_id": pl.String,
    "sample_rank": pl.Int64,
    "text": pl.String,
    "words": pl.Int64,
    "file": pl.String,
    "row": pl.Int64,
}
REJECTS_SCHEMA = {"file": pl.String, "row": pl.Int64, "document_id": pl.String, "reason": pl.String}


def _rank(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16, person=b"nift.sample").digest()


def read(corpus: Corpus) -> Iterator[Found]:
    """Every document of the corpus, file by file. ValueError names the file, the problem and the remedy."""
    for file in files(corpus):
        yield from _read_file(file, corpus)


def files(corpus: Corpus) -> list[str]:
    """The files of the corpus in order: one file, the readable files of a folder, what a pattern matches, or a URL."""
    location = corpus.location
    if "://" in location:
        return _remote_files(location, corpus.revision)
    if os.path.isdir(location):
        matches = [str(p) for p in Path(location).rglob("*") if p.name.lower().endswith((*PARQUET, *JSON_LINES, *TEXT))]
    else:
        matches = [location] if os.path.exists(location) else glob.glob(location, recursive=True)
    if not matches:
        raise ValueError(
            f"{location}: no such file, and no folder or pattern with {', '.join((*PARQUET, *JSON_LINES, *TEXT))} "
            "files in it; give an existing one"
        )
    return sorted(matches)


def fingerprint(corpus: Corpus) -> str:
    """A digest that changes when a local file of the corpus does, by its name, size or time of change."""
    described: list[tuple[str, int, int]] = []
    if "://" not in corpus.location:
        described = [(f, s.st_size, s.st_mtime_ns) for f in files(corpus) for s in [os.stat(f)]]
    return hashlib.sha256(repr(described).encode()).hexdigest()


def _remote_files(location: str, revision: str | None) -> list[str]:
    import fsspec

    if location.startswith("hf://") and revision and "@" not in location:
        kind, owner, name, *rest = location.removeprefix("hf://").split("/")
        location = "/".join([f"hf://{kind}", owner, f"{name}@{revision}", *rest])
    protocol = location.split("://")[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(location)
        if filesystem.isdir(path):
            path = path.rstrip("/") + "/**/*.parquet"
        matches = filesystem.glob(path) if "*" in path else [path] if filesystem.exists(path) else []
    except Exception as error:
        raise ValueError(
            f"{location}: cannot be listed ({_one_line(error)}); check the address and the network"
        ) from None
    if not matches:
        raise ValueError(f"{location}: nothing can be found there; check the address, its revision and the network")
    return sorted(f"{protocol}://{match}" for match in matches)


def _read_file(file: str, corpus: Corpus) -> Iterator[Found]:
    name = file.lower()
    if "://" not in file and os.path.getsize(file) == 0 and not name.endswith(TEXT):
        raise ValueError(f"{file}: is empty, not even a header; fetch it again")
    if name.endswith(TEXT):
        yield Found(_read_text(file), file, 0)
    elif name.endswith((*PARQUET, *JSON_LINES)):
        yield from _read_table(file, corpus.text_column)
    else:
        raise ValueError(
            f"{file}: not a kind of file that can be read; give {', '.join((*PARQUET, *JSON_LINES, *TEXT))}"
        )


def _read_text(file: str) -> str:
    try:
        return Path(file).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is not UTF-8 text; convert the file to UTF-8") from None
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error.strerror}); check its permissions") from None


def _read_table(file: str, column: str) -> Iterator[Found]:
    """The texts of one column of a Parquet or JSON-lines file, read by DuckDB a few thousand rows at a time."""
    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        try:
            if "://" in file:
                import fsspec

                connection.register_filesystem(fsspec.filesystem(file.split("://")[0]))
            texts = _query(connection, file, column)
            row = 0
            while batch := texts.fetchmany(ROWS_AT_A_TIME):
                for (text,) in batch:
                    yield Found(text, file, row)
                    row += 1
        except (duckdb.Error, OSError) as error:
            raise ValueError(
                f"{file}: cannot be read to its end ({_one_line(error)}); the file is truncated, damaged or not what "
                "its name says: fetch it again"
            ) from None


def _query(connection: duckdb.DuckDBPyConnection, file: str, column: str) -> duckdb.DuckDBPyConnection:
    json = not file.lower().endswith(PARQUET)
    source = f"read_json(?, maximum_object_size = {LONGEST_JSON_LINE})" if json else "read_parquet(?)"
    described = connection.execute(f"describe select * from {source}", [file]).fetchall()
    kinds = {name: kind for name, kind, *_ in described}
    remedy = "name a text column with --text-column (make: TEXT=)"
    if column not in kinds:
        raise ValueError(f"{file}: there is no column {column!r}, but {', '.join(kinds)}; {remedy}")
    if kinds[column] not in (JSON_STRINGS if json else ("VARCHAR",)):
        raise ValueError(f"{file}: the column {column!r} is {kinds[column]}, not text; {remedy}")
    quoted = '"' + column.replace('"', '""') + '"'
    # A JSON text that happens to be a date would be read as one; asking for the type keeps it as it is.
    types = f", columns = {{{quoted}: 'VARCHAR'}})" if json else ")"
    return connection.execute(f"select {quoted} from {source.removesuffix(')')}{types}", [file])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("\nLINE ")[0].split())[:300]
