"""The sampled documents, drawn from the study's corpus, and what of the corpus could not be sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, get_args

import polars as pl

from expectations.frames import portions
from nift_assets import corpus
from nift_assets.corpus import units
from nift_assets.rows import Corpus, Unit, digest, without_places
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table

TABLES = ("raw_sample", "raw_sample_rejects")


def _drawn_from(row: Corpus) -> Sequence[Any]:
    """What of a corpus shapes its sample: not its name, nor who may use it, nor what a plan assumes of it."""
    return replace(without_places(row), name="", licence="", tokens_per_document=None), corpus.fingerprint(row)


@table(
    *TABLES,
    group="data",
    kinds={"python", "polars"},
    source=lambda study: study.corpus.name,
    rows=lambda study, key, table: _drawn_from(study.corpus),
)
def raw_sample(context: Context) -> dict[str, TableOutput]:
    if _is_drawn(context):
        context.log("the documents are those that are there; their words are counted anew")
        rejects = context.store.read("raw_sample_rejects", None)
        return {"raw_sample": TableOutput(_recounted(context)), "raw_sample_rejects": TableOutput(rejects)}
    sample = corpus.sample(context.study.corpus, report=lambda progress: context.log(str(progress)))
    context.log(str(sample.read))
    for problem in sample.unreadable:
        context.log(f"left out: {problem}")
    read = {
        "files": sample.read.total_files,
        "corpus_rows": sample.read.rows,
        "corpus_bytes": sample.read.bytes,
        "corpus_seconds": round(sample.read.seconds, 1),
    }
    reasons = sample.rejects["reason"].value_counts().sort("reason").rows()
    return {
        "raw_sample": TableOutput(sample.portions(), metadata=read),
        "raw_sample_rejects": TableOutput(
            sample.rejects, metadata={reason.replace(" ", "_"): n for reason, n in reasons}
        ),
    }


def _is_drawn(context: Context) -> bool:
    """Whether both tables are there as they would be drawn now, but for what the documents are to be cut at."""
    step, row = context.graph.tables["raw_sample"], context.study.corpus
    drawn = [_drawn_from(replace(row, cut_at=unit)) for unit in get_args(Unit) if unit != row.cut_at]
    return all(
        (stored := context.store.version(name, None)) is not None
        and stored.inputs in [digest(step.version_of(None, name), list(values), []) for values in drawn]
        for name in TABLES
    )


def _recounted(context: Context) -> Iterator[pl.DataFrame]:
    for portion in portions(context.store.table("raw_sample")):
        yield portion.with_columns(words=units.counts(portion["text"], context.study.corpus.cut_at))
