"""What the UI says of a paid partition before anybody launches it, and where each table's code is."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import dagster as dg
import pytest

from dagster_project import plans
from nift_assets import graph, studies
from nift_assets.rows import Price, Teacher
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
    assert isinstance(again, dg.SkipReason), "it is told again when it has changed"
    assert not (tmp_path / "warehouse").exists(), "who looks makes nothing"
    # The same stands in the definition, which the UI shows before the sensor has looked.
    spec = graph.asset_definition(built, built.tables["completions"]).get_asset_spec(dg.AssetKey("completions"))
    (record,) = spec.metadata["asked_for_money"].records
    assert record.data["partition"] == "paid"
    assert record.data["cap"] == "$1.00"
    free = graph.asset_definition(GRAPH, GRAPH.tables["completions"]).get_asset_spec(dg.AssetKey("completions"))
    assert "asked_for_money" not in free.metadata


def test_plans_are_looked_at_again_when_something_changed_a_few_at_a_time_and_seldom_where_that_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    monkeypatch.setattr(plans, "SHARE_OF_A_CORE", 1.0)
    several = [dataclasses.replace(PAID, name=f"paid-{number}") for number in range(3)]
    sensor = plans.plans_sensor(graph.build(dataclasses.replace(STUDY, teachers=(*STUDY.teachers, *several))))

    def tick(cursor: str | None) -> tuple[list[str | None], str | None]:
        result = sensor(dg.build_sensor_context(cursor=cursor))
        if isinstance(result, dg.SkipReason):
            return [], cursor
        assert isinstance(result, dg.SensorResult)
        return [event.partition for event in result.asset_events], result.cursor

    # Of an earlier version the cursor was what had been told and nothing else.
    told, cursor = tick(json.dumps({"completions/paid-0": {"model": "m"}}))
    assert told == ["paid-0", "paid-1", "paid-2"]
    assert tick(cursor) == ([], cursor)
    halves = tmp_path / "warehouse" / STUDY.name / "halves.parquet"
    halves.parent.mkdir(parents=True)
    halves.write_bytes(b"not a table")
    looked: list[str] = []
    monkeypatch.setattr(plans, "planned", lambda _, asked: looked.append(asked.row.name) or {"model": "other"})
    monkeypatch.setattr(plans, "SECONDS_AT_A_TIME", 1e-9)
    for number in range(3):
        told, cursor = tick(cursor)
        assert told == [f"paid-{number}"]
    assert looked == ["paid-0", "paid-1", "paid-2"]
    assert tick(cursor) == ([], cursor)
    halves.write_bytes(b"another")
    resting = json.dumps(json.loads(cursor or "") | {"rest_until": time.time() + 60})
    assert tick(resting) == ([], resting)
    assert tick(cursor)[1] != cursor


def test_one_plan_that_cannot_be_made_keeps_no_other_from_being_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    own = {
        "base_url": "https://models.example/v1",
        "key_variable": "OWN_KEY",
        "price": Price(input=1.0, output=1.0, max_output=4096),
    }
    broken = dataclasses.replace(PAID, name="broken", **own)
    monkeypatch.setenv("OWN_KEY", "two words")
    sensor = plans.plans_sensor(graph.build(dataclasses.replace(STUDY, teachers=(broken, *STUDY.teachers, PAID))))
    result = sensor(dg.build_sensor_context())
    assert isinstance(result, dg.SensorResult)
    told = {event.partition: event.metadata["before you launch"].value for event in result.asset_events}
    assert told.keys() == {"broken", "paid"}
    assert "OWN_KEY holds more than one word" in str(told["broken"])
    assert isinstance(sensor(dg.build_sensor_context(cursor=result.cursor)), dg.SkipReason)


def test_another_cap_and_a_key_that_was_set_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    monkeypatch.setattr(plans, "SHARE_OF_A_CORE", 1.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def told(cap: float, cursor: str | None) -> tuple[dict[str, object], str | None]:
        row = dataclasses.replace(PAID, budget_usd=cap)
        sensor = plans.plans_sensor(graph.build(dataclasses.replace(STUDY, teachers=(*STUDY.teachers, row))))
        result = sensor(dg.build_sensor_context(cursor=cursor))
        assert isinstance(result, dg.SensorResult), result.skip_message
        (event,) = result.asset_events
        return {name: value.value for name, value in event.metadata.items()}, result.cursor

    _, cursor = told(1.0, None)
    facts, cursor = told(5.0, cursor)
    assert facts["cap"] == "$5.00"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-long-enough")
    assert str(told(5.0, cursor)[0]["before you launch"]).startswith("ready")


@pytest.mark.parametrize(
    "cursor", ["[]", '"paid"', json.dumps({"told": {}, "left": [], "state": "", "rest_until": 1e12})]
)
def test_no_cursor_and_no_clock_that_was_put_back_silences_the_plans(
    cursor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    result = plans.plans_sensor(graph.build(WITH_PAID))(dg.build_sensor_context(cursor=cursor))
    assert isinstance(result, dg.SensorResult)


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
