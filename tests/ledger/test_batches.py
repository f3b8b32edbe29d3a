"""Batch mode loses nothing and buys nothing twice: killed anywhere, answered late, answered wrongly, never answered.

Each test sends real requests through the official SDKs to a server of its own process and compares the book with what
that server says it was asked. The rows are those of the table of faults.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nift_assets import crash_points, providers
from nift_assets.costs import price_list
from nift_assets.ledger import door, tables
from nift_assets.ledger.batches import collection, rows, submission
from nift_assets.ledger.batches.chunking import ChunkItem, plan_chunks
from nift_assets.ledger.batches.creation import SubmissionResult
from nift_assets.ledger.batches.results import Reconciliation
from nift_assets.ledger.batches.standing import reconciled, status_of
from nift_assets.ledger.book import Asker, AttemptResult, Book
from nift_assets.protocol import Message, Request
from nift_assets.protocol.answer import MOST_TOKENS
from nift_assets.protocol.batches import BatchApi, BatchProgress, ListedBatch, Refused
from nift_assets.protocol.server import ServerError
from nift_assets.providers import answer, anthropic, openai
from nift_assets.rows import LanguageModel, Limits, Price, Teacher
from nift_assets.study import Study
from tests.ledger.fault_server import FaultServer, expected_text

PROJECT = Path(__file__).parent.parent.parent
KEY = "test-key-0000000000000000"
MODELS = {"openai": "gpt-3.5-turbo-0125", "anthropic": "claude-3-haiku-20240307"}
PROVIDERS = list(MODELS)
PRICE = Price(input=0.5, output=1.5, batch_input=0.25, batch_output=0.75, max_output=4096)
POINTS = [point for point in crash_points.POINTS if point.startswith("batch_")]

Counts = Callable[[str, str], None]


@dataclass(frozen=True)
class Place:
    """A ledger, a server and a provider: all a child process needs to ask."""

    provider: str
    url: str
    folder: Path
    who: str = "teacher"
    cap: int | None = None
    most_requests: int = 49_000
    seconds: float = 20.0
    listings: tuple[float, ...] = (0.0, 0.2, 0.5)
    settle_seconds: float = 0.0
    ledger: str | None = None

    def book(self) -> Book:
        return Book(self.ledger or f"sqlite:///{self.folder}/ledger.sqlite")

    def asker(self) -> Asker:
        return Asker(study="s", who=self.who, writer=f"s/completions/{self.who}", who_cap=self.cap)

    def row(self) -> LanguageModel:
        base = self.url if self.provider == "anthropic" else f"{self.url}/v1"
        return LanguageModel(
            name=self.who,
            provider=self.provider,
            model=MODELS[self.provider],
            base_url=base,
            key_variable="TEST_API_KEY",
        )

    def adapter(self) -> BatchApi:
        made: Any = providers.connect(self.row(), PRICE)
        return replace(made, most_requests=self.most_requests, seconds=self.seconds)

    def submit(self, questions: Sequence[Request], **more: Any) -> SubmissionResult:
        options: dict[str, Any] = {"settle_seconds": self.settle_seconds, "listings": self.listings, **more}
        return submission.submit(self.book(), self.asker(), questions, self.adapter(), PRICE, **options)

    def collect(self, **more: Any) -> collection.CollectionResult:
        return collection.collect(self.book(), self.asker(), self.adapter(), PRICE, **more)

    def ask_online(self, questions: Sequence[Request]) -> door.AskResult:
        remote = openai.connect(self.row()) if self.provider == "openai" else anthropic.connect(self.row())
        return door.ask(self.book(), self.asker(), questions, remote, limits=Limits(in_flight=8), price=PRICE)


def questions(provider: str, number: int, text: str = "the rain had") -> list[Request]:
    return [
        Request(
            provider=provider,
            endpoint="local",
            api_version="2023-06-01" if provider == "anthropic" else None,
            model=MODELS[provider],
            messages=(Message(role="user", content=f"{text} {place} 日本 “so”"),),
            parameters={"temperature": 0.0, "max_tokens": 200},
        )
        for place in range(number)
    ]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_API_KEY", KEY)
    # A proxy of this machine must not be used; none listens here.
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(keys=[KEY]) as server:
        yield server


@dataclass
class Truth:
    """What the server has, against what it had when this was made: other tests share it."""

    server: FaultServer
    before: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.before = {batch["id"] for batch in self.server.truth()["batches"]}

    def made(self) -> list[dict[str, Any]]:
        return [batch for batch in self.server.truth()["batches"] if batch["id"] not in self.before]


@pytest.fixture
def truth(server: FaultServer) -> Truth:
    return Truth(server)


@pytest.fixture(params=PROVIDERS)
def place(request: pytest.FixtureRequest, server: FaultServer, tmp_path: Path) -> Place:
    return Place(request.param, server.url, tmp_path)


def statuses(place: Place, asked: Sequence[Request]) -> dict[str, int]:
    """How many of the questions ended in each way, as the table of completions would say."""
    book = place.book()
    keys = [question.key for question in asked]
    found = {stored.key: answer(stored).status for stored in book.stored(keys)}
    found |= {key: status for key, (status, _) in book.outcomes([k for k in keys if k not in found]).items()}
    counted: dict[str, int] = {}
    for key in keys:
        status = str(found.get(key, "pending"))
        counted[status] = counted.get(status, 0) + 1
    return counted


def right(place: Place, asked: Sequence[Request]) -> int:
    """How many of the questions have exactly the text the server answers them with."""
    texts = {stored.key: answer(stored).text for stored in place.book().stored([q.key for q in asked])}
    return sum(
        texts.get(q.key) == expected_text(q.messages[-1].content, q.model, None, 200) for q in asked if q.key in texts
    )


def accounts(place: Place) -> tuple[int, int]:
    """What the study has spent and reserved, by the accounts; it must be what the attempts say."""
    with place.book().reading() as connection:
        booked = connection.execute(
            sa.select(tables.spending.c.spent, tables.spending.c.reserved).where(tables.spending.c.who == "")
        ).one()
        sums = sa.select(sa.func.sum(tables.attempts.c.spent), sa.func.sum(tables.attempts.c.reserved))
        spent, reserved = connection.execute(sums).one()
    assert tuple(booked) == (spent, reserved), "the accounts are not the sum of the attempts"
    return int(spent), int(reserved)


def only(collected: collection.CollectionResult) -> Reconciliation:
    (counts,) = collected.imported.values()
    return counts


# -- the ordinary course ---------------------------------------------------------------------------------------------


def test_a_batch_answers_as_asking_online_does(place: Place, truth: Truth) -> None:
    asked = questions(place.provider, 40)
    submitted = place.submit(asked)
    assert (len(submitted.created), submitted.requests, submitted.stopped) == (1, 40, None)
    counts = only(place.collect())
    assert counts == Reconciliation(requested=40, answered=40)
    assert statuses(place, asked) == {"ok": 40}
    assert right(place, asked) == 40
    spent, reserved = accounts(place)
    bodies = [json.loads(stored.body)["usage"] for stored in place.book().stored([q.key for q in asked])]
    read, written = [("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")][
        place.provider == "anthropic"
    ]
    assert spent == sum(PRICE.cost(usage[read], usage[written], batch=True) for usage in bodies)
    assert reserved == 0
    # Nothing is asked again by either way, and the collecting run of the asset sends nothing.
    again = place.submit(asked)
    assert (again.created, again.answered) == ([], 40)
    online = place.ask_online(asked)
    assert (online.sent, online.counts) == (0, {"ok": 40})
    assert [batch["rows"] for batch in truth.made()] == [40]


def test_batches_are_kept_in_postgresql_too(place: Place, truth: Truth, postgres_url: str) -> None:
    one = replace(place, ledger=postgres_url, who=f"postgres-{place.provider}", most_requests=300)
    asked = questions(place.provider, 700, text="postgres")
    kill_at("batch_after_import", one, asked)
    one.collect()
    assert statuses(one, asked) == {"ok": 700}
    assert right(one, asked) == 700
    assert accounts(one)[1] == 0
    assert sorted(batch["rows"] for batch in truth.made()) == [101, 299, 300]


def test_what_is_in_a_batch_is_not_asked_online(place: Place, server: FaultServer, truth: Truth) -> None:
    server.set(batch_seconds=None)
    asked = questions(place.provider, 10)
    place.submit(asked)
    with pytest.raises(ValueError, match="10 of 10 requests are under way in a batch"):
        place.ask_online(asked)
    again = place.submit(asked)
    assert (again.created, again.in_batch) == ([], 10)
    assert len(truth.made()) == 1
    (waiting,) = place.collect().waiting
    assert "is under way: 0 of 10 done" in waiting
    collection.cancel(place.book(), place.asker(), place.adapter())
    server.advance(steps=1)
    counts = only(place.collect())
    assert counts.ended() == 10
    assert counts.answered + counts.cancelled == 10
    assert place.ask_online(asked).counts == {"ok": 10}


def test_an_answer_that_came_meanwhile_is_kept_and_both_are_booked(place: Place, server: FaultServer) -> None:
    server.set(batch_seconds=None)
    asked = questions(place.provider, 5)
    place.submit(asked)
    with place.book().writing() as connection:  # as if another study had asked one of them before
        connection.execute(
            sa.insert(tables.answers).values(
                key=asked[0].key, http_status=200, status="other", headers=b"{}", body=b"kept", answered_at="now"
            )
        )
    server.advance(steps=3)
    counts = only(place.collect())
    assert (counts.answered, counts.late) == (5, 1)
    (kept,) = place.book().stored([asked[0].key])
    assert kept.body == b"kept"
    assert accounts(place)[1] == 0


def test_the_caps_hold_back_what_a_chunk_has_no_room_for(place: Place, truth: Truth) -> None:
    asked = questions(place.provider, 20)
    most = max(
        PRICE.cost(len(json.dumps(place.adapter().server.payload(q), ensure_ascii=False).encode()), 200, batch=True)
        for q in asked
    )
    poor = replace(place, cap=8 * most)
    submitted = poor.submit(asked)
    assert submitted.stopped is not None
    assert submitted.stopped.cause == "budget"
    assert submitted.requests + submitted.left == 20
    assert 8 <= submitted.requests <= 9
    assert accounts(poor)[1] <= 8 * most
    poor.collect()
    rich = place.submit(asked)
    assert rich.requests == 20 - submitted.requests
    place.collect()
    assert statuses(place, asked) == {"ok": 20}
    assert sum(batch["rows"] for batch in truth.made()) == 20


def test_a_refused_batch_frees_its_requests_and_says_what_to_do(place: Place, server: FaultServer) -> None:
    asked = questions(place.provider, 10)
    server.set(faults=[{"fault": "insufficient_quota", "scope": "create"}])
    submitted = place.submit(asked)
    assert submitted.stopped is not None
    assert (submitted.stopped.cause, submitted.created) == ("quota", [])
    assert "add credit" in submitted.stopped.remedy
    assert accounts(place) == (0, 0)
    server.set(faults=[])
    assert place.submit(asked).requests == 10


def test_batches_are_refused_to_who_sells_none() -> None:
    with pytest.raises(ValueError, match="'echo' has no batch API"):
        providers.connect(LanguageModel(name="e", provider="echo", model="continue"), PRICE)
    with pytest.raises(ValueError, match="no batch price is known"):
        providers.connect(LanguageModel(name="e", provider="openai", model="m"), Price(input=1, output=1, max_output=1))


def test_the_sdks_show_our_version_and_the_key_as_online(server: FaultServer, tmp_path: Path) -> None:
    place = Place("anthropic", server.url, tmp_path)
    place.submit(questions("anthropic", 3))
    place.collect()
    place.adapter().find("x", 3, 0.0)
    sent = [
        b for b in server.arrivals() if b.shape == "anthropic" and b.scope in ("create", "poll", "download", "list")
    ]
    assert {b.scope for b in sent} == {"create", "poll", "download", "list"}
    assert {b.headers["anthropic-version"] for b in sent} == {"2023-06-01"}
    assert {b.headers.get("x-api-key_sha256") for b in sent} == {hashlib.sha256(KEY.encode()).hexdigest()}
    assert not any("authorization_sha256" in b.headers for b in sent)


# -- B1 ----------------------------------------------------------------------------------------------------------------


def _killed(point: str, place: Place, asked: Sequence[Request]) -> None:
    """What a child process does until it is killed at a point."""
    os.environ["NIFT_CRASH"] = f"{point}:1"
    importlib.reload(crash_points)
    place.submit(asked)
    place.collect()
    os._exit(0)


def kill_at(point: str, place: Place, asked: Sequence[Request]) -> None:
    child = multiprocessing.get_context("fork").Process(target=_killed, args=(point, place, asked))
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL, f"{point} was never reached"


@pytest.mark.fault("B1")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_b1_a_kill_anywhere_leaves_one_batch_per_chunk(
    provider: str, server: FaultServer, tmp_path: Path, counts: Counts
) -> None:
    points = [p for p in POINTS if not (provider == "anthropic" and p == "batch_after_upload")]
    whole = 0
    for number, point in enumerate(points):
        truth = Truth(server)
        place = Place(provider, server.url, tmp_path, who=f"t{number}", most_requests=25)
        asked = questions(provider, 60, text=point)
        kill_at(point, place, asked)
        for _ in range(3):  # what a person does: run it again
            place.submit(asked)
            place.collect()
        made = truth.made()
        assert (len(made), sum(batch["rows"] for batch in made)) == (3, 60), f"{point}: {made}"
        rows = [bill.custom_id for bill in server.bills() if bill.batch_id in {batch["id"] for batch in made}]
        assert sorted(rows) == sorted(question.key for question in asked), point
        assert statuses(place, asked) == {"ok": 60}, point
        assert right(place, asked) == 60, point
        assert accounts(place)[1] == 0, point
        assert place.ask_online(asked).sent == 0
        whole += 1
    counts("B1", f"{provider}: {whole}/{len(points)} kills left one batch per chunk and a complete table")


# -- B2 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("B2", runs="10 creations, late; slow: lost")
@pytest.mark.parametrize("fault", ["create_late", pytest.param("create_lost", marks=pytest.mark.slow)])
def test_b2_a_creation_without_an_answer_is_found_in_the_list(
    fault: str, place: Place, server: FaultServer, truth: Truth, counts: Counts
) -> None:
    number = 10
    asked = questions(place.provider, 155, text=fault)
    slow = replace(place, most_requests=20, seconds=0.35)
    server.set(faults=[{"fault": fault}])
    submitted = slow.submit(asked)
    made = truth.made()
    assert (len(made), len(submitted.adopted), submitted.created) == (number, number, [])
    server.set(faults=[])
    place.collect()
    assert statuses(place, asked) == {"ok": 155}
    assert right(place, asked) == 155
    counts("B2", f"{place.provider}, {fault}: {len(made)} batches on the server, {len(submitted.adopted)} adopted")


@pytest.mark.fault("B2")
def test_b2_a_creation_that_happens_later_is_waited_for(place: Place, server: FaultServer, truth: Truth) -> None:
    asked = questions(place.provider, 12)
    patient = replace(place, settle_seconds=600.0, listings=(0.0,))
    server.set(faults=[{"fault": "create_delayed", "delay": 1.0}])
    assert patient.submit(asked).waiting
    server.set(faults=[])
    again = patient.submit(asked)  # at once: nothing is in the list, and nothing is created
    assert again.created == []
    assert "run again in" in again.waiting[0]
    time.sleep(1.2)
    assert len(patient.submit(asked).adopted) == 1
    patient.collect()
    assert statuses(place, asked) == {"ok": 12}
    assert len(truth.made()) == 1


@pytest.mark.fault("B2")
def test_b2_a_creation_that_never_happened_is_made_after_it_has_settled(
    place: Place, server: FaultServer, truth: Truth
) -> None:
    asked = questions(place.provider, 12)
    patient = replace(place, settle_seconds=600.0, listings=(0.0,))
    server.set(faults=[{"fault": "create_refused", "scope": "create"}])
    assert patient.submit(asked).waiting
    server.set(faults=[])
    assert patient.submit(asked).created == []
    assert len(patient.submit(asked, clock=lambda: time.time() + 601).created) == 1
    patient.collect()
    assert statuses(place, asked) == {"ok": 12}
    assert len(truth.made()) == 1


def test_b2_somebody_elses_batch_of_the_same_size_is_given_back(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Place("anthropic", server.url, tmp_path / "other")
    other.submit(questions("anthropic", 13, text="theirs before"))
    place = Place("anthropic", server.url, tmp_path, seconds=0.5, settle_seconds=600.0, listings=(0.0,))
    asked = questions("anthropic", 13, text="ours")
    server.set(faults=[{"fault": "create_refused", "scope": "create"}])
    assert place.submit(asked).adopted == []  # what was there before is not ours
    server.set(faults=[])
    other.submit(questions("anthropic", 13, text="theirs"))
    truth = Truth(server)
    assert len(place.submit(asked).adopted) == 1  # by its size alone, the only one since
    assert "which was of its size" in place.collect().waiting[0]
    assert place.submit(asked).created == []
    late = place.submit(asked, clock=lambda: time.time() + 601)
    assert len(late.created) == 1
    place.collect()
    assert statuses(place, asked) == {"ok": 13}
    assert right(place, asked) == 13
    assert [batch["rows"] for batch in truth.made()] == [13]


def test_b2_two_chunks_of_one_size_that_took_each_others_batch_find_their_own(
    server: FaultServer, tmp_path: Path
) -> None:
    places = [Place("anthropic", server.url, tmp_path, who=who, listings=(), settle_seconds=0.0) for who in "ab"]
    asked = [questions("anthropic", 7, text=place.who) for place in places]
    server.set(faults=[{"fault": "create_lost"}])
    for place, some in zip(places, asked, strict=True):
        assert place.submit(some).waiting
    server.set(faults=[])
    made = [batch["id"] for batch in server.truth()["batches"]]
    for place, taken in zip(places, reversed(made), strict=True):
        with place.book().writing() as connection:
            mine = tables.batches.c.who == place.who
            values = {"state": "submitted", "provider_id": taken, "submitted_at": "2026-01-01T00:00:00+00:00"}
            connection.execute(sa.update(tables.batches).where(mine).values(**values))
    assert "which was of its size" in places[0].collect().waiting[0]
    # Nothing is free, and yet nothing may be created: the other one has not shown whose batch it has.
    first = places[0].submit(asked[0])
    assert first.created == []
    assert "another chunk has taken" in first.waiting[0]
    for _ in range(2):
        for place, some in zip(places, asked, strict=True):
            place.collect()
            assert place.submit(some).created == []
    for place, some in zip(places, asked, strict=True):
        place.collect()
        assert right(place, some) == 7
    assert len(server.truth()["batches"]) == 2


# -- B8 ----------------------------------------------------------------------------------------------------------------

DAY = 86_400.0


@pytest.mark.fault("B8", runs="3 clocks × 2 providers")
@pytest.mark.parametrize("days", [-3.0, 3.0, 400.0])
def test_b8_a_clock_that_is_wrong_by_days_buys_no_second_batch(
    days: float, place: Place, server: FaultServer, truth: Truth, counts: Counts
) -> None:
    asked = questions(place.provider, 12, text="wrong clock")
    patient = replace(place, settle_seconds=600.0, listings=(), seconds=0.5)
    server.set(faults=[{"fault": "create_lost"}])
    assert patient.submit(asked, clock=lambda: time.time() + days * DAY).waiting
    server.set(faults=[])
    # The clock is set right before the first look at the list, or after it, and whoever waits has waited.
    for off in (days * DAY, 0.0, 601.0, 1202.0):
        patient.submit(asked, clock=lambda off=off: time.time() + off)  # type: ignore[misc]
    assert [batch["rows"] for batch in truth.made()] == [12]
    place.collect()
    assert statuses(place, asked) == {"ok": 12}
    counts("B8", f"{place.provider}, a clock {days:+.0f} days off and a lost creation: 1 batch")


def test_b8_a_server_without_a_list_of_batches_still_takes_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, truth: Truth
) -> None:
    made = type(place.adapter())

    def no_list(self: BatchApi) -> list[Any]:
        raise Refused(404, ServerError(kind="stop", cause="not_found", message="no list"))

    monkeypatch.setattr(made, "newest", no_list)
    assert len(place.submit(questions(place.provider, 5)).created) == 1
    assert len(truth.made()) == 1


def test_b8_where_the_list_cannot_be_had_nothing_is_created(place: Place, server: FaultServer, truth: Truth) -> None:
    asked = questions(place.provider, 5)
    server.set(faults=[{"fault": "server_error", "scope": "list"}])
    (waiting,) = place.submit(asked).waiting
    assert "run again" in waiting
    assert truth.made() == []
    server.set(faults=[])
    assert place.submit(asked).requests == 5


# -- B3 ----------------------------------------------------------------------------------------------------------------

FINALS: dict[str, list[dict[str, Any]]] = {
    "failed": [{"fault": "failed", "nth": [0]}],
    "expired": [{"fault": "expired"}],
    "cancelling": [],
    "cancelled": [{"fault": "cancelled"}],
    "ended with errors of the server": [{"fault": "errored"}],
    "ended with refused rows": [{"fault": "bad_request", "scope": "row", "share": 0.3}],
}


@pytest.mark.fault("B3", runs="6 × 200")
def test_b3_finished_rows_are_kept_and_the_rest_is_asked_again(
    place: Place, server: FaultServer, tmp_path: Path, counts: Counts
) -> None:
    for number, (name, faults) in enumerate(FINALS.items()):
        (tmp_path / str(number)).mkdir()
        one = replace(place, folder=tmp_path / str(number), most_requests=200)
        asked = questions(place.provider, 200, text=name)
        server.set(faults=[{k: v for k, v in f.items() if k != "nth"} for f in faults], batch_seconds=0.0)
        if name == "cancelling":
            server.set(batch_seconds=None)
        one.submit(asked)
        if name == "cancelling":
            server.advance(steps=1 if place.provider == "openai" else 0)
            collection.cancel(one.book(), one.asker(), one.adapter())
            assert "under way" in one.collect().waiting[0]
            server.advance(steps=1)
        first = one.collect()
        server.set(faults=[], batch_seconds=0.0)
        if name == "cancelling" and not first.imported:
            first = one.collect()
        found = only(first) if first.imported else next(iter(reconciled(one.book(), one.asker()).values()))
        assert found.ended() == found.requested == 200, (name, found)
        assert found.answered == statuses(one, asked).get("ok", 0)
        left = 200 - found.answered - found.rejected
        again = one.submit(asked)
        assert again.requests == left, (name, again)
        one.collect()
        assert right(one, asked) == 200 - found.rejected, name
        total = reconciled(one.book(), one.asker()).values()
        assert sum(each.answered for each in total) == 200 - found.rejected
        assert accounts(one)[1] == 0
        ended = {k: v for k, v in vars(found).items() if v and k != "requested"}
        counts("B3", f"{place.provider}, {name}: 200 = {ended}, then {again.requests} asked again, 0 left")


# -- B4 ----------------------------------------------------------------------------------------------------------------

INJURIES: dict[str, dict[str, Any]] = {
    "out_of_order": {},
    "duplicate_id": {"rows": 40},
    "unknown_id": {"rows": 25},
    "missing_rows": {"rows": 30},
    "blank_lines": {},
    "torn_last_line": {},
    "swapped": {"rows": 20},
}


@pytest.mark.fault("B4", "T18", runs="7 × 500, 20 swapped")
def test_b4_injured_results_are_reconciled_exactly(
    place: Place, server: FaultServer, tmp_path: Path, counts: Counts
) -> None:
    expected: dict[str, Reconciliation] = {
        "out_of_order": Reconciliation(requested=500, answered=500),
        "duplicate_id": Reconciliation(requested=500, answered=500, duplicates=40),
        "unknown_id": Reconciliation(requested=500, answered=500, strangers=[f"unknown-{n}" for n in range(25)]),
        "missing_rows": Reconciliation(requested=500, answered=470, unknown=30),
        "blank_lines": Reconciliation(requested=500, answered=500),
        "torn_last_line": Reconciliation(requested=500, answered=499, unknown=1, torn=1),
        "swapped": Reconciliation(requested=500, answered=480, unknown=20),
    }
    for number, (injury, parameters) in enumerate(INJURIES.items()):
        (tmp_path / str(number)).mkdir()
        one = replace(place, folder=tmp_path / str(number))
        asked = questions(place.provider, 500, text=injury)
        server.set(faults=[{"fault": injury, **parameters}])
        one.submit(asked)
        looks = 0
        while not (collected := one.collect()).imported:
            looks += 1
            assert "torn" in collected.waiting[0]
        found = only(collected)
        strangers = found.strangers
        if injury == "swapped":
            assert len(strangers) == 20
            found.strangers = []
        assert found == expected[injury]
        assert looks == (collection.MOST_TORN if injury == "torn_last_line" else 0)
        assert right(one, asked) == found.answered
        # What may have been billed is not asked again by itself.
        server.set(faults=[])
        again = one.submit(asked)
        assert (again.created, again.unknown) == ([], found.unknown)
        assert (accounts(one)[1] > 0) == (found.unknown > 0)
        told = {k: v for k, v in vars(found).items() if v and k not in ("requested", "strangers")}
        counts("B4", f"{place.provider}, {injury}: 500 = {told}, {len(strangers)} strangers rejected")


@dataclass
class Scripted:
    """The rest of an adapter's conversation: results that a provider never documented, written by the test."""

    adapter: Any
    lines: Sequence[bytes]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.adapter, name)

    def newest(self) -> list[ListedBatch]:
        return []

    def upload(self, chunk: str, lines: Any) -> str | None:
        return "file"

    def create(self, chunk: str, file_id: str | None, lines: Any) -> str:
        return "batch"

    def poll(self, provider_id: str) -> BatchProgress:
        return BatchProgress(ended=True, done=len(self.lines), sources=["results"])

    def download(self, source: str, file: Any) -> None:
        file.write(b"\n".join(self.lines))


