"""LoRA adapters: one backbone fine-tuned on one training set, in a process of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import dagster as dg
import polars as pl

from nift_assets.pages import plots
from nift_assets.rows import Adapter
from nift_assets.steps import process, tracking
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table
from nift_assets.table_files import data_version
from nift_training import train
from nift_training.artifacts import read_rows
from nift_training.machine import ONE_DEVICE, Machine


def _learnt(adapter: Adapter) -> Adapter:
    """The row without the machine, on which nothing that is learnt depends."""
    return replace(adapter, machine=ONE_DEVICE)


@table(
    group="models",
    kinds={"pytorch", "python"},
    inputs=("training_sets", "backbones"),
    by="adapter",
    rows=lambda study, key, table: (_learnt(study.adapter(key)),),
    version=1,
    pool="gpu",
)
def lora_adapters(context: Context, training_sets: pl.DataFrame, backbones: pl.DataFrame) -> TableOutput:
    adapter = context.study.adapter(context.key)
    rows = training_sets.select("prompt", "response")
    # What an interrupted run has done is found again by the next one; of other weights or pairs it is a folder apart.
    work = _work(context, adapter, f"{backbones['digest'][0][:16]}-{data_version(rows)[:16]}")
    with process.scratch() as scratch:
        rows.write_parquet(scratch / "pairs.parquet")
        (scratch / "recipe.json").write_text(json.dumps(asdict(adapter.recipe)), encoding="utf-8")
        folder = process.make_folder(
            context,
            "lora_adapters",
            train,
            base=context.store.folder(backbones["folder"][0]),
            base_name=adapter.backbone,
            data=scratch / "pairs.parquet",
            data_version=data_version(training_sets)[:16],
            recipe=scratch / "recipe.json",
            work=work,
            threads=context.study.backbone(adapter.backbone).threads,
            **_options(adapter.machine),
            **tracking.options(context),
        )
    shutil.rmtree(work.parent, ignore_errors=True)
    facts = folder.manifest.facts
    row = {
        "adapter": adapter.name,
        "backbone": adapter.backbone,
        "backbone_digest": backbones["digest"][0],
        "training_set": adapter.training_set,
        "rows": facts["rows"],
        "steps": facts["steps"],
        "tokens": facts["tokens"],
        "first_loss": facts["first_loss"],
        "last_loss": facts["last_loss"],
        "bytes": folder.bytes,
        "digest": folder.manifest.digest,
        "folder": folder.name,
    }
    losses = read_rows(context.store.folder(folder.name, "train_log.jsonl"))
    (plot,) = plots.loss_curves({adapter.name: [(entry["step"], entry["loss"]) for entry in losses]})
    shown = {
        "loss": dg.MetadataValue.md(plots.as_markdown(plot, "loss per step")),
        "model_card": dg.MetadataValue.path(str(context.store.folder(folder.name, "README.md"))),
        "recipe": dg.MetadataValue.json(facts["recipe"]),
    }
    return TableOutput(pl.DataFrame([row]), metadata={**process.facts(folder), **shown})


def _work(context: Context, adapter: Adapter, of: str) -> Path:
    """Where a run of this adapter keeps its checkpoints: beside the studies, out of the way of their tables."""
    return Path(context.store.root, ".checkpoints", context.study.name, adapter.name, of)


def _options(machine: Machine) -> dict[str, object]:
    """The machine as options of the command line, those at their default left out."""
    usual = asdict(ONE_DEVICE)
    return {name: value for name, value in asdict(machine).items() if value != usual[name]}
