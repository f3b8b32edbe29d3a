"""The commits of what a study takes from the Hub without naming a revision: found out once, and kept beside its tables.

What is made from a repository is then the same from whatever day on, and a machine without the Hub goes on with the
commit that is kept. To take the newest, write it into the row; then what was made from the other is stale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from nift_assets.rows import Backbone, Corpus, ReferenceSet, is_folder
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.study import Study

FOLDER = ".revisions"
DATASETS = "hf://datasets/"
RepositoryKind = Literal["dataset", "model"]
Find = Callable[[RepositoryKind, str], str | None]


def pinned(study: Study, store: Store, partition: Partition) -> Study:
    """The study with the kept commit in each row of the Hub that names no revision. Who makes the partition that reads
    a repository for the first time finds out its commit and keeps it."""
    key = partition.key

    def find(wanted: bool) -> Find:
        return lambda kind, name: kept(store, kind, name) or (_keep(store, kind, name) if wanted else None)

    corpus = _corpus(study.corpus, find(partition.table in ("raw_sample", "raw_sample_rejects")))
    sets = tuple(_reference(row, find(partition == ("reference_sets", row.name))) for row in study.reference_sets)
    backbones = tuple(
        _backbone(row, find(partition == ("backbones", key) and row.name == key)) for row in study.backbones
    )
    if (corpus, sets, backbones) == (study.corpus, study.reference_sets, study.backbones):
        return study
    return replace(study, corpus=corpus, reference_sets=sets, backbones=backbones)


def kept(store: Store, kind: RepositoryKind, name: str) -> str | None:
    """The commit of a repository that is kept for a study; None if none is."""
    try:
        return store.folder(FOLDER, _file(kind, name)).read_text().strip() or None
    except OSError:
        return None


def _keep(store: Store, kind: RepositoryKind, name: str) -> str | None:
    """The commit that the Hub has now; None where it cannot be asked, and whoever reads the repository says why."""
    from huggingface_hub import HfApi

    try:
        commit = HfApi().repo_info(name, repo_type=kind).sha
    except (OSError, ValueError):  # all errors of the Hub's client are one or the other
        return None
    if commit:
        store.write_bytes(commit.encode(), FOLDER, _file(kind, name))
    return commit


def _file(kind: RepositoryKind, name: str) -> str:
    return f"{kind}s--{name.replace('/', '--')}"


def _corpus(row: Corpus, find: Find) -> Corpus:
    name = _dataset(row.location)
    return replace(row, revision=find("dataset", name)) if name and row.revision is None else row


def _reference(row: ReferenceSet, find: Find) -> ReferenceSet:
    name = _dataset(row.location)
    return replace(row, revision=find("dataset", name)) if name and row.revision is None else row


def _backbone(row: Backbone, find: Find) -> Backbone:
    is_of_hub = row.source != "pico" and not is_folder(row.source)
    return replace(row, revision=find("model", row.source)) if is_of_hub and row.revision is None else row


def _dataset(location: str) -> str | None:
    """The repository that an address names without a revision."""
    if not location.startswith(DATASETS) or "@" in location:
        return None
    return "/".join(location.removeprefix(DATASETS).split("/")[:2])
