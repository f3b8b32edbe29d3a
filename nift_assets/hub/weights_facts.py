"""What the card of an adapter or of a merged model says, and the files that are published of its folder."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nift_assets import benchmarks
from nift_assets.hub import dataset_facts
from nift_assets.pages.viewer import links
from nift_assets.pages.viewer.answers import read_in_words
from nift_assets.rows import Adapter, Backbone, Model, Publication
from nift_assets.store import Store
from nift_assets.study import Study
from nift_training import artifacts
from nift_training.recipe import name_of

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
CARD = "README.md"
ADAPTER_CONFIG = "adapter_config.json"

# The score and both ends of its interval, by model and measure.
PublishedScores = dict[str, list[float | None]]


def copy(folder: Path, making: artifacts.Draft, backbone: Backbone) -> dict[str, Any]:
    """The facts of a verified folder of weights, whose files are now also in the draft, without another byte on the
    disk where the file system can; its card is made anew, and an adapter says where the Hub has its base."""
    manifest = artifacts.verify(folder)
    for file in manifest.files:
        if file.name in (CARD, ADAPTER_CONFIG):
            continue
        (making.path / file.name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(folder / file.name, making.path / file.name)
        except OSError:
            shutil.copyfile(folder / file.name, making.path / file.name)
        making.hashed_files[file.name] = file
    if (folder / ADAPTER_CONFIG).exists():
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        config |= {"base_model_name_or_path": backbone.source, "revision": backbone.revision}
        (making.path / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return manifest.facts


def facts(
    study: Study,
    store: Store,
    publication: Publication,
    adapter: Adapter,
    trained: Mapping[str, Any],
    model: Model | None,
) -> dict[str, Any]:
    """Everything the template of weights asks for; `trained` are the facts of the adapter's manifest."""
    backbone = study.backbone(model.backbone if model else adapter.backbone)
    training_set = study.training_set(adapter.training_set)
    learnt = asdict(adapter.recipe)
    return {
        "study": study,
        "publication": publication,
        "adapter": adapter,
        "model": model,
        "backbone": backbone,
        "base_link": _link(backbone),
        "base_on_the_hub": HUB_ID.fullmatch(backbone.source) is not None,
        "judges": [
            (measure.column, study.judge(benchmark.judge).model)
            for benchmark in study.benchmarks
            if benchmark.judge
            for measure in benchmarks.measures([benchmark])
        ],
        "title": f"{study.title}: {publication.of}",
        "made": _made(study, backbone, adapter, trained, model),
        "recipe_name": name_of(adapter.recipe),
        "recipe": [
            (name.replace("_", " "), "none" if value in ("", None) else value) for name, value in learnt.items()
        ],
        "benchmarks": [measure.column for measure in benchmarks.measures(study.benchmarks)],
        "scores": _scores(study, store, adapter, model),
        "has_paper": any(
            _of_paper(row, measure.name)
            for measure in benchmarks.measures(study.benchmarks)
            for row in _scored(study, adapter, model)
        ),
        "answers": answers(study, model),
        "terms": dataset_facts.terms(study, training_set.teacher),
    }


def answers(study: Study, model: Model | None) -> list[str]:
    """Where `nift look` shows the judged answers of a model; of an adapter, those of the study's first model."""
    judged = [row.name for row in read_in_words(study) if benchmarks.is_judged(row.name)]
    return [links.answers(name, model.name if model else None) for name in judged]


def head(publication: Publication, backbone: Backbone, model: Model | None) -> dict[str, Any]:
    """What the Hub reads of the card: licence, library, and the base model where it is one of the Hub's."""
    on_the_hub = HUB_ID.fullmatch(backbone.source) is not None
    return {
        "license": publication.licence,
        "library_name": "transformers" if model else "peft",
        "pipeline_tag": "text-generation",
        "base_model": backbone.source if on_the_hub else None,
        "base_model_relation": ("finetune" if model else "adapter") if on_the_hub else None,
        "tags": ["non-instructional-fine-tuning", "arxiv:2409.00096", "nift", *([] if model else ["lora"])],
    }


