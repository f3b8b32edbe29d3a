"""What people have reviewed as a table for the terminal: how many rows, by whom and on what, and who waits for more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from dagster_project.command_line.text_table import table
from nift_assets import raters
from nift_assets.steps import approvals
from nift_assets.steps.approvals import Approval
from nift_assets.store import Store
from nift_assets.study import Study

VERDICTS = ("keep", "drop", "unsure", "a", "b", "tie")
HEADER = ["reviewer", "on", "rows", *VERDICTS, "older", "last"]


def render(
    study: Study, store: Store, said: pl.DataFrame, awaited: Sequence[Approval], width: int | None = None
) -> str:
    """One line per person and subject over her last verdicts; `older` are those on texts that are others by now."""
    of_today = approvals.today(study, store, said)
    lines = []
    for (reviewer, subject), mine in _by_subject(said.filter("is_latest")).group_by(
        "reviewer", "subject", maintain_order=True
    ):
        counts = dict(mine["verdict"].value_counts().iter_rows())
        last = mine["reviewed_at"].max()
        assert isinstance(last, datetime), "whoever is in the table has said something"
        lines.append(
            [
                str(reviewer),
                str(subject),
                f"{mine.height:,}",
                *(f"{counts[verdict]:,}" if verdict in counts else "" for verdict in VERDICTS),
                f"{mine.join(of_today, on='review', how='anti').height:,}",
                f"{last:%Y-%m-%d %H:%M}",
            ]
        )
    counted = (
        table(HEADER, lines, width)
        if lines
        else f"Nobody has reviewed anything of {study.name!r} yet; open /study/look of `nift ui`."
    )
    return "\n".join([counted, *(["", *map(_sentence, awaited)] if awaited else [])])


def as_rows(said: pl.DataFrame) -> list[dict[str, object]]:
    """Every verdict there is, with times as texts."""
    return said.with_columns(pl.col("reviewed_at").dt.to_string("iso:strict")).to_dicts()


def _by_subject(said: pl.DataFrame) -> pl.DataFrame:
    subject = pl.coalesce("benchmark", pl.format(f"{raters.PAIRS} of {{}}", "teacher"))
    return said.with_columns(subject=subject)


def _sentence(approval: Approval) -> str:
    said = str(approval)
    return said[0].upper() + said[1:] + "."