def result(key: str, status: Any = 200, usage: Any = None, request_id: Any = "r", **body: Any) -> bytes:
    """A line of OpenAI's results."""
    counted = {"prompt_tokens": 5, "completion_tokens": 5} if usage is None else usage
    message = {"role": "assistant", "content": "dry by noon"}
    whole = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": counted, **body}
    return json.dumps(
        {"custom_id": key, "response": {"status_code": status, "request_id": request_id, "body": whole}}
    ).encode()


@dataclass
class Choosy(Scripted):
    """A provider that takes so many requests in one batch and refuses more, with the sizes of what it was asked for."""

    most: int
    asked: list[int] = field(default_factory=list)

    def create(self, chunk: str, file_id: str | None, lines: Any) -> str:
        self.asked.append(len(list(lines)))
        if self.asked[-1] > self.most:
            trouble = ServerError(kind="reject", cause="token_limit_exceeded", message="Enqueued token limit reached.")
            raise Refused(400, trouble)
        return f"batch {len(self.asked)}"


@pytest.mark.fault("B9")
def test_what_is_refused_for_its_size_goes_out_in_smaller_chunks_and_never_as_it_was(tmp_path: Path) -> None:
    place = Place("openai", "http://127.0.0.1:9", tmp_path)
    asked = questions("openai", 20)
    adapter: Any = Choosy(place.adapter(), [result(question.key) for question in asked], most=6)
    submitted = submission.submit(place.book(), place.asker(), asked, adapter, PRICE)
    assert (submitted.stopped, submitted.requests, submitted.left, submitted.in_batch) == (None, 20, 0, 0)
    assert adapter.asked[:3] == [20, 10, 5]
    assert sum(size for size in adapter.asked if size <= 6) == 20
    collection.collect(place.book(), place.asker(), adapter, PRICE)
    # What is found too large later, when the batch has ended, is not sent again as it was either.
    more = questions("openai", 30, text="and then")
    later: Any = Choosy(place.adapter(), [], most=0)
    alone = submission.submit(place.book(), place.asker(), more, later, PRICE)
    assert later.asked[0] < 10
    assert later.asked[-1] == 1
    assert alone.stopped is not None
    assert "the row 'teacher'" in str(alone.stopped)


