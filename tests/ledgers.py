"""Filling a real ledger by hand: attempts that left and how each of them ended, without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nift_assets.ledger.book import Asker, AttemptResult, Book, Reservation
from nift_assets.ledger.rate_limiter import LimitObservations
from nift_assets.protocol import Request
from nift_assets.providers import chat_completion

RESERVE = 1_000_000
SPENT = 400_000


def answered(
    text: str, *, finish_reason: str = "stop", input_tokens: int = 10, output_tokens: int = 5
) -> dict[str, Any]:
    """An attempt that came back with an answer and cost something."""
    body = chat_completion(
        model="m", text=text, finish_reason=finish_reason, input_tokens=input_tokens, output_tokens=output_tokens
    )
    return {
        "state": "answered",
        "spent": SPENT,
        "http_status": 200,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "body": json.dumps(body).encode(),
    }


def rejected() -> dict[str, Any]:
    """An attempt the server refused for good."""
    return {"state": "failed", "cause": "http_400", "http_status": 400, "body": b'{"error": {"message": "no"}}'}


def unknown(*, given_up: bool = True) -> dict[str, Any]:
    """An attempt whose connection broke; `given_up` is the last of its question's."""
    return {"state": "unknown", "cause": "disconnected", "outcome": "unknown" if given_up else None}


def exhausted() -> dict[str, Any]:
    return {"state": "failed", "cause": "http_500", "outcome": "exhausted", "detail": "http_500: often"}


def play(book: Book, study: str, who: str, endings: Sequence[tuple[Request, Mapping[str, Any] | None]]) -> int:
    """Sends each request once and ends it as said; None is one that is wanted and was not sent. Returns the session."""
    asker = Asker(study=study, who=who, writer=f"{study}/{who}")
    sent = [(request, ending) for request, ending in endings if ending is not None]
    with book.session(asker.writer) as session:
        book.open_accounts(asker)
        book.intend(session, asker, [request for request, _ in endings])
        wanted = [Reservation(key=request.key, amount=RESERVE, tokens=1) for request, _ in sent]
        exchanged = book.exchange(session, asker, [], wanted, first_number=1, limiter="l", observed=LimitObservations())
        assert len(exchanged.numbers) == len(sent)
        settled = [
            AttemptResult(number=number, key=request.key, reserved=RESERVE, **ending)
            for number, (request, ending) in zip(exchanged.numbers, sent, strict=True)
        ]
        book.exchange(
            session, asker, settled, [], first_number=len(sent) + 1, limiter="l", observed=LimitObservations()
        )
    return session
