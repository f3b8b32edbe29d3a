"""The models adapters are trained on and merged into, from the Hub at a pinned revision, from a folder of one's own, or
made on the spot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from nift_assets import DEMO_FILES
from nift_assets.rows import Backbone, digest, is_folder, without_places
from nift_assets.steps import folder_digests, process
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Partition
from nift_assets.steps.process import Folder
from nift_assets.steps.table import TableOutput, table
from nift_training import fetch, pico


@table(
    group="models",
    kinds={"pytorch", "huggingface"},
    by="backbone",
    rows=lambda study, key, table: (_shaping(study.backbone(key)), _articles()),
    version=1,
    pool="hub",
)
def backbones(context: Context) -> TableOutput:
    backbone = context.study.backbone(context.key)
    folder = _make_pico(context, backbone) if backbone.source == "pico" else _fetch(context, backbone)
    row = {
        "backbone": backbone.name,
        "source": without_places(backbone).source,
        "revision": folder.manifest.facts.get("revision"),
        "template": backbone.template,
        "instruct_of": backbone.instruct_of,
        "parameters": folder.manifest.facts["parameters"],
        "bytes": folder.bytes,
        "digest": folder.manifest.digest,
        "folder": folder.name,
    }
    return TableOutput(pl.DataFrame([row]), metadata=process.facts(folder))


def _shaping(backbone: Backbone) -> Backbone:
    """What of a row shapes the weights: of a folder what is in it, in the place of where it lies."""
    row = replace(backbone, example=None)
    return replace(row, source=folder_digests.of(_folder(row))) if is_folder(row.source) else row


def _folder(backbone: Backbone) -> Path:
    return Path(backbone.source).expanduser().absolute()


def _articles() -> str:
    """The digest of the bundled articles, on which the pico models are trained."""
    return digest([path.read_text(encoding="utf-8") for path in sorted((DEMO_FILES / "articles").glob("*.txt"))])


def _make_pico(context: Context, backbone: Backbone) -> Folder:
    """The tiny model, or its Instruct sibling, which goes on from the foundation's weights."""
    options = {"articles": DEMO_FILES / "articles", "threads": backbone.threads}
    if backbone.instruct_of is None:
        return process.make_folder(context, "backbones", pico, **options)
    store = context.store
    if context.graph.is_current(store, Partition("backbones", backbone.instruct_of)):
        foundation = store.folder(store.read("backbones", backbone.instruct_of)["folder"][0])
        return process.make_folder(context, "backbones", pico, instruct_from=foundation, **options)
    with process.scratch() as scratch:
        # Asked for alone: the same inputs give the foundation the same bytes.
        process.run(context, pico, out=scratch / "foundation", **options)
        return process.make_folder(context, "backbones", pico, instruct_from=scratch / "foundation", **options)


def _fetch(context: Context, backbone: Backbone) -> Folder:
    if is_folder(backbone.source):
        return process.make_folder(context, "backbones", fetch, folder=_folder(backbone))
    return process.make_folder(context, "backbones", fetch, repository=backbone.source, revision=backbone.revision)
