"""What is in a model's folder, as one digest: the same wherever the folder lies, so moving it makes nothing stale.

A file is read once. Its digest is kept, in `~/.cache/nift`, for as long as the file has the same size, time of change
and place on the disk: of a folder with 140 GB nobody would read all to see whether it has changed. A folder that is
gone is what it was when it was last looked at: what has been made of it is not stale for that.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from nift_training import artifacts, fetch


def of(folder: Path) -> str:
    """The digest of a model's folder; ValueError for one that holds no model, unless it has been known before."""
    known = _known()
    try:
        digest = fetch.content_digest(folder, lambda path: _sha256(path, known))
    except (ValueError, OSError):
        if str(folder) in known["folders"] and not folder.exists():
            return str(known["folders"][str(folder)])
        raise
    if known["folders"].get(str(folder)) != digest:
        known["folders"][str(folder)] = digest
        _write(known)
    return digest


def _sha256(path: Path, known: dict[str, Any]) -> str:
    status = path.stat()
    as_it_is = [status.st_size, status.st_mtime_ns, status.st_ino]
    kept = known["files"].get(str(path))
    if kept is None or kept["as"] != as_it_is:
        known["files"][str(path)] = {"as": as_it_is, "sha256": artifacts.sha256(path)}
        _write(known)
    return str(known["files"][str(path)]["sha256"])


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nift", "model-folders.json")


@cache
def _read(file: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and all(isinstance(content.get(part), dict) for part in ("files", "folders")):
            return content
    return {"files": {}, "folders": {}}


def _known() -> dict[str, Any]:
    return _read(_file())


def _write(known: dict[str, Any]) -> None:
    """Whoever may not write here reads again the next time."""
    with suppress(OSError), artifacts.replacing(_file()) as temporary:
        temporary.write_text(json.dumps(known, indent=0, sort_keys=True), encoding="utf-8")
