"""The score table as a person reads it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nift_assets import benchmarks

if TYPE_CHECKING:
    from nift_assets.store import Store
    from nift_assets.study import Study


def render(study: Study, store: Store) -> str:
    """One line per model of the study: what it was trained on, and each score with its 95% interval."""
    scores = {
        (row["model"], row["benchmark"]): row for row in store.read("benchmark_scores", None).iter_rows(named=True)
    }
    measures = benchmarks.measures(study.benchmarks)
    header = ["model", "module", "trained on", *(measure.column for measure in measures)]
    lines = [
        [
            model.name,
            model.module,
            study.adapter(model.adapter).training_set if model.adapter else "-",
            *(_cell(scores.get((model.name, measure.name))) for measure in measures),
        ]
        for model in study.models
    ]
    return "\n".join([columns(header, lines), "", "* incomplete: more than 2% of verdicts missing"])


def columns(header: list[str], lines: list[list[str]]) -> str:
    """The lines under their header, each column as wide as its widest cell."""
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([_line(header, widths), rule, *(_line(line, widths) for line in lines)])


def _line(cells: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cell(score: dict[str, object] | None) -> str:
    if score is None or score["score"] is None:
        return "-"
    interval = f" [{score['low']:.1f}, {score['high']:.1f}]" if score["low"] is not None else ""
    return f"{score['score']:.2f}{interval}{'' if score['complete'] else ' *'}"
