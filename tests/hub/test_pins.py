"""What is taken from the Hub without a revision: looked at, pinned to the commit it has, and kept as that."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from nift_assets.new_study import backbone, corpus
from nift_assets.rows import Backbone, Corpus, ReferenceSet
from nift_assets.steps import revisions
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.study import Study
from tests.hub.pushing import TOKEN
from tests.hub.server import Hub
from tests.studies.test_data_alone import bare

TEXT = "The harbour wakes before the town does, and the boats go out with the tide. " * 5


def put(hub: Hub, name: str, kind: str, files: dict[str, bytes]) -> str:
    """The commit of a repository that anybody may read, with these files in it."""
    api = HfApi(hub.url, token=TOKEN)
    api.create_repo(name, repo_type=kind, private=False, exist_ok=True)
    added = [CommitOperationAdd(path, content) for path, content in files.items()]
    return str(api.create_commit(name, added, repo_type=kind, commit_message="more").oid)


def rows(number: int) -> bytes:
    return "".join(json.dumps({"id": str(n), "body": f"{n}: {TEXT}"}) + "\n" for n in range(number)).encode()


def unpinned() -> Study:
    """A study with a row of each kind that may be on the Hub, none of them with a revision."""
    return dataclasses.replace(
        bare(),
        corpus=Corpus(name="mine", location="hf://datasets/me/articles", text_column="body", licence="mine"),
        reference_sets=(
            ReferenceSet(
                name="pairs", location="hf://datasets/me/articles", file="a.jsonl", layout="pairs", licence="mine"
            ),
        ),
        backbones=(Backbone(name="tiny", source="me/tiny", template="zephyr"),),
    )


def test_a_corpus_and_a_model_of_the_hub_are_looked_at_and_pinned_to_their_commit(hub: Hub) -> None:
    articles = put(hub, "me/articles", "dataset", {"a.jsonl": rows(6)})
    found = corpus.look("me/articles", name="mine", text_column=None)
    assert (found.row.location, found.row.revision) == ("hf://datasets/me/articles", articles)
    assert (found.row.text_column, found.documents, found.row.licence[:7]) == ("body", 6, "unknown")
    config = {"config.json": b'{"model_type": "llama"}', "tokenizer_config.json": b"{}", "model.safetensors": b"-"}
    tiny = put(hub, "me/tiny", "model", config)
    model = backbone.look("me/tiny")
    assert (model.source, model.revision, model.architecture) == ("me/tiny", tiny, "llama")
    assert "base model" in model.own_template
    with pytest.raises(ValueError, match="'me/absent' cannot be looked at on the Hub") as refused:
        backbone.look("me/absent")
    assert "\n" not in str(refused.value)


def test_a_row_without_a_revision_stays_with_the_commit_that_was_first_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    articles = put(hub, "me/articles", "dataset", {"a.jsonl": rows(6)})
    tiny = put(hub, "me/tiny", "model", {"config.json": b"{}"})
    study, store = unpinned(), Store(str(tmp_path), "bare")

    # Who reads nothing of the Hub asks nothing of it, and keeps nothing.
    assert revisions.pinned(study, store, Partition("halves", None)) == study
    assert not store.folder(revisions.FOLDER).exists()
    assert revisions.pinned(study, store, Partition("raw_sample", None)).corpus.revision == articles
    assert revisions.pinned(study, store, Partition("backbones", "tiny")).backbone("tiny").revision == tiny

    put(hub, "me/articles", "dataset", {"b.jsonl": rows(7)})
    put(hub, "me/tiny", "model", {"README.md": b"newer"})
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        for place in (Partition("raw_sample", None), Partition("backbones", "tiny"), Partition("report", None)):
            kept = revisions.pinned(study, store, place)
            assert (kept.corpus.revision, kept.backbone("tiny").revision) == (articles, tiny)
    # The reference set is of the same repository.
    assert kept.reference_set("pairs").revision == articles

    # Nobody knows a commit without the Hub, and none is made up.
    fresh = Store(str(tmp_path / "fresh"), "bare")
    assert revisions.pinned(study, fresh, Partition("raw_sample", None)) == study
    assert not fresh.folder(revisions.FOLDER).exists()
    # A row that names its own is left alone.
    own = dataclasses.replace(study, backbones=(dataclasses.replace(study.backbone("tiny"), revision="v1"),))
    assert revisions.pinned(own, store, Partition("backbones", "tiny")).backbone("tiny").revision == "v1"
