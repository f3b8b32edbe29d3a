"""The paper's tables as they are laid out on the page: which rows, which columns, and what stands in each place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any

import polars as pl

from nift_assets import benchmarks

CellRow = Mapping[str, Any]

# Beside one another three numbers each of two columns fit on paper, of more they stand below one another.
MOST_BESIDE = 2


@dataclass(frozen=True, kw_only=True)
class SheetCell:
    """What stands in one place of a table: ours, the paper's, the difference, the letters of their notes, and the
    address of the answers that are scored."""

    score: float | None
    low: float | None
    high: float | None
    paper: float | None
    difference: float | None
    outside: bool | None
    complete: bool | None
    gain: float | None = None
    p: float | None = None
    marks: str = ""
    paper_marks: str = ""
    answers: str | None = None


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A row of a table: what it is called, what it is, and a place per column, None where no cell of the study is."""

    label: str
    about: str
    id: int | None
    places: Sequence[SheetCell | None]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of the paper as it stands on the page."""

    table: str
    title: str
    about: str
    heads: Sequence[str]
    lines: Sequence[SheetRow]
    notes: Sequence[tuple[str, str]]

    @property
    def anchor(self) -> str:
        return self.table.replace("_", "-")

    @property
    def short(self) -> str:
        """The title without what the table is about."""
        return self.title.partition(":")[0]

    @property
    def has_ids(self) -> bool:
        return any(line.id is not None for line in self.lines)

    @property
    def stacked(self) -> bool:
        return len(self.heads) > MOST_BESIDE


@dataclass(frozen=True, kw_only=True)
class SheetLayout:
    """How the rows of a table become lines: what a line is called and tells, what its columns are, and on which
    benchmark all its cells are scores where the rows do not say."""

    title: str
    about: str
    label: Callable[[CellRow], str]
    tells: Callable[[CellRow], str]
    column: Callable[[CellRow], str]
    benchmark: str | None = None


# Where the answers of a model to a benchmark can be read, if they can.
AnswersAt = Callable[[str, str], str | None]


def sheets(frames: Mapping[str, pl.DataFrame], answers_at: AnswersAt = lambda model, benchmark: None) -> list[Sheet]:
    """The tables that have rows, in the paper's order."""
    return [
        _sheet(table, layout, _cells(table, frames[table]), answers_at)
        for table, layout in LAYOUTS.items()
        if frames[table].height
    ]


def _sheet(table: str, layout: SheetLayout, cells: Sequence[CellRow], answers_at: AnswersAt) -> Sheet:
    heads = list(dict.fromkeys(layout.column(cell) for cell in cells))
    notes = lettered(note for cell in cells for note in (cell["note"], _quotation(cell)))
    lines: list[tuple[CellRow, list[SheetCell | None]]] = []
    for cell in cells:
        key = (layout.label(cell), layout.tells(cell))
        column = heads.index(layout.column(cell))
        fitting = [p for row, p in lines if (layout.label(row), layout.tells(row)) == key and p[column] is None]
        if not fitting:
            fitting = [[None] * len(heads)]
            lines.append((cell, fitting[0]))
        model = cell.get("name") or cell.get("model")
        benchmark = layout.benchmark or cell.get("measure")
        is_scored = cell["score"] is not None
        answers = answers_at(model, benchmark) if model and benchmark and is_scored else None
        fitting[0][column] = _place(cell, notes, answers)
    return Sheet(
        table=table,
        title=layout.title,
        about=layout.about,
        heads=heads,
        lines=[
            SheetRow(label=layout.label(row), about=layout.tells(row), id=row.get("id"), places=places)
            for row, places in lines
        ],
        notes=[(letter, note) for note, letter in notes.items()],
    )


def _place(cell: CellRow, notes: Mapping[str, str], answers: str | None) -> SheetCell:
    return SheetCell(
        **{name: cell[name] for name in ("score", "low", "high", "paper", "difference", "outside", "complete")},
        gain=cell.get("gain"),
        p=cell.get("p_corrected"),
        marks=notes.get(cell["note"] or "", ""),
        paper_marks=notes.get(_quotation(cell), ""),
        answers=answers,
    )


