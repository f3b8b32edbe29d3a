"""The scores of other tools' files as a person reads them in a terminal, or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dagster_project.command_line.text_table import table
from nift_assets.benchmarks.scoring.scores import MOST_MISSING, Compared, Measured

# Numbers that are there in a sound file too; all other counts are faults.
SIZES = {"runs", "battles", "prompts", "prompts followed", "instructions", "instructions followed"}
MOST_PAIRS = 20


def render(scored: Sequence[Measured], compared: Sequence[Compared], width: int | None = None) -> str:
    """One line per model, what was found besides, and every pair of models."""
    parts = list(dict.fromkeys(name for row in scored for name in row.parts))
    header = ["model", "score", "95% interval", "published tool", "n", "missing", *parts]
    lines = [
        [
            row.model,
            _number(row.score) + ("" if row.complete else " *") + (" ?" if row.doubts else ""),
            "-" if row.low is None or row.high is None else f"[{row.low:.2f}, {row.high:.2f}]",
            _exact(row.published),
            str(row.questions),
            f"{row.missing} of {row.expected}",
            *(_number(row.parts.get(name)) for name in parts),
        ]
        for row in scored
    ]
    paragraphs = [table(header, lines, width)]
    for row in scored:
        counts = [f"{number:,} {name}" for name, number in row.counts.items() if number and name not in SIZES]
        sizes = [f"{number:,} {name}" for name, number in row.counts.items() if number and name in SIZES]
        paragraphs += (
            [f"{row.model}: {'; '.join([', '.join(sizes)] * bool(sizes) + counts)}"] if sizes or counts else []
        )
    notes: dict[str, list[str]] = {}
    for row in scored:
        for note in row.notes:
            notes.setdefault(note, []).append(row.model)
    paragraphs += [
        f"{', '.join(models) if len(models) < len(scored) else 'all'}: {note}" for note, models in notes.items()
    ]
    if compared:
        paragraphs += [
            "",
            "pairs, on the questions both have; p corrected over the table (Holm)",
            _pairs(compared, width),
        ]
    if not all(row.complete for row in scored):
        paragraphs += ["", f"* incomplete: more than {MOST_MISSING:.0%} is missing"]
    paragraphs += [f"? {row.model}: {doubt}" for row in scored for doubt in row.doubts]
    return "\n".join(paragraphs)


def as_json(scored: Sequence[Measured], compared: Sequence[Compared]) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "scores": [{**_plain(row), "missing_share": row.missing_share} for row in scored],
        "pairs": [
            {"one": pair.one, "other": pair.other, **asdict(pair.difference), "p_corrected": pair.corrected}
            for pair in compared
        ],
    }


def _plain(row: Measured) -> dict[str, Any]:
    names: tuple[str, ...] = (
        "model",
        "score",
        "published",
        "low",
        "high",
        "questions",
        "expected",
        "missing",
        "complete",
    )
    names += ("notes", "doubts")
    counts: Mapping[str, int] = {name: number for name, number in row.counts.items() if number}
    return {**{name: getattr(row, name) for name in names}, "parts": dict(row.parts), "counts": counts}


def _pairs(compared: Sequence[Compared], width: int | None) -> str:
    shown = sorted(compared, key=lambda pair: pair.difference.p)[:MOST_PAIRS]
    lines = [
        [
            pair.one,
            pair.other,
            f"{pair.difference.value:+.2f}",
            f"[{pair.difference.low:+.2f}, {pair.difference.high:+.2f}]",
            f"{pair.difference.p:.4f}",
            f"{pair.corrected:.4f}",
        ]
        for pair in shown
    ]
    more = [f"… and {len(compared) - len(shown)} more, see --json"] if len(compared) > len(shown) else []
    return "\n".join([table(["one", "other", "difference", "95% interval", "p", "p corrected"], lines, width), *more])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _exact(value: float | None) -> str:
    """To the last digit that a tool prints."""
    return "-" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")
