"""Creating batches: a chunk that stands in the book is created once at the provider, whatever is killed meanwhile.

What became of a creation nobody answered is found out by listing, and not by creating it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from nift_assets import crash_points
from nift_assets.ledger.batches import rows
from nift_assets.ledger.batches.rows import describe, timestamp
from nift_assets.ledger.book import Asker, AttemptResult, Book
from nift_assets.ledger.database import chunks, clean
from nift_assets.ledger.progress import Stop
from nift_assets.ledger.tables import batches
from nift_assets.protocol.batches import BatchApi, Refused, Unclear
from nift_assets.protocol.request import restored

# A creation without an answer may still show up in the list; after so long it has not happened.
SETTLE_SECONDS = 600.0
# The list is looked at after these waits when a creation got no answer; what it does not show by then waits for the
# next run.
LISTINGS = (1.0, 5.0, 15.0)
# Where nobody has noted what was in the list before, our clock and the provider's may differ by so much.
SKEW_SECONDS = 86_400.0
# How a server answers that has batches and no list of them.
NO_LIST = (404, 405, 501)


@dataclass(kw_only=True)
class SubmissionResult:
    """What a submission came to: its chunks by their names in the book, and why it ended early if it did.

    `waiting` are sentences about chunks of which it is not yet known whether they were created; run it again later.
    With `too_large` a chunk was refused for its size, and its requests are to go into smaller ones.
    """

    created: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    stopped: Stop | None = None
    requests: int = 0
    answered: int = 0
    in_batch: int = 0
    elsewhere: int = 0
    unknown: int = 0
    rejected: int = 0
    left: int = 0
    too_large: bool = False

    def in_words(self) -> str:
        parts = [f"{len(self.created)} batches created, {len(self.adopted)} found again: {self.requests:,} requests"]
        named = ("answered", "in_batch", "elsewhere", "unknown", "rejected", "left")
        parts += [f"{getattr(self, name):,} {name.replace('_', ' ')}" for name in named if getattr(self, name)]
        return "; ".join([*parts, *self.waiting, *([str(self.stopped)] if self.stopped else [])])


@dataclass(kw_only=True)
class Creation:
    """Has the chunks of one asker created by their provider, and keeps account of it in `result`."""

    book: Book
    asker: Asker
    adapter: BatchApi
    settle_seconds: float = SETTLE_SECONDS
    listings: Sequence[float] = LISTINGS
    clock: Callable[[], float] = time.time
    result: SubmissionResult = field(default_factory=SubmissionResult)

    def finish(self, chunk: Mapping[str, Any]) -> None:
        """Accounts for a chunk of an earlier run: it is found at the provider, or surely not there and created."""
        if why := rows.other_provider(chunk, self.adapter):
            self.result.waiting.append(why)
            return
        if chunk["state"] == "unknown":
            listing = look_up(self.book, self.adapter, chunk, self.clock())
            if listing == "adopted":
                self._adopted(chunk)
                return
            since = self.clock() - (chunk["tried_at"] or 0.0)
            if since < 0:
                # The clock was set back: the wait begins now.
                rows.update(self.book, chunk["id"], tried_at=self.clock())
            if listing != "absent":
                self.result.waiting.append(f"{describe(chunk)} may have been created, and the list {listing}")
                return
            if since < self.settle_seconds:
                left = self.settle_seconds - max(since, 0.0)
                self.result.waiting.append(
                    f"{describe(chunk)} may have been created and is not in the list yet; run again in {left:.0f} s"
                )
                return
        self.create(chunk)

    def create(self, chunk: Mapping[str, Any]) -> None:
        """Uploads a chunk and has it created. Before the creation leaves, the book says that it may have happened, and
        what was in the list before."""
        digest, file_id = chunk["id"], chunk["file_id"]
        state = "uploaded" if file_id else "intended"
        try:
            if chunk["listed_until"] is None:
                self._note_list(digest)
            if file_id is None and (file_id := self.adapter.upload(digest, self._lines(digest))) is not None:
                crash_points.reach("batch_after_upload")
                state = "uploaded"
                rows.update(self.book, digest, state=state, file_id=file_id)
        except Refused as refused:
            self._refused(chunk, refused)
            return
        except Unclear as unclear:
            # Files cost nothing: one is uploaded again, whether or not it arrived.
            self.result.waiting.append(f"{describe(chunk)} was not uploaded ({unclear}); run again")
            return
        rows.update(self.book, digest, state="unknown", file_id=file_id, tried_at=self.clock())
        crash_points.reach("batch_before_create")
        try:
            provider_id = self.adapter.create(digest, file_id, self._lines(digest))
        except Refused as refused:
            self._refused(chunk, refused)
        except Unclear as unclear:
            self._look_for(chunk, unclear, state)
        else:
            crash_points.reach("batch_after_create")
            submitted = {"state": "submitted", "provider_id": provider_id, "proven": True, "detail": None}
            rows.update(self.book, digest, **submitted, submitted_at=timestamp(self.clock()))
            crash_points.reach("batch_after_record")
            self.result.created.append(digest)
            self.result.requests += chunk["requests"]

    def _note_list(self, digest: str) -> None:
        """Writes down what was created last, by the provider's own clock: ours may be wrong by days."""
        try:
            newest = self.adapter.newest()
        except Refused as refused:
            if refused.status not in NO_LIST:
                raise
            return
        noted = {"listed_until": max((batch.created_at for batch in newest), default=0.0)}
        strangers = json.dumps([batch.provider_id for batch in newest])
        rows.update(self.book, digest, **noted, stranger_ids=strangers)

    def _look_for(self, chunk: Mapping[str, Any], unclear: Unclear, before: str) -> None:
        """After a creation without an answer: the list says whether it happened, now or in a later run."""
        if not unclear.reached:
            rows.update(self.book, chunk["id"], state=before)
            self.result.waiting.append(f"{describe(chunk)} was not created: {unclear}; run again")
            return
        rows.update(self.book, chunk["id"], tried_at=self.clock(), detail=str(unclear))
        chunk = rows.chunk(self.book, chunk["id"])
        for wait in self.listings:
            time.sleep(wait)
            if look_up(self.book, self.adapter, chunk, self.clock()) == "adopted":
                self._adopted(chunk)
                return
        self.result.waiting.append(
            f"{describe(chunk)} may have been created ({unclear}); run again in {self.settle_seconds:.0f} s"
        )

    def _adopted(self, chunk: Mapping[str, Any]) -> None:
        self.result.adopted.append(chunk["id"])
        self.result.requests += chunk["requests"]

    def _refused(self, chunk: Mapping[str, Any], refused: Refused) -> None:
        """Takes a chunk back that the provider refused: nothing was bought, and its requests are free again."""
        remedy = refused.error.remedy or f"change the row {chunk['who']!r}, or run it again later"
        detail = clean(refused.error.message, rows.MOST_WORDS)
        cause = clean(refused.error.cause, 64)
        keys = sorted(rows.members(self.book, chunk["id"]))
        with self.book.writing() as connection:
            for portion in chunks(keys):
                settled = [
                    AttemptResult(
                        number=0,
                        key=key,
                        state="failed",
                        reserved=0,
                        cause=cause,
                        http_status=refused.status,
                        outcome="pending",
                        detail=detail,
                    )
                    for key in portion
                ]
                rows.settle_requests(connection, chunk, settled)
            marks = {"too_large": refused.for_size, "hopeless": refused.error.kind == "row"}
            failed = {"state": "failed", "detail": detail, "remedy": clean(remedy, rows.MOST_WORDS)}
            failed["counts"] = json.dumps(marks)
            connection.execute(sa.update(batches).where(batches.c.id == chunk["id"]).values(**failed))
        if refused.for_size and (self.result.created or rows.in_states(self.book, self.asker, ("submitted",))):
            # The account's queue may be full of what is under way.
            why = f"{describe(chunk)} is too large beside what is under way ({refused.error.message})"
            self.result.waiting.append(f"{why}; collect that when it has ended, then run again")
            return
        if refused.for_size and chunk["requests"] > 1:
            self.result.too_large = True
            return
        reason = f"{self.asker.who}: {self.adapter.server.name} refuses a batch: {refused.error.message}"
        self.result.stopped = Stop(reason=reason, remedy=remedy, cause=refused.error.cause)

    def _lines(self, digest: str) -> Iterator[bytes]:
        """The lines of a chunk as the book has its requests, whatever the study says by now."""
        for body in rows.bodies(self.book, digest):
            yield self.adapter.line(restored(body))


