"""What people, auditors, filters and judges say of the same rows, and how far they agree.

Of a pair they say keep or drop, of two models' answers to a question which is better: a, b or tie. Who is unsure has
said nothing, and a verdict on texts that have since been made anew with other words counts for nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import polars as pl

from nift_assets import benchmarks, reviews
from nift_assets.benchmarks.scoring import agreement
from nift_assets.benchmarks.scoring.agreement import Agreement
from nift_assets.store import Store

PAIRS = "pairs"
# What is the same in several answers to one question.
REPEATED = ("run", "turn")
TEXTS = ("answer", "response")


class Rater(NamedTuple):
    """Somebody, or something, who says of rows what becomes of them."""

    kind: Literal["person", "people", "auditor", "filter", "judge"]
    name: str


class Rated(NamedTuple):
    """A row that is rated, and what it is resampled with: its document, or its question."""

    cluster: str
    row: str


Ratings = Mapping[Rated, Mapping[Rater, str]]
# Of several people each row's verdict of most; a tie of them is none.
MOST = Rater("people", "most of them")
ALL = Rater("people", "all of them")

SCHEMA = {
    **dict.fromkeys(("subject", "rater_kind", "rater", "other_kind", "other"), pl.String()),
    **dict.fromkeys(("rows", "clusters", "agreed"), pl.Int64()),
    **dict.fromkeys(("agreement", "agreement_low", "agreement_high"), pl.Float64()),
    "coefficient": pl.String(),
    **dict.fromkeys(("value", "value_low", "value_high"), pl.Float64()),
}


def table(ratings: Mapping[str, Ratings]) -> pl.DataFrame:
    """One row per subject and two raters of whom one at least is a person, and one per subject over all people."""
    return pl.DataFrame(
        [row for subject, of_subject in ratings.items() for row in _rows(subject, of_subject)], schema=SCHEMA
    )


def _rows(subject: str, ratings: Ratings) -> Iterator[dict[str, object]]:
    raters = dict.fromkeys(rater for by_rater in ratings.values() for rater in by_rater)
    people = sorted(rater for rater in raters if rater.kind == "person")
    others = sorted(rater for rater in raters if rater.kind != "person")
    if len(people) > 1:
        ratings = {unit: _with_most(by_rater) for unit, by_rater in ratings.items()}
        among = [
            (unit.cluster, [by_rater[one] for one in people if one in by_rater]) for unit, by_rater in ratings.items()
        ]
        yield from _row(subject, ALL, ALL, "alpha", agreement.alpha(among))
    judging = [*people, *([MOST] if len(people) > 1 else [])]
    for one, other in [*combinations(people, 2), *((person, other) for other in others for person in judging)]:
        both = [
            (unit.cluster, by_rater[one], by_rater[other])
            for unit, by_rater in ratings.items()
            if one in by_rater and other in by_rater
        ]
        yield from _row(subject, one, other, "kappa", agreement.kappa(both))


def _row(
    subject: str, one: Rater, other: Rater, coefficient: str, found: Agreement | None
) -> Iterator[dict[str, object]]:
    if found is not None:
        yield {
            "subject": subject,
            "rater_kind": one.kind,
            "rater": one.name,
            "other_kind": other.kind,
            "other": other.name,
            "rows": found.rows,
            "clusters": found.clusters,
            "agreed": found.agreed,
            "agreement": found.share,
            "agreement_low": found.share_low,
            "agreement_high": found.share_high,
            "coefficient": coefficient,
            "value": found.value,
            "value_low": found.low,
            "value_high": found.high,
        }


def _with_most(by_rater: Mapping[Rater, str]) -> Mapping[Rater, str]:
    counted = Counter(label for rater, label in by_rater.items() if rater.kind == "person").most_common(2)
    is_tied = len(counted) > 1 and counted[0][1] == counted[1][1]
    return by_rater if is_tied or not counted else {**by_rater, MOST: counted[0][0]}


def current_pairs(said: pl.DataFrame, completions: pl.DataFrame, halves: pl.DataFrame) -> pl.DataFrame:
    """The last verdicts of people on a teacher's pairs as these are now, of all verdicts that there are."""
    texts = said.filter("is_latest").join(completions, on=["document_id", "teacher"]).join(halves, on="document_id")
    seen = [reviews.content(*pair) for pair in texts.select("first_half", "completion").iter_rows()]
    return texts.filter(pl.Series(seen, dtype=pl.String) == texts["content"]).select(said.columns)


