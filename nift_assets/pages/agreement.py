"""How far people agree with one another and with the judge, the auditors and the filters, as a table of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from nift_assets import benchmarks, raters

CAPTION = "Agreement of people"
ABOUT = (
    "How often two raters say the same of a row that both have rated, with the 95% interval of a bootstrap over "
    "documents or questions. Beyond chance 1 means always and 0 as often as by chance: Cohen’s kappa of two, "
    "Krippendorff’s alpha over all people. Of pairs they say keep or drop, of two answers which is better; the judge "
    "says it by the scores it gave."
)
COLUMNS = ("rated", "who", "with", "rows", "of", "say the same", "beyond chance")
NUMBERS = ("rows", "of", "say the same", "beyond chance")


def rows(review_agreement: pl.DataFrame) -> list[list[str | None]]:
    """The lines of the table in the order of `review_agreement`, as texts; None where there is no number."""
    return [_line(row) for row in review_agreement.iter_rows(named=True)]


def _line(row: Mapping[str, Any]) -> list[str | None]:
    of_pairs = row["subject"] == raters.PAIRS
    counted = "document" if of_pairs else "question"
    return [
        "pairs" if of_pairs else benchmarks.load(row["subject"]).TITLE,
        "all people" if row["coefficient"] == "alpha" else _named(row["rater_kind"], row["rater"]),
        "one another" if row["coefficient"] == "alpha" else _named(row["other_kind"], row["other"]),
        f"{row['rows']:,}",
        f"{row['clusters']:,} {counted}" + ("s" if row["clusters"] != 1 else ""),
        _percent(row["agreement"], row["agreement_low"], row["agreement_high"]),
        _number(row["value"], row["value_low"], row["value_high"]),
    ]


def _named(kind: str, name: str) -> str:
    return name if kind in ("person", "people") else f"{kind} {name}"


def _percent(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.0%}" if low is None or high is None else f"{value:.0%} [{low:.0%}, {high:.0%}]"


def _number(value: float | None, low: float | None, high: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"
