"""What a repository that was cloned without git-lfs has in the places of its large files."""

from __future__ import annotations

POINTER = b"version https://git-lfs"
REMEDY = "is a pointer of git-lfs and not the file: get that with `git lfs pull`"


def is_pointer(beginning: bytes) -> bool:
    """Whether a file that begins so is a pointer to another; no model, table or JSON does, and no article."""
    return beginning.startswith(POINTER)
