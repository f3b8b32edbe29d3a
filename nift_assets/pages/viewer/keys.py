"""By which columns a row of a table is told from all others: those that its contract says are unique."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from expectations import contract


def key_columns(table: str) -> tuple[str, ...] | None:
    """The columns of the first promise of a table's contract that no two rows are alike; None without a contract or
    such a promise."""
    try:
        promised = contract.load(table)
    except ValueError:
        return None
    for test in promised.tests:
        if test.kind == "unique":
            return (test.column,) if test.column else tuple(test.arguments["columns"])
    return None


def key_of(table: str, values: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any] | None:
    """What names a row in an address: of the key's columns those that the row has; None where that is not enough."""
    key = key_columns(table)
    if key is None or not set(key) <= set(columns):
        return None
    return {name: values[name] for name in key}
