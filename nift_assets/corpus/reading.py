"""The documents of a corpus file by file, a few at a time, with limits on what a file may unpack to."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from nift_assets.corpus.locations import JSON_LINES, PARQUET, TEXT, files, one_line, opened, size_and_mtime
from nift_assets.rows import Corpus
from nift_training import json_objects

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# So much text is in memory at once for each file that is being read, or one document if that is more.
BYTES_AT_ONCE = 2**20
ROWS_AT_ONCE = 4_096
# A document longer than this is none; a line of JSON can be that long.
LONGEST_DOCUMENT = 64 * 2**20
# What a Parquet file may unpack to. Text shrinks to a tenth at best; a thousand times is somebody's joke.
LARGEST_FOOTER = 16 * 2**20
MOST_TIMES_LARGER = 1_000
ALWAYS_ALLOWED = 256 * 2**20
MOST_EXPANSION = 64 * 2**20

REMEDY = "name a text column with --text-column (make: TEXT=)"

# What JSON calls what Python makes of it.
JSON_NAMES = {bool: "true or false", int: "a number", float: "a number", list: "an array", dict: "an object"}

Reason = Literal["no text", "lone surrogate", "not UTF-8"]


@dataclass(frozen=True)
class Document:
    """A document as it was found: its text (None if there is none), the file and the row in it, counted from 0."""

    text: str | None
    file: str
    row: int


@dataclass(frozen=True)
class TextBatch:
    """Rows of one file, from row `row` on: each one's text in UTF-8, or None and in `faults` the reason by place."""

    row: int
    texts: Sequence[bytes | None]
    faults: Mapping[int, Reason]


def read(corpus: Corpus) -> Iterator[Document]:
    """Every document of the corpus, file by file. ValueError names the file, the problem and the remedy."""
    for file in files(corpus):
        for batch in batches(file, corpus.text_column):
            for place, text in enumerate(batch.texts):
                yield Document(None if text is None else text.decode(), file, batch.row + place)


def batches(file: str, column: str) -> Iterator[TextBatch]:
    """The rows of one file, about a megabyte at a time. ValueError names the file, the problem and the remedy."""
    name = file.lower()
    before = size_and_mtime(file) if "://" in file or os.path.exists(file) else None
    if before and "://" not in file and before[0] == 0 and not name.endswith(TEXT):
        raise ValueError(f"{file}: is empty, not even a header; fetch it again")
    if name.endswith(TEXT):
        yield _text(file)
    elif name.endswith(PARQUET):
        yield from _parquet(file, column)
    elif name.endswith(JSON_LINES):
        yield from _json_lines(file, column)
    else:
        raise ValueError(
            f"{file}: not a kind of file that can be read; give {', '.join((*PARQUET, *JSON_LINES, *TEXT))}"
        )
    if size_and_mtime(file) != before:
        raise ValueError(f"{file}: was changed while it was read; sample again when it is whole")


# -- text --------------------------------------------------------------------------------------------------------------


def _text(file: str) -> TextBatch:
    """A text file is one document."""
    try:
        with opened(file) as stream:
            content = stream.read(LONGEST_DOCUMENT + 1)
    except OSError as error:
        problem = error.strerror or one_line(error)
        raise ValueError(f"{file}: cannot be read ({problem}); check its permissions") from None
    if len(content) > LONGEST_DOCUMENT:
        raise ValueError(f"{file}: is longer than {LONGEST_DOCUMENT:,} bytes, which no article is; split it")
    try:
        content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is not UTF-8 text; convert the file to UTF-8") from None
    fault = _fault(content)
    return TextBatch(0, [None], {0: fault}) if fault else TextBatch(0, [content], {})


def _fault(content: bytes) -> Reason | None:
    """Why bytes are no text: half a surrogate pair, which JSON can have and UTF-8 cannot, or another encoding."""
    try:
        content.decode()
    except UnicodeDecodeError:
        try:
            content.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return "not UTF-8"
        return "lone surrogate"
    return None


