"""Reading instruction data that others have published: pinned, checked and as prompt/response pairs.

The paper trains on it for comparison, with the same command as on its own data: an Alpaca row is its instruction, a
line break and its input, without Alpaca's preamble.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets.rows import ReferenceSet, digest
from nift_training import json_objects, large_files
from nift_training.artifacts import sha256
from nift_training.messages import one_line

HUB = "hf://datasets/"

# What is fetched is somebody else's file: these are refused before they are unpacked. The largest set of the paper has
# 300,000 rows in three files of 190 MB.
MOST_FILE_BYTES = 2 * 2**30
MOST_JSON_BYTES = 128 * 2**20
MOST_FOOTER_BYTES = 16 * 2**20
MOST_COLUMNS = 1_000
MOST_TEXT_BYTES = 8 * 2**30
MOST_TIMES_LARGER = 100
SMALL = 64 * 2**20
ROWS_AT_A_TIME = 64
TOO_LARGE = "{file} unpacks to more than {most:,} bytes; this is no table of texts"


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that was read: its name, its size and the sha256 of its bytes."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PublishedPairs:
    """The rows of a reference set, the files they are from, and the commit these are of; None for a local folder."""

    rows: pl.DataFrame
    files: tuple[SourceFile, ...]
    commit: str | None


def read(reference: ReferenceSet) -> PublishedPairs:
    """One row per published pair, in the order of the files and their rows; ValueError where it is not what is pinned.

    Columns: `source`, `row_id` (stable, since files and revision are pinned), `row`, `document_id` (of prompt and
    response together), `prompt` and `response`, which may be empty.
    """
    folder, commit = _folder(reference)
    paths = sorted(path for path in folder.glob(reference.file) if path.is_file())
    if not paths:
        raise ValueError(f"reference set {reference.name!r}: {folder} has no file {reference.file}; mend the row")
    files = tuple(_described(path) for path in paths)
    if reference.sha256 is not None and [file.sha256 for file in files] != [reference.sha256]:
        digests = ", ".join(file.sha256 for file in files)
        raise ValueError(
            f"reference set {reference.name!r}: {reference.file} has the sha256 {digests}, not {reference.sha256}; "
            "fetch it again, or pin what you mean"
        )
    pairs = [pair for path in paths for pair in _pairs(path, reference.layout)]
    if reference.rows is not None and len(pairs) != reference.rows:
        raise ValueError(
            f"reference set {reference.name!r}: {reference.file} has {len(pairs):,} rows, not the {reference.rows:,} "
            "of the study; mend the row or the file"
        )
    return PublishedPairs(rows=_frame(reference.name, pairs), files=files, commit=commit)


def fingerprint(reference: ReferenceSet) -> str | None:
    """A digest of the files of a local folder, None for the Hub's, which the revision pins."""
    if reference.location.startswith(HUB):
        return None
    return digest([[path.name, sha256(path)] for path in sorted(Path(reference.location).glob(reference.file))])


def _folder(reference: ReferenceSet) -> tuple[Path, str | None]:
    """Where the files lie, and of which commit they are; those of the Hub are fetched once and kept in its cache."""
    if not reference.location.startswith(HUB):
        return Path(reference.location), None
    from huggingface_hub import snapshot_download

    repository = reference.location.removeprefix(HUB)
    try:
        # Its folder is named after the commit, whatever the revision was called.
        folder = snapshot_download(
            repository, repo_type="dataset", revision=reference.revision, allow_patterns=reference.file
        )
    except (OSError, ValueError) as error:  # all errors of the Hub's client are one or the other
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"reference set {reference.name!r} cannot be fetched from {reference.location} at {reference.revision} "
            f"({type(error).__name__}: {reason}); allow this machine to reach the Hub once (is HF_HUB_OFFLINE set?), "
            f"or put {reference.file} into a folder and name that as the row's location"
        ) from error
    return Path(folder), Path(folder).name


def _described(path: Path) -> SourceFile:
    size = path.stat().st_size
    if size > MOST_FILE_BYTES:
        raise ValueError(f"{path.name} has {size:,} bytes, more than the {MOST_FILE_BYTES:,} that are read; split it")
    return SourceFile(name=path.name, bytes=size, sha256=sha256(path))


TextPair = tuple[str, str]


def _pairs(path: Path, layout: str) -> Iterator[TextPair]:
    columns, pair = LAYOUTS[layout]
    rows = _parquet(path, columns) if path.suffix == ".parquet" else _json(path)
    read, most = 0, _most(path)
    for number, row in enumerate(rows):
        try:
            prompt, response = pair(row)
            read += len((prompt + response).encode())
        except (KeyError, TypeError, ValueError, UnicodeEncodeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path.name}, row {number}: this is no row of the layout {layout!r} ({reason})") from None
        if read > most:
            raise ValueError(TOO_LARGE.format(file=path.name, most=most))
        yield prompt, response


