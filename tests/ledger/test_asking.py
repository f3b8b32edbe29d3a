"""An asset asks through the door, and what has been answered is had without a price, a cap or a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from nift_assets import providers, studies
from nift_assets.costs import price_list
from nift_assets.ledger.book import Book
from nift_assets.rows import Price, Teacher
from nift_assets.steps import asking, lineage
from nift_assets.steps.context import Context
from nift_assets.store import Store
from tests.demo import context
from tests.ledgers import answered, play

RETIRED = Teacher(name="old", provider="openai", model="gpt-4-0125-preview", max_tokens=10)
LIVING = Teacher(name="mini", provider="openai", model="gpt-4o-mini", max_tokens=10)


# A study without a cap.
STUDY = replace(studies.load("demo"), name="s", budget_usd=None)


@pytest.fixture(autouse=True)
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a key."""
    monkeypatch.delenv("NIFT_BUDGET_USD", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Context]:
    """A partition with a ledger, and as much of Dagster's context as asking needs."""
    book = Book(f"sqlite:///{tmp_path}/ledger.sqlite")
    op = SimpleNamespace(op=SimpleNamespace(name="completions"))
    with dg.DagsterInstance.ephemeral() as instance:
        run, log = dg.DagsterRun(job_name="asking"), SimpleNamespace(info=print)
        dagster = SimpleNamespace(op_execution_context=op, instance=instance, run=run, log=log)
        store, graph = Store(root=str(tmp_path), study="s"), lineage.ordered(STUDY, [])
        yield context(store, "completions", "p", of=graph, book=book, dagster=dagster)


def test_a_retired_teacher_whose_answers_are_stored_is_made_again_without_cap_or_key(here: Context) -> None:
    assert price_list.listed("openai", RETIRED.model).retired(date.today())  # type: ignore[union-attr]
    asked = [providers.request(RETIRED, f"text {number}") for number in range(3)]
    play(here.book, "s", "old", [(request, answered("a")) for request in asked])
    found = asking.ask(here, RETIRED, asked)
    assert (found.sent, found.counts) == (0, {"ok": 3})
    with pytest.raises(ValueError, match="was shut down"):
        asking.ask(here, RETIRED, [*asked, providers.request(RETIRED, "one more")])


def test_who_has_still_to_be_asked_needs_a_cap_and_then_a_key(here: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    request = providers.request(LIVING, "text")
    with pytest.raises(ValueError, match="nothing caps it"):
        asking.ask(here, LIVING, [request])
    monkeypatch.setenv("NIFT_BUDGET_USD", "1")
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        asking.ask(here, LIVING, [request])


def test_a_price_of_nothing_needs_no_cap() -> None:
    nothing = Price(input=0, output=0, max_output=10)
    theirs = replace(LIVING, base_url="https://gpu.example/v1", key_variable="THEIR_API_KEY", price=nothing)
    assert asking.price(STUDY, theirs) == nothing
    with pytest.raises(ValueError, match="nothing caps it"):
        asking.price(STUDY, replace(theirs, price=Price(input=0, output=1, max_output=10)))