def published_scores(study: Study, store: Store, adapter: Adapter, model: Model | None) -> PublishedScores:
    """Score and interval of each measure, by the models that the card shows: what a later commit is held against."""
    shown = {row.name for row in _scored(study, adapter, model)}
    return {
        f"{row['model']} on {row['benchmark']}": [row["score"], row["low"], row["high"]]
        for row in store.read("benchmark_scores", None).sort("model", "benchmark").to_dicts()
        if row["model"] in shown and row["score"] is not None
    }


def _made(
    study: Study, backbone: Backbone, adapter: Adapter, trained: Mapping[str, Any], model: Model | None
) -> list[tuple[str, object]]:
    training_set = study.training_set(adapter.training_set)
    rows: list[tuple[str, object]] = [
        ("base model", f"{backbone.source}{f' at {backbone.revision}' if backbone.revision else ''}"),
        ("adapter", f"{adapter.name}, trained on {study.backbone(adapter.backbone).source}"),
        ("training set", f"{training_set.name}: {trained['rows']:,} pairs by {training_set.source}"),
        ("data version", trained["data_version"]),
        ("steps", f"{trained['steps']:,} of {adapter.recipe.batch_size} rows in {adapter.recipe.epochs} epochs"),
        ("tokens", f"{trained['tokens']:,} read, {trained['trained_tokens']:,} of them learnt"),
        ("loss", f"{trained['first_loss']:.4f} in the first step, {trained['last_loss']:.4f} in the last"),
        ("computed in", f"{trained['precision']}, the adapter in float32"),
        ("hardware", trained["hardware"]),
        ("weights of the base", f"files {trained['base_digest'] or 'without a manifest'}"),
    ]
    return [*rows, ("merged into", f"{backbone.source} ({model.module})")] if model else rows


def _scored(study: Study, adapter: Adapter, model: Model | None) -> list[Model]:
    """The rows of the score table that say what the weights are worth: with them, and their backbones as they are."""
    having = [model] if model else [row for row in study.models if row.adapter == adapter.name]
    bases = {row.backbone for row in having}
    return [*(row for row in study.models if row.module == "none" and row.backbone in bases), *having]


def _scores(study: Study, store: Store, adapter: Adapter, model: Model | None) -> list[dict[str, Any]]:
    rows = {(row["model"], row["benchmark"]): row for row in store.read("benchmark_scores", None).to_dicts()}
    return [
        {
            "model": row.name,
            "trained_on": study.adapter(row.adapter).training_set if row.adapter else "–",
            "cells": [
                _cell(rows.get((row.name, measure.name)), row, measure.name)
                for measure in benchmarks.measures(study.benchmarks)
            ],
        }
        for row in _scored(study, adapter, model)
    ]


def _cell(score: Mapping[str, Any] | None, model: Model, benchmark: str) -> str:
    paper = _of_paper(model, benchmark)
    theirs = f" (paper {paper:.2f})" if paper is not None else ""
    if score is None or score["score"] is None:
        return f"–{theirs}"
    interval = f" [{score['low']:.1f}, {score['high']:.1f}]" if score["low"] is not None else ""
    incomplete = "" if score["complete"] else " \\*"
    doubts = f" ({note})" if (note := score.get("note")) else ""
    return f"{score['score']:.2f}{interval}{incomplete}{doubts}{theirs}"


def _of_paper(model: Model, benchmark: str) -> float | None:
    """The first number the paper prints of it; its tables repeat one another."""
    return next((cell.paper for cell in model.cells if cell.benchmark == benchmark and cell.paper is not None), None)


def _link(backbone: Backbone) -> str:
    if not HUB_ID.fullmatch(backbone.source):
        return f"`{backbone.name}`"
    at = f" at `{backbone.revision}`" if backbone.revision else ""
    return f"`{backbone.source}`{at}"