# -- JSON lines --------------------------------------------------------------------------------------------------------


def _json_lines(file: str, column: str) -> Iterator[TextBatch]:
    """One JSON object per line; a line that says nothing under `column` is a row without text."""
    row, size = 0, 0
    texts: list[bytes | None] = []
    faults: dict[int, Reason] = {}
    for text, fault in _json_texts(file, column):
        if fault:
            faults[len(texts)] = fault
        texts.append(text)
        size += len(text or b"")
        if size >= BYTES_AT_ONCE or len(texts) == ROWS_AT_ONCE:
            yield TextBatch(row, texts, faults)
            row, size, texts, faults = row + len(texts), 0, [], {}
    yield TextBatch(row, texts, faults)


def _json_texts(file: str, column: str) -> Iterator[tuple[bytes | None, Reason | None]]:
    has_column, others = False, dict[str, None]()
    for number, line in _lines(file):
        try:
            record = _object(file, number, line)
        except UnicodeDecodeError:
            yield None, "not UTF-8"
            continue
        has_column = has_column or column in record
        others |= dict.fromkeys(record) if not has_column else {}
        if number >= ROWS_AT_ONCE:
            _refuse_unknown(file, column, others, has_column)
        value = record.get(column)
        if value is not None and not isinstance(value, str):
            kind = JSON_NAMES[type(value)]
            raise ValueError(f"{file}: the column {column!r} is {kind} in line {number}, not text; {REMEDY}")
        try:
            yield (None, "no text") if value is None else (value.encode(), None)
        except UnicodeEncodeError:
            yield None, "lone surrogate"
    _refuse_unknown(file, column, others, has_column)


def _refuse_unknown(file: str, column: str, others: Iterable[str], has_column: bool) -> None:
    if others and not has_column:
        shown = ", ".join([*others][:20])
        raise ValueError(f"{file}: there is no column {column!r}, but {shown}; {REMEDY}")


def _object(file: str, number: int, line: bytes) -> dict[str, Any]:
    """The JSON object in a line. UnicodeDecodeError for a line in another encoding: one row's fault, not the file's."""
    try:
        return json_objects.parse(line)
    except UnicodeDecodeError:
        raise
    except json_objects.NotAnObject:
        raise ValueError(f"{file}: line {number} is no JSON object; give one object per line") from None
    except ValueError as error:
        raise ValueError(_unreadable(file, f"line {number}: {one_line(error)}")) from None


def _lines(file: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1; none is read further than a document may be long."""
    try:
        with opened(file) as raw:
            stream: Any = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if file.lower().endswith(".gz") else raw
            for number in itertools.count(1):
                line = stream.readline(LONGEST_DOCUMENT + 1)
                if not line:
                    return
                if len(line) > LONGEST_DOCUMENT:
                    raise ValueError(
                        f"{file}: line {number} is longer than {LONGEST_DOCUMENT:,} bytes, which no article is; give "
                        "one JSON object per line"
                    )
                if not line.isspace():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(_unreadable(file, one_line(error))) from None


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _parquet(file: str, column: str) -> Iterator[TextBatch]:
    """The rows of a Parquet file page by page; one that would unpack to too much is refused by its footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with opened(file) as raw:
            _refuse_large_footer(file, raw)
            # Page by page, not a column chunk at a time: a writer may have put the whole file into one row group.
            table = pq.ParquetFile(raw, pre_buffer=False, buffer_size=BYTES_AT_ONCE, page_checksum_verification=True)
            _refuse_other_types(file, column, table.schema_arrow)
            for group in range(table.num_row_groups):
                rows = _rows_at_once(file, raw, column, table, group)
                for part in table.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False):
                    yield _arrow_batch(part.column(0), row)
                    row += len(part)
            if row != table.metadata.num_rows:
                raise ValueError(_unreadable(file, f"{row} of {table.metadata.num_rows} rows are there"))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(_unreadable(file, one_line(error))) from None


