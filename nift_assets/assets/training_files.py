"""Each training set once more as files that other trainers read as they are, in a folder named after its content."""

from __future__ import annotations

import polars as pl

from nift_assets.pairs import training_files as files
from nift_assets.steps import process
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table
from nift_training import artifacts


@table(
    group="training",
    kinds={"json", "polars"},
    inputs=("training_sets",),
    by="training_set",
    follows=True,
    streams=True,
)
def training_files(context: Context) -> TableOutput:
    name = context.key
    draft = process.draft_of(context, "training_files")
    with artifacts.folder(draft, "training files") as making:
        making.facts["rows"] = rows = files.write(making.path, name, context.inputs.tables["training_sets"])
    folder = process.keep(draft.parent, draft, name=f"training_files/{name}")
    row = {
        "training_set": name,
        "rows": rows,
        "files": [file.name for file in folder.manifest.files],
        "bytes": folder.bytes,
        "digest": folder.manifest.digest,
        "folder": folder.name,
    }
    return TableOutput(pl.DataFrame([row]), metadata=process.facts(folder))
