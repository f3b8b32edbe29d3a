"""The book's rows of one chunk: the chunk itself, its attempts, and how they are settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger.book import Asker, Book, Settled
from nift_assets.ledger.database import clean
from nift_assets.ledger.tables import answers, attempts, batches, requests
from nift_assets.protocol.batches import Batches

# What may still have to be created, and what the provider may still have to answer.
UNSENT = ("intended", "uploaded", "unknown")
OPEN = (*UNSENT, "submitted")
# The most of what a provider says that is kept in words.
MOST_WORDS = 500
# A request that is booked at what was reserved for it: what it really cost is not known.
AS_RESERVED = -1


def of(book: Book, asker: Asker, states: Sequence[str]) -> list[Mapping[str, Any]]:
    mine = (batches.c.study == asker.study) & (batches.c.who == asker.who) & batches.c.state.in_(states)
    with book.reading() as connection:
        query = sa.select(batches).where(mine).order_by(batches.c.intended_at, batches.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def one(book: Book, digest: str) -> Mapping[str, Any]:
    with book.reading() as connection:
        return dict(connection.execute(sa.select(batches).where(batches.c.id == digest)).mappings().one())


def strays(book: Book, study: str, names: Sequence[str]) -> list[Mapping[str, Any]]:
    """The chunks of a study that are open, of teachers other than those named."""
    theirs = (batches.c.study == study) & batches.c.who.not_in(names) & batches.c.state.in_(OPEN)
    with book.reading() as connection:
        query = sa.select(batches).where(theirs).order_by(batches.c.who, batches.c.intended_at, batches.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def update(book: Book, digest: str, **values: Any) -> None:
    """Changes a chunk's row; words of a provider's are made fit for every database."""
    values |= {name: clean(values[name], MOST_WORDS) for name in ("detail", "remedy") if name in values}
    with book.writing() as connection:
        connection.execute(sa.update(batches).where(batches.c.id == digest).values(**values))


def members(book: Book, digest: str) -> set[str]:
    with book.reading() as connection:
        return set(connection.execute(sa.select(attempts.c.key).where(attempts.c.batch == digest)).scalars())


def settle(book: Book, connection: sa.Connection, batch: Mapping[str, Any], settled: Sequence[Settled]) -> None:
    """Books how some requests of a chunk ended, on the account they were reserved on, and lets them go.

    Only attempts that are still open are booked: the rows are held from here to the commit, so that of two who have the
    results of one batch only one books each. What was reserved is filled in here, `AS_RESERVED` too.
    """
    by_key = {each.key: each for each in settled}
    columns = (attempts.c.key, attempts.c.session, attempts.c.number, attempts.c.reserved)
    query = (
        sa.select(*columns)
        .where(attempts.c.batch == batch["id"], attempts.c.state == "sent", attempts.c.key.in_(by_key))
        .order_by(attempts.c.session, attempts.c.number)
        .with_for_update()
    )
    booked: dict[int, list[Settled]] = {}
    for key, session, number, reserved in connection.execute(query):
        each = by_key[key]
        spent = reserved if each.spent == AS_RESERVED else each.spent
        booked.setdefault(session, []).append(replace(each, number=number, reserved=reserved, spent=spent))
    asker = Asker(study=batch["study"], who=batch["who"], writer="")
    for session, some in booked.items():
        book.settle(connection, session, asker, some)
        gone = requests.c.key.in_([each.key for each in some]) & (requests.c.in_batch == batch["id"])
        connection.execute(sa.update(requests).where(gone).values(in_batch=None))


def late(book: Book, digest: str) -> int:
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


def elsewhere(batch: Mapping[str, Any], adapter: Batches) -> str | None:
    """Why a chunk cannot be looked for with an adapter: it is another provider's, which the row has named before."""
    if batch["provider"] == adapter.server.name:
        return None
    return (
        f"{called(batch)} is {batch['provider']}'s, and the row names {adapter.server.name} now; a changed row needs a "
        f"new name: put back {batch['who']!r} as it was, and collect"
    )


def called(batch: Mapping[str, Any]) -> str:
    name = f" ({batch['provider_id']})" if batch["provider_id"] else ""
    return f"the chunk {batch['id'][:8]} of {batch['requests']:,} requests{name}"


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
