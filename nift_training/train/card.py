"""The model card that lies beside an adapter for whoever finds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nift_training.recipe import Recipe, name_of


def card(base_name: str, recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """The README.md of an adapter folder: how it was made, of what and on what; nothing that varies between runs."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    rows = {
        "recipe": name_of(recipe),
        "base": f"{base_name}, files {facts['base_digest'] or 'without a manifest'}",
        "data": f"{facts['rows']:,} rows, version {facts['data_version']}",
        "steps": f"{facts['steps']:,} of {recipe.batch_size} rows in {recipe.epochs} epochs",
        "tokens": f"{facts['tokens']:,} read, {facts['trained_tokens']:,} of them learnt",
        "loss": f"{facts['first_loss']:.4f} in the first step, {facts['last_loss']:.4f} in the last",
        "computed in": f"{facts['precision']}, the adapter in float32",
        "hardware": facts["hardware"],
        "versions": versions,
    }
    table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    return (
        f"---\nbase_model: {json.dumps(base_name)}\nlibrary_name: peft\n---\n\n"
        f"# LoRA adapter for {base_name}\n\n"
        "Trained to continue text: prompt and response follow each other without a template, and only the\n"
        "response gives loss (non-instructional fine-tuning, arXiv 2409.00096).\n\n"
        f"| | |\n|---|---|\n{table}\n"
        "Every number of the recipe is in `recipe.json`, which `python -m nift_training.train --recipe` reads; every\n"
        "step with its loss is in `train_log.jsonl`.\n"
    )
