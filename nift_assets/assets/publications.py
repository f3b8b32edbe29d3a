"""What is published on the Hugging Face Hub: written as a folder and held against its checks, then pushed if asked to.

Materializing one writes the folder and nothing more. It is pushed by a run that carries the tag `nift/publish`, which
`nift publish --yes` gives it; nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from nift_assets import filters, keys, licences, redaction
from nift_assets.assets import check_results, process
from nift_assets.assets.check_results import Checked
from nift_assets.assets.partitions import STUDY, PartitionSet
from nift_assets.assets.table import STEPS, Made, table
from nift_assets.hub import cards, data_files, dataset_facts, repository, weights_facts
from nift_assets.hub.data_files import Configuration
from nift_assets.hub.repository import Change, Remote, Repository
from nift_assets.store import Store
from nift_assets.studies.study import Publication, digest
from nift_training import artifacts
from nift_training.artifacts import Draft, Manifest

if TYPE_CHECKING:
    from nift_assets.ledger.report import Account

CONSENT = "nift/publish"
PLAN = "plan"
# Tables with rows of every teacher or model, of which only its own stand on a card.
OF_ALL = frozenset({"funnel", "benchmark_scores"})
CODE = (cards, data_files, dataset_facts, weights_facts, repository, licences)
MADE_WITH = ("polars", "pyarrow")  # what the shards' bytes depend on


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
    return _publish(context, "hub_datasets", "teacher", _write_dataset)


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
    return _publish(context, "hub_adapters", "adapter", _write_weights)


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
    return _publish(context, "hub_models", "model", _write_weights)


Writes = Callable[[dg.AssetExecutionContext, Publication, str, Sequence[Checked], Draft], "Content"]


@dataclass(frozen=True)
class Content:
    """What is in a folder to be published: the tag of its version, and the configurations of a dataset."""

    tag: str
    configurations: Sequence[Configuration] = ()


def _publish(context: dg.AssetExecutionContext, name: str, kind: PartitionSet, write: Writes) -> Made:
    """The row of one publication: its folder, and the commit that holds it if this run was to push."""
    publication = publication_of(kind, context.partition_key)
    if publication is None:
        raise ValueError(
            f"the study publishes nothing of the {kind} {context.partition_key!r}; add a Publication that names it"
        )
    store: Store = context.resources.store
    checks = check_results.refuse_unchecked(
        context.instance, store, check_results.upstream(STEPS[name], context.partition_key)
    )
    to_push = context.run.tags.get(CONSENT) == "yes"
    to = _destination(publication, to_push=to_push)
    place = to.name if to else publication.repository
    draft = process.draft_of(context, name)
    with artifacts.folder(draft, "publication") as making:
        content = write(context, publication, place, checks, making)
        making.facts["tag"] = content.tag
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
        "rows": manifest.facts["rows"],
        "bytes": folder.bytes,
        "digest": manifest.digest,
        "tag": content.tag,
        "folder": folder.name,
        "revision": None,
        "files_read_back": None,
        "rows_read_back": None,
    }
    shown: dict[str, Any] = {**process.facts(folder), "card": dg.MetadataValue.path(str(path / "README.md"))}
    remote = repository.look(to) if to else None
    planned = repository.changes(path, manifest, remote)
    plan = _plan(publication, place, remote, planned, looked=to is not None)
    shown[PLAN] = dg.MetadataValue.json(plan)
    if to is None or not to_push:
        shown["pushed"] = "no: `nift publish --yes` does it"
    else:
        pushed, seen = _push(to, path, manifest, content, remote, planned)
        row, shown = row | pushed, shown | seen
    return Made(pl.DataFrame([row]), metadata=shown)


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
    message = _message(to, path, content, remote, changed)
    revision = repository.push(to, path, manifest, remote, message=message, tag=content.tag)
    found = repository.read_back(to, revision, path, manifest)
    row = {"revision": revision, "files_read_back": found.files, "rows_read_back": found.rows}
    shown = {
        "pushed": dg.MetadataValue.url(repository.url(to, revision)),
        "revision": revision,
        "commit": message.partition("\n")[0] if changed else "none: nothing has changed",
    }
    return row, shown


def _plan(
    publication: Publication, place: str, remote: Remote | None, planned: Sequence[Change], *, looked: bool
) -> dict[str, Any]:
    return {
        "publication": publication.name,
        "repository": place,
        "kind": publication.kind,
        "private": publication.private,
        "licence": publication.licence,
        "looked_at_the_hub": looked,
        "exists": remote is not None,
        "changes": [asdict(change) for change in planned],
    }


def _message(to: Repository, path: Path, content: Content, remote: Remote | None, changed: Sequence[Change]) -> str:
    """What a commit does: a title, and a line for each file that is not the same."""
    if remote is None or remote.marker is None:
        return f"{to.publication.name}: {content.tag}, {len(changed)} files\n\n{_listing(changed)}"
    lines = _changed_rows(to, path, content.configurations, remote, changed)
    lines += [
        f"{change.path} {change.action}"
        for change in changed
        if not change.path.endswith(".parquet") and change.path != repository.MARKER
    ]
    return f"{content.tag}: {'; '.join(lines) or 'another list of files'}\n\n{_listing(changed)}"


def _changed_rows(
    to: Repository,
    path: Path,
    configurations: Sequence[Configuration],
    remote: Remote,
    changed: Sequence[Change],
) -> list[str]:
    """What became of the rows of each folder of shards, for which those that are replaced are fetched."""
    lines = []
    files = [change for change in changed if change.path.endswith(".parquet")]
    row_names = {each.files[0].partition("/")[0]: each.source.key for each in configurations}
    with process.scratch() as old:
        repository.fetch(to, remote.head, [change.path for change in files if change.action != "new"], old)
        for name in dict.fromkeys(change.path.partition("/")[0] for change in files):
            mine = [change.path for change in files if change.path.startswith(f"{name}/")]
            if name not in row_names:
                lines.append(f"{name} removed")
                continue
            rows = data_files.row_changes(old, path, mine, row_names[name])
            counts = {"changed": rows.changed, "added": rows.added, "removed": rows.removed}
            told = [f"{n:,} {'row' if n == 1 else 'rows'} {what}" for what, n in counts.items() if n]
            lines.append(f"{name}: {', '.join(told) or 'the same rows in other files'}")
    return lines


def _listing(changed: Sequence[Change]) -> str:
    return "\n".join(f"{change.action}: {change.path} ({change.bytes:,} bytes)" for change in changed)


def _write_dataset(
    context: dg.AssetExecutionContext, publication: Publication, place: str, checks: Sequence[Checked], making: Draft
) -> Content:
    store: Store = context.resources.store
    teacher = STUDY.teacher(publication.of)
    sources = dataset_facts.sources(STUDY, store, teacher)
    made = data_files.write(making.path, sources)
    versions = _versions(store, STEPS["hub_datasets"].upstream(teacher.name))
    tag = f"data-{digest([list(each) for each in versions])[:16]}"
    making.facts["rows"] = sum(
        data_files.rows(making.path / name) for name in {file for each in made for file in each.files}
    )
    facts = dataset_facts.facts(STUDY, store, publication, teacher, made)
    money = dataset_facts.cost(_account(context, teacher.name))
    head = {
        "license": publication.licence,
        "pretty_name": facts["title"],
        "task_categories": ["text-generation"],
        "tags": ["non-instructional-fine-tuning", cards.ARXIV, "nift"],
        "size_categories": [cards.size(made[0].rows)],
        "configs": cards.configurations(made),
    }
    lineage = _versions(store, check_results.upstream(STEPS["hub_datasets"], teacher.name))
    shown = {"cost": money, **_about_checks(checks), **_about_lineage(lineage, MADE_WITH)}
    _write_card(making.path, "dataset_card.md.j2", head, {**facts, **shown}, place, tag)
    _mark(making.path, publication, tag, {each.name: {"rows": each.rows, "files": each.files} for each in made})
    return Content(tag, made)


def _write_weights(
    context: dg.AssetExecutionContext, publication: Publication, place: str, checks: Sequence[Checked], making: Draft
) -> Content:
    store: Store = context.resources.store
    model = STUDY.model(publication.model) if publication.model else None
    adapter = STUDY.adapter(str(model.adapter if model else publication.adapter))
    name, key = ("merged_models", model.name) if model else ("lora_adapters", adapter.name)
    row = store.read(name, key).row(0, named=True)
    backbone = STUDY.backbone(model.backbone if model else adapter.backbone)
    weights_facts.copy(store.folder(row["folder"]), making, backbone)
    trained = artifacts.read_manifest(store.folder(store.read("lora_adapters", adapter.name)["folder"][0])).facts
    tag = f"weights-{row['digest'][:16]}"
    making.facts["rows"] = 0
    facts = weights_facts.facts(STUDY, store, publication, adapter, trained, model)
    step = STEPS["hub_models" if model else "hub_adapters"]
    versions = _versions(store, check_results.upstream(step, publication.of))
    shown = {**_about_checks(checks), **_about_lineage(versions, ()), "versions": sorted(trained["versions"].items())}
    head = weights_facts.head(publication, backbone, model)
    _write_card(making.path, "weights_card.md.j2", head, {**facts, **shown}, place, tag)
    _mark(making.path, publication, tag, {})
    return Content(tag)


def _write_card(
    folder: Path, template: str, head: Mapping[str, Any], facts: Mapping[str, Any], place: str, tag: str
) -> None:
    text = cards.card(template, head, {**facts, "repository": place, "tag": tag})
    (folder / "README.md").write_text(redaction.redact(text), encoding="utf-8")


def _mark(folder: Path, publication: Publication, tag: str, configurations: Mapping[str, Any]) -> None:
    """The file that says a repository is ours: whose it is, and which version it holds."""
    marker = {
        "made_by": "nift",
        "publication": publication.name,
        "of": repository.of(STUDY.name, publication),
        "tag": tag,
        "configurations": configurations,
    }
    (folder / repository.MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _versions(store: Store, tables: Sequence[tuple[str, str | None]]) -> list[tuple[str, str]]:
    """The stored version of each table, by its place.

    Not of tables over all teachers or models: these change with rows of others.
    """
    found = []
    for name, partition in tables:
        version = store.version(name, partition)
        if name not in OF_ALL and version is not None:
            found.append((f"{name}/{partition}" if partition else name, version.data[:16]))
    return found


def _about_checks(checks: Sequence[Checked]) -> dict[str, Any]:
    tables: dict[str, list[bool]] = {}
    for each in checks:
        place = f"{each.table}/{each.partition}" if each.partition else each.table
        tables.setdefault(place, []).append(each.result.passed)
    return {
        "checks": checks,
        "failed": [each for each in checks if not each.result.passed],
        "checked_tables": [(place, sum(passed), len(passed)) for place, passed in sorted(tables.items())],
    }


def _about_lineage(versions: Sequence[tuple[str, str]], packages: Sequence[str]) -> dict[str, Any]:
    return {"lineage": versions, "versions": list(artifacts.versions(*packages).items())}


def _account(context: dg.AssetExecutionContext, who: str) -> Account | None:
    from nift_assets.ledger import report as ledger_report  # brings the database library

    found = ledger_report.report(context.resources.ledger.book, study=STUDY.name).accounts
    return next((account for account in found if account.who == who), None)
