"""Addresses of the viewer's pages, for whoever wants to lead a person to a row.

    links.table("completions", "echo")
    links.row("completions", "echo", {"document_id": "358d3384bf78e2ce"})
    links.pair("358d3384bf78e2ce")
    links.question("mt_bench", "81", "pico", "pico.local.lora")
    links.failing("completions", "echo", "few_are_truncated")

They are paths below the server of `nift ui` or `nift look`. A row is named by the values of the columns that its
contract says are unique, so the address is good for every later version of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, urlencode

from nift_assets.pages.viewer.conditions import Condition, Query

ROOT = "/study/look"
# In the place of a partition, of a table without any: no row of a study is called so.
WHOLE = "-"


def home() -> str:
    """What there is to read."""
    return ROOT


def table(name: str, partition: str | None = None, query: Query | None = None) -> str:
    """The rows of a table, or of one partition of it, that a query chooses."""
    return _address("tables", name, *([partition] if partition else []), query=query)


def row(name: str, partition: str | None, key: Mapping[str, object]) -> str:
    """One row, whole: that whose columns have the values of the key."""
    return _address("rows", name, partition or WHOLE) + "?" + urlencode(_conditions(key))


def numbered_row(name: str, partition: str | None, number: int, version: str) -> str:
    """One row of a table whose rows nothing names: its place in the file, and the version of the file that is meant."""
    return _address("rows", name, partition or WHOLE) + "?" + urlencode({"row": number, "version": version})


def pairs(query: Query | None = None) -> str:
    """Documents with what each teacher made of them."""
    return _address("pairs", query=query)


def pair(document_id: str) -> str:
    """One document: its first half, its second half, and each teacher's completion beside it."""
    return _address("pairs", document_id)


def answers(benchmark: str, first: str | None = None, second: str | None = None) -> str:
    """The questions of a benchmark with the answers of one model or two."""
    return _address("answers", benchmark) + _models(first, second)


def question(benchmark: str, question: str, first: str | None = None, second: str | None = None) -> str:
    """One question: what one model or two answer, and what the judge said of it."""
    return _address("answers", benchmark, question) + _models(first, second)


def rejects() -> str:
    """The tables of what was left out, each with its reasons."""
    return _address("rejects")


def failing(name: str | None = None, partition: str | None = None, test: str | None = None) -> str:
    """The rows that a test of a table refused; without a name the list of all such tests."""
    if name is None or test is None:
        return _address("failing")
    return _address("failing", name, partition or WHOLE, test)


def reviews() -> str:
    """Where a person's verdict is sent, as JSON."""
    return _address("reviews")


def _models(first: str | None, second: str | None) -> str:
    named = {name: model for name, model in (("a", first), ("b", second)) if model}
    return "?" + urlencode(named) if named else ""


def _conditions(key: Mapping[str, object]) -> list[tuple[str, str]]:
    conditions = [Condition(column, "is", "" if value is None else str(value)) for column, value in key.items()]
    return Query(conditions=tuple(conditions)).parameters()


def _address(*parts: str, query: Query | None = None) -> str:
    asked = query.parameters() if query else []
    return "/".join([ROOT, *(_part(part) for part in parts)]) + ("?" + urlencode(asked) if asked else "")


def _part(text: str) -> str:
    """A part of a path; browsers take `.` and `..` for folders, however they are written."""
    return f"~{text}" if set(text) <= {"."} or text.startswith("~") else quote(text, safe="~")


def part_of(text: str) -> str:
    """What a part of a path stands for."""
    return text.removeprefix("~")