def test_what_the_account_has_no_room_for_beside_what_is_under_way_waits_for_it(tmp_path: Path) -> None:
    place = Place("openai", "http://127.0.0.1:9", tmp_path)
    one, other = questions("openai", 10), questions("openai", 10, text="and then")
    adapter: Any = Choosy(place.adapter(), [result(question.key) for question in one], most=10)
    assert submission.submit(place.book(), place.asker(), one, adapter, PRICE).requests == 10
    adapter.most = 0
    submitted = submission.submit(place.book(), place.asker(), other, adapter, PRICE)
    assert (submitted.requests, submitted.stopped, adapter.asked) == (0, None, [10, 10])
    assert "collect that when it has ended" in submitted.waiting[0]


@pytest.mark.fault("B9")
def test_requests_that_were_all_refused_for_what_their_row_says_are_not_sent_again(tmp_path: Path) -> None:
    place = Place("openai", "http://127.0.0.1:9", tmp_path)
    asked = questions("openai", 5)
    error = {"message": "Use 'max_completion_tokens' instead.", "param": "max_tokens", "code": "unsupported_parameter"}
    adapter: Any = Choosy(place.adapter(), [result(q.key, status=400, error=error) for q in asked], most=99)
    assert submission.submit(place.book(), place.asker(), asked, adapter, PRICE).requests == 5
    assert only(collection.collect(place.book(), place.asker(), adapter, PRICE)).hopeless
    where = status_of(place.book(), place.asker().study, place.asker().who)
    assert "set max_tokens_name='max_completion_tokens'" in str(where.remedy)
    assert "the row 'teacher'" in str(where.remedy)
    again = submission.submit(place.book(), place.asker(), asked, adapter, PRICE)
    assert (again.requests, adapter.asked) == (0, [5])
    assert "not sent again" in str(again.stopped)
    # Another row, which is what mends it, has other requests.
    mended = questions("openai", 5, text="of another row")
    assert submission.submit(place.book(), place.asker(), mended, adapter, PRICE).requests == 5


