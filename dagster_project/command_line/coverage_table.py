"""The coverage of a study's tables as text for a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from nift_assets.near_names import near
from nift_assets.steps.coverage import CellCoverage, CellState

STATES: tuple[CellState, ...] = get_args(CellState)
MARKS: dict[CellState, str] = {"present": "✓", "stale": "~", "missing": "·", "impossible": "✗"}


def chosen(cells: Sequence[CellCoverage], tables: Sequence[str], states: Sequence[str] = ()) -> list[CellCoverage]:
    """The cells of these tables and states, or of all. Raises ValueError for a table that no cell is of."""
    names = list(dict.fromkeys(cell.table for cell in cells))
    for table in tables:
        if table not in names:
            raise ValueError(f"no cell of the study is of {table!r}; there are {', '.join(names)}{near(table, names)}")
    return [cell for cell in cells if (not tables or cell.table in tables) and (not states or cell.state in states)]


def as_json(cells: Sequence[CellCoverage]) -> dict[str, Any]:
    """The counts of all, of each table and of what is in the way, and every cell."""
    return {
        "totals": _totals(cells),
        "tables": _counts(cells),
        "in_the_way": [{"why": why, "cells": _totals(blocked)} for why, blocked in _in_the_way(cells)],
        "cells": [asdict(cell) for cell in cells],
    }


def render(cells: Sequence[CellCoverage]) -> str:
    """A paragraph per table: its counts, then a line per cell with its mark, price, and what is to be done. What is in
    the way of how many cells, and the counts of all, come last."""
    if not cells:
        return "The study has no row that fills a cell of the paper's tables."
    lines: list[str] = []
    for table, counts in _counts(cells).items():
        lines += [f"{table}: {_summary(counts)}", *(_line(cell) for cell in cells if cell.table == table), ""]
    if in_the_way := _in_the_way(cells):
        blocks = [f"  {why}: {_summary(_totals(blocked))}" for why, blocked in in_the_way]
        lines += ["In the way of these cells:", *blocks, ""]
    lines += [f"All {len(cells):,} cells: {_summary(_totals(cells)) or 'none'}", ""]
    marks = ", ".join(f"{mark} {state}" for state, mark in MARKS.items())
    return "\n".join([*lines, f"{marks}. USD at list price; cells that need the same teacher each name its price."])


def _summary(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[state]:,} {state}" for state in STATES if counts[state])


def _totals(cells: Sequence[CellCoverage]) -> dict[str, int]:
    counts = Counter(cell.state for cell in cells)
    return {state: counts[state] for state in STATES}


def _in_the_way(cells: Sequence[CellCoverage]) -> list[tuple[str, list[CellCoverage]]]:
    """The cells that are not present by what is in their way, that of the most cells first."""
    blocked: dict[str, list[CellCoverage]] = {}
    for cell in cells:
        if cell.why:
            blocked.setdefault(cell.why, []).append(cell)
    return sorted(blocked.items(), key=lambda item: -len(item[1]))


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
