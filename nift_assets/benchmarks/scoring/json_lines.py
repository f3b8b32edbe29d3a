"""Reading other tools' files: one JSON object per line, whatever vintage and whoever wrote it.

Files are read line by line; what a line cannot be is said with its file and number.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nift_training import json_objects

JsonObject = Mapping[str, Any]

# A whole number of more than these, no column of a table can hold.
MOST_DIGITS = 18
JUDGE = re.compile(r"""[(\[]["']([^"']+)["']""")


def lines(paths: Sequence[Path]) -> Iterator[tuple[int, Path, int, dict[str, Any]]]:
    """Every JSON object of the files, with the number of its file, the file and the line; of a folder its `.jsonl`.

    Lines are read one at a time. A file that is one JSON array of objects is read as well, at once.
    """
    for source, path in enumerate(files(paths)):
        for number, row in _array(path) if _begins(path).startswith(b"[") else _objects(path):
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number} is not a JSON object; write one object per line")
            yield source, path, number, row


def files(paths: Sequence[Path], ending: str = ".jsonl") -> list[Path]:
    """The files themselves, and those of the folders among them, by name; what is hidden in a folder is left out."""
    result: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} does not exist; name a file, or a folder of {ending} files")
        below = path.rglob(f"*{ending}") if path.is_dir() else ()
        inside = sorted(p for p in below if p.is_file() and not _hidden(p, path)) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} has no {ending} file; name the folder that has them")
        result += inside
    return result


def identity(value: Any) -> str:
    """A question's id as one text, whether a file has it as 81, "81" or, after pandas, 81.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def require(row: JsonObject, names: Iterable[str], path: Path, number: int) -> None:
    """ValueError for a line that lacks one of the names; a score may be null."""
    if missing := [name for name in names if row.get(name) is None and not (name == "score" and name in row)]:
        raise ValueError(f"{path} line {number} lacks {', '.join(missing)}; give a file in the published layout")


def judge_of(value: Any, otherwise: str = "?") -> str:
    """The judge's name: a text, or FastChat's pair of it and the name of the prompt, also where that became a text."""
    if isinstance(value, str) and (pair := JUDGE.match(value)):
        return pair[1]
    return str((value[0] if isinstance(value, list) and value else value) or otherwise)


def number_of(value: Any) -> float | None:
    """A number, None for anything else, and for a whole one larger than any that is calculated with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if isinstance(value, float) or abs(value) <= sys.float_info.max else None


def integer_of(value: Any) -> int | None:
    """A whole number, also where it is written as 5.0 or "5"."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= MOST_DIGITS:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        return None
    return int(value) if abs(value) < 10**MOST_DIGITS else None


def text_of(value: Any) -> str | None:
    """A text, None for anything else."""
    return value if isinstance(value, str) else None


def content_of(value: Any) -> str | None:
    """The text of a turn or a judgment: plain, or under `content` or `answer`, or a list of messages."""
    if isinstance(value, list):
        return "\n".join(text for part in value if (text := content_of(part)) is not None)
    if isinstance(value, dict):
        return next((text for name in ("answer", "content", "text") if (text := content_of(value.get(name)))), None)
    return text_of(value)


def mapping_of(content: JsonObject, *names: str) -> JsonObject:
    """What lies below the names; nothing where that is no mapping."""
    value: Any = content
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        yield from json_objects.read(file, path)


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(json.loads(path.read_bytes()), start=1)
    except (ValueError, RecursionError) as mistake:
        raise ValueError(f"{path} is not JSON ({mistake}); repair it or leave it out") from None


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
