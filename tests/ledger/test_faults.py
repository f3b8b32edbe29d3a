"""Everything a server can do to a request, and what the ledger says of it afterwards: rows T8 to T19.

Each test asks through the door and lays the answers beside the server's own log, for both providers where both can
do it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from expectations import contract
from expectations.runner import check
from nift_assets.ledger.connection import asked_wait
from nift_assets.prompts import completions
from nift_assets.rows import Teacher
from nift_training import endings
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.ledger.fault_server import FaultServer, expected_text, struck
from tests.ledger.shapes import (
    KEY,
    KEY_VARIABLE,
    MODEL,
    PRICE,
    SHAPES,
    Asking,
    Shape,
    asking,
    prompts,
    questions,
    right,
    teacher,
)

pytestmark = pytest.mark.usefixtures("key")
both_shapes = pytest.mark.parametrize("shape", SHAPES)
# What does not depend on the provider's own words and takes seconds of the clock.
one_shape = pytest.mark.parametrize("shape", ["openai", pytest.param("anthropic", marks=pytest.mark.slow)])


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


# ------------------------------------------------------------------------------------- T8: what a person must mend

STOPS = {
    "insufficient_quota": ("add credit", "credit|quota"),
    "auth": ("valid key", "key"),
    "permission": ("access", "permission"),
    "not_found": ("name another one in the row", MODEL),
}


@pytest.mark.fault("T8")
@both_shapes
@pytest.mark.parametrize("fault", STOPS)
def test_what_a_person_must_mend_stops_at_once_and_the_next_run_asks_exactly_the_rest(
    shape: Shape, fault: str, tmp_path: Path, counts: Counts
) -> None:
    texts, in_flight = prompts(500), 16
    with asking(shape, tmp_path, faults=[{"fault": fault, "from": 50}], latency=0.005) as both:
        first = both.ask(texts, in_flight=in_flight)
        sent = len(both.bills())
        assert 50 < sent <= 50 + in_flight
        assert first.stopped is not None
        line = str(first.stopped)
        assert STOPS[fault][0] in line
        assert "\n" not in line
        assert len(line) < 400
        assert first.counts == {"ok": 50, "pending": 450}
        both.server.set(faults=[])
        again = both.ask(texts)
        assert again.stopped is None
        assert again.sent == len(both.bills()) - sent == 450
        assert right(texts, again) == 500
    counts("T8", f"{shape} {fault}: {sent - 50} sends beyond the 50th, then exactly 450 more")


# ------------------------------------------------------------------------------------------------ T9: Retry-After

DATE = "Sat, 21 Nov 2026 12:00:00 GMT"
WAITS: list[tuple[dict[str, str], float | None]] = [
    ({"retry-after": "0"}, 0.0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": "60"}, 60.0),
    ({"retry-after": "9999"}, 60.0),
    ({"retry-after": "1e309"}, 60.0),
    ({"retry-after": "inf"}, 60.0),
    ({"retry-after": "-1"}, 0.0),
    ({"retry-after": "-inf"}, 0.0),
    ({"retry-after": "nan"}, None),
    ({"retry-after": ""}, None),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "1,2"}, None),
    ({"retry-after": "Sat, 99 Nov 2026 99:00:00 GMT", "date": DATE}, None),
    ({"retry-after": "Sat, 21 Nov 2026 12:00:07 GMT", "date": DATE}, 7.0),
    ({"retry-after": "Sat, 21 Nov 2026 13:00:00 GMT", "date": DATE}, 60.0),
    ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT", "date": DATE}, 0.0),
    ({"retry-after": "Sat, 21 Nov 1970 11:00:00 GMT", "date": DATE}, 0.0),
    ({"retry-after": "Sat, 21 Nov 2026 12:00:07 GMT", "date": "yesterday"}, None),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
    ({"retry-after-ms": "-5"}, 0.0),
    ({"retry-after-ms": "nan", "retry-after": "2"}, 2.0),
    ({"retry-after-ms": "86400000"}, 60.0),
    ({}, None),
]


@pytest.mark.fault("T9")
@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_a_server_is_waited_for_as_it_says_but_never_longer_than_a_minute(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert asked_wait(headers) == seconds


@pytest.mark.fault("T9")
@one_shape
@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
def test_a_date_to_wait_for_is_read_by_the_servers_own_clock(
    shape: Shape, skew: float, tmp_path: Path, counts: Counts
) -> None:
    from email.utils import formatdate
    from time import monotonic, time

    # A date is whole seconds: it is over up to a second before this.
    over = monotonic() + 2
    until = formatdate(time() + skew + 2, usegmt=True)
    rule = {"fault": "rate_limit", "first": 1, "retry_after": until}
    with asking(shape, tmp_path, faults=[rule], date_skew=skew) as both:
        asked = both.ask(prompts(1))
        (first, second) = both.bills()
    assert asked.counts == {"ok": 1}
    assert over - 1.5 <= second.at <= max(first.at, over) + 1.5
    counts("T9", f"{shape}, server's clock {skew:+,.0f} s off: waited {second.at - first.at:.1f} s of 2")


@pytest.mark.fault("T9")
@both_shapes
@pytest.mark.parametrize("said", ["-1", "nan", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_wait_that_means_nothing_holds_nobody_up(shape: Shape, said: str, tmp_path: Path) -> None:
    with asking(shape, tmp_path, faults=[{"fault": "rate_limit", "first": 1, "retry_after": said}]) as both:
        asked = both.ask(prompts(5))
    assert asked.counts == {"ok": 5}
    assert asked.seconds < 3


@pytest.mark.fault("T9")
@pytest.mark.slow
@both_shapes
def test_9999_seconds_are_a_minute(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    with asking(shape, tmp_path, faults=[{"fault": "rate_limit", "first": 1, "retry_after": "9999"}]) as both:
        asked = both.ask(prompts(1))
    assert asked.counts == {"ok": 1}
    assert 59 < asked.seconds < 70
    counts("T9", f"{shape}, Retry-After 9999: {asked.seconds:.0f} s")


# ------------------------------------------------------------------------------------------ T10: a server in trouble


@pytest.mark.fault("T10", runs="2,000 requests")
@one_shape
def test_who_is_not_answered_was_faulted_six_times_and_nobody_else(
    shape: Shape, tmp_path: Path, counts: Counts
) -> None:
    rules: list[dict[str, Any]] = [
        # A tenth of the rows: some for ever, some five times, some for bursts of one to four.
        {"fault": "status", "code": 503, "share": 0.02, "seed": 1},
        {"fault": "status", "code": 500, "share": [0.02, 0.03], "seed": 1, "first": 5},
        {"fault": "overloaded", "share": [0.03, 0.06], "seed": 1, "first": 2},
        {"fault": "status", "code": 502, "share": [0.06, 0.1], "seed": 1, "first": 1},
    ]
    texts = prompts(2_000)
    with asking(shape, tmp_path, faults=rules) as both:
        asked = both.ask(texts)
        tries = both.by_prompt()
    hopeless = {text for text in texts if struck(text, 0.02, 1)}
    faulted = {text: sum(bill.fault is not None for bill in tries[text]) for text in texts}
    assert {text for text in texts if faulted[text] == 6} == hopeless
    exhausted = {text for text, answer in zip(texts, asked.answers, strict=True) if answer.status == "exhausted"}
    assert exhausted == hopeless
    assert asked.counts == {"ok": 2_000 - len(hopeless), "exhausted": len(hopeless)}
    assert max(map(len, tries.values())) == 6
    assert right(texts, asked) == 2_000 - len(hopeless)
    counts("T10", f"{shape}: 2,000 rows, {sum(faulted.values())} faults, {len(hopeless)} exhausted, at most 6 tries")


@pytest.mark.fault("T10")
@one_shape
def test_an_outage_of_thirty_failures_costs_no_row(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    outages = [{"fault": "overloaded", "from": start, "until": start + long} for start, long in ((20, 1), (60, 30))]
    texts = prompts(200)
    with asking(shape, tmp_path, faults=outages, latency=0.005) as both:
        asked = both.ask(texts, in_flight=16)
    assert right(texts, asked) == 200
    counts("T10", f"{shape}: bursts of 1 and 30 failures, 200 of 200 answered")


# ------------------------------------------------------------------------------------------ T11: nobody is there


@contextmanager
def _hangs_up() -> Iterator[int]:
    """A port where every connection is closed at the first byte: TLS never comes about."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.fault("T11", runs="4 × 200")