@pytest.mark.fault("T27")
def test_a_request_dearer_than_the_cap_holds_back_no_other(tmp_path: Path) -> None:
    place = Place("openai", "http://127.0.0.1:9", tmp_path, cap=PRICE.cost(2_000, 200, batch=True) * 6)
    dear = questions("openai", 1, text="long " * 20_000)
    adapter: Any = Choosy(place.adapter(), [], most=99)
    submitted = submission.submit(place.book(), place.asker(), [*dear, *questions("openai", 5)], adapter, PRICE)
    assert (submitted.requests, submitted.left) == (5, 1)
    assert submitted.stopped is not None
    assert submitted.stopped.cause == "budget"
    assert "the dearest begins" in str(submitted.stopped)


def usage(tokens: Any) -> dict[str, Any]:
    return {"prompt_tokens": tokens, "completion_tokens": tokens}


ODD: dict[str, Callable[[str], bytes]] = {
    **{
        f"usage {odd!r:.12}": lambda key, odd=odd: result(key, usage=usage(odd))  # type: ignore[misc]
        for odd in ("5", None, True, -1, 10**30, {"of": 5}, 1.5)
    },
    "usage of text": lambda key: result(key, usage="much"),
    "no choices": lambda key: result(key, choices=[]),
    "a body as deep as the sea": lambda key: result(key).replace(b'"usage"', b'"sea": ' + b"[" * 10**5 + b', "usage"'),
    "status 10**30": lambda key: result(key, status=10**30),
    "status infinity": lambda key: result(key, status=float("inf")),
    "an id of another kind": lambda key: result(key, request_id={"of": 1}),
    "a NUL, half a character, and too long": lambda key: result(key, request_id="\0\ud800" + "r" * 300),
    "an error with all of these": lambda key: result(
        key, status=400, error={"code": "\0\ud800" + "c" * 90, "message": "\0\ud800" + "m" * 900}
    ),
    "a passing error with all of these": lambda key: result(key, status=500, error={"message": "\0\ud800" + "m" * 900}),
}


