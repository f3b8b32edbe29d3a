"""Whatever is written into a field of a study's row, the study is taken and can be planned, or refused in one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from nift_assets import graph, providers, row_fields, sql, studies
from nift_assets import rows as kinds
from nift_assets.costs import plan
from nift_assets.rows import Price, Quoted, Server, Teacher, digest
from nift_assets.store import Store
from nift_assets.study import KINDS, Study
from nift_training.machine import Machine
from nift_training.recipe import Recipe
from tests.counting import Counts

DAY = date(2024, 8, 1)
DEMO = studies.load("demo")
PRICE = Price(input=1.0, output=2.0, batch_input=0.5, batch_output=1.0, max_output=4096)
PAID = Teacher(name="paid", provider="openai", model="m", price=PRICE, budget_usd=5.0, max_tokens=64)
SERVED = dataclasses.replace(DEMO.models[0], name="served", server=Server(url="http://127.0.0.1:8000/v1", name="m"))
STUDY = dataclasses.replace(
    DEMO,
    budget_usd=10.0,
    teachers=(*DEMO.teachers, PAID),
    models=(*DEMO.models, SERVED),
    quoted=(Quoted(name="theirs", title="Theirs", cells=DEMO.models[0].cells[:1]),),
)
VALUES: list[Any] = [
    None,
    "",
    "5",
    "x" * 2_000,
    "\ud800",
    "a\0b",
    "../up",
    "http://[::1",
    "http://host:port/v1",
    0,
    -1,
    1,
    2**63,
    10**400,
    True,
    0.5,
    -0.5,
    1e300,
    float("nan"),
    float("inf"),
    [],
    ["a"],
    (),
    ("a",),
    ("uppercase_start", "uppercase_start"),
    (None,),
    {},
    {"a": {1}},
    b"a",
    object(),
    Price,
    PRICE,
]
Where = tuple[str | int, ...]


def fields(row: Any, where: Where = ()) -> Iterator[Where]:
    """The place of every field of a row and of the rows in it."""
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        yield (*where, field.name)
        if dataclasses.is_dataclass(value):
            yield from fields(value, (*where, field.name))
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            yield from fields(value[0], (*where, field.name, 0))


def changed(row: Any, where: Where, value: Any) -> Any:
    """The row with another value in one place."""
    name, *below = where
    if isinstance(name, int):
        inside = changed(row[name], tuple(below), value) if below else value
        return (*row[:name], inside, *row[name + 1 :])
    return dataclasses.replace(row, **{name: changed(getattr(row, name), tuple(below), value) if below else value})


def kinds_of_rows() -> dict[str, Where]:
    """Where in the study a row of each kind stands; of what is asked and served the one that has all its fields."""
    last = {"teachers": len(STUDY.teachers) - 1, "models": len(STUDY.models) - 1, "filters": 2}
    return {"corpus": ("corpus",)} | {kind: (kind, last.get(kind, 0)) for kind in KINDS if getattr(STUDY, kind)}


def row_at(where: Where) -> Any:
    found: Any = STUDY
    for step in where:
        found = getattr(found, step) if isinstance(step, str) else found[step]
    return found


def used(study: Study, folder: Path) -> None:
    """What a command does with a study before anything is made; a path that no system has is one line as well."""
    store = Store(root=str(folder), study="mutated")
    graph.build(study)
    for rows in (*sql.ROWS, *sql.FILTERS, "cells", "measures", "prices", "providers"):
        sql.study_rows(study, rows)
    digest(study)
    for asked in study.language_models:
        providers.request(asked, "The ferry")
    with suppress(OSError):
        plan.plan(study, store=store, book=None, today=DAY)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [*kinds_of_rows(), "study"])
def test_a_mutated_row_is_taken_or_refused_in_a_line(kind: str, every: int, tmp_path: Path, counts: Counts) -> None:
    where = kinds_of_rows().get(kind, ())
    places = [*fields(row_at(where), where)] if where else [(field.name,) for field in dataclasses.fields(STUDY)]
    tried, refused = 0, 0
    for number, place in enumerate(places):
        for value in VALUES[number % every :: every]:
            tried += 1
            try:
                study = changed(STUDY, place, value)
            except ValueError as error:
                refused += 1
                said = str(error)
                assert said
                assert "\n" not in said, (place, value, said)
            else:
                used(study, tmp_path)
    counts("fuzz", f"rows of a study, {kind}: {tried} values tried, {refused} refused in a line, 0 tracebacks")


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("teachers", 3, "max_tokens"), "64", "max_tokens is '64'; give a whole number of at least 1, or None"),
        (("teachers", 3, "budget_usd"), float("nan"), "budget_usd is nan; give a number of at least 0, or None"),
        (("teachers", 3, "price", "input"), -1.0, "price: input is -1.0; give a number of at least 0"),
        (("teachers", 3, "price", "max_output"), True, "price: max_output is True; give a whole number of at least 1"),
        (("teachers", 3, "limits", "in_flight"), 0, "limits: in_flight is 0; give a whole number of at least 1"),
        (("teachers", 3, "filters"), "prompt_echo", "filters is 'prompt_echo'; give a tuple of texts, such as"),
        (("teachers", 3, "filters"), ["prompt_echo", 1], r"filters is \('prompt_echo', 1\); give a tuple of"),
        (("models", 0, "cells", 0, "paper"), "7.3", "'pico', cells 1: paper is '7.3'; give a number"),
        (("models", 0, "module"), "lora_base", "module is 'lora_base'; give one of 'none', 'lora', 'lora-base'"),
        (("budget_usd",), "20", "study 'demo': budget_usd is '20'; give a number of at least 0, or None"),
        (("teachers",), None, "study 'demo': teachers is None; give a tuple of Teacher"),
        (("corpus", "seed"), 2**63, "corpus 'bundled_articles': seed is 9223372036854775808; give a whole number"),
    ],
)
def test_a_field_of_another_kind_is_named_with_its_row_and_what_it_takes(place: Where, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        changed(STUDY, place, value)


def test_a_list_stands_for_the_tuple_that_is_declared(tmp_path: Path) -> None:
    """Studies were written so before fields were looked at."""
    place = ("teachers", 3, "filters")
    as_list, as_tuple = (changed(STUDY, place, kind(STUDY.teachers[3].filters)) for kind in (list, tuple))
    assert as_list == as_tuple == STUDY
    whole = dataclasses.replace(STUDY, teachers=[*STUDY.teachers])  # type: ignore[arg-type]
    assert whole == STUDY
    used(whole, tmp_path)


def test_a_range_is_that_of_a_field_there_is() -> None:
    rows = (*kinds.__dict__.values(), Machine, Recipe, Study)
    names = {field.name for row in rows if dataclasses.is_dataclass(row) for field in dataclasses.fields(row)}
    assert {*row_fields.LEAST, *row_fields.ABOVE_ZERO, *row_fields.MOST_OF} <= names
