"""A server that is away: a person is told once what is waited for, and once that it is back."""

from __future__ import annotations

import socket
import threading

import pytest

from nift_assets.ledger import outage
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import AskResult, ask
from nift_assets.ledger.in_flight import Attempt
from nift_assets.ledger.outage import SILENT_SECONDS, Outage
from nift_assets.ledger.progress import Counts
from nift_assets.ledger.request_queue import prepare
from nift_assets.rows import Limits
from tests.ledger.asking import PRICE, provider, question, questions, wait
from tests.ledger.scripted import chat, serving

URL = "http://127.0.0.1:1/v1/chat/completions"


def attempt(left_at: float, *, on_the_wire: bool) -> Attempt:
    return Attempt(prepare(question("a"), provider(URL), PRICE), 1, left_at, on_the_wire=on_the_wire)


def test_what_is_waited_for_is_said_within_seconds_and_once_for_seventy_questions(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "SILENT_SECONDS", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    news: list[str] = []
    ended: list[AskResult] = []

    def report(counts: Counts) -> None:
        news.extend([counts.news] if counts.news else [])

    def work() -> None:
        limits, asker = Limits(backoff_seconds=0.2), Asker(study="s", who="t", writer="s/t", study_cap=10**9)
        asked = provider(f"http://127.0.0.1:{port}")
        ended.append(ask(Book(sqlite_url), asker, questions(70), asked, limits=limits, price=PRICE, report=report))

    asking = threading.Thread(target=work)
    asking.start()
    wait(lambda: bool(news), seconds=20)
    with serving(lambda text, number: chat(), port=port):
        asking.join(60)
    assert len(ended[0].answers) == 70
    assert ended[0].counts["ok"] > 60
    assert len(news) == 2, news
    first, last = news
    address = f"http://127.0.0.1:{port}/v1/chat/completions"
    assert first.startswith(f"{address} does not answer (unreachable: Cannot connect to host")
    assert first.endswith("it is asked again for about 51 seconds or until it is back, and what was answered is kept")
    assert last == f"{address} is back"


def test_a_server_that_is_slow_or_wants_fewer_requests_is_not_away() -> None:
    silent, late = Outage(URL), 10 * SILENT_SECONDS
    assert silent.news(late, [], 1) is None
    assert silent.news(late, [attempt(0.0, on_the_wire=True)], 1) is None
    silent.failed(0.0, "HTTP 503")
    assert silent.news(late, [attempt(0.0, on_the_wire=True)], 1) is None  # one of many failed, the others are asked
    silent.succeeded()
    assert silent.news(late, [], 1) is None


def test_a_server_to_which_there_is_no_connection_is_away_before_that_has_timed_out() -> None:
    silent, under_way = Outage(URL), [attempt(0.0, on_the_wire=False)]
    assert silent.news(SILENT_SECONDS - 0.1, under_way, 127.5) is None
    said = silent.news(SILENT_SECONDS, under_way, 127.5)
    assert said is not None
    assert "(there is no connection yet); it is asked again for about 2 minutes" in said
    silent.failed(30.0, "unreachable: no connection in time")
    assert silent.news(40.0, [], 1) is None  # said already
    silent.succeeded()
    assert silent.news(50.0, [], 1) == f"{URL} is back"
    assert silent.news(60.0, [], 1) is None