@pytest.mark.parametrize("ledger", ["sqlite", "postgresql"])
def test_b4_what_is_wrong_with_one_line_keeps_no_other_out(
    ledger: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("database_url") if ledger == "postgresql" else None
    place = Place("openai", "http://127.0.0.1:9", tmp_path, ledger=url)
    asked = questions("openai", len(ODD) + 3)
    lines = [odd(question.key) for odd, question in zip(ODD.values(), asked, strict=False)]
    lines += [result(question.key) for question in asked[len(ODD) :]]
    lines += [result("stranger \0\ud800" + "s" * 900)]
    adapter: Any = Scripted(place.adapter(), lines)
    submission.submit(place.book(), place.asker(), asked, adapter, PRICE)
    for _ in range(collection.MOST_TORN + 1):
        collected = collection.collect(place.book(), place.asker(), adapter, PRICE)
    counts = only(collected)
    assert counts.ended() == len(asked)
    assert statuses(place, asked[len(ODD) :]) == {"ok": 3}
    assert counts.answered >= 3 + 8
    assert (counts.rejected, counts.failed, len(counts.strangers)) == (1, 1, 1)
    spent, reserved = accounts(place)
    with place.book().reading() as connection:
        unknown = connection.execute(sa.select(tables.attempts).where(tables.attempts.c.state == "unknown")).all()
    assert len(unknown) == counts.unknown >= 3
    # The one too deep for JSON is no line of anybody's: its request is the one without a result.
    assert sorted({attempt.cause for attempt in unknown}) == ["malformed", "missing"]
    assert [bool(attempt.evidence) for attempt in unknown].count(False) == 1
    assert reserved == sum(attempt.reserved for attempt in unknown)
    # Answers that do not say what they cost are booked at the most it can have been.
    assert spent > counts.answered * PRICE.cost(5, 5, batch=True)


@pytest.mark.parametrize(("stated", "counted"), [(MOST_TOKENS, MOST_TOKENS), (MOST_TOKENS + 1, None)])
def test_more_tokens_than_the_limit_are_no_count_and_cost_what_was_reserved(
    tmp_path: Path, stated: int, counted: int | None
) -> None:
    """`test_adversity` asks the same of an answer that came online."""
    place = Place("openai", "http://127.0.0.1:9", tmp_path)
    asked = questions("openai", 1)
    usage = {"prompt_tokens": stated, "completion_tokens": 3}
    adapter: Any = Scripted(place.adapter(), [result(asked[0].key, usage=usage)])
    submission.submit(place.book(), place.asker(), asked, adapter, PRICE)
    _, reserved = accounts(place)
    assert only(collection.collect(place.book(), place.asker(), adapter, PRICE)).answered == 1
    with place.book().reading() as connection:
        attempt = connection.execute(sa.select(tables.attempts)).one()
    assert (attempt.input_tokens, attempt.output_tokens) == (counted, 3)
    assert accounts(place) == (PRICE.cost(counted, 3, batch=True) if counted else reserved, 0)


def test_b4_two_who_import_one_batch_book_each_attempt_once(ledger_url: str, tmp_path: Path) -> None:
    place = Place("openai", "http://127.0.0.1:9", tmp_path, ledger=ledger_url)
    asked = questions("openai", 4)
    adapter: Any = Scripted(place.adapter(), [result(question.key) for question in asked])
    (digest,) = submission.submit(place.book(), place.asker(), asked, adapter, PRICE).created
    book = place.book()
    batch = rows.chunk(book, digest)
    settled = [
        AttemptResult(number=0, key=q.key, state="answered", reserved=0, spent=7, http_status=200, body=b"{}")
        for q in asked
    ]
    for some in (settled[:3], settled):  # the second has the first three as well, as after a lost lock
        with book.writing() as connection:
            rows.settle_requests(connection, batch, some)
    assert accounts(place) == (4 * 7, 0)


# -- B5 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("B5")
def test_b5_a_download_that_is_cut_is_made_again_from_the_beginning(
    place: Place, server: FaultServer, counts: Counts
) -> None:
    asked = questions(place.provider, 100)
    cut = {"fault": "download_cut", "first": 2}
    server.set(faults=[cut, {"fault": "changing_output"}])
    place.submit(asked)
    now, looks = time.time(), 0
    while not (collected := place.collect(clock=lambda now=now: now)).imported:  # type: ignore[misc]
        looks += 1
        now += 601
    assert looks == 2
    assert only(collected) == Reconciliation(requested=100, answered=100)
    assert right(place, asked) == 100
    counts("B5", f"{place.provider}, cut twice and changed each time: 100 of 100 rows after {looks + 1} downloads")


@pytest.mark.fault("B5")
def test_b5_results_that_are_gone_are_never_paid_again_by_themselves(
    place: Place, server: FaultServer, truth: Truth, counts: Counts
) -> None:
    asked = questions(place.provider, 100)
    server.set(faults=[{"fault": "archived"}])
    place.submit(asked)
    assert only(place.collect()) == Reconciliation(requested=100, unknown=100)
    server.set(faults=[])
    assert place.submit(asked).created == []
    assert statuses(place, asked) == {"unknown": 100}
    assert place.ask_online(asked).sent == 0
    assert accounts(place)[1] > 0
    assert len(truth.made()) == 1
    counts("B5", f"{place.provider}, results gone: 100 of 100 rows unknown and reserved, 0 sent again")


# -- B6 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("B6")
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(1, 20_000), min_size=0, max_size=400),
    most_requests=st.integers(1, 60),
    most_bytes=st.integers(1_000, 60_000),
    models=st.integers(1, 3),
)
def test_b6_no_chunk_breaks_a_limit_and_none_is_lost(
    sizes: list[int], most_requests: int, most_bytes: int, models: int
) -> None:
    items = [ChunkItem(key=f"{n}", model=f"m{n % models}", size=size) for n, size in enumerate(sizes)]
    plan = plan_chunks(items, most_requests, most_bytes)
    assert sorted(i.key for c in plan.chunks for i in c) + sorted(i.key for i in plan.too_large) == sorted(
        i.key for i in items if i.size <= most_bytes
    ) + sorted(i.key for i in items if i.size > most_bytes)
    for chunk in plan.chunks:
        assert 1 <= len(chunk) <= most_requests
        assert sum(item.size for item in chunk) <= most_bytes
        assert len({item.model for item in chunk}) == 1


