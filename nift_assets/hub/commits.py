"""What a commit to a repository would do, and the message that says so, down to the rows that are not the same."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nift_assets.differences import comparison, wording
from nift_assets.differences.comparison import PartitionDifference
from nift_assets.hub import published, repository
from nift_assets.hub.folders import Content
from nift_assets.hub.repository import Change, Repository, RepositoryState
from nift_assets.rows import Publication


def plan(
    publication: Publication, place: str, remote: RepositoryState | None, changes: Sequence[Change], *, looked: bool
) -> dict[str, Any]:
    """What would go where, as it is shown; `looked` says whether the Hub was asked what it has."""
    return {
        "publication": publication.name,
        "repository": place,
        "kind": publication.kind,
        "private": publication.private,
        "licence": publication.licence,
        "looked_at_the_hub": looked,
        "exists": remote is not None,
        "changes": [asdict(change) for change in changes],
    }


def message(
    to: Repository, folder: Path, content: Content, remote: RepositoryState | None, changed: Sequence[Change]
) -> str:
    """What a commit does: a title, what became of the rows of a data set that is there already and why, and a line for
    each file that is not the same."""
    listing = "\n".join(f"{change.action}: {change.path} ({change.bytes:,} bytes)" for change in changed)
    if remote is None or remote.marker is None:
        return f"{to.publication.name}: {content.tag}, {len(changed)} files\n\n{listing}"
    rows = _row_differences(to, folder, remote, remote.marker, changed)
    lines = [f"{name}: {counted(found)}" for name, found in rows if not found.is_same]
    lines += [
        f"{change.path} {change.action}"
        for change in changed
        if not change.path.endswith(".parquet") and change.path != repository.MARKER
    ]
    paragraphs = [
        wording.paragraph(rows),
        "\n".join(_changed_scores(remote.marker.get("scores", {}), content)),
        listing,
    ]
    return "\n\n".join([f"{content.tag}: {'; '.join(lines) or 'another list of files'}", *filter(None, paragraphs)])


def _changed_scores(before: Mapping[str, Sequence[float | None]], content: Content) -> list[str]:
    """A line for each score of published weights that is another one now; of a card without scores there is none."""
    return [
        f"{name}: {_score(before.get(name))} before, {_score(now)} now."
        for name, now in content.scores.items()
        if before and before.get(name) != now
    ]


def _score(said: Sequence[float | None] | None) -> str:
    score, low, high = said or (None, None, None)
    if score is None:
        return "no score"
    return f"{score:.2f}" if low is None or high is None else f"{score:.2f} [{low:.2f}, {high:.2f}]"


def counted(found: PartitionDifference) -> str:
    """How many rows of a configuration have changed, came or went."""
    counts = {"changed": found.changed, "added": found.rows_in, "removed": found.rows_out}
    return ", ".join(f"{n:,} {'row' if n == 1 else 'rows'} {what}" for what, n in counts.items() if n)


def _row_differences(
    to: Repository,
    folder: Path,
    remote: RepositoryState,
    marker: Mapping[str, Any],
    changed: Sequence[Change],
) -> list[tuple[str, PartitionDifference]]:
    """What became of the rows of each configuration, under its name; only the shards that are replaced are fetched."""
    if not changed or not marker["of"].get("teacher"):
        return []
    replaced = {change.path for change in changed if change.path.endswith(".parquet") and change.action != "new"}
    new_marker = json.loads((folder / repository.MARKER).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="nift-") as scratch:
        repository.fetch(to, remote.head, sorted(replaced), Path(scratch))
        before = published.state("before", marker, lambda file: Path(scratch if file in replaced else folder, file))
        after = published.state("after", new_marker, lambda file: folder / file)
        names = {
            published.table_of(name, str(after.teacher)): name
            for name in (*marker.get("configurations", {}), *new_marker["configurations"])
        }
        with comparison.opened(before, after) as compared:
            return [(names[place], compared.of(place)) for place in compared.places()]
