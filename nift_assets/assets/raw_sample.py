"""The sampled documents, drawn from the study's corpus, and what of the corpus could not be sampled."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import corpus
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import table


@table(
    "raw_sample",
    "raw_sample_rejects",
    group="data",
    kinds={"python", "duckdb"},
    source=STUDY.corpus.name,
    rows=lambda key, table: (STUDY.corpus, corpus.fingerprint(STUDY.corpus)),
    code=(corpus,),
)
def raw_sample(context: dg.AssetExecutionContext) -> dict[str, pl.DataFrame]:
    sample = corpus.sample(STUDY.corpus)
    return {"raw_sample": sample.documents, "raw_sample_rejects": sample.rejects}
