"""The book's rows of chunks: the chunk itself, its attempts, and how they are settled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger import accounts
from nift_assets.ledger.batches.chunking import ChunkItem
from nift_assets.ledger.book import Asker, AttemptResult, Book, lock_questions, settle
from nift_assets.ledger.database import chunks, clean
from nift_assets.ledger.high_water import DamagedLedger
from nift_assets.ledger.tables import IN_BATCH, answers, attempts, batches, requests
from nift_assets.protocol.batches import BatchApi
from nift_assets.protocol.request import restored

# What may still have to be created, and what the provider may still have to answer.
UNSENT = ("intended", "uploaded", "unknown")
OPEN = (*UNSENT, "submitted")
# The most of what a provider says that is kept in words.
MOST_WORDS = 500
# A request that is booked at what was reserved for it: what it really cost is not known.
AS_RESERVED = -1


def in_states(book: Book, asker: Asker, states: Sequence[str]) -> list[Mapping[str, Any]]:
    """The chunks of an asker in some states, in the order of their intents."""
    mine = (batches.c.study == asker.study) & (batches.c.who == asker.who) & batches.c.state.in_(states)
    with book.reading() as connection:
        query = sa.select(batches).where(mine).order_by(batches.c.intended_at, batches.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def chunk(book: Book, digest: str) -> Mapping[str, Any]:
    """One chunk as it stands now."""
    with book.reading() as connection:
        return dict(connection.execute(sa.select(batches).where(batches.c.id == digest)).mappings().one())


def open_of_others(book: Book, study: str, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """The chunks of a study that are open, of teachers other than those named."""
    theirs = (batches.c.study == study) & batches.c.who.not_in(names) & batches.c.state.in_(OPEN)
    with book.reading() as connection:
        query = sa.select(batches).where(theirs).order_by(batches.c.who, batches.c.intended_at, batches.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def intend(
    connection: sa.Connection,
    session: int,
    first_number: int,
    chunk: Mapping[str, Any],
    items: Sequence[ChunkItem],
) -> None:
    """Writes a chunk down before anything of it leaves: itself, an attempt for each request, and what they may cost."""
    connection.execute(sa.insert(batches).values(**chunk, state="intended"))
    for keys in chunks(sorted(item.key for item in items)):
        lock_questions(connection, requests.c.key.in_(keys))
        claim = sa.update(requests).where(requests.c.key.in_(keys))
        connection.execute(claim.values(in_batch=chunk["id"], claimed_by=None))
    sent = [
        {
            "session": session,
            "number": first_number + place,
            "key": item.key,
            "study": chunk["study"],
            "who": chunk["who"],
            "batch": chunk["id"],
            "state": "sent",
            "sent_at": chunk["intended_at"],
            "reserved": item.amount,
            "spent": 0,
        }
        for place, item in enumerate(items)
    ]
    connection.execute(sa.insert(attempts), sent)
    reserved = sum(item.amount for item in items)
    accounts.post(connection, chunk["study"], chunk["who"], reserved=reserved, sent=len(items))


def update(book: Book, digest: str, **values: Any) -> None:
    """Changes a chunk's row; words of a provider's are made fit for every database."""
    values |= {name: clean(values[name], MOST_WORDS) for name in ("detail", "remedy") if name in values}
    with book.writing() as connection:
        connection.execute(sa.update(batches).where(batches.c.id == digest).values(**values))


def members(book: Book, digest: str) -> set[str]:
    """The keys of the requests in a chunk."""
    with book.reading() as connection:
        return set(connection.execute(sa.select(attempts.c.key).where(attempts.c.batch == digest)).scalars())


def bodies(book: Book, digest: str) -> Iterator[str]:
    """The canonical bodies of a chunk's requests in the order of their attempts: the same ones after a crash."""
    with book.reading() as connection:
        query = sa.select(attempts.c.key).where(attempts.c.batch == digest).order_by(attempts.c.number)
        keys = connection.execute(query).scalars().all()
    for portion in chunks(keys):
        with book.reading() as connection:
            query = sa.select(requests.c.key, requests.c.body).where(requests.c.key.in_(portion))
            by_key: dict[str, str] = dict(map(tuple, connection.execute(query)))
        for key in portion:
            if restored(by_key[key]).key != key:
                raise DamagedLedger(f"the ledger's request {key} is not what was written; restore a backup")
            yield by_key[key]