@pytest.mark.fault("B6", runs="10,000 documents")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_b6_ten_thousand_documents_fit(provider: str, tmp_path: Path, counts: Counts) -> None:
    import random

    chance = random.Random(6)
    words = ["rain", "日本語", "🙂", '"quoted\\"', "e\u0301", "مرحبا", "\x00", "\ud800", "\u2028", "line\nbreak"]
    adapter = Place(provider, "http://127.0.0.1:9", tmp_path).adapter()
    items, most_bytes = [], 4_000_000
    for number in range(10_000):
        text = " ".join(chance.choices(words, k=chance.randint(3, 60))) + str(number)
        if number == 5_000:
            text = "x" * 5_000_000
        request = replace(questions(provider, 1)[0], messages=(Message(role="user", content=text),))
        line = adapter.line(request)
        back = json.loads(line)
        assert b"\n" not in line
        assert (len(back["custom_id"]), back["custom_id"]) == (64, request.key)
        said = back["body" if provider == "openai" else "params"]["messages"][-1]["content"]
        assert said == text
        items.append(ChunkItem(key=request.key, model=request.model, size=len(line)))
    plan = plan_chunks(items, 1_000, most_bytes)
    assert [item.size > most_bytes for item in plan.too_large] == [True]
    assert sum(map(len, plan.chunks)) == 9_999
    assert all(sum(i.size for i in c) <= most_bytes and len(c) <= 1_000 for c in plan.chunks)
    sizes = [len(c) for c in plan.chunks]
    assert len(set(sizes)) == len(sizes)
    counts("B6", f"{provider}: 10,000 documents in {len(sizes)} chunks below both limits, the one of 5 MB rejected")


