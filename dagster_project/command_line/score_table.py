"""The score table as a person reads it in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_project.command_line.text_table import table
from nift_assets import benchmarks

if TYPE_CHECKING:
    from nift_assets.store import Store
    from nift_assets.study import Study


SHOWN = ("model", "benchmark", "score", "low", "high", "complete", "note")


def render(study: Study, store: Store, width: int | None = None) -> str:
    """One line per model of the study: what it was trained on, and each score with its 95% interval.

    Of a study that wants data alone it is one sentence.
    """
    if not study.models:
        return "The study has no model, so nothing is scored: its rows are in filtered_completions."
    stored = store.read("benchmark_scores", None, SHOWN)
    scores = {(row["model"], row["benchmark"]): row for row in stored.iter_rows(named=True)}
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
    doubts = [
        f"? {model.name}, {measure.title}: {note}"
        for model in study.models
        for measure in measures
        if (note := scores.get((model.name, measure.name), {}).get("note"))
    ]
    is_incomplete = any(not score["complete"] for score in scores.values() if score["score"] is not None)
    notes = [*(["* incomplete: more than 2% of verdicts missing"] if is_incomplete else []), *doubts]
    return "\n".join([table(header, lines, width), *([""] if notes else []), *notes])


def _cell(score: dict[str, object] | None) -> str:
    if score is None or score["score"] is None:
        return "-"
    interval = f" [{score['low']:.1f}, {score['high']:.1f}]" if score["low"] is not None else ""
    return f"{score['score']:.2f}{interval}{'' if score['complete'] else ' *'}{' ?' if score.get('note') else ''}"