def look_up(book: Book, adapter: BatchApi, chunk: Mapping[str, Any], now: float) -> Literal["adopted", "absent"] | str:
    """Whether the provider's list has a chunk nobody knows of, which is then ours; else why that cannot be said."""
    intended = datetime.fromisoformat(chunk["intended_at"]).timestamp()
    since = intended - SKEW_SECONDS if chunk["listed_until"] is None else chunk["listed_until"]
    try:
        listed = adapter.find(chunk["id"], chunk["requests"], since)
    except (Refused, Unclear) as error:
        return f"cannot be had ({error}); run again"
    with book.writing() as connection:
        others = sa.select(batches.c.provider_id, batches.c.proven).where(
            batches.c.provider_id.is_not(None), batches.c.id != chunk["id"], batches.c.provider == chunk["provider"]
        )
        taken: dict[str, bool] = dict(map(tuple, connection.execute(others)))
        strangers = json.loads(chunk["stranger_ids"])
        possible = [
            batch for batch in listed if batch.provider_id not in strangers and not taken.get(batch.provider_id)
        ]
        free = [batch for batch in possible if batch.provider_id not in taken]
        if free:
            # Ours was created right behind what was there before.
            expected = intended if chunk["listed_until"] is None else since
            ours = min(free, key=lambda batch: abs(batch.created_at - expected))
            adopted = {"state": "submitted", "provider_id": ours.provider_id, "proven": ours.proven, "detail": None}
            still_unknown = (batches.c.id == chunk["id"]) & (batches.c.state == "unknown")
            connection.execute(
                sa.update(batches).where(still_unknown).values(**adopted, submitted_at=timestamp(now), polls_failed=0)
            )
            return "adopted"
    if possible:
        # Another chunk of the same size has taken it; its results will show whose it is.
        return "has one of its size that another chunk has taken for its own; run again when that one has ended"
    return "absent"
