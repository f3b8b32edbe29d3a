"""Fetches a model from the Hugging Face Hub at a pinned revision into a folder with a manifest."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from nift_training import artifacts, model_folder, progress, shards, verbs

# Weights as safetensors only: a pickle in a repository is never fetched, so never loaded.
WANTED = ["*.json", "*.safetensors", "*.model", "*.jinja", "LICENSE*", "README.md"]


def fetch(repository: str, revision: str, out: Path) -> artifacts.Manifest:
    """The manifest of the folder `out`: weights, configuration and tokenizer as of the commit it records."""
    from huggingface_hub import HfApi, snapshot_download

    commit = HfApi().model_info(repository, revision=revision).sha
    with artifacts.folder(out, "model") as draft:
        progress.say(f"fetching {repository} at {commit}")
        snapshot_download(repository, revision=commit, local_dir=draft.path, allow_patterns=WANTED)
        shutil.rmtree(draft.path / ".cache", ignore_errors=True)  # where the client notes what it has fetched
        draft.facts.update(source=repository, revision=commit, parameters=parameters(draft.path))
    return artifacts.read_manifest(out)


def snapshot(repository: str, revision: str) -> tuple[Path, str]:
    """Where the Hub's own cache keeps a model, downloaded if it is not there yet, and the commit that is."""
    from huggingface_hub import HfApi, snapshot_download

    commit = HfApi().model_info(repository, revision=revision).sha
    assert commit is not None, "the Hub names the commit of what it has"
    return Path(snapshot_download(repository, revision=commit, allow_patterns=WANTED)), commit


def parameters(folder: Path) -> int:
    """The number of parameters in the safetensors files that a model is loaded from, read from their headers alone."""
    total = 0
    single = [shards.SINGLE] if (folder / shards.SINGLE).is_file() else None
    for file in (folder / name for name in sorted(single or model_folder.indexed(folder) or ())):
        with file.open("rb") as content:
            header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
        total += sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    if not total:
        raise ValueError(f"{folder.name} has no safetensors weights: choose a revision that has them")
    return total


def main(argv: Sequence[str]) -> None:
    command_line = verbs.parser("fetch", __doc__, "folder to write the model to")
    command_line.add_argument("--repository", required=True, help="Hub id, such as mistralai/Mistral-7B-v0.1")
    command_line.add_argument("--revision", required=True, help="commit, tag or branch; pin a commit")
    options = command_line.parse_args(argv)
    fetch(options.repository, options.revision, options.out)


if __name__ == "__main__":
    verbs.run(main)
