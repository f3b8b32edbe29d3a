"""The models of the score tables: a backbone as it is, or with an adapter merged into its weights."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets.assets import process
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Made, table
from nift_training import artifacts, merge


@table(
    group="models",
    kinds={"pytorch", "python"},
    inputs=("backbones", "lora_adapters"),
    by="model",
    rows=lambda key, table: (STUDY.model(str(key)),),
    code=(merge, artifacts),
)
def merged_models(context: dg.AssetExecutionContext, backbones: pl.DataFrame, lora_adapters: pl.DataFrame) -> Made:
    model = STUDY.model(context.partition_key)
    backbone = backbones.row(0, named=True)
    row = {
        "model": model.name,
        "module": model.module,
        "backbone": model.backbone,
        "backbone_digest": backbone["digest"],
        "adapter": model.adapter,
        "adapter_digest": None,
        "template": backbone["template"],
    }
    if model.adapter is None:
        # Nothing to merge: the row points at the backbone's own folder, 140 GB for the largest.
        unchanged = {name: backbone[name] for name in ("parameters", "bytes", "digest", "folder")}
        return Made(pl.DataFrame([{**row, **unchanged}]))
    adapter = lora_adapters.row(0, named=True)
    folder = process.make_folder(
        context,
        "merged_models",
        "merge",
        base=context.resources.store.folder(backbone["folder"]),
        adapter=context.resources.store.folder(adapter["folder"]),
        threads=STUDY.backbone(model.backbone).threads,
    )
    merged = {
        "adapter_digest": adapter["digest"],
        "parameters": folder.manifest.facts["parameters"],
        "bytes": folder.bytes,
        "digest": folder.manifest.digest,
        "folder": folder.name,
    }
    return Made(pl.DataFrame([{**row, **merged}]), metadata=process.facts(folder))
