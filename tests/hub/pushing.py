"""A folder to publish, and pushing it as the assets do, here or in a process of its own that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from huggingface_hub import constants

from nift_assets.hub import repository
from nift_assets.hub.repository import ReadBack
from nift_assets.rows import Publication
from nift_training import artifacts

PROJECT = Path(__file__).parent.parent.parent
TOKEN = "hf_" + "Canary5OfTheHub5" * 2
STUDY, TAG = "demo", "data-0123456789abcdef"
ROWS = 40
SHARDS = ("pairs/train-00000-of-00002.parquet", "pairs/train-00001-of-00002.parquet", "removals/train.parquet")
CARD = "---\nlicense: cc0-1.0\n---\n\n# About\n"


def publication(**values: Any) -> Publication:
    fields: dict[str, Any] = {"name": "echo", "repository": "me/nift", "teacher": "echo", "licence": "cc0-1.0"}
    return Publication(**fields | values)


def write(folder: Path, *, changed: Mapping[str, bytes] | None = None, row: Publication | None = None) -> Path:
    """A folder with a card, our mark, and three Parquet files of so many rows each."""
    marker = {"made_by": "nift", "of": repository.of(STUDY, row or publication())}
    files = {"README.md": CARD.encode(), repository.MARKER: json.dumps(marker).encode(), **(changed or {})}
    with artifacts.folder(folder, "publication") as making:
        for place, name in enumerate(SHARDS):
            (making.path / name).parent.mkdir(exist_ok=True)
            texts = [f"{name} {number} " + "word " * 200 for number in range(ROWS)]
            pl.DataFrame({"document_id": texts, "place": place}).write_parquet(making.path / name)
        for name, content in files.items():
            (making.path / name).parent.mkdir(exist_ok=True)
            (making.path / name).write_bytes(content)
    return folder


def push(folder: Path, row: Publication, *, token: str = TOKEN, message: str = "a title") -> tuple[str, ReadBack]:
    """The commit that holds the folder, and what was read back of it."""
    manifest = artifacts.read_manifest(folder)
    to = repository.find(repository.connect(token), STUDY, row)
    remote = repository.state_of(to)
    revision = repository.push(to, folder, manifest, remote, message=message, tag=TAG)
    return revision, repository.read_back(to, revision, folder, manifest)


def process(folder: Path, row: Publication, url: str, *, crash: str = "") -> subprocess.Popen[str]:
    """The same in a process that reaches the Hub by its environment alone, and dies where it is told to."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_") or "_XET_" in name}
    settings = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": str(constants.HF_HUB_DISABLE_XET), "NIFT_CRASH": crash}
    command = [sys.executable, "-m", "tests.hub.pushing", str(folder), json.dumps(asdict(row))]
    return subprocess.Popen(
        command, cwd=PROJECT, env=kept | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


if __name__ == "__main__":
    print(push(Path(sys.argv[1]), Publication(**json.loads(sys.argv[2])))[0])
