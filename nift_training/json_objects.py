"""JSON objects in files, one per line or one per file, whoever wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nift_training import large_files


class NotAnObject(ValueError):
    """A line is JSON, but another kind of value than an object."""


def parse(line: bytes | str) -> dict[str, Any]:
    """The JSON object in a line. ValueError for what is none, UnicodeDecodeError for a line in another encoding."""
    try:
        value = json.loads(line)
    except RecursionError as mistake:
        raise ValueError(str(mistake)) from None
    if not isinstance(value, dict):
        raise NotAnObject(f"found {type(value).__name__}")
    return value


def is_text(value: object) -> bool:
    """Whether it is a text; half of a surrogate pair, which JSON can say, is none that anybody could read or write."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def of_file(path: Path) -> dict[str, Any]:
    """The JSON object that a whole file is; ValueError names a file that is none."""
    return _named(path.read_bytes(), path, whole="download it again", repair="download it again, or repair it")


def read(lines: Iterable[bytes], where: object) -> Iterator[tuple[int, dict[str, Any]]]:
    """The object of each line that is not blank, with the line's number from 1. ValueError names a line that has none.

    A line ends at a line break alone: a text may hold U+2028, at which `splitlines` would cut an object in two.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{where} line {number}"
            yield number, _named(line, place, whole="write one object per line", repair="repair or remove it")


def lines(values: Iterable[Mapping[str, Any]]) -> str:
    """One object per line, in the letters it is written in; half of a surrogate pair stays as JSON says it."""
    return "".join(_line(value) + "\n" for value in values)


def _line(value: Mapping[str, Any]) -> str:
    line = json.dumps(value, ensure_ascii=False)
    return line if is_text(line) else json.dumps(value)


def _named(content: bytes, place: object, *, whole: str, repair: str) -> dict[str, Any]:
    """The JSON object of a file or line; ValueError with its place, and what to do about another value or none."""
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as mistake:
        raise ValueError(f"{place} is not UTF-8 ({mistake}): save it as UTF-8") from None
    except NotAnObject:
        raise ValueError(f"{place} is not a JSON object: {whole}") from None
    except ValueError as mistake:
        if large_files.is_pointer(content):
            raise ValueError(f"{place} {large_files.REMEDY}") from None
        raise ValueError(f"{place} is not JSON ({mistake}): {repair}") from None