def test_b6_a_request_larger_than_a_chunk_is_rejected_and_the_rest_asked(place: Place) -> None:
    asked = questions(place.provider, 6)
    huge = replace(asked[3], messages=(Message(role="user", content="x" * 5_000_000),))
    asked[3] = huge
    small: Any = replace(place.adapter(), most_bytes=1_000_000)  # type: ignore[type-var]
    submitted = submission.submit(place.book(), place.asker(), asked, small, PRICE, listings=())
    assert (submitted.requests, submitted.rejected) == (5, 1)
    place.collect()
    assert statuses(place, asked) == {"ok": 5, "rejected": 1}
    (stored,) = place.book().stored([huge.key])
    assert "bytes" in str(answer(stored).detail)


# -- B7 ----------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("B7")
@pytest.mark.parametrize("fault", ["poll_5xx", pytest.param("poll_429", marks=pytest.mark.slow)])
def test_b7_polling_backs_off_and_survives_any_storm(
    fault: str, place: Place, server: FaultServer, counts: Counts
) -> None:
    asked = questions(place.provider, 10)
    place.submit(asked)
    server.set(faults=[{"fault": fault}])
    polls = server.truth()["by_scope"].get("poll", 0)
    now, waits, last = time.time(), [], 0.0
    for second in range(0, 3 * 3600, 60):  # the sensor looks once a minute for three hours
        place.collect(clock=lambda second=second: now + second)  # type: ignore[misc]
        seen = server.truth()["by_scope"].get("poll", 0)
        if seen > polls:
            waits.append(second - last)
            polls, last = seen, float(second)
    assert waits[-1] == 600
    assert waits == sorted(waits)
    assert len(waits) < 25
    server.set(faults=[])
    assert only(place.collect(clock=lambda: now + 4 * 3600)).answered == 10
    counts("B7", f"{place.provider}, {fault} for 3 h: {len(waits)} polls of 180 looks, the last ones 600 s apart")


@pytest.mark.fault("B7")
def test_b7_a_batch_that_expired_while_nobody_looked_is_asked_again(
    place: Place, server: FaultServer, counts: Counts
) -> None:
    server.set(batch_seconds=None)
    asked = questions(place.provider, 20)
    place.submit(asked)
    place.collect()
    server.advance(seconds=25 * 3600)
    later = time.time() + 25 * 3600
    found = only(place.collect(clock=lambda: later))
    assert found.expired == 20
    assert statuses(place, asked) == {"expired": 20}
    server.set(batch_seconds=0.0)
    assert place.submit(asked, clock=lambda: later).requests == 20
    place.collect(clock=lambda: later)
    assert right(place, asked) == 20
    counts("B7", f"{place.provider}, 25 h without a look: 20 expired, 20 asked again, 20 answered")


# -- what is paid for is collected, whatever has changed since --------------------------------------------------------


def test_answers_whose_price_nobody_knows_any_more_are_booked_as_reserved(place: Place) -> None:
    asked = questions(place.provider, 5)
    place.submit(asked)
    reserved = accounts(place)[1]
    collected = collection.collect(place.book(), place.asker(), place.adapter(), None)
    assert only(collected) == Reconciliation(requested=5, answered=5)
    assert accounts(place) == (reserved, 0)


def test_a_row_that_names_another_provider_now_neither_loses_nor_buys_its_batch_again(
    server: FaultServer, tmp_path: Path, truth: Truth
) -> None:
    place = Place("openai", server.url, tmp_path)
    asked = questions("openai", 5)
    place.submit(asked)
    changed = replace(place, provider="anthropic")
    later = time.time() + 3 * 86_400
    (waiting,) = changed.collect(clock=lambda: later).waiting
    assert "is openai's, and the row names anthropic now" in waiting
    assert only(place.collect()).answered == 5
    assert len(truth.made()) == 1


