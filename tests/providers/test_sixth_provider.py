"""A provider is one file: with it, and a teacher that names it, every room knows all that there is to know."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from nift_assets import providers, sql, studies
from nift_assets.costs import plan
from nift_assets.hub import dataset_facts
from nift_assets.ledger import door
from nift_assets.ledger.book import Asker, Book
from nift_assets.prompts import completions
from nift_assets.rows import Publication, Teacher
from nift_assets.store import Store
from nift_assets.study import Study

FILE = '''
"""A sixth provider: it turns what it is given round."""

from nift_assets.protocol.server import InProcess
from nift_assets.providers import chat_completion
from nift_assets.providers.openai import read as read

VERSION = 1
API_VERSION = None
KEY = None
TERMS = "words turned round are nobody's"
IN_PROCESS = True
ANSWERS_FROM = None
connect_batches = None


def check(row):
    if row.temperature:
        raise ValueError(f"{row.name!r}: backwards is not drawn; leave the temperature at 0")


def connect(model, material=None):
    return Backwards()


class Backwards(InProcess):
    def answer(self, requests):
        for request in requests:
            text = request.messages[-1].content[::-1]
            yield request, chat_completion(model=request.model, text=text, finish_reason="stop")
'''
TEACHER = Teacher(name="reversed", provider="backwards", model="b")
HALVES = pl.DataFrame(
    {"document_id": ["d", "e"], "sample_rank": [1, 2], "first_half": ["abc", "xyz"], "second_half": [" d.", " w."]}
)

Writes = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writes]:
    """Writes the file of the provider into a folder where providers are looked for."""
    monkeypatch.setattr(providers, "__path__", [*providers.__path__, str(tmp_path)])
    providers.module.cache_clear()
    yield (tmp_path / "backwards.py").write_text
    providers.module.cache_clear()
    sys.modules.pop("nift_assets.providers.backwards", None)
    vars(providers).pop("backwards", None)


def study(teacher: Teacher = TEACHER, **values: object) -> Study:
    demo = studies.load("demo")
    return dataclasses.replace(demo, name="six", teachers=(*demo.teachers, teacher), **values)


def test_one_more_file_is_known_to_the_study_the_plan_the_card_and_the_checks(write: Writes, tmp_path: Path) -> None:
    write(FILE)
    own = study()
    planned = plan.plan(own, store=Store(str(tmp_path), "six"), book=None, today=date(2026, 11, 21))
    line = next(line for line in planned.lines if line.name == "reversed")
    assert (line.provider, line.state) == ("backwards", "free")
    assert dataset_facts.terms(own, "reversed") == "words turned round are nobody's"
    assert ("backwards", True) in sql.study_rows(own, "providers").rows()
    with pytest.raises(ValueError, match="'reversed': backwards is not drawn"):
        study(dataclasses.replace(TEACHER, temperature=1.0))
    with pytest.raises(ValueError, match="has no batch API"):
        providers.reconnect(TEACHER)


def test_one_more_file_answers_through_the_ledger(write: Writes, tmp_path: Path) -> None:
    write(FILE)
    requests = completions.requests(TEACHER, HALVES)
    book, asker = Book(f"sqlite:///{tmp_path}/ledger.sqlite"), Asker(study="six", who="reversed", writer="w")
    connected = providers.load("backwards").connect(TEACHER, None)
    asked = door.ask(book, asker, requests, connected)
    rows = completions.rows(TEACHER, HALVES, requests, asked.answers)
    assert rows.select("document_id", "status", "completion").rows() == [("d", "ok", "cba"), ("e", "ok", "zyx")]
    assert asked.spent == 0


def test_the_terms_of_a_server_bind_who_publishes_its_words(write: Writes) -> None:
    public = Publication(name="p", repository="me/p", adapter="six", licence="mit", private=False)
    demo = studies.load("demo")
    trained = dataclasses.replace(demo.training_sets[0], name="six", teacher="reversed", filters=())
    adapter = dataclasses.replace(demo.adapters[0], name="six", training_set="six")
    added = {
        "training_sets": (*demo.training_sets, trained),
        "adapters": (*demo.adapters, adapter),
        "publications": (public,),
    }
    write(FILE)
    assert study(**added).publications == (public,)
    write(FILE.replace("IN_PROCESS = True", "IN_PROCESS =  False"))
    providers.module.cache_clear()
    sys.modules.pop("nift_assets.providers.backwards")
    with pytest.raises(ValueError, match=r"has terms of its own \(words turned round are nobody's\)"):
        study(**added)


@pytest.mark.parametrize("part", providers.PARTS)
def test_a_file_that_lacks_a_part_does_not_load(write: Writes, part: str) -> None:
    lacking = FILE.replace(f"def {part}(", f"def no_{part}(").replace(f"\n{part} = ", f"\nNO_{part} = ")
    write(lacking.replace(f"import {part} as {part}", f"import {part} as no_{part}"))
    with pytest.raises(ValueError, match=rf"^the provider 'backwards' lacks {part}; add it to .*backwards\.py$"):
        study()


def test_the_parts_of_a_provider_are_those_of_its_protocol() -> None:
    assert {"TERMS", "IN_PROCESS", "check", "connect", "read"} <= set(providers.PARTS)
    assert all(providers.load(name) for name in providers.names())