def current_answers(said: pl.DataFrame, answers: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The last verdicts of people on answers of one benchmark as these are now; `answers` by the model."""
    latest = said.filter("is_latest")
    is_current = [
        _content(answers, json.loads(question), models) == content
        for question, content, *models in latest.select("question", "content", "model_a", "model_b").iter_rows()
    ]
    return latest.filter(pl.Series(is_current, dtype=pl.Boolean))


def pairs_today(store: Store, teacher: str, said: pl.DataFrame) -> pl.DataFrame:
    """The last verdicts of people on the pairs of a teacher as they are stored now."""
    mine = said.filter(pl.col("teacher") == teacher)
    if mine.is_empty():
        return mine
    completions = store.find("completions", teacher, ["document_id", "teacher", "completion"])
    halves = store.find("halves", None, ["document_id", "first_half"])
    return mine.clear() if completions is None or halves is None else current_pairs(mine, completions, halves)


def answers_today(store: Store, benchmark: str, models: Iterable[str], said: pl.DataFrame) -> pl.DataFrame:
    """The last verdicts of people on some models' answers to the questions of a benchmark as they are stored now."""
    mine = said.filter(pl.col("benchmark") == benchmark)
    compared = {*mine["model_a"], *mine["model_b"]} & {*models}
    return current_answers(mine, by_model(store, benchmarks.answers_table(benchmark), compared))


def by_model(store: Store, table: str, models: Iterable[str]) -> dict[str, pl.DataFrame]:
    """What is stored of some models in a table, by the model."""
    return {model: rows for model in sorted(models) if (rows := store.find(table, model)) is not None}


def _content(
    answers: Mapping[str, pl.DataFrame], question: Mapping[str, str | int], models: Iterable[str]
) -> str | None:
    """The digest of what two models answer a question now; None where one of them does not."""
    texts = []
    for model in models:
        rows = at(answers[model], question) if model in answers else None
        column = next((name for name in TEXTS if rows is not None and name in rows.columns), None)
        if rows is None or rows.height != 1 or column is None:
            return None
        texts.append(rows[column][0])
    return reviews.content(*texts)


def at(rows: pl.DataFrame, question: Mapping[str, str | int]) -> pl.DataFrame:
    """The rows of a question by those columns of its key that the table has."""
    named = [pl.col(name).cast(pl.String) == str(value) for name, value in question.items() if name in rows.columns]
    return rows.filter(*named) if named else rows.clear()


def pairs(
    current: pl.DataFrame,
    completions: pl.DataFrame,
    audits: Mapping[str, pl.DataFrame],
    removals: Mapping[str, pl.DataFrame],
) -> Ratings:
    """What is said of the pairs of one teacher that people have read: by these, the auditors and the filters."""
    rated: dict[Rated, dict[Rater, str]] = {}
    for document, teacher, reviewer, verdict in current.select(
        "document_id", "teacher", "reviewer", "verdict"
    ).iter_rows():
        if verdict in ("keep", "drop"):
            rated.setdefault(Rated(document, f"{teacher} {document}"), {})[Rater("person", reviewer)] = verdict
    for auditor, asked in audits.items():
        by_document = asked.group_by("document_id").agg("verdict")
        verdicts = {document: _audited(said) for document, said in by_document.iter_rows()}
        _add(rated, Rater("auditor", auditor), {document: said for document, said in verdicts.items() if said})
    # A completion that could not enter training in any case is no filter's business.
    looked_at = set(completions.filter(pl.col("status").is_in(["ok", "truncated"]))["document_id"])
    for name, dropped in removals.items():
        found = set(dropped["document_id"])
        _add(rated, Rater("filter", name), {one: "drop" if one in found else "keep" for one in looked_at})
    return rated


def _audited(verdicts: Iterable[str]) -> str | None:
    """What the filter `audited` makes of an auditor's answers: a yes drops, and what is neither yes nor no says
    nothing."""
    said = {*verdicts}
    return "drop" if "yes" in said else "keep" if said == {"no"} else None


def _add(rated: Mapping[Rated, dict[Rater, str]], rater: Rater, label_by_document: Mapping[str, str]) -> None:
    for unit, by_rater in rated.items():
        if unit.cluster in label_by_document:
            by_rater[rater] = label_by_document[unit.cluster]


def answers(current: pl.DataFrame, judge: str | None, benchmark: str, results: Mapping[str, pl.DataFrame]) -> Ratings:
    """What is said of two models' answers to the questions of a benchmark that people have read: by these and, if a
    judge read them too, by the judge, who prefers the answer that scores more. `results` by the model."""
    rated: dict[Rated, dict[Rater, str]] = {}
    for text, model_a, model_b, reviewer, verdict in current.select(
        "question", "model_a", "model_b", "reviewer", "verdict"
    ).iter_rows():
        question = json.loads(text)
        cluster = json.dumps({name: value for name, value in question.items() if name not in REPEATED})
        by_rater = rated.setdefault(Rated(cluster, f"{text} {model_a} {model_b}"), {})
        by_rater[Rater("person", reviewer)] = verdict
        if judge is not None:
            scores = [_score(benchmark, model, results, question) for model in (model_a, model_b)]
            if preferred := _preferred(*scores):
                by_rater[Rater("judge", judge)] = preferred
    return rated


def _score(
    benchmark: str, model: str, results: Mapping[str, pl.DataFrame], question: Mapping[str, str | int]
) -> float | None:
    """What the answer of a model to one question comes to by the benchmark's own arithmetic."""
    rows = at(results[model], question) if model in results else None
    if rows is None or rows.is_empty():
        return None
    values = [measured.score for measured in benchmarks.load(benchmark).score(model, rows)]
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _preferred(a: float | None, b: float | None) -> str | None:
    if a is None or b is None:
        return None
    return "tie" if abs(a - b) < 1e-9 else "a" if a > b else "b"