@one_shape
@pytest.mark.parametrize("where", ["refused", "no such name", "no TLS", "hangs up"])
def test_a_server_that_is_not_there_ends_the_run_with_one_line_and_costs_nothing(
    shape: Shape, where: str, tmp_path: Path, counts: Counts
) -> None:
    with FaultServer() as server, _hangs_up() as port:
        url = {
            "refused": f"http://127.0.0.1:{_free_port()}",
            "no such name": "https://nobody.invalid",
            "no TLS": server.url.replace("http:", "https:"),
            "hangs up": f"https://127.0.0.1:{port}",
        }[where]
        nobody = Asking(f"sqlite:///{tmp_path}/l.sqlite", teacher(shape, url))
        asked = nobody.ask(prompts(200), backoff_seconds=0.005, seconds_per_request=0.25)
        assert server.bills() == []
    assert asked.stopped is not None
    assert "\n" not in str(asked.stopped)
    assert "fails every time" in str(asked.stopped)
    assert asked.counts.keys() <= {"pending", "exhausted"}
    assert sum(asked.counts.values()) == 200
    assert nobody.reserved() == 0
    counts("T11", f"{shape}, {where}: {asked.sent} tries for 200 rows, 0 billed, 0 reserved, one line")


@pytest.mark.fault("T11")
@both_shapes
def test_who_is_reset_before_the_request_is_read_is_asked_again(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    texts = prompts(200)
    with asking(shape, tmp_path, faults=[{"fault": "reset_before", "share": 0.2}]) as both:
        asked = both.ask(texts)
        bills = both.bills()
        resets = both.server.truth()["by_fault"].get("reset_before", 0)
    assert resets > 0
    assert right(texts, asked) == 200
    assert len(bills) == 200
    counts("T11", f"{shape}, reset: {resets} connections, 200 of 200 answered, {len(bills)} billed")


@one_shape
def test_a_server_that_comes_back_answers_everybody(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    texts, port = prompts(200), _free_port()
    log = tmp_path / "log.jsonl"
    away = Asking(f"sqlite:///{tmp_path}/l.sqlite", teacher(shape, f"http://127.0.0.1:{port}"))
    back = threading.Event()

    def outage() -> None:
        # A server ends with the thread that began it, so this one waits for the end.
        with FaultServer(log=log, port=port):
            back.wait()

    thread = threading.Timer(1.5, outage)
    thread.start()
    try:
        asked = away.ask(texts, backoff_seconds=0.1)
    finally:
        back.set()
        thread.join()
    assert asked.stopped is None
    assert right(texts, asked) == 200
    counts("T11", f"{shape}, away for 1.5 s: 200 of 200 answered after {asked.sent} tries")


# ------------------------------------------------------------------------------------------------------ T12: hangs


@pytest.mark.fault("T12", runs="a tenth of 1,000")
@one_shape
def test_a_billed_request_that_hangs_is_reserved_and_sent_once_more(
    shape: Shape, tmp_path: Path, counts: Counts
) -> None:
    texts = prompts(1_000)
    hung = {text for text in texts if struck(text, 0.1, 4)}
    rule = {"fault": "hang", "share": 0.1, "seed": 4, "first": 1}
    with asking(shape, tmp_path, faults=[rule]) as both:
        asked = both.ask(texts, in_flight=64, seconds_per_request=2.0)
        sent = len(both.bills())
        unknown = [attempt for attempt in both.asking.attempts() if attempt.state == "unknown"]
    assert right(texts, asked) == 1_000
    assert sent == 1_000 + len(hung)
    assert len(unknown) == len(hung)
    one = PRICE.cost(len(json.dumps(_payload(shape))), 100)
    assert all(attempt.reserved <= one for attempt in unknown)
    assert both.asking.reserved() == sum(attempt.reserved for attempt in unknown) > 0
    counts("T12", f"{shape}: {len(hung)} hangs of 1,000, {sent} sends, {len(unknown)} rows reserved, 1,000 answered")


def _payload(shape: Shape) -> dict[str, Any]:
    """A request at least as long as any of these tests'."""
    row = teacher(shape, "http://127.0.0.1:1")
    from nift_assets import providers

    (question,) = questions(row, ["text 1000000"])
    provider: Any = providers.load(shape).connect(row, None)
    payload: dict[str, Any] = provider.payload(question)
    return payload


@pytest.mark.fault("T12")
@both_shapes
def test_a_request_that_hangs_twice_is_unknown_and_the_next_run_leaves_it(
    shape: Shape, tmp_path: Path, counts: Counts
) -> None:
    texts = prompts(20)
    with asking(shape, tmp_path, faults=[{"fault": "hang", "share": 0.3}]) as both:
        first = both.ask(texts, seconds_per_request=0.5)
        hung = {text for text in texts if struck(text, 0.3)}
        assert first.counts == {"ok": 20 - len(hung), "unknown": len(hung)}
        tries = both.by_prompt()
        assert {text for text in texts if len(tries[text]) == 2} == hung
        assert max(map(len, tries.values())) == 2
        both.server.set(faults=[])
        again = both.ask(texts)
        assert again.sent == 0
        assert again.counts == first.counts
        assert len(both.bills()) == 20 + len(hung)
    counts("T12", f"{shape}: {len(hung)} rows hang twice: unknown, reserved, not sent by the next run")


# ---------------------------------------------------------------------------------------------- T13: bodies of 200s

# What each of nine bad bodies makes of its row when it is all the server has.
BODIES: dict[str, dict[Shape, str]] = {
    "half_json": {"openai": "unknown", "anthropic": "unknown"},
    "empty_body": {"openai": "unknown", "anthropic": "unknown"},
    "html": {"openai": "unknown", "anthropic": "unknown"},
    "cut": {"openai": "unknown", "anthropic": "unknown"},
    "wrong_length": {"openai": "unknown", "anthropic": "unknown"},
    "no_choices": {"openai": "unknown", "anthropic": "empty"},
    "null_content": {"openai": "empty", "anthropic": "empty"},
    "extra_fields": {"openai": "ok", "anthropic": "ok"},
    "invalid_utf8": {"openai": "unknown", "anthropic": "unknown"},
}
WORDS = {"unknown": 2}  # asked once more, in vain; whatever else there is, once


@pytest.mark.fault("T13", runs="9 × 50 in 1,000")
@both_shapes
def test_nine_bad_bodies_are_each_what_they_are(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    step = 0.05
    rules = [
        {"fault": fault, "share": [i * step, (i + 1) * step], "seed": 9}
        | ({"off": 10} if fault == "wrong_length" else {})
        for i, fault in enumerate(BODIES)
    ]
    texts = prompts(1_000)
    with asking(shape, tmp_path, faults=rules) as both:
        asked = both.ask(texts)
        tries = both.by_prompt()
    expected = {
        text: next(
            (BODIES[fault][shape] for i, fault in enumerate(BODIES) if struck(text, [i * step, (i + 1) * step], 9)),
            "ok",
        )
        for text in texts
    }
    found = dict(zip(texts, (answer.status for answer in asked.answers), strict=True))
    assert found == expected
    assert {text: len(bills) for text, bills in tries.items()} == {t: WORDS.get(expected[t], 1) for t in texts}
    bad = sum(struck(text, 9 * step, 9) for text in texts)
    counts(
        "T13", f"{shape}: {bad} bad bodies of 9 kinds in 1,000, every row as scheduled: {dict(Counter(found.values()))}"
    )


HUGE = """
import sys
from nift_training.memory import peak_rss_mb
from tests.ledger.shapes import Asking, prompts, teacher
asked = Asking(sys.argv[1], teacher(sys.argv[3], sys.argv[2])).ask(prompts(40), in_flight=20, seconds_per_request=50)
print(dict(asked.counts), round(peak_rss_mb()))
"""


@pytest.mark.fault("T13")
@one_shape
def test_a_body_of_fifty_megabytes_is_not_read_to_its_end(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    rule = {"fault": "huge", "share": 0.1, "first": 1}
    with FaultServer(faults=[rule]) as server:
        ran = subprocess.run(
            [sys.executable, "-c", HUGE, f"sqlite:///{tmp_path}/l.sqlite", server.url, shape],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        huge = server.truth()["by_fault"]["huge"]
    said, _, megabytes = ran.stdout.strip().rpartition(" ")
    assert said == "{'ok': 40}"
    assert int(megabytes) < 500
    counts("T13", f"{shape}: {huge} bodies of 50 MB, 40 of 40 answered, {megabytes} MB at most")


# ---------------------------------------------------------------------------------------------------- T14: half of it

HALVES: dict[str, dict[str, Any]] = {
    **{f"cut at {share:.0%}": {"fault": "cut", "fraction": share} for share in (0, 0.25, 0.5, 0.99)},
    **{f"chunks cut at {s:.0%}": {"fault": "cut", "fraction": s, "chunked": True} for s in (0, 0.25, 0.5, 0.99)},
    "event stream": {"fault": "sse"},
    "event stream, cut": {"fault": "sse", "variant": "cut"},
    "event stream, no [DONE]": {"fault": "sse", "variant": "no_done"},
    "invalid UTF-8": {"fault": "invalid_utf8"},
}


@pytest.mark.fault("T14", runs="300 halves of 12 kinds")
@both_shapes
def test_half_an_answer_is_never_an_answer(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    share = 1 / len(HALVES)
    rules = [
        {**rule, "first": 1, "share": [i * share, (i + 1) * share], "seed": 3} for i, rule in enumerate(HALVES.values())
    ]
    # One fault and one good answer in turn: the circuit breaker is another test's.
    texts = prompts(300)
    with asking(shape, tmp_path, faults=rules) as both:
        asked = both.ask(texts[:150], in_flight=8), both.ask(texts[150:], in_flight=8)
        tries = both.by_prompt()
    assert right(texts[:150], asked[0]) + right(texts[150:], asked[1]) == 300
    assert Counter(len(bills) for bills in tries.values()) == {2: 300}
    assert {bill.fault for bills in tries.values() for bill in bills[:1]} == {"cut", "sse", "invalid_utf8"}
    first_tries = [attempt for attempt in both.asking.attempts() if attempt.state == "unknown"]
    assert len(first_tries) == 300
    counts("T14", f"{shape}: 300 halves of {len(HALVES)} kinds, 0 stored as ok, then 300 of 300 right")


# ------------------------------------------------------------------------------------------- T15 to T17: endings

ENDINGS: dict[Shape, dict[str, str]] = {
    "openai": {
        "length": "truncated",
        "content_filter": "refused",
        "tool_calls": "other",
        "function_call": "other",
        "from_the_future": "other",
    },
    "anthropic": {
        "max_tokens": "truncated",
        "model_context_window_exceeded": "truncated",
        "stop_sequence": "ok",
        "refusal": "refused",
        "pause_turn": "other",
        "tool_use": "other",
        "from_the_future": "other",
    },
}


@pytest.mark.fault("T16")
@both_shapes
def test_every_reason_to_stop_is_a_status_and_is_paid_once(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    share = 1 / 8
    reasons = list(ENDINGS[shape])
    rules = [
        {"fault": "ending", "reason": reason, "share": [i * share, (i + 1) * share], "seed": 5}
        for i, reason in enumerate(reasons)
    ]
    texts = prompts(400)
    with asking(shape, tmp_path, faults=rules) as both:
        asked = both.ask(texts)
        again = both.ask(texts)
        assert len(both.bills()) == asked.sent == 400
    assert again.sent == 0
    for text, answer in zip(texts, asked.answers, strict=True):
        reason = next((r for i, r in enumerate(reasons) if struck(text, [i * share, (i + 1) * share], 5)), None)
        assert answer.status == (ENDINGS[shape][reason] if reason else "ok")
        assert answer.finish_reason == (reason or {"openai": "stop", "anthropic": "end_turn"}[shape])
        assert answer.text == expected_text(text, MODEL)
    counts("T16", f"{shape}: {len(reasons)} reasons, 400 rows, each paid once: {dict(asked.counts)}")


@pytest.mark.fault("T17", runs="3 × 50")
@both_shapes
def test_answers_without_a_word_are_empty_and_an_echo_is_flagged(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    rules = [
        {"fault": fault, "share": [i / 4, (i + 1) / 4], "seed": 6}
        for i, fault in enumerate(("empty_text", "blank_text", "echo_prompt"))
    ]
    halves = _halves(200)
    with asking(shape, tmp_path, faults=rules) as both:
        frame = _rows(both.asking, halves)
        assert len(both.bills()) == 200
    texts = halves["first_half"].to_list()
    empty = [struck(text, 0.5, 6) for text in texts]
    echo = [struck(text, [0.5, 0.75], 6) for text in texts]
    assert (frame["status"] == "empty").to_list() == empty
    assert frame["echoes_prompt"].to_list() == echo
    assert frame.filter(pl.col("echoes_prompt"))["completion"].to_list() == [
        text for text, is_echo in zip(texts, echo, strict=True) if is_echo
    ]
    counts("T17", f"{shape}: {sum(empty)} empty or blank, {sum(echo)} echoes flagged, of 200")


def _halves(count: int) -> pl.DataFrame:
    """Documents with first halves long enough for an echo to be one."""
    texts = [
        f"Document {i} tells at length of the town, its council, its harbour and its people, and then"
        for i in range(count)
    ]
    return pl.DataFrame(
        {
            "document_id": [f"d{i:05}" for i in range(count)],
            "sample_rank": range(count),
            "first_half": texts,
            "second_half": [" it ends."] * count,
        }
    )


def _rows(way: Asking, halves: pl.DataFrame) -> pl.DataFrame:
    """The rows of `completions` as the asset makes them."""
    requests = completions.requests(way.row, halves)
    texts = halves["first_half"].to_list()
    assert requests == questions(way.row, texts)
    return completions.rows(way.row, halves, requests, way.ask(texts).answers)


def _failed(row: Teacher, frame: pl.DataFrame, halves: pl.DataFrame) -> dict[str, str]:
    """The expectations of the contract that a frame does not meet, each with its severity."""
    rows = pl.DataFrame({"name": row.name, "provider": row.provider, "model": row.model, "documents": row.documents})
    inputs = {
        "halves": halves,
        "study_teachers": rows.cast({"documents": pl.Int64}),
        "study_providers": pl.DataFrame([{"name": row.provider, "in_process": False}]),
        "study_endings": pl.DataFrame(list(endings.ENDINGS.items()), schema=["reason", "ending"], orient="row"),
    }
    results = check(frame, contract.load("completions"), inputs)
    return {result.name: str(result.severity).lower() for result in results if not result.passed}


@pytest.mark.fault("T15", runs="3 shares of 300")
@one_shape
@pytest.mark.parametrize(("share", "failed"), [(0.01, set()), (0.05, {"warn"}), (0.26, {"warn", "error"})])
def test_truncated_rows_are_paid_once_and_the_contract_says_so(
    shape: Shape, share: float, failed: set[str], tmp_path: Path, counts: Counts
) -> None:
    reason = {"openai": "length", "anthropic": "max_tokens"}[shape]
    halves = _halves(300)
    with asking(shape, tmp_path, faults=[{"fault": "ending", "reason": reason, "share": share, "seed": 2}]) as both:
        if shape == "anthropic":
            both.asking.row = replace(both.asking.row, max_tokens=4096)
        frame = _rows(both.asking, halves)
        assert len(both.bills()) == 300
    cut = [struck(text, share, 2) for text in halves["first_half"]]
    assert (frame["status"] == "truncated").to_list() == cut
    assert (frame["completion"] != "").all()
    all_failed = _failed(both.asking.row, frame, halves)
    found = {name: severity for name, severity in all_failed.items() if "truncated" in name or "cut" in name}
    assert set(found.values()) == failed, found
    counts("T15", f"{shape}: {sum(cut)} of 300 truncated, each paid once; the contract: {found or 'passes'}")


@both_shapes
def test_two_in_a_hundred_that_are_refused_for_good_cost_one_call_each(
    shape: Shape, tmp_path: Path, counts: Counts
) -> None:
    texts = prompts(500)
    with asking(shape, tmp_path, faults=[{"fault": "bad_request", "share": 0.02, "seed": 8}]) as both:
        asked = both.ask(texts)
        again = both.ask(texts)
        tries = both.by_prompt()
    refused = {text for text in texts if struck(text, 0.02, 8)}
    assert asked.stopped is None
    assert again.sent == 0
    assert {len(bills) for bills in tries.values()} == {1}
    assert {t for t, a in zip(texts, asked.answers, strict=True) if a.status == "rejected"} == refused
    assert all(answer.detail for answer in asked.answers if answer.status == "rejected")
    assert right(texts, asked) == 500 - len(refused)
    counts("T16", f"{shape}: {len(refused)} of 500 refused for good, one call each, {500 - len(refused)} kept")


# ------------------------------------------------------------------------------------ T18, T19: whose answer it is


@pytest.mark.fault("T18", runs="1,000 online")
@one_shape
def test_answers_that_come_in_any_order_belong_to_their_questions(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    rules = [
        {"fault": "slow", "share": [i / 10, (i + 1) / 10], "seed": 2, "delay": (i * 7 % 10) * 0.03} for i in range(10)
    ]
    texts = prompts(1_000)
    with asking(shape, tmp_path, faults=rules) as both:
        asked = both.ask(texts, in_flight=200)
        widest = both.server.truth()["max_in_flight"]
    assert widest > 100
    assert right(texts, asked) == 1_000
    counts("T18", f"{shape}: 1,000 answers in random order, {widest} in flight, 0 mixed up")


@pytest.mark.fault("T19", runs="2 in 1,000")
@both_shapes
def test_another_model_or_configuration_shows_in_its_row_and_in_the_contract(
    shape: Shape, tmp_path: Path, counts: Counts
) -> None:
    halves = _halves(1_000)
    texts = halves["first_half"].to_list()
    faults: list[dict[str, Any]] = [{"fault": "other_model", "at": [100, 700]}, {"fault": "fingerprint", "at": [400]}]
    with asking(shape, tmp_path, faults=faults) as both:
        frame = _rows(both.asking, halves)
        struck_by = {bill.prompt: bill.fault for bill in both.bills() if bill.fault}
    names = dict(zip(texts, frame["answered_by"], strict=True))
    other = {text for text, name in names.items() if name != MODEL}
    assert other == {prompt for prompt, fault in struck_by.items() if fault == "other_model"}
    assert len(other) == 2
    found = _failed(both.asking.row, frame, halves)
    expected = {"one_model_answered": "warn", "the_pinned_model_answered": "warn"}
    if shape == "openai":
        expected["one_configuration_answered"] = "warn"
        assert frame["fingerprint"].value_counts().height == 2
    assert found == expected
    counts("T19", f"{shape}: 2 rows of 1,000 from another model, recorded in their rows; warned: {sorted(found)}")


# -------------------------------------------------------------------------------------- what is sent, and is refused


def test_a_refused_temperature_stops_with_the_remedy_and_the_rows_say_what_was_sent(
    tmp_path: Path, counts: Counts
) -> None:
    halves = _halves(5)

    def ask(name: str, **changes: Any) -> tuple[Asking, Any]:
        way = Asking(f"sqlite:///{tmp_path}/{name}.sqlite", teacher("anthropic", server.url, **changes))
        return way, way.ask(halves["first_half"].to_list(), in_flight=2)

    with FaultServer(temperature_refused_by_models=["opus"]) as server:
        ways: dict[str, dict[str, Any]] = {
            "default": {},
            "new version": {"api_version": "2026-10-21"},
            "new version, none sent": {"api_version": "2026-10-21", "supports_temperature": False},
            "opus": {"model": "opus"},
            "opus, none sent": {"model": "opus", "supports_temperature": False},
        }
        asked = {name: ask(name, **changes) for name, changes in ways.items()}
    for name in ("new version", "opus"):
        stopped = asked[name][1].stopped
        assert stopped is not None
        assert "supports_temperature=False" in str(stopped)
        assert asked[name][1].sent <= 2
    for name in ("default", "new version, none sent", "opus, none sent"):
        assert asked[name][1].counts == {"ok": 5}
    sent = {}
    for name, (way, answers) in asked.items():
        requests = completions.requests(way.row, halves)
        frame = completions.rows(way.row, halves, requests, answers.answers)
        sent[name] = frame.select("temperature", "api_version").unique().rows()
    assert sent["default"] == [(0.0, "2023-06-01")]
    assert sent["new version, none sent"] == [(None, "2026-10-21")]
    assert sent["opus, none sent"] == [(None, "2023-06-01")]
    counts("T16", "a temperature refused by version or by model: stops within 2 sends with its remedy, 3 ways answered")
