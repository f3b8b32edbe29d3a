"""A published data set as a state of its study: what its configurations are, read by the mark that lies beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nift_assets.differences.states import REMOVALS, StudyState, TablePartition
from nift_assets.hub import repository
from nift_assets.near_names import near

ADDRESS = "hf://datasets/"
# The tables of the configurations that are no training set.
TABLES = {"removals": REMOVALS, "audits": "content_audit", "requests": "completions"}


def state(name: str, marker: Mapping[str, Any], place: Callable[[str], Path]) -> StudyState:
    """What a `nift.json` lists, each file where `place` says that it lies."""
    teacher = str(marker["of"]["teacher"])
    files = {
        table_of(configuration, teacher): tuple(place(file) for file in listed["files"])
        for configuration, listed in marker.get("configurations", {}).items()
    }
    versions = {table: " ".join(str(path.resolve()) for path in paths) for table, paths in files.items()}
    study = str(marker["of"]["study"])
    return StudyState(name=name, study=study, files=files, versions=versions, sealed=False, teacher=teacher)


def table_of(configuration: str, teacher: str) -> TablePartition:
    """The table and partition of the study that a configuration shows."""
    return (TABLES[configuration], teacher) if configuration in TABLES else ("training_sets", configuration)


def fetched(address: str) -> StudyState:
    """The data set at `hf://datasets/owner/name@revision`, of the newest commit without a revision; it is fetched once
    and kept in the Hub's cache. ValueError for what is not there, or was not published by this project."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = address.removeprefix(ADDRESS).rstrip("/").partition("@")
    if name.count("/") != 1:
        raise ValueError(f"{address} is no data set of the Hub; name it hf://datasets/owner/name@revision")
    token = repository.token()
    api = repository.connect(token)
    try:
        folder = Path(
            api.snapshot_download(
                name,
                repo_type="dataset",
                revision=revision or None,
                allow_patterns=[repository.MARKER, "*/*.parquet"],
            )
        )
    except RepositoryNotFoundError:
        who = "the token of HF_TOKEN; is it named so?" if token else "a stranger; set HF_TOKEN if it is private"
        raise ValueError(f"the Hub shows no data set {name} to {who}") from None
    except RevisionNotFoundError:
        tags = [tag.name for tag in api.list_repo_refs(name, repo_type="dataset").tags]
        known = near(revision, tags) or (f"; its tags are {', '.join(tags)}" if tags else "")
        raise ValueError(f"{name} has no revision {revision!r}{known}") from None
    except (OSError, ValueError) as error:  # all errors of the Hub's client are one or the other
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{address} cannot be fetched ({type(error).__name__}: {reason})") from error
    if not (folder / repository.MARKER).exists():
        raise ValueError(
            f"{address} has no {repository.MARKER}, so `nift publish` has not made it; only such are compared"
        )
    marker = json.loads((folder / repository.MARKER).read_text(encoding="utf-8"))
    if not marker.get("of", {}).get("teacher"):
        raise ValueError(f"{address} holds weights and no rows; compare the states of its study instead")
    there = {str(path.relative_to(folder)): path for path in folder.glob("*/*.parquet")}
    try:
        return state(address, marker, there.__getitem__)
    except KeyError as missing:
        raise ValueError(f"{address} lists the file {missing}, which is not in it; compare another revision") from None
