"""What a commit to a repository would do, and the message that says so, down to the rows that are not the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nift_assets.hub import data_files, repository
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
    """What a commit does: a title, and a line for each file that is not the same."""
    listing = "\n".join(f"{change.action}: {change.path} ({change.bytes:,} bytes)" for change in changed)
    if remote is None or remote.marker is None:
        return f"{to.publication.name}: {content.tag}, {len(changed)} files\n\n{listing}"
    lines = _changed_rows(to, folder, content, remote, changed)
    lines += [
        f"{change.path} {change.action}"
        for change in changed
        if not change.path.endswith(".parquet") and change.path != repository.MARKER
    ]
    return f"{content.tag}: {'; '.join(lines) or 'another list of files'}\n\n{listing}"


def _changed_rows(
    to: Repository, folder: Path, content: Content, remote: RepositoryState, changed: Sequence[Change]
) -> list[str]:
    """What became of the rows of each folder of shards, for which those that are replaced are fetched."""
    lines = []
    files = [change for change in changed if change.path.endswith(".parquet")]
    keys = {
        configuration.files[0].partition("/")[0]: configuration.source.key for configuration in content.configurations
    }
    with tempfile.TemporaryDirectory(prefix="nift-") as scratch:
        old = Path(scratch)
        repository.fetch(to, remote.head, [change.path for change in files if change.action != "new"], old)
        for name in dict.fromkeys(change.path.partition("/")[0] for change in files):
            mine = [change.path for change in files if change.path.startswith(f"{name}/")]
            if name not in keys:
                lines.append(f"{name} removed")
                continue
            rows = data_files.row_changes(old, folder, mine, keys[name])
            counts = {"changed": rows.changed, "added": rows.added, "removed": rows.removed}
            parts = [f"{n:,} {'row' if n == 1 else 'rows'} {what}" for what, n in counts.items() if n]
            lines.append(f"{name}: {', '.join(parts) or 'the same rows in other files'}")
    return lines
