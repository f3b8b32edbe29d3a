"""Drops a completion that people who have read it want out of the training data, with what they say against it.

Why: what is wrong with a pair is often plain to whoever reads it and to no rule: a made-up quotation, an advertisement
that passes for an article. What counts is the last verdict of each person, `keep` or `drop`; `unsure` is none. Where
people disagree the majority has it, and as many for as against keep the pair; `drops="any"` drops what one person
drops, `drops="all"` what nobody keeps. Example: two of three people drop it, "repeats itself".

A verdict is about the texts that were read. Once the teacher has been asked again and has written something else, it
drops nothing: such verdicts are counted among the table's metadata, and the new pair can be reviewed.
"""

from __future__ import annotations

import polars as pl

from nift_assets import reviews as verdicts
from nift_assets.filters import Removals

ROW_BY_ROW = True
ADDS_UP = ("pairs_reviewed", "pairs_people_disagree_on", "verdicts_on_older_texts")
RULES = {
    "majority": pl.col("drop") > pl.col("keep"),
    "any": pl.col("drop") > 0,
    "all": (pl.col("drop") > 0) & (pl.col("keep") == 0),
}


def removals(candidates: pl.DataFrame, *, reviews: pl.DataFrame, drops: str = "majority") -> Removals:
    """One row per completion that its reviewers drop, with how many do and why; `reviews` are those of this teacher.

    ValueError for a rule that there is not.
    """
    if drops not in RULES:
        raise ValueError(f"the filter reviewed has drops={drops!r}; give one of {', '.join(RULES)}")
    said = candidates.join(reviews.filter("is_latest"), on="document_id").with_columns(
        is_current=pl.col("content") == content(pl.col("first_half"), pl.col("completion"))
    )
    by_pair = (
        said.filter("is_current")
        .group_by("document_id", maintain_order=True)
        .agg(
            keep=(pl.col("verdict") == "keep").sum(),
            drop=(pl.col("verdict") == "drop").sum(),
            said=pl.col("reason").filter(pl.col("verdict") == "drop").unique(maintain_order=True).str.join("; "),
        )
    )
    # Without names: what a data set leaves out is published with it.
    decided = pl.col("keep") + pl.col("drop")
    dropped = by_pair.filter(RULES[drops]).select(
        "document_id", pl.format("{} of {} people drop it: {}", "drop", decided, "said").alias("reason")
    )
    return Removals(
        dropped,
        {
            "pairs_reviewed": by_pair.height,
            "pairs_people_disagree_on": by_pair.filter((pl.col("keep") > 0) & (pl.col("drop") > 0)).height,
            "verdicts_on_older_texts": said.height - said["is_current"].sum(),
        },
    )


def content(first_half: pl.Expr, completion: pl.Expr) -> pl.Expr:
    """The digest of each pair as a reviewer's verdict has it."""
    return pl.struct(first_half, completion).map_elements(
        lambda pair: verdicts.content(*pair.values()), return_dtype=pl.String
    )
