"""One JSON object per line: what is read, and the one line about what is none."""

from __future__ import annotations

import pytest

from nift_training import json_objects


def test_objects_come_with_the_numbers_of_their_lines() -> None:
    lines = [b'\xef\xbb\xbf{"a": 1}\r\n', b"\n", b" \t\n", '{"a": "one\u2028two"}'.encode()]
    assert list(json_objects.read(lines, "f")) == [(1, {"a": 1}), (4, {"a": "one\u2028two"})]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": ', r"^f line 2 is not JSON \(.*\): repair or remove it$"),
        (b"[" * 200_000, r"^f line 2 is not JSON \(.*\): repair or remove it$"),
        (b"[1]", "^f line 2 is not a JSON object: write one object per line$"),
        (b"version https://git-lfs.github.com/spec/v1", "^f line 2 is a pointer of git-lfs .* `git lfs pull`$"),
        (b'{"a": "\xe9"}', r"^f line 2 is not UTF-8 \(.*\): save it as UTF-8$"),
    ],
)
def test_a_line_without_an_object_is_named(line: bytes, says: str) -> None:
    read = json_objects.read([b"{}", line], "f")
    assert next(read) == (1, {})
    with pytest.raises(ValueError, match=says):
        next(read)
