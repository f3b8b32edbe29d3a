"""Whether there is room, asked before the work and not found out after it."""

from __future__ import annotations

import shutil
from pathlib import Path

RESERVE = 64 * 2**20  # what file system and neighbours need to go on


def check_room(out: Path, needed: int) -> None:
    """Refuses to begin what would not fit, with how much is missing."""
    folder = next(path for path in out.absolute().parents if path.exists())
    free = shutil.disk_usage(folder).free
    missing = needed + RESERVE - free
    if missing > 0:
        raise ValueError(
            f"{out} needs {format_bytes(needed)} and the disk of {folder} has {format_bytes(free)} free: "
            f"{format_bytes(missing)} are missing. Free them, or choose another disk"
        )


def format_bytes(count: int) -> str:
    """A number of bytes as people say it: 140.2 GB, 3.1 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
