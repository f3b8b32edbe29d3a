"""How far people agree with one another, and with the judge, the auditors and the filters, on the rows they have read.

Nothing is read of what nobody has reviewed.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from nift_assets import benchmarks, filters, raters
from nift_assets import reviews as verdicts
from nift_assets.raters import Ratings
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table
from nift_assets.study import Study


def _inputs(study: Study) -> list[str]:
    of_pairs = ("halves", "completions", "content_audit", *(filters.table(row) for row in study.filters))
    of_answers = benchmarks.tables(row.name for row in study.benchmarks)
    return [*of_pairs, *of_answers]


@table(
    group="reviews",
    kinds={"python", "polars"},
    inputs=_inputs,
    rows=lambda study, key, table: ([(row.name, row.auditor) for row in study.audits], _judges(study)),
    plugins=lambda study, key, table: [benchmarks.load(row.name).score for row in study.benchmarks],
    # The verdicts themselves and not their table, which nothing makes by itself.
    beside=verdicts.fingerprint,
    streams=True,
    follows=True,
)
def review_agreement(context: Context) -> TableOutput:
    said = verdicts.frame(verdicts.read(context.store))
    counted = {"verdicts": said.filter("is_latest").height, "of_them_counted": 0}
    ratings: dict[str, Ratings] = {}
    for subject, of_subject, current in [*_pairs(context, said), *_answers(context, said)]:
        ratings[subject] = {**ratings.get(subject, {}), **of_subject}
        counted["of_them_counted"] += current
    return TableOutput(raters.table(ratings), metadata=counted)


def _pairs(context: Context, said: pl.DataFrame) -> Iterable[tuple[str, Ratings, int]]:
    """The ratings of each teacher's pairs that people have read, and how many verdicts are on the texts of today."""
    study, store = context.study, context.store
    for teacher in (row.name for row in study.teachers):
        current = raters.pairs_today(store, teacher, said)
        if current.is_empty():
            continue
        audits = {
            audit.auditor: asked.filter(kind="teacher")
            for audit in study.audits
            if audit.kind == "teacher" and audit.name == teacher
            if (asked := store.find("content_audit", audit.name)) is not None
        }
        removals = {
            row.name: dropped
            for row in study.filters
            if not filters.reads_reviews(row)
            if (dropped := store.find(filters.table(row), teacher, ["document_id"])) is not None
        }
        statuses = store.read("completions", teacher, ["document_id", "status"])
        yield raters.PAIRS, raters.pairs(current, statuses, audits, removals), current.height


def _answers(context: Context, said: pl.DataFrame) -> Iterable[tuple[str, Ratings, int]]:
    """The same of the answers to each benchmark's questions."""
    for name, judge in _judges(context.study).items():
        current = raters.answers_today(context.store, name, (row.name for row in context.study.models), said)
        models = {*current["model_a"], *current["model_b"]}
        results = raters.by_model(context.store, benchmarks.results_table(name), models) if judge else {}
        if models:
            yield name, raters.answers(current, judge, name, results), current.height


def _judges(study: Study) -> dict[str, str | None]:
    return {row.name: row.judge for row in study.benchmarks}
