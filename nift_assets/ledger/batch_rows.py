"""The book's rows of one chunk: the chunk itself, its attempts, and how they are settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger.book import Asker, Book, Settled
from nift_assets.ledger.tables import answers, attempts, batches, requests

# What may still have to be created, and what the provider may still have to answer.
UNSENT = ("intended", "uploaded", "unknown")
OPEN = (*UNSENT, "submitted")


def of(book: Book, asker: Asker, states: Sequence[str]) -> list[Mapping[str, Any]]:
    mine = (batches.c.study == asker.study) & (batches.c.who == asker.who) & batches.c.state.in_(states)
    with book.reading() as connection:
        query = sa.select(batches).where(mine).order_by(batches.c.intended_at, batches.c.id)
        return [dict(row) for row in connection.execute(query).mappings()]


def one(book: Book, digest: str) -> Mapping[str, Any]:
    with book.reading() as connection:
        return dict(connection.execute(sa.select(batches).where(batches.c.id == digest)).mappings().one())


def update(book: Book, digest: str, **values: Any) -> None:
    with book.writing() as connection:
        connection.execute(sa.update(batches).where(batches.c.id == digest).values(**values))


def members(book: Book, digest: str) -> set[str]:
    with book.reading() as connection:
        return set(connection.execute(sa.select(attempts.c.key).where(attempts.c.batch == digest)).scalars())


def sent(
    connection: sa.Connection, digest: str, keys: Sequence[str] | None = None
) -> list[tuple[str, tuple[int, int, int]]]:
    """The attempts of a chunk that are still open: key, and session, number and reservation."""
    columns = (attempts.c.key, attempts.c.session, attempts.c.number, attempts.c.reserved)
    query = sa.select(*columns).where(attempts.c.batch == digest, attempts.c.state == "sent")
    if keys is not None:
        query = query.where(attempts.c.key.in_(keys))
    return [(key, (session, number, reserved)) for key, session, number, reserved in connection.execute(query)]


def settle(
    book: Book, connection: sa.Connection, batch: Mapping[str, Any], session: int, settled: Sequence[Settled]
) -> None:
    """Books how some attempts of a chunk ended, on the account they were reserved on, and lets their requests go."""
    asker = Asker(study=batch["study"], who=batch["who"], writer="")
    book._settle(connection, session, asker, settled)
    gone = requests.c.key.in_([each.key for each in settled]) & (requests.c.in_batch == batch["id"])
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


def called(batch: Mapping[str, Any]) -> str:
    name = f" ({batch['provider_id']})" if batch["provider_id"] else ""
    return f"the chunk {batch['id'][:8]} of {batch['requests']:,} requests{name}"


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
