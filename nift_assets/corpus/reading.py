"""The documents of a corpus file by file, a few at a time, with limits on what a file may unpack to."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

import duckdb

from nift_assets.corpus.folders import READABLE, kind_of
from nift_assets.corpus.locations import files, opened, size_and_mtime
from nift_assets.rows import Corpus
from nift_training import json_objects, large_files
from nift_training.messages import one_line

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

TAB_SEPARATED = re.compile(r"\.tsv(\.[^./]+)?$", re.IGNORECASE)
# What no text has, in the place of what stands between columns where there is one.
NO_SEPARATOR = "\x1f"
# What a file of another encoding may begin with; the longer mark begins with the shorter.
OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}

# What may stand between the items of an array.
BLANKS = re.compile(r"[\s,]*")


def _unpacked_zst(raw: Any) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(_Bytes(raw)), "zstd")


UNPACKED: Mapping[str, Callable[[Any], Any]] = {
    ".gz": lambda raw: gzip.GzipFile(fileobj=raw),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _unpacked_zst,
}

REMEDY = "name a text column with --text-column (make: TEXT=)"

# What JSON calls what Python makes of it.
JSON_NAMES = {bool: "true or false", int: "a number", float: "a number", list: "an array", dict: "an object"}

Reason = Literal["no text", "lone surrogate", "not UTF-8", "not text", "broken row"]
Text = tuple[bytes | None, Reason | None]


class UnreadableFile(ValueError):
    """A file that cannot be read, or not to its end: its own fault, and not that of the corpus."""


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
    """Every document of the corpus, file by file. ValueError names the file, the problem and the remedy; of several
    files one that cannot be read is passed over, as `sample` does."""
    paths, nothing = files(corpus), True
    first: UnreadableFile | None = None
    for file in paths:
        try:
            for batch in batches(file, corpus.text_column):
                for place, text in enumerate(batch.texts):
                    nothing = False
                    yield Document(None if text is None else text.decode(), file, batch.row + place)
        except UnreadableFile as error:
            if len(paths) == 1:
                raise
            first = first or error
    if nothing and first:
        raise first


def batches(file: str, column: str) -> Iterator[TextBatch]:
    """The rows of one file, about a megabyte at a time. ValueError names the file, the problem and the remedy."""
    kind = kind_of(file)
    before = size_and_mtime(file) if "://" in file or os.path.exists(file) else None
    if before and "://" not in file and before[0] == 0 and kind != "text":
        raise UnreadableFile(f"{file}: is empty, not even a header; fetch it again")
    if kind == "text":
        yield _text(file)
    elif kind == "parquet":
        yield from _parquet(file, column)
    elif kind is not None:
        yield from _rows(_json_texts(file, column) if kind == "json" else _csv_texts(file, column))
    else:
        raise UnreadableFile(f"{file}: not a kind of file that can be read; give {READABLE}")
    if size_and_mtime(file) != before:
        raise ValueError(f"{file}: was changed while it was read; sample again when it is whole")


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    """A file of the corpus as it lies there, whatever it is called: git-lfs leaves pointers under the same names."""
    with opened(file) as raw:
        if large_files.is_pointer(raw.read(len(large_files.POINTER))):
            raise UnreadableFile(f"{file}: {large_files.REMEDY}")
        raw.seek(0)
        yield raw


@contextmanager
def _unpacked(file: str) -> Iterator[io.BufferedReader[Any]]:
    """A file as what is in it once it is unpacked, a little at a time, without the mark some editors begin a file with.
    UnreadableFile for what ends or breaks early, and for another encoding that says so."""
    import pyarrow as pa

    name = file.lower()
    try:
        with _opened(file) as raw:
            packed = next((ending for ending in UNPACKED if name.endswith(ending)), None)
            stream = UNPACKED[packed](raw) if packed else raw
            buffered = io.BufferedReader(_Bytes(stream), BYTES_AT_ONCE)
            begin = buffered.peek(4)
            if named := next((name for mark, name in OTHER_ENCODINGS.items() if begin.startswith(mark)), None):
                raise UnreadableFile(f"{file}: is {named}, not UTF-8; convert the file to UTF-8")
            if begin.startswith(codecs.BOM_UTF8):
                buffered.read(len(codecs.BOM_UTF8))
            yield buffered
    except PermissionError as error:
        raise UnreadableFile(f"{file}: cannot be read ({error.strerror}); check its permissions") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException) as error:
        raise _torn(file, one_line(error)) from None


class _Bytes(io.RawIOBase):
    """Anything with `read(size)` as a raw stream: remote files have no other way to read in common."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._source.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


# -- text --------------------------------------------------------------------------------------------------------------


