"""What the UI says of a paid partition before anybody launches it, and where each table's code is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import dagster as dg
import pytest

from dagster_project import plans
from nift_assets import graph, studies
from nift_assets.rows import Teacher
from nift_assets.steps import code_references
from tests.demo import GRAPH, STUDY

MODEL = "gpt-4o-mini-2024-07-18"
PAID = Teacher(name="paid", provider="openai", model=MODEL, budget_usd=1.0)
WITH_PAID = dataclasses.replace(STUDY, teachers=(*STUDY.teachers, PAID))


def test_a_paid_partition_says_its_price_its_cap_what_is_missing_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    built = graph.build(WITH_PAID)
    sensor = plans.plans_sensor(built)
    first = sensor(dg.build_sensor_context())
    assert isinstance(first, dg.SensorResult)
    (told,) = first.asset_events
    assert (told.asset_key, told.partition) == (dg.AssetKey("completions"), "paid")
    facts = {name: value.value for name, value in told.metadata.items()}
    assert facts["before you launch"] == "needs key OPENAI_API_KEY"
    assert facts["price"] == "$0.15 in, $0.6 out per million tokens"
    assert (facts["cap"], facts["spent of it"]) == ("$1.00", "$0.00")
    assert facts["still to be asked"]
    assert facts["that costs"]
    again = sensor(dg.build_sensor_context(cursor=first.cursor))
    assert isinstance(again, dg.SensorResult)
    assert not again.asset_events, "it is told again when it has changed"
    assert not (tmp_path / "warehouse").exists(), "who looks makes nothing"
    # The same stands in the definition, which the UI shows before the sensor has looked.
    spec = graph.asset_definition(built, built.tables["completions"]).get_asset_spec(dg.AssetKey("completions"))
    (record,) = spec.metadata["asked_for_money"].records
    assert record.data["partition"] == "paid"
    assert record.data["cap"] == "$1.00"
    free = graph.asset_definition(GRAPH, GRAPH.tables["completions"]).get_asset_spec(dg.AssetKey("completions"))
    assert "asked_for_money" not in free.metadata


def test_every_table_links_to_what_makes_it_and_to_its_rows_in_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_STUDY", "demo")
    assert studies.file() is not None
    for step in GRAPH.steps:
        for table in step.tables:
            (value,) = code_references.metadata(GRAPH, step, table).values()
            code, *rows = value.code_references
            assert isinstance(code, dg.LocalFileCodeReference)
            assert Path(code.file_path).is_file()
            assert rows
            for row in rows[1:]:
                assert isinstance(row, dg.LocalFileCodeReference)
                line = Path(row.file_path).read_text().splitlines()[(row.line_number or 0) - 1]
                assert str(row.label).removeprefix("row ") in line
    (value,) = code_references.metadata(GRAPH, GRAPH.tables["completions"], "completions").values()
    assert {"row echo", "row local"} <= {reference.label for reference in value.code_references}
