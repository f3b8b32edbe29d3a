"""Where the batches of one teacher stand, by the book alone: no provider is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from nift_assets.ledger.batches import rows
from nift_assets.ledger.batches.results import Reconciliation
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.tables import batches


@dataclass(frozen=True, kw_only=True)
class BatchStatus:
    """Where the batches of one teacher stand.

    `under_way` are batches at the provider, `unsent` chunks that may have to be created. `remedy` is what the last
    batch needs a person for. `digest` changes whenever a batch does.
    """

    batches: int
    under_way: int
    unsent: int
    remedy: str | None
    digest: str


def status_of(book: Book, study: str, who: str) -> BatchStatus:
    """Where the batches of a teacher stand now."""
    mine = (batches.c.study == study) & (batches.c.who == who)
    query = sa.select(batches.c.id, batches.c.state, batches.c.remedy).where(mine)
    with book.reading() as connection:
        chunks = connection.execute(query.order_by(batches.c.intended_at, batches.c.id)).all()
    return BatchStatus(
        batches=len(chunks),
        under_way=sum(state == "submitted" for _, state, _ in chunks),
        unsent=sum(state in rows.UNSENT for _, state, _ in chunks),
        remedy=chunks[-1].remedy if chunks else None,
        digest=hashlib.sha256(repr([tuple(chunk)[:2] for chunk in chunks]).encode()).hexdigest()[:16],
    )


def missing(book: Book, keys: Sequence[str]) -> tuple[int, int]:
    """How many of the keys have no final answer and may be asked again, and how many only on a person's word."""
    unanswered = sorted(set(keys) - book.answered(keys))
    outcomes = book.outcomes(unanswered)
    unknown = sum(outcomes[key][0] == "unknown" for key in unanswered if key in outcomes)
    return len(unanswered) - unknown, unknown


def reconciled(book: Book, asker: Asker) -> dict[str, Reconciliation]:
    """What became of every request of every batch that was imported, by batch."""
    imported = rows.in_states(book, asker, ("imported",))
    return {chunk["id"]: Reconciliation(**json.loads(chunk["counts"])) for chunk in imported}
