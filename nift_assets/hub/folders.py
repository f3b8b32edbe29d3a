"""The folder of a publication: its files, the card that says what they are, and the mark that says whose they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expectations.results import CheckResult
from nift_assets.hub import cards, data_files, dataset_facts, repository, weights_facts
from nift_assets.hub.data_files import Configuration
from nift_assets.hub.weights_facts import PublishedScores
from nift_assets.rows import Publication, digest
from nift_assets.secrets import redaction
from nift_assets.store import Store
from nift_assets.study import Study
from nift_training import artifacts
from nift_training.artifacts import Draft

if TYPE_CHECKING:
    from nift_assets.ledger.report import Account

# Tables with rows of every teacher or model, of which only its own stand on a card.
OF_ALL = frozenset({"funnel", "benchmark_scores"})
MADE_WITH = ("polars", "pyarrow")  # what the shards' bytes depend on

Versions = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """What a publication rests on: the checks of all tables above it, the versions of those it is made from and of all
    of them, and what the ledger says of its teacher."""

    checks: Sequence[CheckResult]
    inputs: Versions
    lineage: Versions
    account: Account | None


@dataclass(frozen=True)
class Content:
    """What is in a folder to be published: the tag of its version, its rows, and the configurations of a dataset or the
    scores of weights."""

    tag: str
    rows: int = 0
    configurations: Sequence[Configuration] = ()
    scores: PublishedScores = field(default_factory=dict)


def write(
    study: Study, store: Store, publication: Publication, place: str, upstream: Upstream, making: Draft
) -> Content:
    """What a publication holds, written into a folder with its card for the repository `place`, and marked as ours."""
    of_data = publication.teacher is not None
    content = (_write_dataset if of_data else _write_weights)(study, store, publication, place, upstream, making)
    marker = {
        "made_by": "nift",
        "publication": publication.name,
        "of": repository.of(study.name, publication),
        "tag": content.tag,
        "configurations": {
            configuration.name: {"rows": configuration.rows, "files": configuration.files}
            for configuration in content.configurations
        },
        **({"scores": content.scores} if content.scores else {}),
    }
    (making.path / repository.MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    making.facts.update(rows=content.rows, tag=content.tag)
    return content


def versions(store: Store, tables: Sequence[tuple[str, str | None]]) -> Versions:
    """The stored version of each table, by its place.

    Not of tables over all teachers or models: these change with rows of others.
    """
    table_versions = []
    for name, partition in tables:
        version = store.version(name, partition)
        if name not in OF_ALL and version is not None:
            table_versions.append((f"{name}/{partition}" if partition else name, version.data[:16]))
    return table_versions


def _write_dataset(
    study: Study, store: Store, publication: Publication, place: str, upstream: Upstream, making: Draft
) -> Content:
    teacher = study.teacher(publication.of)
    configurations = data_files.write(making.path, dataset_facts.sources(study, store, teacher))
    tag = f"data-{digest([list(version) for version in upstream.inputs])[:16]}"
    facts = dataset_facts.facts(study, store, publication, teacher, configurations)
    head = {
        "license": publication.licence,
        "pretty_name": facts["title"],
        "task_categories": ["text-generation"],
        "tags": ["non-instructional-fine-tuning", cards.ARXIV, "nift"],
        "size_categories": [cards.size(configurations[0].rows)],
        "configs": cards.configurations(configurations),
    }
    shown = {
        "cost": dataset_facts.cost(upstream.account),
        "lineage": upstream.lineage,
        "versions": list(artifacts.versions(*MADE_WITH).items()),
        **_about_checks(upstream.checks),
    }
    _write_card(making.path, "dataset_card.md.j2", head, {**facts, **shown, "repository": place, "tag": tag})
    files = {file for configuration in configurations for file in configuration.files}
    return Content(tag, sum(data_files.rows(making.path / name) for name in files), configurations)


def _write_weights(
    study: Study, store: Store, publication: Publication, place: str, upstream: Upstream, making: Draft
) -> Content:
    model = study.model(publication.model) if publication.model else None
    adapter = study.adapter(str(model.adapter if model else publication.adapter))
    name, key = ("merged_models", model.name) if model else ("lora_adapters", adapter.name)
    row = store.read(name, key).row(0, named=True)
    backbone = study.backbone(model.backbone if model else adapter.backbone)
    weights_facts.copy(store.folder(row["folder"]), making, backbone)
    trained = artifacts.read_manifest(store.folder(store.read("lora_adapters", adapter.name)["folder"][0])).facts
    tag = f"weights-{row['digest'][:16]}"
    facts = weights_facts.facts(study, store, publication, adapter, trained, model)
    shown = {
        "lineage": upstream.lineage,
        "versions": sorted(trained["versions"].items()),
        **_about_checks(upstream.checks),
    }
    head = weights_facts.head(publication, backbone, model)
    _write_card(making.path, "weights_card.md.j2", head, {**facts, **shown, "repository": place, "tag": tag})
    return Content(tag, scores=weights_facts.published_scores(study, store, adapter, model))


def _write_card(folder: Path, template: str, head: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    text = redaction.redact(cards.card(template, head, facts))
    (folder / weights_facts.CARD).write_text(text, encoding="utf-8")


def _about_checks(checks: Sequence[CheckResult]) -> dict[str, Any]:
    tables: dict[str, list[bool]] = {}
    for check in checks:
        tables.setdefault(check.place, []).append(check.result.passed)
    return {
        "checks": checks,
        "failed": [check for check in checks if not check.result.passed],
        "checked_tables": [(place, sum(passed), len(passed)) for place, passed in sorted(tables.items())],
    }
