"""The group commit: what came back and what wants to leave go into the book together, in one transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from nift_assets.ledger.book import Asker, AttemptResult, Book, ExchangeResult, Reservation, spilled
from nift_assets.ledger.rate_limiter import LimitObservations
from nift_assets.protocol.server import Remote


class GroupCommit:
    """The exchanges of one session with its book.

    It owns what the next one settles, the number of the next attempt, whether the book may have more than we have heard
    of, since when it cannot be written, and the file where what came since then waits.
    """

    def __init__(self, book: Book, session: int, asker: Asker, server: Remote) -> None:
        self._book, self._session, self._asker = book, session, asker
        # All who ask one model with one key share a limiter.
        limiter = f"{server.name} {server.model} {server.key_fingerprint()}"
        self._limiter = hashlib.sha256(limiter.encode()).hexdigest()
        self._to_settle: list[AttemptResult] = []
        self._next_number = 1
        self._in_doubt = False
        self._failing_since: float | None = None
        self._spill = book.spill.of(session)

    def __bool__(self) -> bool:
        """Whether the book has to be written although nothing wants to leave."""
        return self._in_doubt or bool(self._to_settle)

    def add(self, settled: Sequence[AttemptResult]) -> None:
        """Takes how attempts ended into the next exchange; nobody uses it before that is through."""
        self._to_settle += settled

    def final(self) -> int:
        """How many of the attempts that the next exchange settles end their request."""
        return sum(1 for attempt in self._to_settle if attempt.body is not None or attempt.outcome)

    def exchange(self, reservations: Sequence[Reservation], observed: LimitObservations) -> ExchangeResult:
        """One commit. It may have gone through although it raised: the next exchange settles the same once more, which
        changes nothing then, and nothing leaves before the book has said what this one admitted.
        """
        if self._in_doubt:
            self._next_number = self._book.reconcile(self._session, self._asker, self._next_number)
        self._in_doubt = True
        exchanged = self._book.exchange(
            self._session,
            self._asker,
            list(self._to_settle),
            reservations,
            first_number=self._next_number,
            limiter=self._limiter,
            observed=observed,
        )
        self._to_settle, self._in_doubt = [], False
        self._next_number += len(exchanged.numbers)
        if self._failing_since is not None:
            self._failing_since = None
            self._spill.discard()
        return exchanged

    def failed(self, now: float) -> float:
        """Counts an exchange that failed; for how many seconds they have."""
        self._failing_since = self._failing_since if self._failing_since is not None else now
        return now - self._failing_since

    def put_outside(self) -> None:
        """Puts what waits to be settled into the spill, where it is kept if this process ends before the book takes it.

        Raises OSError if there is no place for it.
        """
        rows = {attempt.number: spilled(self._session, self._asker, attempt) for attempt in self._to_settle}
        self._spill.keep(rows)

    def leave(self) -> Sequence[Path]:
        """Leaves what waits to be settled to whoever opens the ledger next; the files in which it lies."""
        self.put_outside()
        places = self._spill.places()
        self._to_settle, self._in_doubt = [], False
        self._spill.close()
        return places
