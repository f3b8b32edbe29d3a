"""A clone without its large files is told from a damaged one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nift_training import json_objects, shards

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(("name", "read"), [("a.safetensors", shards.read), ("tokenizer.json", json_objects.of_file)])
def test_a_pointer_is_called_one(name: str, read: object, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"{name} is a pointer of git-lfs .* `git lfs pull`$"):
        read(tmp_path / name)  # type: ignore[operator]
