"""The group commit: what came back and what wants to leave go into the book together, in one transaction."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence

from nift_assets.ledger.book import Asker, AttemptResult, Book, ExchangeResult, Reservation
from nift_assets.ledger.rate_limiter import LimitObservations
from nift_assets.protocol.server import Remote
from nift_assets.secrets import redaction

log = logging.getLogger(__name__)


class GroupCommit:
    """The exchanges of one session with its book.

    It owns what the next one settles, the number of the next attempt, and since when the book cannot be written.
    """

    def __init__(self, book: Book, session: int, asker: Asker, server: Remote) -> None:
        self._book, self._session, self._asker = book, session, asker
        # All who ask one model with one key share a limiter.
        limiter = f"{server.name} {server.model} {server.key_fingerprint()}"
        self._limiter = hashlib.sha256(limiter.encode()).hexdigest()
        self._to_settle: list[AttemptResult] = []
        self._next_number = 1
        self._failing_since: float | None = None

    def __len__(self) -> int:
        return len(self._to_settle)

    def add(self, settled: Sequence[AttemptResult]) -> None:
        """Takes how attempts ended into the next exchange; nobody uses it before that is through."""
        self._to_settle += settled

    def final(self) -> int:
        """How many of the attempts that the next exchange settles end their request."""
        return sum(1 for attempt in self._to_settle if attempt.body is not None or attempt.outcome)

    def exchange(self, reservations: Sequence[Reservation], observed: LimitObservations) -> ExchangeResult:
        """One commit. After an exception nothing is forgotten, and `reconcile` says what the book has of it."""
        exchanged = self._book.exchange(
            self._session,
            self._asker,
            list(self._to_settle),
            reservations,
            first_number=self._next_number,
            limiter=self._limiter,
            observed=observed,
        )
        self._to_settle = []
        self._next_number += len(exchanged.numbers)
        self._failing_since = None
        return exchanged

    def failed(self, now: float) -> float:
        """Counts an exchange that failed; for how many seconds they have."""
        self._failing_since = self._failing_since if self._failing_since is not None else now
        return now - self._failing_since

    def reconcile(self) -> None:
        """After a failure whose commit may have gone through: what it settled is not settled twice."""
        try:
            self._to_settle, self._next_number = self._book.reconcile(
                self._session, self._asker, self._to_settle, self._next_number
            )
        except Exception as error:
            log.warning("the ledger still cannot be written: %s", redaction.safe(error))
