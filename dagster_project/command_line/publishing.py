"""`nift publish`: a Dagster run per publication, and what each would send or has sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_project import failures, standard_error
from dagster_project.definitions import defs
from dagster_project.run_study import shown_in_the_timeline
from nift_assets.assets.publications import CONSENT, PLAN
from nift_assets.near_names import near
from nift_assets.rows import Publication
from nift_assets.steps.dagster_internals import MAX_RETRIES_TAG
from nift_assets.study import Study

ACTIONS = ("new", "changed", "removed", "same")


@dataclass(frozen=True)
class PublishOutcome:
    """What became of one publication: where each of its files goes, the commit if it was pushed, or why it was not."""

    publication: Publication
    plan: Mapping[str, Any]
    folder: str = ""
    revision: str | None = None
    url: str | None = None
    commit: str | None = None
    error: str | None = None


def chosen(study: Study, names: Sequence[str]) -> list[Publication]:
    """The study's publications of those names, all of them without names; ValueError if there is none."""
    if not study.publications:
        raise ValueError(f"the study {study.name!r} publishes nothing; add a Publication to its rows")
    known = [publication.name for publication in study.publications]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"the study {study.name!r} has no publication {unknown[0]!r}; it has {', '.join(known)}"
            f"{near(unknown[0], known)}"
        )
    return [study.publication(name) for name in names] if names else list(study.publications)


def publish(publications: Sequence[Publication], *, push: bool, log: Path) -> Iterator[PublishOutcome]:
    """Writes each publication's folder and says what would go where; pushes it if told to. Dagster's lines go to a
    log."""
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        for publication in publications:
            table = _table(publication)
            with standard_error.sent_to(log), shown_in_the_timeline(instance):
                result = job.execute_in_process(
                    partition_key=publication.of,
                    asset_selection=[dg.AssetKey(table)],
                    instance=instance,
                    tags={MAX_RETRIES_TAG: "0"} | ({CONSENT: "yes"} if push else {}),
                    raise_on_error=False,
                )
            if result.success:
                yield _outcome(publication, result.asset_materializations_for_node(table)[0].metadata)
            else:
                yield PublishOutcome(
                    publication,
                    {},
                    error=failures.reason(
                        instance, result.run_id, [event for event in result.all_events if event.is_step_failure]
                    ),
                )


def render(outcome: PublishOutcome) -> str:
    """A publication's place, a line per file with what becomes of it, and what was sent."""
    plan = outcome.plan
    seen = "private" if plan["private"] else "PUBLIC"
    if plan["looked_at_the_hub"]:
        existence = "exists" if plan["exists"] else "a new repository"
    else:
        existence = "not looked at: there is no HF_TOKEN"
    changes = sorted(plan["changes"], key=lambda change: (ACTIONS.index(change["action"]), change["path"]))
    width = max(len(change["path"]) for change in changes)
    lines = [f"  {change['action']:8} {change['path']:{width}} {change['bytes']:>15,} bytes" for change in changes]
    head = f"{outcome.publication.name}: {plan['kind']} {plan['repository']} ({seen}, {plan['licence']}, {existence})"
    return "\n".join([head, f"  from {outcome.folder}", *lines, f"  {_sent(outcome)}"])


def _sent(outcome: PublishOutcome) -> str:
    changed = [change for change in outcome.plan["changes"] if change["action"] != "same"]
    size = sum(change["bytes"] for change in changed if change["action"] != "removed")
    if outcome.revision is None:
        return f"{len(changed)} files change, {size:,} bytes; nothing was sent, --yes does it"
    if not changed:
        return f"nothing has changed, no commit was made: {outcome.url}"
    return f"pushed in one commit, {size:,} bytes, and read back: {outcome.url}\n  {outcome.commit}"


def _table(publication: Publication) -> str:
    if publication.teacher:
        return "hub_datasets"
    return "hub_adapters" if publication.adapter else "hub_models"


def _outcome(publication: Publication, shown: Mapping[str, dg.MetadataValue[Any]]) -> PublishOutcome:
    revision = shown.get("revision")
    return PublishOutcome(
        publication,
        plan=shown[PLAN].value,
        folder=str(shown["folder"].value),
        revision=str(revision.value) if revision else None,
        url=str(shown["pushed"].value) if revision else None,
        commit=str(shown["commit"].value) if revision else None,
    )