def _text(file: str) -> TextBatch:
    """A text file is one document."""
    with _unpacked(file) as stream:
        content = stream.read(LONGEST_DOCUMENT + 1)
    if len(content) > LONGEST_DOCUMENT:
        raise UnreadableFile(f"{file}: is longer than {LONGEST_DOCUMENT:,} bytes, which no article is; split it")
    try:
        content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{file}: byte {error.start} is not UTF-8 text; convert the file to UTF-8") from None
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


# -- rows of JSON and CSV ----------------------------------------------------------------------------------------------


def _rows(found: Iterable[Text]) -> Iterator[TextBatch]:
    """Texts one by one as batches of them."""
    row, size = 0, 0
    texts: list[bytes | None] = []
    faults: dict[int, Reason] = {}
    for text, fault in found:
        if fault:
            faults[len(texts)] = fault
        texts.append(text)
        size += len(text or b"")
        if size >= BYTES_AT_ONCE or len(texts) == ROWS_AT_ONCE:
            yield TextBatch(row, texts, faults)
            row, size, texts, faults = row + len(texts), 0, [], {}
    yield TextBatch(row, texts, faults)


def _encoded(text: str) -> Text:
    """A text in UTF-8. Bytes of another encoding may have come this far as what Python escapes them to."""
    try:
        return text.encode(), None
    except UnicodeEncodeError:
        try:
            return None, _fault(text.encode("utf-8", "surrogateescape")) or "lone surrogate"
        except UnicodeEncodeError:
            return None, "lone surrogate"


def _json_texts(file: str, column: str) -> Iterator[Text]:
    """The text of each object of a file: one per line, or the items of one array. A row without text, one whose value
    is none and one that is no object are faults of their own; ValueError where no row is better."""
    has_column, has_text, others = False, False, dict[str, None]()
    bad: ValueError | None = None
    for number, line in enumerate(_values(file), start=1):
        place, value = line
        if isinstance(value, UnicodeDecodeError):
            yield None, "not UTF-8"
            continue
        if isinstance(value, ValueError):
            bad = bad or value
            yield None, "broken row"
            continue
        has_column = has_column or column in value
        others |= dict.fromkeys(value) if not has_column else {}
        if number >= ROWS_AT_ONCE:
            _refuse_unknown(file, column, others, has_column)
        text = value.get(column)
        if text is not None and not isinstance(text, str):
            kind = JSON_NAMES[type(text)]
            bad = bad or UnreadableFile(f"{file}: the column {column!r} is {kind} in {place}, not text; {REMEDY}")
            yield None, "not text"
            continue
        has_text = has_text or text is not None
        yield (None, "no text") if text is None else _encoded(text)
    _refuse_unknown(file, column, others, has_column)
    if bad and not has_text:
        raise bad


def _values(file: str) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """The objects of a file of JSON in their order, each with its place in words; a fault in the place of one that is
    none."""
    with _unpacked(file) as stream:
        begin = stream.peek(BYTES_AT_ONCE).lstrip()[:1]
        if begin == b"[":
            yield from _items(file, stream)
            return
        for number, line in _lines(file, stream):
            try:
                yield f"line {number}", json_objects.parse(line)
            except UnicodeDecodeError as error:
                yield f"line {number}", error
            except json_objects.NotAnObject:
                problem = f"{file}: line {number} is no JSON object; give one object per line"
                yield f"line {number}", UnreadableFile(problem)
            except ValueError as error:
                torn = _torn(file, f"line {number}: {one_line(error)}")
                if not line.endswith(b"\n"):  # the file ends in the middle of a row
                    raise torn from None
                yield f"line {number}", torn


def _items(file: str, stream: io.BufferedReader) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """The items of one JSON array, read a little at a time."""
    decoder, decode = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text, at, number, ended = "", 0, 0, False

    def more() -> bool:
        nonlocal text, at, ended
        content = stream.read(max(BYTES_AT_ONCE, len(text) - at))
        ended = not content
        text, at = text[at:] + decode(content, ended), 0
        if len(text) > LONGEST_DOCUMENT:
            raise UnreadableFile(f"{file}: item {number + 1} is longer than any article is; give one object per line")
        return not ended

    more()
    at = text.index("[") + 1
    while True:
        while (at := BLANKS.match(text, at).end()) == len(text):  # type: ignore[union-attr]
            if not more():
                raise _torn(file, f"its array ends behind item {number}")
        if text[at] == "]":
            if text[at + 1 :].strip() or any(map(bytes.strip, iter(lambda: stream.read(BYTES_AT_ONCE), b""))):
                raise UnreadableFile(f"{file}: goes on behind its array; give one array, or one object per line")
            return
        while True:
            try:
                value, stop = decoder.raw_decode(text, at)
            except RecursionError as error:
                raise _torn(file, f"item {number + 1}: {one_line(error)}") from None
            except ValueError as error:
                if ended:
                    raise _torn(file, f"item {number + 1}: {one_line(error)}") from None
            else:
                # A number at the end of what is there may go on.
                if stop < len(text) or ended:
                    break
            more()
        at, number = stop, number + 1
        if isinstance(value, dict):
            yield f"item {number}", value
        else:
            yield f"item {number}", UnreadableFile(f"{file}: item {number} is no JSON object; give an array of objects")