def _arrow_batch(column: pa.Array, row: int) -> TextBatch:
    """The texts as they are in Arrow's memory, without decoding them."""
    import pyarrow as pa

    texts = column.cast(pa.large_string(), safe=False)
    _, places, content = texts.buffers()
    offsets = memoryview(places).cast("q")[texts.offset : texts.offset + len(texts) + 1].tolist()
    joined = content.to_pybytes() if content else b""  # slices of it are no work for the garbage collector
    values: list[bytes | None] = [joined[start:stop] for start, stop in itertools.pairwise(offsets)]
    faults: dict[int, Reason] = {}
    if texts.null_count:
        faults |= dict.fromkeys(texts.is_null().to_numpy(zero_copy_only=False).nonzero()[0].tolist(), "no text")
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        checked = (
            (place, _fault(text)) for place, text in enumerate(values) if text is not None and place not in faults
        )
        faults |= {place: fault for place, fault in checked if fault}
    for place in faults:
        values[place] = None
    return TextBatch(row, values, faults)


def _refuse_other_types(file: str, column: str, schema: pa.Schema) -> None:
    import pyarrow as pa

    if column not in schema.names:
        raise ValueError(f"{file}: there is no column {column!r}, but {', '.join(schema.names[:20])}; {REMEDY}")
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        # By the name it has in SQL, as everywhere else.
        with duckdb.connect() as connection:
            sql_type = connection.from_arrow(pa.schema([pa.field("c", kind)]).empty_table()).types[0]
        raise ValueError(f"{file}: the column {column!r} is {sql_type}, not text; {REMEDY}")


def _refuse_large_footer(file: str, raw: Any) -> None:
    raw.seek(-8, os.SEEK_END)
    size, magic = struct.unpack("<I4s", raw.read(8))
    if magic == b"PAR1" and size > LARGEST_FOOTER:
        raise ValueError(
            f"{file}: its footer is {size:,} bytes, of columns nobody needs; write it again with the text column alone"
        )
    raw.seek(0)


def _rows_at_once(file: str, raw: Any, column: str, table: pq.ParquetFile, group: int) -> int:
    """How many rows to read together so that no more than a few megabytes unpack, by what the footer says.

    ValueError if all of the row group's text unpacks to more than text can.
    """
    rows = table.metadata.row_group(group)
    names = [rows.column(place).path_in_schema for place in range(rows.num_columns)]
    chunk = rows.column(names.index(column))
    packed, unpacked = chunk.total_compressed_size, chunk.total_uncompressed_size
    if unpacked > max(ALWAYS_ALLOWED, MOST_TIMES_LARGER * packed) or rows.num_rows > max(
        ALWAYS_ALLOWED, MOST_TIMES_LARGER * packed
    ):
        raise ValueError(
            f"{file}: {packed:,} bytes would unpack to {unpacked:,} bytes and {rows.num_rows:,} rows, which text does "
            "not; nothing of it was read"
        )
    at_once: int = BYTES_AT_ONCE * rows.num_rows // max(1, unpacked)
    if chunk.has_dictionary_page:
        # Every row can be the longest text of the dictionary, which the footer says nothing of.
        at_once = min(at_once, MOST_EXPANSION // max(1, _page_size(raw, chunk.dictionary_page_offset)))
    return min(max(1, at_once), ROWS_AT_ONCE)


def _page_size(raw: Any, place: int) -> int:
    """How large a page is when unpacked: the second field of its header, in Thrift's compact protocol."""
    raw.seek(place)
    header = io.BytesIO(raw.read(32))
    values = []
    for _ in range(2):
        field_and_type, value, shift = header.read(1), 0, 0
        if field_and_type != b"\x15":
            raise OSError("a page has no header")
        while (byte := header.read(1)[0]) & 0x80:
            value, shift = value | (byte & 0x7F) << shift, shift + 7
        value |= byte << shift
        values.append(value >> 1)
    return values[1]


def _unreadable(file: str, problem: str) -> str:
    return (
        f"{file}: cannot be read to its end ({problem}); the file is truncated, damaged or not what its name says: "
        "fetch it again"
    )
