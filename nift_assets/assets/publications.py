"""What is published on the Hugging Face Hub: written as a folder and held against its checks, then pushed if asked to.

Materializing one writes the folder and nothing more. It is pushed by a run that carries the tag `nift/publish`, which
`nift publish --yes` gives it; nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from nift_assets import filters
from nift_assets.hub import commits, folders, repository
from nift_assets.hub.folders import Content, Upstream
from nift_assets.hub.repository import Change, Repository, RepositoryState
from nift_assets.rows import Publication
from nift_assets.secrets import keys
from nift_assets.steps import check_results, process
from nift_assets.steps.context import Context
from nift_assets.steps.partitions import PartitionSet
from nift_assets.steps.table import RowsOf, TableOutput, table
from nift_assets.study import Study
from nift_training import artifacts
from nift_training.artifacts import Manifest

if TYPE_CHECKING:
    from nift_assets.ledger.report import Account

CONSENT = "nift/publish"
PLAN = "plan"


def publication_of(study: Study, kind: PartitionSet, key: str | None) -> Publication | None:
    """The row that publishes this teacher, adapter or model, None if none does."""
    return next((row for row in study.publications if getattr(row, kind) == key), None)


def _row(kind: PartitionSet) -> RowsOf:
    return lambda study, key, table: (publication_of(study, kind, key), study.warning)


@table(
    group="hub",
    kinds={"huggingface", "parquet"},
    inputs=lambda study: (
        "halves",
        "completions",
        "training_sets",
        "content_audit",
        "funnel",
        *(filters.table(row) for row in study.filters),
    ),
    by="teacher",
    rows=_row("teacher"),
    pool="hub",
    streams=True,
    by_hand=True,
)
def hub_datasets(context: Context) -> TableOutput:
    return _publish(context, "teacher")


@table(
    group="hub",
    kinds={"huggingface", "pytorch"},
    inputs=("lora_adapters", "benchmark_scores"),
    by="adapter",
    rows=_row("adapter"),
    pool="hub",
    streams=True,
    by_hand=True,
)
def hub_adapters(context: Context) -> TableOutput:
    return _publish(context, "adapter")


@table(
    group="hub",
    kinds={"huggingface", "pytorch"},
    inputs=("merged_models", "lora_adapters", "benchmark_scores"),
    by="model",
    rows=_row("model"),
    pool="hub",
    streams=True,
    by_hand=True,
)
def hub_models(context: Context) -> TableOutput:
    return _publish(context, "model")


def _publish(context: Context, kind: PartitionSet) -> TableOutput:
    """The row of one publication: its folder, and the commit that holds it if this run was to push."""
    publication = publication_of(context.study, kind, context.key)
    if publication is None:
        raise ValueError(f"the study publishes nothing of the {kind} {context.key!r}; add a Publication that names it")
    store = context.store
    upstream = _upstream(context, kind)
    to_push = context.dagster.run.tags.get(CONSENT) == "yes"
    to = _destination(context.study, publication, to_push=to_push)
    place = to.name if to else publication.repository
    draft = process.draft_of(context, context.partition.table)
    with artifacts.folder(draft, "publication") as making:
        content = folders.write(context.study, store, publication, place, upstream, making)
    folder = process.keep(draft.parent, draft, name=str(context.partition))
    path = store.folder(folder.name)
    manifest = artifacts.verify(path)
    row = {
        kind: context.key,
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
    remote = repository.state_of(to) if to else None
    planned = repository.changes(path, manifest, remote)
    shown = {
        **process.facts(folder),
        "card": dg.MetadataValue.path(str(path / "README.md")),
        PLAN: dg.MetadataValue.json(commits.plan(publication, place, remote, planned, looked=to is not None)),
    }
    if to is None or not to_push:
        shown["pushed"] = "NO: this was a dry run, and nothing is on the Hub; `nift publish --yes` pushes it"
    else:
        pushed, seen = _push(to, path, manifest, content, remote, planned)
        row, shown = row | pushed, shown | seen
    return TableOutput(pl.DataFrame([row]), metadata=shown)


def _upstream(context: Context, kind: PartitionSet) -> Upstream:
    """All that the publication rests on; ValueError if a check of it has failed or never ran."""
    store, above = context.store, context.graph.ancestors_of(context.partition)
    return Upstream(
        checks=check_results.refuse_unchecked(context.dagster.instance, store, above),
        inputs=folders.versions(store, context.graph.upstream(context.partition)),
        lineage=folders.versions(store, above),
        account=_account(context) if kind == "teacher" else None,
    )


def _destination(study: Study, publication: Publication, *, to_push: bool) -> Repository | None:
    """Where it goes; None if nothing is to be pushed and there is no token to look at the Hub with."""
    who = f"publication {publication.name!r}"
    token = keys.require(repository.TOKEN, who) if to_push else repository.token()
    return repository.find(repository.connect(token), study.name, publication) if token else None


def _push(
    to: Repository,
    path: Path,
    manifest: Manifest,
    content: Content,
    remote: RepositoryState | None,
    planned: Sequence[Change],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pushes what is not on the Hub yet and reads all of it back: columns of the row, and what is shown in the UI."""
    changed = [change for change in planned if change.action != "same"]
    message = commits.message(to, path, content, remote, changed)
    revision = repository.push(to, path, manifest, remote, message=message, tag=content.tag)
    read_back = repository.read_back(to, revision, path, manifest)
    row = {"revision": revision, "files_read_back": read_back.files, "rows_read_back": read_back.rows}
    shown = {
        "pushed": dg.MetadataValue.url(repository.url(to, revision)),
        "revision": revision,
        "commit": message.partition("\n")[0] if changed else "none: nothing has changed",
    }
    return row, shown


def _account(context: Context) -> Account | None:
    from nift_assets.ledger import report as ledger_report  # brings the database library

    accounts = ledger_report.report(context.book, study=context.study.name).accounts
    return next((account for account in accounts if account.who == context.key), None)
