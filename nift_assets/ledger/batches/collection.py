"""Collecting batches: each result is in the book before anyone uses it, and every request's end is accounted for.

Nothing a provider does raises here: it is waited for, counted or named. Whatever is killed here is run again and ends
as it would have ended.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any

from nift_assets import crash_points
from nift_assets.ledger.batches import rows
from nift_assets.ledger.batches.creation import look_up
from nift_assets.ledger.batches.results import Reconciliation, ResultImport, parse_results
from nift_assets.ledger.batches.rows import describe, timestamp
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.database import clean
from nift_assets.ledger.locks import Lock
from nift_assets.protocol.batches import BatchApi, BatchProgress, Refused, ResultLine, Unclear
from nift_assets.rows import Price

# A batch ends within a day. One that is not found after two days has been deleted.
FORGOTTEN_SECONDS = 2 * 86_400.0
LONGEST_POLL_WAIT = 600.0
# Results that come torn are downloaded again so often; then what can be read counts.
MOST_TORN = 3


@dataclass(kw_only=True)
class CollectionResult:
    """What a look at the batches of one teacher came to: those it has imported, and what is waited for, in words."""

    imported: dict[str, Reconciliation] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)


def collect(
    book: Book,
    asker: Asker,
    adapter: BatchApi,
    price: Price | None,
    *,
    seconds: float | None = None,
    clock: Callable[[], float] = time.time,
) -> CollectionResult:
    """Looks at every batch that is under way and imports those that have ended. Nothing a provider does raises here.

    Without a price for batches, answers are booked at what was reserved for them. After so many `seconds` no other
    batch is begun: the next call goes on. Two calls at once share the work.
    """
    result = CollectionResult()
    began = time.monotonic()
    for batch in rows.in_states(book, asker, rows.OPEN):
        if seconds is not None and time.monotonic() - began > seconds:
            result.waiting.append(f"{describe(batch)} is looked at next time")
            continue
        lock = book.locks.hold(f"batch {batch['id']}")
        if lock is None:
            result.waiting.append(f"{describe(batch)} is being collected by another process")
            continue
        _collect_locked(_Collection(book, asker, adapter, price, clock, result), batch, lock)
    return result


def _collect_locked(collection: _Collection, batch: Mapping[str, Any], lock: Lock) -> None:
    try:
        # Read again behind the lock: whoever had it may have imported the batch.
        collection.look_at(rows.chunk(collection.book, batch["id"]))
    finally:
        lock.release()


@dataclass
class _Collection:
    """One look at a batch: whether it has ended, and what is to be done; `result` takes what that came to."""

    book: Book
    asker: Asker
    adapter: BatchApi
    price: Price | None
    clock: Callable[[], float]
    result: CollectionResult

    def look_at(self, batch: Mapping[str, Any]) -> None:
        if batch["state"] in rows.OPEN and (why := rows.other_provider(batch, self.adapter)):
            self._wait(why)
        elif batch["state"] in ("intended", "uploaded"):
            self._wait(f"{describe(batch)} has not been created yet; run submit_batches")
        elif batch["state"] == "unknown" and look_up(self.book, self.adapter, batch, self.clock()) != "adopted":
            self._wait(f"{describe(batch)} may have been created and is not in the list; run submit_batches")
        elif batch["state"] in ("unknown", "submitted"):
            batch = rows.chunk(self.book, batch["id"])
            due = _due(batch)
            if due <= self.clock() or self.clock() < (batch["polled_at"] or 0.0):
                self._poll(batch)
            else:
                self._wait(f"{describe(batch)} is asked about again in {due - self.clock():.0f} s: {batch['detail']}")

    def _poll(self, batch: Mapping[str, Any]) -> None:
        try:
            polled = self.adapter.poll(batch["provider_id"])
        except (Refused, Unclear) as error:
            age = self.clock() - datetime.fromisoformat(batch["submitted_at"]).timestamp()
            if isinstance(error, Refused) and error.status == 404 and age > FORGOTTEN_SECONDS:
                self._import(batch, BatchProgress(ended=True, detail="the provider does not know it any more"), None)
            else:
                self._failed(batch, error)
            return
        rows.update(self.book, batch["id"], polled_at=self.clock(), polls_failed=0, detail=polled.detail)
        crash_points.reach("batch_after_poll")
        if not polled.ended:
            self._wait(f"{describe(batch)} is under way: {polled.done:,} of {batch['requests']:,} done")
            return
        with tempfile.TemporaryFile(prefix="nift-batch-") as file:
            try:
                complete = self._download(polled, file)
            except (Refused, Unclear) as error:
                self._failed(batch, error)
                return
            crash_points.reach("batch_after_download")
            self._check(batch, polled, file, complete)

    def _download(self, polled: BatchProgress, file: IO[bytes]) -> bool:
        """All results in one file; False if the provider has them no more."""
        complete = True
        for source in polled.sources:
            try:
                self.adapter.download(source, file)
            except Refused as refused:
                if refused.status not in (404, 410):
                    raise
                complete = False
            file.write(b"\n")
        return complete

    def _check(self, batch: Mapping[str, Any], polled: BatchProgress, file: IO[bytes], complete: bool) -> None:
        """Refuses results that came torn, as often as may help, and results of somebody else's batch."""
        members = rows.members(self.book, batch["id"])
        ids, torn = set(), 0
        for line in parse_results(file, self.adapter):
            if isinstance(line, ResultLine):
                ids.add(line.key)
            torn += line is None or line.kind == "unreadable"
        if torn and batch["downloads_torn"] < MOST_TORN:
            rows.update(self.book, batch["id"], downloads_torn=batch["downloads_torn"] + 1)
            self._wait(f"{describe(batch)}: {torn} lines of its results came torn; they are downloaded again")
        elif not batch["proven"] and ids and not ids & members:
            self._disown(batch)
        else:
            self._import(batch, polled, file, complete=complete)

    def _disown(self, batch: Mapping[str, Any]) -> None:
        strangers = [*json.loads(batch["stranger_ids"]), batch["provider_id"]]
        freed = {"state": "unknown", "provider_id": None, "submitted_at": None, "stranger_ids": json.dumps(strangers)}
        rows.update(self.book, batch["id"], **freed)
        self._wait(f"{describe(batch)} is not {batch['provider_id']}, which was of its size; it is looked for again")

    def _import(
        self, batch: Mapping[str, Any], polled: BatchProgress, file: IO[bytes] | None, *, complete: bool = False
    ) -> None:
        """Books the results, and closes the batch."""
        results = ResultImport(self.book, self.adapter, self.price, batch, polled)
        results.run(file, complete=complete)
        closed = {"state": "imported", "counts": results.counts.stored(), "remedy": results.remedy()}
        rows.update(self.book, batch["id"], **closed, detail=polled.detail, ended_at=timestamp(self.clock()))
        self.result.imported[batch["id"]] = results.counts

    def _failed(self, batch: Mapping[str, Any], error: Exception) -> None:
        failed = batch["polls_failed"] + 1
        row = {"polled_at": self.clock(), "polls_failed": failed, "detail": clean(str(error), rows.MOST_WORDS)}
        rows.update(self.book, batch["id"], **row)
        wait = _due({**batch, **row}) - self.clock()
        self._wait(f"{describe(batch)} cannot be asked about ({error}); next time in {wait:.0f} s")

    def _wait(self, sentence: str) -> None:
        self.result.waiting.append(sentence)


def _due(batch: Mapping[str, Any]) -> float:
    """When a batch may be asked about again: at any time while that works, else after twice as long each time."""
    if not batch["polls_failed"]:
        return 0.0
    doubled: float = 15.0 * 2.0 ** min(batch["polls_failed"], 10)
    return float(batch["polled_at"]) + min(LONGEST_POLL_WAIT, doubled)


def cancel(book: Book, asker: Asker, adapter: BatchApi) -> list[str]:
    """Asks the provider to stop every batch under way; a sentence for each. They are collected like any other."""
    sentences = []
    for batch in rows.in_states(book, asker, ("submitted",)):
        try:
            adapter.cancel(batch["provider_id"])
            sentences.append(f"{describe(batch)} is being cancelled")
        except (Refused, Unclear) as error:
            sentences.append(f"{describe(batch)} was not cancelled: {error}")
    return sentences
