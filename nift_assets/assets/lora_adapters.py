"""LoRA adapters: one backbone fine-tuned on one training set, in a process of its own."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import plots
from nift_assets.assets import process
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Made, table
from nift_training import artifacts, generation, pairs, recipe, train
from nift_training.artifacts import read_rows

OPTIONS = ("epochs", "batch_size", "micro_batch", "learning_rate", "cutoff", "rank", "alpha", "seed")


@table(
    group="models",
    kinds={"pytorch", "python"},
    inputs=("training_sets", "backbones"),
    by="adapter",
    rows=lambda key, table: (STUDY.adapter(str(key)),),
    code=(train, pairs, recipe, generation, artifacts),
    pool="gpu",
)
def lora_adapters(context: dg.AssetExecutionContext, training_sets: pl.DataFrame, backbones: pl.DataFrame) -> Made:
    adapter = STUDY.adapter(context.partition_key)
    options = {name: getattr(adapter.recipe, name) for name in OPTIONS}
    if recipe.Recipe(**options) != adapter.recipe:
        raise ValueError(f"adapter {adapter.name!r}: of a recipe only {', '.join(OPTIONS)} can be changed")
    with process.scratch() as scratch:
        training_sets.select("prompt", "response").write_parquet(scratch / "pairs.parquet")
        folder = process.make_folder(
            context,
            "lora_adapters",
            "train",
            base=context.resources.store.folder(backbones["folder"][0]),
            base_name=adapter.backbone,
            data=scratch / "pairs.parquet",
            threads=STUDY.backbone(adapter.backbone).threads,
            **options,
        )
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
    losses = read_rows(context.resources.store.folder(folder.name, "train_log.jsonl"))
    plot = plots.loss_curve([entry["step"] for entry in losses], [entry["loss"] for entry in losses])
    return Made(
        pl.DataFrame([row]),
        metadata={**process.facts(folder), "loss": dg.MetadataValue.md(plots.as_markdown(plot, "loss per step"))},
    )
