"""What lies beside an adapter for whoever finds it: the model card, and the loss as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nift_training.recipe import Recipe, name_of

WIDTH, HEIGHT, MARGIN = 640, 240, 40
SMOOTHING = 0.9  # of the running mean that is drawn over the losses


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
        "![Loss per step](loss.svg)\n\n"
        "Every number of the recipe is in `recipe.json`, which `python -m nift_training.train --recipe` reads; every\n"
        "step is in `train_log.jsonl`.\n"
    )


def loss_picture(losses: Sequence[float]) -> str:
    """An SVG of the loss per step, pale, and of its running mean, dark."""
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0

    def line(values: Sequence[float], colour: str, width: float) -> str:
        across = (WIDTH - 2 * MARGIN) / max(len(values) - 1, 1)
        points = " ".join(
            f"{MARGIN + place * across:.1f},{HEIGHT - MARGIN - (value - low) / span * (HEIGHT - 2 * MARGIN):.1f}"
            for place, value in enumerate(values)
        )
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    texts = [(4, MARGIN + 4, f"{high:.3f}"), (4, HEIGHT - MARGIN + 4, f"{low:.3f}")]
    texts += [(MARGIN, HEIGHT - 12, "step 1"), (WIDTH - MARGIN - 60, HEIGHT - 12, f"step {len(losses)}")]
    labels = "".join(f'<text x="{x}" y="{y}" font-family="sans-serif" font-size="11">{t}</text>' for x, y, t in texts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Loss per step">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
        f"{line(losses, '#a9c1d9', 1)}{line(_running_mean(losses), '#2b5f8f', 2)}{labels}</svg>\n"
    )


def _running_mean(values: Sequence[float]) -> list[float]:
    """An exponential mean without the pull of its start."""
    means, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(mean / weight)
    return means