def _most(path: Path) -> int:
    """How much text a file of this size may hold; a value that a thousand rows share takes the room of one."""
    return min(MOST_TEXT_BYTES, max(SMALL, MOST_TIMES_LARGER * path.stat().st_size))


def _alpaca(row: Mapping[str, Any]) -> TextPair:
    """The instruction, with the input on a line of its own where there is one, and the output."""
    parts = [_text(row, "instruction"), _text(row, "input") if row.get("input") is not None else ""]
    return "\n".join(part for part in parts if part), _text(row, "output")


def _conversation(row: Mapping[str, Any]) -> TextPair:
    """The first exchange of a conversation in ShareGPT's form, as in MAGPIE's files."""
    messages = row["conversations"]
    if not isinstance(messages, list) or [message["from"] for message in messages[:2]] != ["human", "gpt"]:
        raise ValueError("a conversation begins with a message from `human` and one from `gpt`")
    return _text(messages[0], "value"), _text(messages[1], "value")


LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], TextPair]]] = {
    "alpaca": (("instruction", "input", "output"), _alpaca),
    "conversations": (("conversations",), _conversation),
    "pairs": (("prompt", "response"), lambda row: (_text(row, "prompt"), _text(row, "response"))),
}


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {type(value).__name__}, not a text")
    return value


def _json(path: Path) -> Iterable[Mapping[str, Any]]:
    """The objects of a file that is one JSON list, or has one JSON object per line."""
    if path.stat().st_size > MOST_JSON_BYTES:
        raise ValueError(
            f"{path.name} has {path.stat().st_size:,} bytes, more JSON than the {MOST_JSON_BYTES:,} that are read at "
            "once; make it Parquet"
        )
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        if content.lstrip().startswith(b"["):
            rows: list[dict[str, Any]] = json.loads(content.decode())
        else:
            rows = [row for _, row in json_objects.read(content.split(b"\n"), path.name)]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON that can be read ({error}); mend the file") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(
                f"{path.name}, row {number}: expected an object, found {type(row).__name__}; mend the file"
            )
    return rows


def _parquet(path: Path, columns: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The rows of a Parquet file, unpacked a few at a time: what is small on the disk need not be small in memory."""
    from pyarrow import ArrowException, parquet

    _refuse_wide_footer(path)
    try:
        file = parquet.ParquetFile(path)
        metadata = file.metadata
        if metadata.num_columns > MOST_COLUMNS:
            raise ValueError(f"{path.name} has {metadata.num_columns:,} columns; keep {', '.join(columns)} alone")
        names = file.schema_arrow.names
        if twice := [name for name in columns if names.count(name) > 1]:
            raise ValueError(f"{path.name} has {names.count(twice[0])} columns {twice[0]!r}; write it again with one")
        if missing := set(columns) - set(names) - {"input"}:
            raise ValueError(f"{path.name} has no column {', '.join(sorted(missing))}; choose its layout anew")
        wanted = [name for name in columns if name in names]
        unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        if unpacked > _most(path):
            raise ValueError(TOO_LARGE.format(file=path.name, most=_most(path)))
        for batch in file.iter_batches(ROWS_AT_A_TIME, columns=wanted):
            yield from batch.to_pylist()
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no Parquet that can be read ({one_line(error)}); fetch it again") from None


def _refuse_wide_footer(path: Path) -> None:
    """A footer describes every column and is read whole: of a million columns it is most of the file. Another file has
    none."""
    with path.open("rb") as file:
        if large_files.is_pointer(file.read(len(large_files.POINTER))):
            raise ValueError(f"{path.name} {large_files.REMEDY}")
        file.seek(max(0, path.stat().st_size - 8))
        footer = int.from_bytes(file.read(8)[:4], "little")
    if footer > MOST_FOOTER_BYTES:
        raise ValueError(f"{path.name} has a footer of {footer:,} bytes; keep the columns that are needed alone")


def _frame(source: str, pairs: list[TextPair]) -> pl.DataFrame:
    numbers = range(len(pairs))
    return pl.DataFrame(
        {
            "source": [source] * len(pairs),
            "row_id": [f"{source}-{number}" for number in numbers],
            "row": list(numbers),
            "document_id": [
                hashlib.sha256((prompt + response).encode()).hexdigest()[:32] for prompt, response in pairs
            ],
            "prompt": [prompt for prompt, _ in pairs],
            "response": [response for _, response in pairs],
        },
        schema_overrides={"row": pl.Int64},
    )
