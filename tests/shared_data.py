"""Real files that nobody here wrote and that are no part of the project: a folder beside it, or one that is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


def shared(*parts: str) -> Path:
    """A file of the folder `NIFT_SHARED_DATA`, by default `../shared/data`; the test is skipped where it is not."""
    path = Path(os.environ.get("NIFT_SHARED_DATA") or PROJECT.parent / "shared" / "data", *parts)
    if not path.exists():
        pytest.skip(f"needs the real file {'/'.join(parts)}: set NIFT_SHARED_DATA to the folder that has it")
    return path
