"""The models of the score tables: a backbone as it is, or with an adapter merged into its weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets.rows import Model
from nift_assets.steps import process
from nift_assets.steps.context import Context
from nift_assets.steps.process import Folder
from nift_assets.steps.table import TableOutput, table
from nift_training import merge


@table(
    group="models",
    kinds={"pytorch", "python"},
    inputs=("backbones", "lora_adapters"),
    by="model",
    rows=lambda study, key, table: (_what_is_merged(study.model(key)),),
    version=1,
)
def merged_models(context: Context, backbones: pl.DataFrame, lora_adapters: pl.DataFrame) -> TableOutput:
    model = context.study.model(context.key)
    backbone = backbones.row(0, named=True)
    row = {
        "model": model.name,
        "module": model.module,
        "backbone": model.backbone,
        "backbone_digest": backbone["digest"],
        "adapter": model.adapter,
        "adapter_digest": None,
        "template": backbone["template"],
        "relation": None,
        "added_tokens": None,
        "logits_difference": None,
    }
    if model.adapter is None:
        # Nothing to merge: the row points at the backbone's own folder, 140 GB for the largest.
        unchanged = {name: backbone[name] for name in ("parameters", "bytes", "digest", "folder")}
        return TableOutput(pl.DataFrame([{**row, **unchanged}]))
    adapter = lora_adapters.row(0, named=True)
    folder = _merge(context, model, backbone, adapter)
    merged = {
        "adapter_digest": adapter["digest"],
        "relation": folder.manifest.facts["relation"],
        "added_tokens": folder.manifest.facts["added_tokens"],
        "logits_difference": folder.manifest.facts.get("logits_difference"),
        "parameters": folder.manifest.facts["parameters"],
        "bytes": folder.bytes,
        "digest": folder.manifest.digest,
        "folder": folder.name,
    }
    return TableOutput(pl.DataFrame([{**row, **merged}]), metadata=process.facts(folder))


def weights(context: Context, merged: Mapping[str, Any]) -> Path:
    """The folder a row of this table names, merged again if the model's weights are to be made on demand."""
    store = context.store
    model = context.study.model(merged["model"])
    folder = store.folder(merged["folder"])
    if folder.exists() or model.weights == "keep":
        return folder
    if model.weights == "delete":
        raise ValueError(
            f"the weights of {model.name} were deleted after its evaluation; materialize merged_models again"
        )
    assert model.adapter is not None, "a backbone's own folder is kept"
    backbone = store.read("backbones", model.backbone).row(0, named=True)
    adapter = store.read("lora_adapters", model.adapter).row(0, named=True)
    draft = _merge(context, model, backbone, adapter)
    if draft.manifest.digest != merged["digest"]:
        raise ValueError(f"the weights of {model.name} have come out otherwise than before; materialize merged_models")
    return folder


def clean_up(context: Context, merged: Mapping[str, Any]) -> None:
    """Removes merged weights after the last evaluation of a model whose row does not keep them."""
    if context.study.model(merged["model"]).weights != "keep":
        shutil.rmtree(context.store.folder(merged["folder"]), ignore_errors=True)
        context.log(f"the weights of {merged['model']} are removed; {merged['bytes'] / 1e9:.1f} GB are free again")


def _merge(context: Context, model: Model, backbone: Mapping[str, Any], adapter: Mapping[str, Any]) -> Folder:
    store = context.store
    row = context.study.backbone(model.backbone)
    return process.make_folder(
        context,
        "merged_models",
        merge,
        base=store.folder(backbone["folder"]),
        base_name=row.name,
        adapter=store.folder(adapter["folder"]),
        sibling_of=row.instruct_of if model.module == "lora-base" else None,
        check_logits="if-it-fits",
        threads=row.threads,
    )


def _what_is_merged(model: Model) -> Model:
    """The row without what changes nothing about the weights: how long they are kept, who serves them, and the cells of
    the paper that the model fills."""
    return replace(model, weights="keep", server=None, row=None, cells=())
