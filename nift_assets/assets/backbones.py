"""The models adapters are trained on and merged into, fetched from the Hub at a pinned revision or made on the spot."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import DEMO_FILES
from nift_assets.assets import process
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.process import Folder
from nift_assets.assets.table import Made, table
from nift_assets.studies.study import Backbone
from nift_training import fetch, pico


@table(
    group="models",
    kinds={"pytorch", "huggingface"},
    by="backbone",
    rows=lambda key: (STUDY.backbone(str(key)),),
    code=(pico, fetch),
    pool="hub",
)
def backbones(context: dg.AssetExecutionContext) -> Made:
    backbone = STUDY.backbone(context.partition_key)
    folder = _make_pico(context, backbone) if backbone.source == "pico" else _fetch(context, backbone)
    row = {
        "backbone": backbone.name,
        "source": backbone.source,
        "revision": folder.manifest.facts.get("revision"),
        "template": backbone.template,
        "instruct_of": backbone.instruct_of,
        "parameters": folder.manifest.facts["parameters"],
        "bytes": folder.bytes,
        "digest": folder.manifest.digest,
        "folder": folder.name,
    }
    return Made(pl.DataFrame([row]), metadata=process.facts(folder), finish=folder.remove_others)


def _make_pico(context: dg.AssetExecutionContext, backbone: Backbone) -> Folder:
    """The tiny model, or its Instruct sibling; the sibling's foundation is made again, with the same bytes."""
    options = {"articles": DEMO_FILES / "articles", "threads": backbone.threads}
    if backbone.instruct_of is None:
        return process.make_folder(context, "backbones", "pico", **options)
    with process.scratch() as scratch:
        process.run(context, "pico", out=scratch / "foundation", **options)
        return process.make_folder(context, "backbones", "pico", instruct_from=scratch / "foundation", **options)


def _fetch(context: dg.AssetExecutionContext, backbone: Backbone) -> Folder:
    return process.make_folder(context, "backbones", "fetch", repository=backbone.source, revision=backbone.revision)
