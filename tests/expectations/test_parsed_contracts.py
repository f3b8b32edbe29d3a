"""A contract that is read a second time says what it said the first time, whatever lies in the file that keeps it."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest
import yaml

from expectations import contract, parsed_contracts

TEXTS = [
    "table: t\ncolumns: [{name: a, type: BIGINT}]\n",
    "a: 1\nb: [1.5, true, null, 'x']\nc: {1: one}\n",
    "when: 2024-01-01\n",
    "just a text\n",
    "",
    *((contract.FOLDER / f"{table}.yml").read_text(encoding="utf-8") for table in contract.tables()),
]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(parsed_contracts, "FILE", tmp_path / "cache" / "contracts.json")
    monkeypatch.setattr(parsed_contracts, "_texts", None)
    monkeypatch.setattr(parsed_contracts, "_is_new", True)
    return parsed_contracts.FILE


def test_what_is_kept_is_what_yaml_gives(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [yaml.safe_load(text) for text in TEXTS]
    assert [parsed_contracts.parsed(text) for text in TEXTS] == expected
    parsed_contracts._save()
    kept = json.loads(file.read_text())
    assert len(kept) >= len(contract.tables())
    monkeypatch.setattr(parsed_contracts, "_texts", None)
    again = [parsed_contracts.parsed(text) for text in TEXTS]
    assert again == expected
    assert isinstance(again[2]["when"], datetime.date)
    assert list(again[1]["c"]) == [1], "a number stays a number"
    again[0]["columns"].clear()
    assert parsed_contracts.parsed(TEXTS[0]) == expected[0], "who changes what it was given changes nobody else's"


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"[1, 2]", b'{"a": 3}', b'{"', None])
def test_an_injured_file_is_none(file: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed_contracts.parsed(TEXTS[0])
    parsed_contracts._save()
    if content is None:  # one text of it is cut
        kept = json.loads(file.read_text())
        content = json.dumps({digest: text[:5] for digest, text in kept.items()}).encode()
    file.write_bytes(content)
    monkeypatch.setattr(parsed_contracts, "_texts", None)
    assert parsed_contracts.parsed(TEXTS[0]) == yaml.safe_load(TEXTS[0])


def test_a_contract_that_is_no_yaml_is_named_as_before(file: Path) -> None:
    for _ in range(2):
        with pytest.raises(yaml.YAMLError):
            parsed_contracts.parsed("a: [")
