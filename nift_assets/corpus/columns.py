"""Which columns of a file hold text, and how much of it: by its first rows, for whoever has to name the column."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import IO, Any

from nift_assets.corpus.folders import kind_of
from nift_assets.corpus.locations import opened
from nift_assets.corpus.reading import UNPACKED, UnreadableFile
from nift_training.messages import one_line

ROWS = 200
# So much of a file of JSON or CSV is unpacked at most.
MOST_BYTES = 8 * 2**20


def mean_lengths(file: str) -> dict[str, float]:
    """The mean number of characters of each column with text in the first rows of a file, the longest first.

    A text file has no columns. UnreadableFile for what cannot be read so far.
    """
    kind = kind_of(file)
    if kind in (None, "text"):
        return {}
    lengths: dict[str, list[int]] = {}
    try:
        for row in itertools.islice(_parquet(file) if kind == "parquet" else _unpacked(file, kind == "json"), ROWS):
            for name, value in row.items():
                if isinstance(name, str) and isinstance(value, str):
                    lengths.setdefault(name, []).append(len(value))
    except Exception as error:  # whatever the readers of five kinds of files and three kinds of places make of it
        if isinstance(error, UnreadableFile | PermissionError):
            raise
        raise UnreadableFile(f"{file}: its columns cannot be read ({one_line(error)}); fetch it again") from None
    means = {name: sum(sizes) / len(sizes) for name, sizes in lengths.items()}
    return dict(sorted(means.items(), key=lambda column: -column[1]))


def _parquet(file: str) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(file) as raw:
        table = pq.ParquetFile(raw, pre_buffer=False)
        kinds = ((field.name, field.type) for field in table.schema_arrow)
        texts = [
            name
            for name, kind in kinds
            if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        ]
        for part in table.iter_batches(ROWS, columns=texts, use_threads=False):
            yield from part.to_pylist()


def _unpacked(file: str, is_json: bool) -> Iterator[Mapping[str, Any]]:
    with opened(file) as raw:
        packed = next((ending for ending in UNPACKED if file.lower().endswith(ending)), None)
        content = _begin(UNPACKED[packed](raw) if packed else raw)
    text = content.decode("utf-8-sig", "replace")
    yield from _objects(text) if is_json else _fields(text)


def _begin(stream: IO[bytes]) -> bytes:
    parts, size = [], 0
    while size < MOST_BYTES and (part := stream.read(MOST_BYTES - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """The whole objects at the beginning of an array, or one per line."""
    decoder, at = json.JSONDecoder(), len(text) - len(text.lstrip())
    at += text[at : at + 1] == "["
    while True:
        while text[at : at + 1] and (text[at].isspace() or text[at] == ","):
            at += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # the end of what was read, or a broken row, which the reading names
            return
        if isinstance(value, dict):
            yield value


def _fields(text: str) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(MOST_BYTES)
    first = text.partition("\n")[0]
    separator = max("\t,;|", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    yield from csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