def _refuse_columns(file: str, column: str, names: Sequence[str]) -> None:
    if column not in names:
        raise UnreadableFile(f"{file}: there is no column {column!r}, but {_named(names)}; {REMEDY}")
    if (times := names.count(column)) > 1:
        raise UnreadableFile(f"{file}: there are {times} columns {column!r}; write it again with one of them")


def _named(names: Sequence[str]) -> str:
    return one_line(", ".join(names[:20])) or "none"


def _refuse_unknown(file: str, column: str, others: Iterable[str], has_column: bool) -> None:
    if others and not has_column:
        raise UnreadableFile(f"{file}: there is no column {column!r}, but {_named([*others])}; {REMEDY}")


def _lines(file: str, stream: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1; none is read further than a document may be long."""
    for number in itertools.count(1):
        line = stream.readline(LONGEST_DOCUMENT + 1)
        if not line:
            return
        if len(line) > LONGEST_DOCUMENT:
            raise UnreadableFile(
                f"{file}: line {number} is longer than {LONGEST_DOCUMENT:,} bytes, which no article is; give one JSON "
                "object per line"
            )
        if not line.isspace():
            yield number, line


def _csv_texts(file: str, column: str) -> Iterator[Text]:
    """The text of each row of a file of separated values with a header; a row of another number of fields is broken."""
    csv.field_size_limit(LONGEST_DOCUMENT)
    with _unpacked(file) as stream:
        lines = io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="")
        try:
            first = lines.readline(LONGEST_DOCUMENT)
            if "\0" in first or _encoded(first)[1]:
                raise UnreadableFile(f"{file}: its header is not UTF-8 text; convert the file to UTF-8")
            header, separator = _header(file, first, column)
            _refuse_columns(file, column, header)
            place = header.index(column)
            for fields in csv.reader(lines, delimiter=separator, strict=True):
                if fields:
                    yield _encoded(fields[place]) if len(fields) == len(header) else (None, "broken row")
        except csv.Error as error:
            raise _torn(file, one_line(error)) from None
        finally:
            lines.detach()


def _header(file: str, line: str, column: str) -> tuple[list[str], str]:
    """The columns that a first line names, and what stands between them: that by which the wanted one is among them.

    In a file of one column nothing does, so that the commas in its texts are theirs.
    """
    separators = "\t,;|" if TAB_SEPARATED.search(file) else ",;\t|"
    split = [(next(csv.reader([line], delimiter=separator), []), separator) for separator in separators]
    found, separator = next((each for each in split if column in each[0]), max(split, key=lambda each: len(each[0])))
    return found, separator if len(found) > 1 else NO_SEPARATOR


# -- Parquet -----------------------------------------------------------------------------------------------------------


def _parquet(file: str, column: str) -> Iterator[TextBatch]:
    """The rows of a Parquet file page by page; one that would unpack to too much is refused by its footer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with _opened(file) as raw:
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
                raise _torn(file, f"{row} of {table.metadata.num_rows} rows are there")
    except (pa.ArrowException, OSError) as error:
        raise _torn(file, one_line(error)) from None


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

    _refuse_columns(file, column, schema.names)
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (
        pa.types.is_null(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
    ):
        # By the name it has in SQL, as everywhere else.
        with duckdb.connect() as connection:
            sql_type = connection.from_arrow(pa.schema([pa.field("c", kind)]).empty_table()).types[0]
        raise UnreadableFile(f"{file}: the column {column!r} is {sql_type}, not text; {REMEDY}")


def _refuse_large_footer(file: str, raw: Any) -> None:
    raw.seek(-8, os.SEEK_END)
    size, magic = struct.unpack("<I4s", raw.read(8))
    if magic == b"PAR1" and size > LARGEST_FOOTER:
        raise UnreadableFile(
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
        raise UnreadableFile(
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


def _torn(file: str, problem: str) -> UnreadableFile:
    return UnreadableFile(
        f"{file}: cannot be read to its end ({problem}); the file is truncated, damaged or not what its name says: "
        "fetch it again"
    )