def lettered(notes: Iterable[str | None]) -> dict[str, str]:
    """A letter for every note there is, in the order in which they come; after z they are doubled."""
    known = dict.fromkeys(note for note in notes if note)
    return {note: ascii_lowercase[n % 26] * (n // 26 + 1) for n, note in enumerate(known)}


def _quotation(cell: CellRow) -> str:
    return f"the paper has it from {cell['quoted_from']}" if cell.get("quoted_from") else ""


def _cells(table: str, rows: pl.DataFrame) -> Sequence[CellRow]:
    """A row per cell, also of the tables that have several cells in a row."""
    wide = WIDE.get(table)
    if wide is None:
        return [{"measure": row.get("benchmark"), **row} for row in rows.iter_rows(named=True)]
    names = ("low", "high", "paper", "difference", "outside", "complete", "note", "quoted_from", "gain", "p_corrected")
    return [
        {
            **row,
            "note": row.get("note"),
            **{name: row[f"{prefix}_{name}"] for name in names if f"{prefix}_{name}" in row},
            "score": row[prefix],
            "benchmark": head,
            "measure": prefix,
        }
        for row in rows.iter_rows(named=True)
        for prefix, head in wide.items()
    ]


WIDE = {
    "table_1": {"mt_bench": "MT-Bench", "oll": "Open LLM Leaderboard"},
    "table_9": {"before": "Before", "after": "After"},
}


def _model(row: CellRow) -> str:
    return str(row.get("title") or row.get("name") or row["model"])


def _made_of(row: CellRow) -> str:
    """The backbone, its template, and what was trained on, as far as the row tells them."""
    base = ", ".join(str(row[name]) for name in ("backbone", "template") if row.get(name))
    trained = row.get("training_set") or row.get("teacher")
    return f"{base}; {row['module']} of {trained}" if trained and row.get("module") else base


def _pairs(row: CellRow) -> str:
    return "all pairs" if row["pairs"] is None else f"{row['pairs']:,} pairs"


def _head(row: CellRow) -> str:
    return benchmarks.heads().get(row["benchmark"], str(row["benchmark"]))


def _audited(row: CellRow) -> str:
    backbone = f"; {row['backbone']}" if row["backbone"] else ""
    return f"{row['before_set']}, {row['after_set']}{backbone}"


LEADERBOARD = "Percent, with the interval of lm-eval’s standard error. The average is the plain mean of the tasks."
LAYOUTS = {
    "table_1": SheetLayout(
        title="Table 1: ours beside the paper’s",
        about="MT-Bench is the mean rating from 1 to 10, the leaderboard the mean of its tasks in percent.",
        label=_model,
        tells=_made_of,
        column=lambda row: str(row["benchmark"]),
    ),
    "table_2": SheetLayout(
        title="Table 2: one teacher beside another",
        about="MT-Bench of what was trained on the completions of the teacher above the column.",
        label=lambda row: str(row["backbone"]),
        tells=lambda row: str(row["module"]),
        column=lambda row: str(row["teacher"]),
        benchmark="mt_bench",
    ),
    "table_3": SheetLayout(
        title="Table 3: completions beside instruction data",
        about="MT-Bench of one backbone, trained on each of these sets.",
        label=lambda row: str(row["training_set"]),
        tells=lambda row: f"{_pairs(row)} by {row['teacher']}; {row['backbone']}",
        column=lambda row: "MT-Bench",
        benchmark="mt_bench",
    ),
    "table_4": SheetLayout(
        title="Table 4: the leaderboard, task by task",
        about=LEADERBOARD,
        label=_model,
        tells=_made_of,
        column=_head,
    ),
    "table_5": SheetLayout(
        title="Table 5: Arena-Hard",
        about="Percent of games won against the baseline, a tie being half a game.",
        label=_model,
        tells=_made_of,
        column=lambda row: "Arena-Hard",
        benchmark="arena_hard",
    ),
    "table_6": SheetLayout(
        title="Table 6: Arena-Hard by teacher and size",
        about="Percent of games won against the baseline by what was trained on so many pairs of a teacher.",
        label=lambda row: str(row["backbone"]),
        tells=lambda row: f"{_pairs(row)} by {row['teacher']}",
        column=lambda row: "Arena-Hard",
        benchmark="arena_hard",
    ),
    "table_7": SheetLayout(
        title="Table 7: beside MAGPIE",
        about="Arena-Hard in percent of games won, IFEval the mean of its two strict accuracies in percent.",
        label=_model,
        tells=_made_of,
        column=_head,
    ),
    "table_9": SheetLayout(
        title="Table 9: without what the auditor flagged",
        about="MT-Bench of what was trained on the first pairs of a teacher, and on the same pairs without those the "
        "auditor took for instruction data or found a dialogue in.",
        label=lambda row: str(row["teacher"]),
        tells=_audited,
        column=lambda row: str(row["benchmark"]),
    ),
    "table_15": SheetLayout(
        title="Table 15: the leaderboard in full",
        about=LEADERBOARD,
        label=_model,
        tells=_made_of,
        column=_head,
    ),
    "figure_2": SheetLayout(
        title="Figure 2: more pairs, higher scores?",
        about="MT-Bench by the number of pairs that were trained on, with its 95% interval.",
        label=_pairs,
        tells=lambda row: f"{row['teacher']}; {row['backbone']}",
        column=lambda row: "MT-Bench",
        benchmark="mt_bench",
    ),
    "text_numbers": SheetLayout(
        title="In the text: numbers of no table",
        about="What the paper gives in its sections alone.",
        label=_model,
        tells=lambda row: "; ".join(filter(None, (str(row["section"]).replace("_", " "), _made_of(row)))),
        column=_head,
    ),
}
