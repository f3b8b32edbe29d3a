"""The page of the contracts: every table with its tests and last results, and nothing on it but text becomes more."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from dagster_project.check_history import DOCS, documented, refresh_contracts_page
from dagster_project.io_manager import ParquetIOManager
from expectations import contract
from expectations.contract import Column, Contract
from expectations.frames import schema
from expectations.results import LastResult
from nift_assets import studies
from nift_assets.graph import asset_definition
from nift_assets.pages import docs
from nift_assets.pages.docs import DocumentedTable, Stored
from nift_assets.store import Store
from nift_assets.table_files import version_of
from tests.conftest import PROJECT, instance_at, nift_here
from tests.demo import GRAPH
from tests.page_reader import PAYLOADS, Reading

DEMO = studies.load("demo")
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def page(*tables: DocumentedTable) -> str:
    return docs.page(DEMO, tables, made_at=NOW)


def table(promised: Contract, results: dict[str, list[LastResult]] | None = None) -> DocumentedTable:
    return DocumentedTable(
        contract=promised,
        group="data",
        made_by="python",
        partitions="teacher",
        upstream=["raw_sample"],
        downstream=["completions"],
        stored=[Stored(partition="echo", rows=1234), Stored(partition="original", rows=None)],
        results=results or {},
    )


def result(*, passed: bool, message: str = "0 of 3 rows fail", partition: str | None = "echo") -> LastResult:
    return LastResult(partition=partition, passed=passed, message=message, at=NOW)


def hostile(text: str) -> DocumentedTable:
    """A table with `text` wherever a person or a row can have put one."""
    promised = contract.load("halves")
    columns = tuple(Column(name=each.name, type=each.type, description=text) for each in promised.columns)
    tests = tuple(dataclasses.replace(each, description=text, arguments={"sql": text}) for each in promised.tests)
    changed = dataclasses.replace(promised, description=text, columns=columns, tests=tests)
    found = {each.name: [result(passed=False, message=text, partition=text)] for each in tests}
    stored = [Stored(partition=text, rows=1)]
    return dataclasses.replace(
        table(changed, found),
        group=text,
        made_by=text,
        partitions=text,
        upstream=[text],
        downstream=[text],
        stored=stored,
    )


@pytest.mark.parametrize("text", PAYLOADS)
def test_whatever_is_data_is_shown_as_the_text_it_is(text: str) -> None:
    harmless, planted = Reading(page(hostile("word"))), Reading(page(hostile(text)))
    assert Counter(tag for tag, _ in planted.tags) == Counter(tag for tag, _ in harmless.tags)
    names = [sorted(name for name, _ in attributes) for _, attributes in planted.tags]
    assert names == [sorted(name for name, _ in attributes) for _, attributes in harmless.tags]
    shown = text.replace("\0", "\ufffd")
    assert planted.text.count(text) + planted.text.count(shown) > 10


def test_the_page_loads_nothing_and_runs_its_own_script_alone() -> None:
    tables = [table(contract.load(name)) for name in contract.tables()]
    written = page(*tables)
    read = Reading(written)
    policy = dict(
        next(
            attributes
            for tag, attributes in read.tags
            if tag == "meta" and len(attributes) == 2 and ("http-equiv", "Content-Security-Policy") in attributes
        )
    )["content"]
    (script,) = re.findall(r"<script>(.*?)</script>", written, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not [tag for tag, attributes in read.tags if {"src", "onclick", "onerror"} & dict(attributes).keys()]
    assert all(dict(a)["href"].startswith("#") for tag, a in read.tags if tag == "a")
    assert not re.search(r"https?://|//[a-z]+\.", re.sub(r"<pre>.*?</pre>", "", written, flags=re.DOTALL))


def test_every_table_column_and_test_is_on_the_page() -> None:
    tables = [table(contract.load(name)) for name in contract.tables()]
    read = Reading(page(*tables))
    for each in tables:
        for column in each.contract.columns:
            assert column.name in read.text
            assert column.description.replace("`", "") in read.text
        for test in each.contract.tests:
            assert test.description.replace("`", "") in read.text


def test_a_table_stands_as_its_worst_test() -> None:
    promised = contract.load("completions")
    passed = {test.name: [result(passed=True)] for test in promised.tests}
    assert table(promised).state == "not run"
    assert table(promised, passed).state == "passed"
    warned = passed | {"few_are_truncated": [result(passed=True), result(passed=False, message="0.1, expected")]}
    assert table(promised, warned).state == "warned"
    failed = warned | {"status_not_null": [result(passed=False)]}
    assert table(promised, failed).state == "failed"
    text = " ".join(Reading(page(table(promised, failed))).text.split())
    assert "2026-01-02 03:04 echo: 0.1, expected" in text
    assert "1 warned, 1 failed, 0 were not run" in text
    assert "echo 1,234" in text
    assert "original –" in text


# ---------- from the warehouse and the instance


def test_without_an_instance_the_contracts_are_there_alone(tmp_path: Path) -> None:
    environment = {
        "PATH": "",
        "HOME": str(tmp_path),
        "NIFT_WAREHOUSE": str(tmp_path / "w"),
        "DAGSTER_HOME": str(tmp_path / "h"),
    }
    ran = nift_here("docs", environment=environment)
    assert ran.returncode == 0, ran.stderr
    written = tmp_path / "w" / "demo" / "docs.html"
    assert str(written) in ran.stdout
    assert not (tmp_path / "h").exists()
    text = Reading(written.read_text()).text
    assert "not run yet" in text
    assert all(name in text for step in GRAPH.steps for name in step.tables)


def test_the_last_result_of_every_partition_is_shown(tmp_path: Path) -> None:
    home, store = tmp_path / "home", Store(root=str(tmp_path / "warehouse"), study=DEMO.name)
    home.mkdir()
    (home / "dagster.yaml").write_bytes((PROJECT / "dagster_project" / "instance" / "dagster.yaml").read_bytes())
    text = "Two words."
    document = {"document_id": hashlib.sha256(text.encode()).hexdigest()[:32], "text": text, "words": 2, "file": "f"}
    frame = pl.DataFrame([document | {"sample_rank": 0, "row": 0}], schema=schema(contract.load("raw_sample")))
    store.write("raw_sample", None, frame, version_of(frame, ""))
    with instance_at(home) as instance:
        ran = dg.materialize(
            [asset_definition(GRAPH, step) for step in GRAPH.steps],
            selection=["halves"],
            instance=instance,
            resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
        )
        assert ran.success
        made = {each.name: each for each in documented(GRAPH, store, instance)}
        path = Path(str(store.folder(DOCS)))
        refresh_contracts_page(DEMO, store, instance)
        assert "Tables of the study demo" in path.read_text(), "made where there is none"
        path.write_text("newer than every run")
        refresh_contracts_page(DEMO, store, instance)
        assert path.read_text() == "newer than every run"
        os.utime(path, (0, 0))
        refresh_contracts_page(DEMO, store, instance)
        assert "Tables of the study demo" in path.read_text(), "made again where it is older"
    assert made["halves"].state == "passed"
    assert [(last.partition, last.passed) for last in made["halves"].results["row_count"]] == [(None, True)]
    assert made["halves"].stored == [Stored(partition=None, rows=1)]
    assert {*made["halves"].downstream} >= {"completions", "training_sets"}
    assert made["training_sets"].state == "not run"
    assert [stored.partition for stored in made["training_sets"].stored] == [each.name for each in DEMO.training_sets]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = {"PATH": "", "HOME": str(tmp_path), "NIFT_WAREHOUSE": str(tmp_path)}
    ran = nift_here("docs", "--out", str(tmp_path / "file" / "x"), environment=environment)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
