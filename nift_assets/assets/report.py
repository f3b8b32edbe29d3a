"""The page of the study: what was run, what became of it, and every score beside the paper's."""

from __future__ import annotations

import hashlib

import dagster as dg
import polars as pl

from nift_assets import plots
from nift_assets import report as pages
from nift_assets.assets import partitions
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import STEPS, Made, table
from nift_assets.report import DataVersion
from nift_assets.store import Store

FILE = "report.html"
PAGE = f"/study/{FILE}"


@table(
    group="scores",
    kinds={"python", "html"},
    inputs=pages.INPUTS,
    rows=lambda key, table: (STUDY, pages.TEMPLATE.read_text(encoding="utf-8")),
    code=(pages, plots),
    follows=True,
)
def report(context: dg.AssetExecutionContext, **frames: pl.DataFrame) -> Made:
    content = pages.page(STUDY, frames, data_versions(context.resources.store)).encode()
    row = {
        "study": STUDY.name,
        "file": FILE,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "tables": sum(frame.height > 0 for frame in frames.values()),
    }
    # `nift ui` serves it; a browser opens no file for a page.
    shown = {"page": dg.MetadataValue.url(PAGE), "file": FILE, "bytes": len(content)}
    return Made(pl.DataFrame([row]), files={FILE: content}, metadata=shown)


def data_versions(store: Store) -> list[DataVersion]:
    """The stored version of everything the page is made from; the digest is None for what was not made yet."""
    return [
        DataVersion(table=name, partition=key, digest=version.data if (version := store.version(name, key)) else None)
        for name in pages.INPUTS
        for key in partitions.keys(STUDY, STEPS[name].partitions)
    ]