def settle_requests(connection: sa.Connection, chunk: Mapping[str, Any], settled: Sequence[AttemptResult]) -> None:
    """Books how some requests of a chunk ended, on the account they were reserved on, and lets them go.

    Only attempts that are still open are booked: the rows are locked from here to the commit, so that of two who have
    the results of one batch only one books each. What was reserved is filled in here, `AS_RESERVED` too.
    """
    by_key = {attempt.key: attempt for attempt in settled}
    columns = (attempts.c.key, attempts.c.session, attempts.c.number, attempts.c.reserved)
    query = (
        sa.select(*columns)
        .where(attempts.c.batch == chunk["id"], attempts.c.state == "sent", attempts.c.key.in_(by_key))
        .order_by(attempts.c.session, attempts.c.number)
        .with_for_update()
    )
    by_session: dict[int, list[AttemptResult]] = {}
    for key, session, number, reserved in connection.execute(query):
        spent = reserved if by_key[key].spent == AS_RESERVED else by_key[key].spent
        booked = replace(by_key[key], number=number, reserved=reserved, spent=spent)
        by_session.setdefault(session, []).append(booked)
    for session, portion in by_session.items():
        settle(connection, session, chunk["study"], chunk["who"], portion)
        keys = [attempt.key for attempt in portion]
        ended = requests.c.key.in_(keys) & (chunk["id"] == IN_BATCH)
        connection.execute(sa.update(requests).where(ended).values(in_batch=None))


def late_answers(book: Book, digest: str) -> int:
    """How many answers of a batch came after another answer to the same request."""
    own = (answers.c.session == attempts.c.session) & (answers.c.number == attempts.c.number)
    query = (
        sa.select(sa.func.count())
        .select_from(attempts)
        .join(answers, answers.c.key == attempts.c.key)
        .where(attempts.c.batch == digest, attempts.c.state == "answered", sa.not_(sa.func.coalesce(own, sa.false())))
    )
    with book.reading() as connection:
        return int(connection.execute(query).scalar_one())


def other_provider(chunk: Mapping[str, Any], adapter: BatchApi) -> str | None:
    """Why a chunk cannot be looked for with an adapter: it is another provider's, which the row has named before."""
    if chunk["provider"] == adapter.server.name:
        return None
    return (
        f"{describe(chunk)} is {chunk['provider']}'s, and the row names {adapter.server.name} now; a changed row "
        f"needs a new name: put back {chunk['who']!r} as it was, and collect"
    )


def too_large(book: Book, asker: Asker, provider: str) -> int | None:
    """How many requests the smallest chunk had that the provider refused for its size."""
    return min((row["requests"] for row in _marked(book, asker, provider, "too_large")), default=None)


def hopeless(book: Book, asker: Asker, provider: str) -> Iterator[tuple[Mapping[str, Any], set[str]]]:
    """The chunks that were refused for what their row says, each with its keys: what is in one is never taken so."""
    for row in _marked(book, asker, provider, "hopeless"):
        yield row, members(book, row["id"])


def _marked(book: Book, asker: Asker, provider: str, mark: str) -> list[Mapping[str, Any]]:
    ended = in_states(book, asker, ("failed", "imported"))
    return [row for row in ended if row["provider"] == provider and json.loads(row["counts"] or "{}").get(mark)]


def describe(chunk: Mapping[str, Any]) -> str:
    """A chunk in words."""
    name = f" ({chunk['provider_id']})" if chunk["provider_id"] else ""
    return f"the chunk {chunk['id'][:8]} of {chunk['requests']:,} requests{name}"


def timestamp(seconds: float) -> str:
    """A moment, in seconds since 1970, as the tables have it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()
