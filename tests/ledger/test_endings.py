"""How answers end: what a server says it could not make is asked again, and nothing that was paid for is."""

from __future__ import annotations

import pytest

from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import AskResult, ask
from nift_assets.protocol import Request
from nift_assets.rows import Limits
from tests.ledger.asking import PRICE, provider, question
from tests.ledger.scripted import Reply, chat, serving

LONG = "the keeper wound the clock and wrote the hour down " * 60


def asked(ledger: str, url: str, *texts: str) -> AskResult:
    questions: list[Request] = [question(text, parameters={"max_tokens": 20}) for text in texts]
    asker = Asker(study="s", who="t", writer="s/t", study_cap=10**9)
    return ask(Book(ledger), asker, questions, provider(url), limits=Limits(backoff_seconds=0.01), price=PRICE)


def test_what_a_server_says_it_failed_to_make_is_asked_again_and_booked(sqlite_url: str) -> None:
    def replies(text: str, number: int) -> Reply:
        if text == "gateway":
            return chat() if number > 1 else (200, {"error": {"message": "overloaded", "code": 503}})
        return chat() if number > 1 else chat(" half a wo", text)

    busy = ["insufficient_system_resource", "network_error", "gateway"]
    with serving(replies) as server:
        first = asked(sqlite_url, server.url, *busy)
        again = asked(sqlite_url, server.url, *busy)
        assert [server.asked[text] for text in busy] == [2, 2, 2]
    assert first.counts == again.counts == {"ok": 3}
    assert [answer.text for answer in first.answers] == [" and on."] * 3
    # A failed answer that counts its tokens is billed by whoever counts them.
    assert first.spent == 5 * PRICE.cost(9, 3)
    assert again.sent == again.spent == 0


def test_what_never_succeeds_is_given_up_for_this_run_and_asked_by_the_next(sqlite_url: str) -> None:
    with serving(lambda text, number: chat() if number > 6 else chat("", "network_error")) as server:
        assert asked(sqlite_url, server.url, "a").counts == {"exhausted": 1}
        assert asked(sqlite_url, server.url, "a").counts == {"ok": 1}
        assert server.asked == {"a": 7}


def test_an_answer_to_a_prompt_that_the_server_cut_is_kept_and_is_no_answer(sqlite_url: str) -> None:
    said = {
        LONG: chat(prompt=512),  # of 600 words
        "short, of a whole context": chat(prompt=4096),
        "says so": (200, chat()[1] | {"truncated": True}),
        "short": chat(prompt=4),
        f"uncounted {LONG}": chat(prompt=90),
        f"whole {LONG}": chat(prompt=700),
    }
    with serving(lambda text, number: said[text]) as server:
        got = asked(sqlite_url, server.url, *said)
        assert asked(sqlite_url, server.url, *said).sent == 0
    assert [answer.status for answer in got.answers] == ["other", "other", "other", "ok", "ok", "ok"]
    assert [str(answer.detail)[:25] for answer in got.answers[:3]] == ["the server cut the prompt"] * 3


@pytest.mark.fault("T27")
@pytest.mark.parametrize("place", [0, 8, 16])
def test_a_text_dearer_than_the_whole_cap_is_named_and_passed_over(place: int, sqlite_url: str) -> None:
    cheap = [f"text {number}" for number in range(16)]
    dear = "a very long text " * 200_000
    texts = [*cheap[:place], dear, *cheap[place:]]
    with serving(lambda text, number: chat()) as server:
        got = asked(sqlite_url, server.url, *texts)
        assert sorted(server.asked) == sorted(cheap)
        again = asked(sqlite_url, server.url, *texts)
    assert got.counts == again.counts == {"ok": 16, "exhausted": 1}
    assert (got.stopped, again.sent) == (None, 0)
    assert "more than the whole cap of $1.00" in str(got.answers[place].detail)


@pytest.mark.fault("T27")
def test_a_text_dearer_than_what_is_left_is_named_and_the_rest_goes_on(sqlite_url: str) -> None:
    half = "a long text " * 100_000  # up to 0.60 dollars, of 1
    with serving(lambda text, number: chat(prompt=1_199_000 if len(text) > 999 else 9)) as server:
        got = asked(sqlite_url, server.url, half, f"another: {half}", "text 1", "text 2")
    assert got.counts == {"ok": 3, "pending": 1}
    assert got.stopped is not None
    assert got.stopped.cause == "budget"
    assert "1 are left, the dearest begins 'another: a long text" in got.stopped.reason
