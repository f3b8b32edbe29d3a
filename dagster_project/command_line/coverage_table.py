"""The coverage of a study's tables as text for a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

from nift_assets.steps.coverage import CellCoverage, CellState

STATES: tuple[CellState, ...] = get_args(CellState)
MARKS: dict[CellState, str] = {"present": "✓", "stale": "~", "missing": "·", "impossible": "✗"}


def chosen(cells: Sequence[CellCoverage], tables: Sequence[str]) -> list[CellCoverage]:
    """The cells of these tables, or of all. Raises ValueError for a table that no cell is of."""
    names = list(dict.fromkeys(cell.table for cell in cells))
    for table in tables:
        if table not in names:
            raise ValueError(f"no cell of the study is of {table!r}; there are {', '.join(names)}")
    return [cell for cell in cells if not tables or cell.table in tables]


def as_json(cells: Sequence[CellCoverage]) -> dict[str, Any]:
    """The counts of each table, and every cell."""
    return {"tables": _counts(cells), "cells": [asdict(cell) for cell in cells]}


def render(cells: Sequence[CellCoverage]) -> str:
    """A paragraph per table: its counts, then a line per cell with its mark, price, and what is to be done."""
    if not cells:
        return "The study has no row that fills a cell of the paper's tables."
    lines: list[str] = []
    for table, counts in _counts(cells).items():
        summary = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
        lines += [f"{table}: {summary}", *(_line(cell) for cell in cells if cell.table == table), ""]
    marks = ", ".join(f"{mark} {state}" for state, mark in MARKS.items())
    return "\n".join([*lines, f"{marks}. USD at list price; cells that need the same teacher each name its price."])


def _counts(cells: Sequence[CellCoverage]) -> dict[str, dict[str, int]]:
    tables: dict[str, Counter[str]] = {}
    for cell in cells:
        tables.setdefault(cell.table, Counter())[cell.state] += 1
    return {table: {state: counts[state] for state in STATES} for table, counts in tables.items()}


def _line(cell: CellCoverage) -> str:
    head = f"  {MARKS[cell.state]} {cell.name} {cell.benchmark}"
    if cell.command is None:
        return f"{head}: {cell.why}" if cell.why else head
    price = "of unknown price" if cell.usd is None else f"${cell.usd:,.2f}" if cell.usd else "free"
    return f"{head}: {cell.why}; {price}: {cell.command}"
