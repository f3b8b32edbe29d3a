"""Several processes ask one teacher together, a portion each: nothing is asked twice, whichever of them is killed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest

from nift_assets.ledger import book as books_of_ledger
from nift_assets.ledger import door
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import bring_in, stored
from nift_assets.ledger.progress import Counts as Progress
from nift_assets.ledger.progress import Stop
from nift_assets.protocol import Request
from nift_assets.providers.openai import OpenAI
from nift_assets.rows import Limits
from tests.counting import Counts
from tests.ledger.asking import PRICE, Arrivals, Cut, Task, books, open_sessions, provider, questions, same_text, wait
from tests.ledger.fault_server import FaultServer

IN_FLIGHT = 8
SHARED = Asker(study="s", who="t", writer="s/t", shared=True)


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(latency=0.01) as running:
        yield running


def test_processes_share_the_portions_and_each_has_all_answers_at_its_end(ledger_url: str, server: FaultServer) -> None:
    model = f"shared-{ledger_url[:4]}"
    task = Task(ledger=ledger_url, server=server.url, count=480, portion=40, model=model, limits={"in_flight": 4})
    Book(ledger_url)
    results = [process.result() for process in [task.start() for _ in range(3)]]
    assert [result["counts"] for result in results] == [{"ok": 480}] * 3
    assert sum(result["sent"] for result in results) == 480
    assert min(result["sent"] for result in results) >= 40, "each had a portion at least"
    found = books(ledger_url, [bill for bill in server.bills() if bill.model == model])
    found.check(most_extra=0)
    assert same_text(ledger_url) == 480
    # A portion is one process's, but for the few that it drew while another was at its end.
    by_portion: dict[int, Counter[int]] = {}
    for (session, _), bill in found.bills.items():
        by_portion.setdefault(int(str(bill.prompt).split()[1]) // 40, Counter())[session] += 1
    assert {len(sessions) for sessions in by_portion.values()} == {1}


def kill_portions_at_random(ledger: str, *, count: int, kills: int, seed: int) -> str:
    """Three processes at once, of which one is killed again and again and another begun, then all to the end."""
    chance = random.Random(seed)
    with FaultServer(latency=0.015) as server:
        task = Task(ledger=ledger, server=server.url, count=count, portion=50, limits={"in_flight": IN_FLIGHT})
        Book(ledger)
        arrivals = Arrivals(server)
        going = [task.start() for _ in range(3)]
        for number in range(kills):
            point = (number + 1) * count * 3 // 4 // kills
            wait(lambda: arrivals.count() >= point)  # noqa: B023
            time.sleep(chance.uniform(0, 0.02))
            going.pop(chance.randrange(3)).kill()
            going.append(task.start())
        results = [process.result() for process in going]
        bills = server.bills()
    found = books(ledger, bills)
    found.check(most_extra=IN_FLIGHT)
    assert [result["counts"] for result in results] == [{"ok": count}] * 3
    assert same_text(ledger) == count
    assert len(bills) == count + len(found.extra)
    assert not open_sessions(ledger)
    extra = f"{len(found.extra)} extra bills = {len(found.unknown)} unknown"
    again = f"{len(found.resent)} stored answers asked again"
    return f"{kills} kills of 3 processes at {count // 50} portions: {again}, {extra}"


@pytest.mark.fault("T28", runs="4 kills of three processes at twelve portions; slow: 20 at forty, twice")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_portions_of_killed_processes_are_finished_by_others(seed: int, ledger_url: str, counts: Counts) -> None:
    count, kills = (600, 4) if seed == 1 else (2_000, 20)
    counts("T28", kill_portions_at_random(ledger_url, count=count, kills=kills, seed=seed))


def test_portions_that_are_named_are_asked_and_no_others(sqlite_url: str, server: FaultServer) -> None:
    book, asked = Book(sqlite_url), Cut(questions(50, model="named"), 10)
    outcome = bring_in(book, SHARED, asked, provider(server.url, "named"), numbers=[3, 1], price=PRICE)
    assert (outcome.sent, outcome.stopped) == (20, None)
    assert [{answer.status for answer in stored(book, portion)} for portion in asked] == [
        {"pending"}, {"ok"}, {"pending"}, {"ok"}, {"pending"}
    ]  # fmt: skip


def test_who_looks_at_a_portion_can_stop_the_rest(sqlite_url: str, server: FaultServer) -> None:
    book, asked, looked = Book(sqlite_url), Cut(questions(50, model="looked"), 10), list[int]()

    def look(number: int) -> Stop | None:
        looked.append(number)
        return Stop(reason="it says nothing", remedy="", cause="checks") if number == 1 else None

    limits = Limits(in_flight=4)
    outcome = bring_in(book, SHARED, asked, provider(server.url, "looked"), look=look, price=PRICE, limits=limits)
    assert (outcome.sent, str(outcome.stopped), looked) == (20, "it says nothing", [0, 1])
    again = bring_in(book, SHARED, asked, provider(server.url, "looked"), price=PRICE)
    assert (again.sent, again.stopped) == (30, None)


class _Breaks(Cut):
    def __getitem__(self, number: int, /) -> Sequence[Request]:
        if number == 2:
            raise ValueError("the third portion cannot be made")
        return super().__getitem__(number)


def test_what_was_under_way_is_kept_where_the_next_portion_cannot_be_made(sqlite_url: str, server: FaultServer) -> None:
    book, asked = Book(sqlite_url), _Breaks(questions(50, model="breaks"), 10)
    with pytest.raises(ValueError, match="the third portion cannot be made"):
        bring_in(book, SHARED, asked, provider(server.url, "breaks"), price=PRICE)
    found = books(sqlite_url, [bill for bill in server.bills() if bill.model == "breaks"])
    found.check(most_extra=0)
    assert len(found.answers) == len(found.bills) == 20


def test_who_waits_for_another_process_says_so_once(sqlite_url: str, server: FaultServer) -> None:
    book, asked = Book(sqlite_url), Cut(questions(20, model="waits"), 10)
    other = book.locks.hold("portion 1 of s/t")
    assert other is not None
    news: list[str] = []

    def report(counts: Progress) -> None:
        if counts.news:
            news.append(counts.news)
            threading.Timer(2 * door.LOOK_AGAIN_SECONDS, other.release).start()

    outcome = bring_in(book, SHARED, asked, provider(server.url, "waits"), report=report, price=PRICE)
    assert news == ["1 of 2 portions are asked by another process; waiting for it"]
    assert outcome.sent == 20, "what the other had not asked when it went was asked here"


def test_one_that_is_not_shared_is_asked_from_one_place(sqlite_url: str, server: FaultServer) -> None:
    book, alone = Book(sqlite_url), replace(SHARED, shared=False)
    with book.session(alone.writer), pytest.raises(ValueError, match="another run is asking as s/t right now"):
        bring_in(book, alone, Cut(questions(2), 1), provider(server.url), price=PRICE)


def test_two_who_share_and_have_one_place_to_ask_from_do_not_wait_for_each_other(
    sqlite_url: str, server: FaultServer
) -> None:
    """As two processes on one GPU: each claims its portion before it has the place."""
    place, sent = threading.Lock(), list[int]()

    def ask() -> None:
        book, asked = Book(sqlite_url), Cut(questions(200, model="place"), 20)
        with ExitStack() as stack:

            def connect() -> OpenAI:
                stack.enter_context(place)
                time.sleep(0.2)
                return provider(server.url, "place")

            outcome = bring_in(book, SHARED, asked, connect, price=PRICE, release=stack.close)
            sent.append(outcome.sent)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(sent) == 200
    assert len(sent) == 2, "each has come to its end"


def test_who_wants_to_be_alone_and_who_shares_keep_each_other_out(ledger_url: str) -> None:
    book, other = Book(ledger_url), Book(ledger_url)
    busy = "another run is asking as s/t right now"
    with book.session("s/t", shared=True), other.session("s/t", shared=True):
        with pytest.raises(ValueError, match=busy), book.session("s/t"):
            pass
        with book.session("s/other"):
            pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(books_of_ledger, "SECONDS_TO_BEGIN", 0.2)
        with book.session("s/t"), pytest.raises(ValueError, match=busy), other.session("s/t", shared=True):
            pass
    with book.session("s/t"):
        pass


def test_a_killed_one_that_shared_keeps_nobody_out(ledger_url: str, server: FaultServer) -> None:
    book = Book(ledger_url)
    model = f"killed-{ledger_url[:4]}"
    process = Task(ledger=ledger_url, server=server.url, count=2_000, portion=100, model=model).start()
    wait(lambda: any(bill.model == model for bill in server.bills()))
    with pytest.raises(ValueError, match="another run is asking"), book.session("s/t"):
        pass
    process.kill()

    def is_free() -> bool:
        try:
            with book.session("s/t"):
                return True
        except ValueError:  # a database server takes a moment to miss a dead client
            return False

    wait(is_free)


def test_how_far_it_is_counts_all_questions_also_those_that_were_answered_before(
    sqlite_url: str, server: FaultServer
) -> None:
    book = Book(sqlite_url)
    # One comes twice, and the first portion was asked before.
    asked = Cut([*questions(30, model="far"), *questions(1, model="far")], 10)
    bring_in(book, SHARED, asked, provider(server.url, "far"), numbers=[0], price=PRICE)
    claims: list[door._Claims] = []
    made = door._Claims

    class Kept(made):  # type: ignore[misc, valid-type]
        def __init__(self, *given: object) -> None:
            super().__init__(*given)
            claims.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "_Claims", Kept)
        outcome = bring_in(book, SHARED, asked, provider(server.url, "far"), price=PRICE)
    assert outcome.sent == 20
    counts = claims[0].counts
    assert (counts.wanted, counts.settled, counts.portion, counts.portions) == (31, 31, 4, 4)
