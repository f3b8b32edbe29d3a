"""Which rows a person wants to see: conditions on columns, a text to find, an order, a random sample."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# What a condition may say, and how a page puts it.
RELATIONS = {
    "is": "is",
    "is-not": "is not",
    "contains": "contains",
    "lacks": "does not contain",
    "begins": "begins with",
    "above": "above",
    "below": "below",
    "empty": "is empty",
    "filled": "is not empty",
}
WITHOUT_VALUE = ("empty", "filled")
NEGATIONS = {"is-not": "is", "lacks": "contains", "empty": "filled"}
NUMBERS = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*")
TEXT_TYPES = ("VARCHAR", "VARCHAR[]")
# A text is sorted by its beginning.
CHARACTERS_SORTED = 100
MOST_CONDITIONS = 20
LONGEST_VALUE = 1_000
MOST_SAMPLED = 10_000


@dataclass(frozen=True)
class Condition:
    """What must be true of one column."""

    column: str
    relation: str
    value: str = ""


@dataclass(frozen=True)
class Query:
    """Which rows, in which order; as the parameters of an address, and back. A sample is drawn from what is chosen."""

    search: str = ""
    conditions: tuple[Condition, ...] = ()
    sort: str = ""
    descending: bool = False
    sample: int | None = None
    seed: int = 0

    def parameters(self) -> list[tuple[str, str]]:
        """The query as it stands in an address, which is the same for equal queries."""
        told = [("search", self.search)] if self.search else []
        for condition in self.conditions:
            told += [("column", condition.column), ("relation", condition.relation), ("value", condition.value)]
        if self.sort:
            told += [("sort", self.sort)] + ([("order", "down")] if self.descending else [])
        if self.sample is not None:
            told += [("sample", str(self.sample)), ("seed", str(self.seed))]
        return told

    def without(self, condition: Condition) -> Query:
        return replace(self, conditions=tuple(each for each in self.conditions if each != condition))

    def sorted_by(self, column: str) -> Query:
        """Sorted by a column, and the other way round if it is already."""
        return replace(self, sort=column, descending=self.sort == column and not self.descending)

    @property
    def is_plain(self) -> bool:
        """Whether it says nothing at all."""
        return self == Query(seed=self.seed)

    @property
    def is_all(self) -> bool:
        return not self.search and not self.conditions


def parse(parameters: Iterable[tuple[str, str]]) -> Query:
    """The query that an address holds. ValueError with the remedy for what is none."""
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        given.setdefault(name, []).append(value)
    columns, relations, values = (given.get(name, []) for name in ("column", "relation", "value"))
    if not len(columns) == len(relations) == len(values) <= MOST_CONDITIONS:
        raise ValueError(
            f"a filter has a column, a relation and a value, and there are {MOST_CONDITIONS} at most; this address has "
            f"{len(columns)}, {len(relations)} and {len(values)}"
        )
    # The form has a line for one more condition, which is empty where none is wanted.
    conditions = [Condition(*each) for each in zip(columns, relations, values, strict=True) if each[0]]
    for condition in conditions:
        if condition.relation not in RELATIONS:
            raise ValueError(f"there is no filter {condition.relation!r:.60}; use one of {', '.join(RELATIONS)}")
    search = _one(given, "search")
    if too_long := [text for text in (search, *values) if len(text) > LONGEST_VALUE]:
        raise ValueError(f"a text to find has {LONGEST_VALUE} characters at most; this one has {len(too_long[0]):,}")
    return Query(
        search=search,
        conditions=tuple(dict.fromkeys(conditions)),
        sort=_one(given, "sort"),
        descending=_one(given, "order") == "down",
        sample=_number(given, "sample", least=1, most=MOST_SAMPLED) if _one(given, "sample") else None,
        seed=_number(given, "seed", least=0, most=2**63 - 1) if _one(given, "seed") else 0,
    )


def _one(given: Mapping[str, Sequence[str]], name: str) -> str:
    return next((value for value in given.get(name, ()) if value.strip()), "")


def _number(given: Mapping[str, Sequence[str]], name: str, *, least: int, most: int) -> int:
    text = _one(given, name).strip()
    if not re.fullmatch("[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise ValueError(f"{name} is a whole number from {least} to {most:,}, not {text!r:.60}")
    return int(text)


def condition_sql(condition: Condition, types: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A condition as SQL over a table with columns of these types, and the values it takes. ValueError for a column
    that is not there, and for a value that cannot be one of its."""
    if condition.column not in types:
        raise ValueError(f"there is no column {condition.column!r:.80} here; there are {', '.join(types)}")
    column, kind = quoted(condition.column), types[condition.column]
    if positive := NEGATIONS.get(condition.relation):
        sql, values = condition_sql(replace(condition, relation=positive), types)
        return f"not coalesce({sql}, false)", values
    if condition.relation == "filled":
        return f"{column}::varchar <> ''", []
    if condition.relation == "contains":
        return f"regexp_matches({column}::varchar, ?, 'i')", [pattern(condition.value)]
    if condition.relation == "begins":
        return f"starts_with({column}::varchar, ?)", [condition.value]
    sign = {"is": "=", "above": ">", "below": "<"}[condition.relation]
    if NUMBERS.fullmatch(kind):
        return f"{column} {sign} ?", [_as_number(condition)]
    return f"{column}::varchar {sign} ?", [condition.value]


def search_sql(search: str, types: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A text anywhere in the texts of a row, whatever its case and however its accents are written, as SQL."""
    texts = [quoted(name) for name, kind in types.items() if kind in TEXT_TYPES]
    if not texts:
        return "false", []
    found = [f"regexp_matches({column}::varchar, ?, 'i')" for column in texts]
    return "(" + " or ".join(found) + ")", [pattern(search)] * len(texts)


def sort_sql(column: str, types: Mapping[str, str]) -> str:
    if column not in types:
        raise ValueError(f"there is no column {column!r:.80} to sort by; there are {', '.join(types)}")
    return f"left({quoted(column)}, {CHARACTERS_SORTED})" if types[column] == "VARCHAR" else quoted(column)


def pattern(text: str) -> str:
    """A text as a regular expression that DuckDB and Python read alike; precomposed letters and those with their
    accents behind them are the same."""
    return "|".join(re.sub(r"([!-/:-@\[-^`{-~])", r"\\\1", form) for form in forms(text))


def forms(text: str) -> list[str]:
    """A text as it is, with precomposed letters, and with their accents behind them; each once."""
    return list(dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD")))))


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _as_number(condition: Condition) -> int | float:
    text = condition.value.strip().replace("−", "-")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{condition.column} is a number, and {condition.value!r:.60} is none")
