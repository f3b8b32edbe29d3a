"""Fetches a model from the Hugging Face Hub at a pinned revision, or from a folder, into a folder with a manifest."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from nift_training import artifacts, model_folder, progress, shards, verbs
from nift_training.artifacts import ManifestFile

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


def copy(folder: Path, out: Path) -> artifacts.Manifest:
    """The manifest of the folder `out`: the files of another folder that a model is loaded from, as they are now.

    Its revision is the digest of their content, so that it is the same wherever the folder lies.
    """
    names = files(folder)
    with artifacts.folder(out, "model") as draft:
        progress.say(f"copying {len(names)} files of {folder}")
        for name in names:
            path = draft.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, path)
            artifacts.sync(path)
            draft.hashed_files[name] = ManifestFile(name=name, bytes=path.stat().st_size, sha256=artifacts.sha256(path))
        revision = content_digest(draft.path, lambda path: draft.hashed_files[path.name].sha256)
        draft.facts.update(source=f"./{folder.name}", revision=revision, parameters=parameters(draft.path))
    return artifacts.read_manifest(out)


def files(folder: Path) -> list[str]:
    """The files of a folder that a model is loaded from, by their names in order: configuration, tokenizer, weights and
    licence. ValueError for a folder that holds no model."""
    if not (folder / model_folder.CONFIG).is_file():
        what = "is no folder" if not folder.is_dir() else f"has no {model_folder.CONFIG}"
        raise ValueError(f"{folder} {what}: name a model's folder, as save_pretrained writes it")
    weights = [shards.SINGLE] if (folder / shards.SINGLE).is_file() else sorted(model_folder.indexed(folder) or ())
    if not weights:
        raise ValueError(f"{folder} has no safetensors weights: save the model with save_pretrained")
    beside = (path.name for path in folder.iterdir() if path.is_file())
    companions = (name for name in beside if any(fnmatchcase(name, wanted) for wanted in model_folder.COMPANIONS))
    return sorted({*companions, *weights})


def content_digest(folder: Path, sha256: Callable[[Path], str] = artifacts.sha256) -> str:
    """The sha256 over the names and contents of the files that a model is loaded from."""
    return artifacts.digest_of([[name, sha256(folder / name)] for name in files(folder)])


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
    command_line.add_argument("--repository", help="Hub id, such as mistralai/Mistral-7B-v0.1")
    command_line.add_argument("--revision", help="commit, tag or branch; pin a commit")
    command_line.add_argument("--folder", type=Path, help="a model's folder on this machine, to be copied")
    options = command_line.parse_args(argv)
    if (options.folder is None) == (options.repository is None):
        raise ValueError("name either --repository, with its --revision, or --folder")
    if options.folder is not None:
        copy(options.folder, options.out)
        return
    if options.revision is None:
        raise ValueError(f"{options.repository} changes on the Hub: pin it with --revision, best of all a commit")
    fetch(options.repository, options.revision, options.out)


if __name__ == "__main__":
    verbs.run(main)
