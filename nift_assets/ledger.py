"""The one door to teachers, auditors and judges: what is asked is written down first, what is answered is kept.

A request's key is the hash of everything that shapes the answer and of nothing else, so a stored answer is found again
from any run, back-fill or study, and is never paid for twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Status = Literal["ok", "truncated", "refused", "empty", "error"]

T = TypeVar("T")

# SQLite refuses a statement with more than 32,766 values.
AT_A_TIME = 500


@dataclass(frozen=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question to one model: all that shapes its answer. `draw` tells repeated questions apart."""

    provider: str
    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    draw: int = 0

    def body(self) -> str:
        """The request as canonical JSON; equal requests have equal bodies."""
        return json.dumps(
            {
                "provider": self.provider,
                "model": self.model,
                "messages": [[m.role, m.content] for m in self.messages],
                "parameters": dict(self.parameters),
                "draw": self.draw,
            },
            sort_keys=True,
            ensure_ascii=False,
        )

    def key(self) -> str:
        return hashlib.sha256(self.body().encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of one request: how it ended and, where there is one, the text."""

    key: str
    status: Status
    text: str
    model: str | None
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None


class Provider(Protocol):
    """Something that answers: it gives back, for each request in any order, the raw body of the response."""

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]: ...


metadata = sa.MetaData()
requests_table = sa.Table(
    "requests",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("provider", sa.String(96), nullable=False),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("intended_at", sa.String(32), nullable=False),
)
answers_table = sa.Table(
    "answers",
    metadata,
    sa.Column("key", sa.ForeignKey("requests.key"), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("answered_at", sa.String(32), nullable=False),
)


class Ledger:
    """The requests and answers in an SQL database, by default an SQLite file in WAL mode with full synchronisation."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _make_durable)
        metadata.create_all(self._engine)

    def ask(self, requests: Sequence[Request], provider: Provider) -> list[Answer]:
        """One answer per request, in order; only requests without a stored answer reach the provider.

        A body that ended for no known reason is half an answer: it is given back as an error and asked again next time.

        The intent is committed before a request leaves and the raw body before anyone sees it, so a crash at any
        moment loses no answer that had arrived.
        """
        by_key = {request.key(): request for request in requests}
        bodies = self._stored(by_key)
        missing = [request for key, request in by_key.items() if key not in bodies]
        self._intend(missing)
        for request, body in provider.answer(missing):
            if read(request.key(), body).status != "error":
                self._keep(request.key(), body)
            bodies[request.key()] = body
        return [read(key, bodies[key]) for key in (request.key() for request in requests)]

    def _stored(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        with self._engine.connect() as connection:
            for some in _chunks(list(keys)):
                query = sa.select(answers_table.c.key, answers_table.c.body).where(answers_table.c.key.in_(some))
                found.update((key, json.loads(body)) for key, body in connection.execute(query))
        return found

    def _intend(self, requests: Sequence[Request]) -> None:
        now = datetime.now(UTC).isoformat()
        rows = [
            {
                "key": request.key(),
                "provider": request.provider,
                "model": request.model,
                "body": request.body(),
                "intended_at": now,
            }
            for request in requests
        ]
        for some in _chunks(rows):
            self._insert(requests_table, some)

    def _keep(self, key: str, body: dict[str, Any]) -> None:
        row = {"key": key, "body": json.dumps(body, ensure_ascii=False), "answered_at": datetime.now(UTC).isoformat()}
        self._insert(answers_table, [row])

    def _insert(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """One commit. A row that is there already stays: two runs may ask the same question at the same time."""
        insert: sqlite.Insert | postgresql.Insert
        insert = sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)
        with self._engine.begin() as connection:
            connection.execute(insert.on_conflict_do_nothing(), list(rows))


def read(key: str, body: dict[str, Any]) -> Answer:
    """The answer in a response body in the shape of a chat completion, with what became of it as its status.

    Only a known reason to stop counts: a body without one is half a response, not an answer.
    """
    choice = body["choices"][0]
    text = choice["message"].get("content") or ""
    reason = choice.get("finish_reason")
    usage = body.get("usage") or {}
    return Answer(
        key=key,
        status=_status(text, reason),
        text=text,
        model=body.get("model"),
        finish_reason=reason,
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
    )


def _status(text: str, reason: str | None) -> Status:
    if reason == "content_filter":
        return "refused"
    if reason not in ("stop", "length"):
        return "error"
    if not text.strip():
        return "empty"
    return "ok" if reason == "stop" else "truncated"


def _make_durable(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("pragma journal_mode = wal")
    cursor.execute("pragma synchronous = full")
    cursor.execute("pragma busy_timeout = 60000")
    cursor.close()


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + AT_A_TIME] for start in range(0, len(items), AT_A_TIME))
