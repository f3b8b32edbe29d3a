"""What is published on the Hugging Face Hub: written as a folder and held against its checks, then pushed if asked to.

Materializing one writes the folder and nothing more. It is pushed by a run that carries the tag `nift/publish`, which
`nift publish --yes` gives it; nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from nift_assets import filters
from nift_assets.hub import cards, commits, data_files, dataset_facts, folders, repository, weights_facts
from nift_assets.hub.folders import Content, Upstream
from nift_assets.hub.repository import Change, Remote, Repository
from nift_assets.rows import Publication
from nift_assets.secrets import keys
from nift_assets.steps import check_results, process
from nift_assets.steps.partitions import STUDY, PartitionSet
from nift_assets.steps.table import STEPS, Made, table
from nift_assets.store import Store
from nift_training import artifacts
from nift_training.artifacts import Manifest

if TYPE_CHECKING:
    from nift_assets.ledger.report import Account

CONSENT = "nift/publish"
PLAN = "plan"
CODE = (cards, data_files, dataset_facts, weights_facts, folders, repository)


def publication_of(kind: PartitionSet, key: str | None) -> Publication | None:
    """The row that publishes this teacher, adapter or model, None if none does."""
    return next((row for row in STUDY.publications if getattr(row, kind) == key), None)


def _row(kind: PartitionSet) -> Callable[[str | None, str], Sequence[Any]]:
    return lambda key, table: (publication_of(kind, key), STUDY.warning)


@table(
    group="hub",
    kinds={"huggingface", "parquet"},
    inputs=(
        "halves",
        "completions",
        "training_sets",
        "content_audit",
        "funnel",
        *(filters.table(row) for row in STUDY.filters),
    ),
    by="teacher",
    rows=_row("teacher"),
    code=CODE,
    pool="hub",
    streams=True,
    by_hand=True,
)
def hub_datasets(context: dg.AssetExecutionContext) -> Made:
    return _publish(context, "hub_datasets", "teacher")


@table(
    group="hub",
    kinds={"huggingface", "pytorch"},
    inputs=("lora_adapters", "benchmark_scores"),
    by="adapter",
    rows=_row("adapter"),
    code=CODE,
    pool="hub",
    streams=True,
    by_hand=True,
)
def hub_adapters(context: dg.AssetExecutionContext) -> Made:
    return _publish(context, "hub_adapters", "adapter")


@table(
    group="hub",
    kinds={"huggingface", "pytorch"},
    inputs=("merged_models", "lora_adapters", "benchmark_scores"),
    by="model",
    rows=_row("model"),
    code=CODE,
    pool="hub",
    streams=True,
    by_hand=True,
)
def hub_models(context: dg.AssetExecutionContext) -> Made:
    return _publish(context, "hub_models", "model")


def _publish(context: dg.AssetExecutionContext, name: str, kind: PartitionSet) -> Made:
    """The row of one publication: its folder, and the commit that holds it if this run was to push."""
    publication = publication_of(kind, context.partition_key)
    if publication is None:
        raise ValueError(
            f"the study publishes nothing of the {kind} {context.partition_key!r}; add a Publication that names it"
        )
    store: Store = context.resources.store
    upstream = _upstream(context, name)
    to_push = context.run.tags.get(CONSENT) == "yes"
    to = _destination(publication, to_push=to_push)
    place = to.name if to else publication.repository
    draft = process.draft_of(context, name)
    with artifacts.folder(draft, "publication") as making:
        content = folders.write(STUDY, store, publication, place, upstream, making)
    folder = process.keep(draft.parent, draft, name=f"{name}/{context.partition_key}")
    path = store.folder(folder.name)
    manifest = artifacts.verify(path)
    row = {
        kind: context.partition_key,
        "publication": publication.name,
        "repository": place,
        "private": publication.private,
        "licence": publication.licence,
        "files": len(manifest.files),
        "rows": content.rows,
        "bytes": folder.bytes,
        "digest": manifest.digest,
        "tag": content.tag,
        "folder": folder.name,
        "revision": None,
        "files_read_back": None,
        "rows_read_back": None,
    }
    remote = repository.look(to) if to else None
    planned = repository.changes(path, manifest, remote)
    shown = {
        **process.facts(folder),
        "card": dg.MetadataValue.path(str(path / "README.md")),
        PLAN: dg.MetadataValue.json(commits.plan(publication, place, remote, planned, looked=to is not None)),
    }
    if to is None or not to_push:
        shown["pushed"] = "no: `nift publish --yes` does it"
    else:
        pushed, seen = _push(to, path, manifest, content, remote, planned)
        row, shown = row | pushed, shown | seen
    return Made(pl.DataFrame([row]), metadata=shown)


def _upstream(context: dg.AssetExecutionContext, name: str) -> Upstream:
    """All that the publication rests on; ValueError if a check of it has failed or never ran."""
    store: Store = context.resources.store
    step, key = STEPS[name], context.partition_key
    above = check_results.upstream(step, key)
    return Upstream(
        checks=check_results.refuse_unchecked(context.instance, store, above),
        inputs=folders.versions(store, step.upstream(key)),
        lineage=folders.versions(store, above),
        account=_account(context, key) if step.partitions == "teacher" else None,
    )


def _destination(publication: Publication, *, to_push: bool) -> Repository | None:
    """Where it goes; None if nothing is to be pushed and there is no token to look at the Hub with."""
    who = f"publication {publication.name!r}"
    token = keys.require(repository.TOKEN, who) if to_push else repository.token()
    return repository.find(repository.connect(token), STUDY.name, publication) if token else None


def _push(
    to: Repository,
    path: Path,
    manifest: Manifest,
    content: Content,
    remote: Remote | None,
    planned: Sequence[Change],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pushes what is not on the Hub yet and reads all of it back: columns of the row, and what is shown in the UI."""
    changed = [change for change in planned if change.action != "same"]
    message = commits.message(to, path, content, remote, changed)
    revision = repository.push(to, path, manifest, remote, message=message, tag=content.tag)
    found = repository.read_back(to, revision, path, manifest)
    row = {"revision": revision, "files_read_back": found.files, "rows_read_back": found.rows}
    shown = {
        "pushed": dg.MetadataValue.url(repository.url(to, revision)),
        "revision": revision,
        "commit": message.partition("\n")[0] if changed else "none: nothing has changed",
    }
    return row, shown


def _account(context: dg.AssetExecutionContext, who: str) -> Account | None:
    from nift_assets.ledger import report as ledger_report  # brings the database library

    found = ledger_report.report(context.resources.ledger.book, study=STUDY.name).accounts
    return next((account for account in found if account.who == who), None)
