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


def render(scored: Sequence[Measured], compared: Sequence[Compared]) -> str:
    """One line per model, what was found besides, and every pair of models."""
    parts = list(dict.fromkeys(name for one in scored for name in one.parts))
    header = ["model", "score", "95% interval", "published tool", "n", "missing", *parts]
    lines = [
        [
            one.model,
            _number(one.score) + ("" if one.complete else " *"),
            "-" if one.low is None or one.high is None else f"[{one.low:.2f}, {one.high:.2f}]",
            _exact(one.published),
            str(one.questions),
            f"{one.missing} of {one.expected}",
            *(_number(one.parts.get(name)) for name in parts),
        ]
        for one in scored
    ]
    said = [table(header, lines)]
    for one in scored:
        found = [f"{number:,} {name}" for name, number in one.counts.items() if number and name not in SIZES]
        sizes = [f"{number:,} {name}" for name, number in one.counts.items() if number and name in SIZES]
        said += [f"{one.model}: {'; '.join([', '.join(sizes)] * bool(sizes) + found)}"] if sizes or found else []
    notes: dict[str, list[str]] = {}
    for one in scored:
        for note in one.notes:
            notes.setdefault(note, []).append(one.model)
    said += [f"{', '.join(models) if len(models) < len(scored) else 'all'}: {note}" for note, models in notes.items()]
    if compared:
        said += ["", "pairs, on the questions both have; p corrected over the table (Holm)", _pairs(compared)]
    if not all(one.complete for one in scored):
        said += ["", f"* incomplete: more than {MOST_MISSING:.0%} is missing"]
    return "\n".join(said)


def as_json(scored: Sequence[Measured], compared: Sequence[Compared]) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "scores": [{**_plain(one), "missing_share": one.missing_share} for one in scored],
        "pairs": [
            {"one": pair.one, "other": pair.other, **asdict(pair.difference), "p_corrected": pair.corrected}
            for pair in compared
        ],
    }


def _plain(one: Measured) -> dict[str, Any]:
    names = ("model", "score", "published", "low", "high", "questions", "expected", "missing", "complete", "notes")
    counts: Mapping[str, int] = {name: number for name, number in one.counts.items() if number}
    return {**{name: getattr(one, name) for name in names}, "parts": dict(one.parts), "counts": counts}


def _pairs(compared: Sequence[Compared]) -> str:
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
    return "\n".join([table(["one", "other", "difference", "95% interval", "p", "p corrected"], lines), *more])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _exact(value: float | None) -> str:
    """To the last digit that a tool prints."""
    return "-" if value is None else f"{value:.6f}".rstrip("0").rstrip(".")