@pytest.fixture
def paying(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The code location of a study whose teacher is served by OpenAI itself, which is our server here."""
    import dagster as dg

    from dagster_project import batch_jobs
    from nift_assets import graph, studies

    teacher = Teacher(name="mini", provider="openai", model="gpt-4o-mini-2024-07-18", max_tokens=200)
    none = dict.fromkeys(("audits", "training_sets", "adapters", "models", "examples", "publications"), ())
    study = replace(studies.load("demo"), name="s", teachers=(teacher,), **none)
    monkeypatch.setattr(openai, "HOME", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NIFT_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.sqlite")
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path))
    monkeypatch.delenv("NIFT_BUDGET_USD", raising=False)
    from dagster_project.resources import resources

    def look(study: Study = study) -> str:
        sensor = batch_jobs.batches_sensor(study, batch_jobs.submit_batches(graph.build(study)))
        with dg.build_sensor_context(resources=resources(study)) as context:
            found: Any = sensor._raw_fn(context)
            return str(found.skip_reason.skip_message)

    return study, look, Place("openai", server.url, tmp_path, who="mini")


def test_the_sensor_collects_from_a_model_that_has_ended_without_a_cap(
    paying: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, look, place = paying
    (teacher,) = study.teachers
    asked = [replace(q, endpoint="", model=teacher.model) for q in questions("openai", 5)]
    adapter = providers.reconnect(teacher)
    submission.submit(place.book(), place.asker(), asked, adapter, PRICE)
    said = look(replace(study, teachers=(replace(teacher, name="other"),)))  # renamed since
    assert "mini: the study has no such teacher" in said
    assert "put back its row (openai, gpt-4o-mini-2024-07-18)" in said
    row = price_list.listed("openai", teacher.model)
    assert row is not None
    gone = replace(row, ends=date(2020, 1, 1))
    monkeypatch.setattr(price_list, "MODELS", (gone,))
    from dagster_project import batch_jobs

    with pytest.raises(ValueError, match="was shut down"):
        batch_jobs._connect(study, teacher)
    look()
    assert len(place.book().answered([q.key for q in asked])) == 5
    assert 0 < accounts(place)[0] < 5 * gone.price.cost(1000, 1000)
    assert accounts(place)[1] == 0


# -- the whole of it in Dagster --------------------------------------------------------------------------------------

STUDY = """
import dataclasses
from nift_assets import studies
from nift_assets.studies import Price, Teacher
demo = studies.load("demo")
PRICE = Price(input=0.5, output=1.5, batch_input=0.25, batch_output=0.75, max_output=4096)
STUDY = dataclasses.replace(
    demo,
    name="batched",
    corpus=dataclasses.replace(demo.corpus, documents=30),
    teachers=(
        *demo.teachers,
        Teacher(
            name="by-batch", provider="openai", model="gpt-3.5-turbo-0125", base_url="URL/v1",
            key_variable="TEST_API_KEY", price=PRICE,
        ),
    ),
)
"""

COURSE = """
import json, sys
import dagster as dg
from dagster_project.batch_jobs import batched_completions, batches_sensor, submit_batches
from dagster_project.resources import resources, store
from nift_assets import studies
from nift_assets.graph import asset_definitions, build
from tests.ledger.fault_server import FaultServer

graph = build(studies.active())
submit = submit_batches(graph)
sensor = batches_sensor(graph.study, submit)
defs = dg.Definitions(
    assets=asset_definitions(graph), jobs=[submit, batched_completions],
    sensors=[sensor], resources=resources(graph.study), executor=dg.in_process_executor,
)
instance = dg.DagsterInstance.get()
assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
said, cursor = [], None

def look():
    global cursor
    given = resources(graph.study)
    with dg.build_sensor_context(instance=instance, cursor=cursor, resources=given, definitions=defs) as context:
        result = sensor.evaluate_tick(context)
    cursor = result.cursor
    said.append(result.skip_message or [f"{r.job_name} {r.partition_key}" for r in result.run_requests])
    return result.run_requests or []

def launch(job, partition):
    ran = defs.resolve_job_def(job).execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)
    said.append(f"{job} {'succeeded' if ran.success else 'failed'}")

look()
made = [asset for asset in asset_definitions(graph) if isinstance(asset, dg.AssetsDefinition)]
for name in ("raw_sample", "halves"):
    selection = dg.AssetSelection.assets(name).required_multi_asset_neighbors()
    assert dg.materialize(made, selection=selection, instance=instance, resources=resources(graph.study)).success
launch("submit_batches", "by-batch")
look()
print("ENDED", flush=True); sys.stdin.readline()   # the server lets half of them expire
for request in look(): launch(request.job_name, request.partition_key)
look()
print("ENDED", flush=True); sys.stdin.readline()
for request in look(): launch(request.job_name, request.partition_key)
look()
frame = store(graph.study).read("completions", "by-batch")
print(json.dumps({"said": said, "rows": frame.height, "ok": int((frame["status"] == "ok").sum())}))
"""


def _course(process: subprocess.Popen[str], server: FaultServer, log: Path) -> str:
    """Lets the batches end whenever the process says it has submitted some; what it printed last."""
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "ENDED\n", log.read_text()[-3000:]
        server.advance(steps=3)
        server.set(faults=[])
        process.stdin.write("\n")
        process.stdin.flush()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, log.read_text()[-3000:]
    return out


@pytest.mark.fault("B3")
@pytest.mark.slow
def test_the_job_and_the_sensor_bring_a_teacher_to_its_end(server: FaultServer, tmp_path: Path, counts: Counts) -> None:
    (tmp_path / "study.py").write_text(STUDY.replace("URL", server.url))
    (tmp_path / "home").mkdir()
    server.set(batch_seconds=None, faults=[{"fault": "expired", "done": 0.5}])
    environment = {
        **os.environ,
        "NIFT_STUDY": str(tmp_path / "study.py"),
        "NIFT_WAREHOUSE": str(tmp_path / "warehouse"),
        "DAGSTER_HOME": str(tmp_path / "home"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "NIFT_BUDGET_USD": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", COURSE],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "log").open("w"),
        text=True,
    )
    try:
        out = _course(process, server, tmp_path / "log")
    finally:
        process.kill()
    told = json.loads(out.splitlines()[-1])
    said = told["said"]
    assert "no teacher has been asked by batch" in said[0]
    assert said[1] == "submit_batches succeeded"
    assert "is under way: 0 of 30 done" in said[2]
    assert said[3:5] == [["submit_batches by-batch"], "submit_batches succeeded"]
    assert "is under way" in said[5]
    assert said[6:8] == [["batched_completions by-batch"], "batched_completions succeeded"]
    assert "completions has been requested" in said[8]
    assert (told["rows"], told["ok"]) == (30, 30)
    truth = server.truth()
    assert [batch["rows"] for batch in truth["batches"]] == [30, 15]
    assert truth["by_scope"].get("generation", 0) == 0
    counts("B3", "in Dagster: 30 documents, 15 expired, 15 asked again, 30 ok, 0 asked online")
