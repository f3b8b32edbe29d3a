"""The tables `tests.hub.bench` publishes: made up, and recorded with Dagster as if their checks had passed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl

from dagster_project.resources import store
from dagster_project.settings import dagster_home
from expectations import contract
from expectations.frames import conform, schema
from nift_assets.table_files import Version, data_version
from tests.demo import STUDY

WORDS = 400  # in each half, some 2.5 kB
VOCABULARY = 20_000
AT_ONCE = 4_000
DROPPED_EVERY = 11  # about the paper's 7,000 of 80,000


def main(rows: int) -> None:
    dagster_home(STUDY.name)
    Path(os.environ["NIFT_WAREHOUSE"]).mkdir(parents=True)
    texts = pl.concat(list(_texts(rows)))
    number = pl.int_range(pl.len())
    pairs = texts.with_columns(
        document_id=number.cast(pl.String).str.zfill(32), sample_rank=number, teacher=pl.lit("echo")
    )
    kept = number % DROPPED_EVERY != 0
    frames = {
        ("raw_sample", None): pairs.select("document_id"),
        ("halves", None): pairs.select("document_id", "sample_rank", first_half="prompt"),
        ("completions", "echo"): pairs.select(
            "document_id", "sample_rank", "teacher", completion="response", status=pl.lit("ok")
        ),
        ("uppercase_start_removals", "echo"): pairs.filter(~kept).select(
            "document_id",
            "sample_rank",
            "teacher",
            completion="response",
            filter=pl.lit("uppercase_start"),
            reason=pl.lit("made up"),
        ),
        ("prompt_echo_removals", "echo"): pairs.head(0).select("document_id"),
        ("training_sets", "echo-80k"): pairs,
        ("training_sets", "echo-10k"): pairs.head(rows // 8),
        ("training_sets", "echo-73k"): pairs.filter(kept),
        ("funnel", None): pl.DataFrame(
            {"teacher": "echo", "place": 1, "step": "sampled", "is_filter": False, "drops": True, "kept": rows}
        ).with_columns(dropped=pl.lit(0)),
    }
    with dg.DagsterInstance.get() as instance:
        for (table, partition), frame in frames.items():
            _record(instance, table, partition, frame)


def _texts(rows: int) -> Iterator[pl.DataFrame]:
    """Prompts and responses of words drawn at random, which compress about as prose does."""
    chance = np.random.default_rng(0)
    letters = chance.integers(97, 123, (VOCABULARY, 9), dtype=np.uint8)
    words = pl.Series([bytes(row[: 2 + n % 8]).decode() for n, row in enumerate(letters)])
    for start in range(0, rows, AT_ONCE):
        count = min(AT_ONCE, rows - start)
        yield pl.DataFrame(
            {
                half: words.gather(chance.zipf(1.3, count * WORDS) % VOCABULARY).reshape((count, WORDS)).arr.join(" ")
                for half in ("prompt", "response")
            }
        )


def _record(instance: dg.DagsterInstance, table: str, partition: str | None, frame: pl.DataFrame) -> None:
    promised = contract.load(table)
    lacking = [pl.lit(None, t).alias(name) for name, t in schema(promised).items() if name not in frame.columns]
    whole = conform(frame.with_columns(*lacking).select(*schema(promised)), promised)
    version = data_version(whole)
    store().write(table, partition, whole, Version(data=version, inputs=""))
    asset = dg.AssetKey(table)
    tags = {"dagster/data_version": version[:16]}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, tags=tags))
    for test in promised.tests:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset, test.name, passed=True, metadata={}, partition=partition)
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
