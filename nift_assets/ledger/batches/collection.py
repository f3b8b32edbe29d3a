"""Collecting batches: each result is in the book before anyone uses it, and every request's end is accounted for.

Nothing a provider does raises here: it is waited for, counted or named. Whatever is killed here is run again and ends
as it would have ended.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import IO, Any, Literal

import sqlalchemy as sa

from nift_assets import crash_points
from nift_assets.ledger.batches import rows as batch_rows
from nift_assets.ledger.batches.rows import called, moment
from nift_assets.ledger.batches.submission import look_up
from nift_assets.ledger.book import Asker, Book, Settled
from nift_assets.ledger.database import chunks, clean
from nift_assets.ledger.locks import Lock
from nift_assets.ledger.tables import batches
from nift_assets.protocol.answer import Status
from nift_assets.protocol.batches import Batches, Line, Polled, Refused, Unclear, sold
from nift_assets.protocol.server import Trouble
from nift_assets.rows import Price
from nift_assets.secrets import redaction

# A batch ends within a day. One that is not found after two days has been deleted.
FORGOTTEN_SECONDS = 2 * 86_400.0
LONGEST_POLL_WAIT = 600.0
# Results that come torn are downloaded again so often; then what can be read counts.
MOST_TORN = 3
STRANGERS_LISTED = 100


@dataclass(kw_only=True)
class Reconciled:
    """What became of every request of a batch, and what came back besides.

    `requested` is the sum of answered, rejected, failed, expired, cancelled, missing and unknown. `missing` were not
    done and not billed; `unknown` may have been billed and stay reserved. Of `answered`, `late` are those that had got
    another answer meanwhile, which is kept. `duplicates` and `strangers` (ids nobody asked for) are only counted.
    """

    requested: int = 0
    answered: int = 0
    rejected: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0
    missing: int = 0
    unknown: int = 0
    late: int = 0
    duplicates: int = 0
    torn: int = 0
    strangers: list[str] = field(default_factory=list)

    def ended(self) -> int:
        """All requests whose end is accounted for."""
        return self.answered + self.rejected + self.failed + self.expired + self.cancelled + self.missing + self.unknown


@dataclass(kw_only=True)
class Collected:
    """What a look at the batches of one teacher came to: those it has imported, and what is waited for, in words."""

    imported: dict[str, Reconciled] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)


def collect(
    book: Book,
    asker: Asker,
    adapter: Batches,
    price: Price | None,
    *,
    seconds: float | None = None,
    clock: Callable[[], float] = time.time,
) -> Collected:
    """Looks at every batch that is under way and imports those that have ended. Nothing a provider does raises here.

    Without a price for batches, answers are booked at what was reserved for them. After so many `seconds` no other
    batch is begun: the next call goes on. Two calls at once share the work.
    """
    result = Collected()
    began = time.monotonic()
    for batch in batch_rows.of(book, asker, batch_rows.OPEN):
        if seconds is not None and time.monotonic() - began > seconds:
            result.waiting.append(f"{called(batch)} is looked at next time")
            continue
        lock = book.locks.hold(f"batch {batch['id']}")
        if lock is None:
            result.waiting.append(f"{called(batch)} is being collected by another process")
            continue
        _collect_locked(_Collection(book, asker, adapter, price, clock, result), batch, lock)
    return result


def _collect_locked(collection: _Collection, batch: Mapping[str, Any], lock: Lock) -> None:
    try:
        # Read again behind the lock: whoever had it may have imported the batch.
        collection.look_at(batch_rows.one(collection.book, batch["id"]))
    finally:
        lock.release()


@dataclass
class _Collection:
    book: Book
    asker: Asker
    adapter: Batches
    price: Price | None
    clock: Callable[[], float]
    result: Collected

    def __post_init__(self) -> None:
        self._secrets = redaction.Snapshot(self.adapter.server.key)

    def look_at(self, batch: Mapping[str, Any]) -> None:
        if batch["state"] in batch_rows.OPEN and (elsewhere := batch_rows.elsewhere(batch, self.adapter)):
            self._wait(elsewhere)
        elif batch["state"] in ("intended", "uploaded"):
            self._wait(f"{called(batch)} has not been created yet; run submit_batches")
        elif batch["state"] == "unknown" and look_up(self.book, self.adapter, batch, self.clock()) != "adopted":
            self._wait(f"{called(batch)} may have been created and is not in the list; run submit_batches")
        elif batch["state"] in ("unknown", "submitted"):
            batch = batch_rows.one(self.book, batch["id"])
            due = _due(batch)
            if due <= self.clock() or self.clock() < (batch["polled_at"] or 0.0):
                self._poll(batch)
            else:
                self._wait(f"{called(batch)} is asked about again in {due - self.clock():.0f} s: {batch['detail']}")

    def _poll(self, batch: Mapping[str, Any]) -> None:
        try:
            polled = self.adapter.poll(batch["provider_id"])
        except (Refused, Unclear) as error:
            age = self.clock() - datetime.fromisoformat(batch["submitted_at"]).timestamp()
            if isinstance(error, Refused) and error.status == 404 and age > FORGOTTEN_SECONDS:
                self._import(batch, Polled(ended=True, detail="the provider does not know it any more"), None)
            else:
                self._failed(batch, error)
            return
        batch_rows.update(self.book, batch["id"], polled_at=self.clock(), polls_failed=0, detail=polled.detail)
        crash_points.reach("batch_after_poll")
        if not polled.ended:
            self._wait(f"{called(batch)} is under way: {polled.done:,} of {batch['requests']:,} done")
            return
        with tempfile.TemporaryFile(prefix="nift-batch-") as file:
            try:
                there = self._download(polled, file)
            except (Refused, Unclear) as error:
                self._failed(batch, error)
                return
            crash_points.reach("batch_after_download")
            self._check(batch, polled, file, there)

    def _download(self, polled: Polled, file: IO[bytes]) -> bool:
        """All results in one file; False if the provider has them no more."""
        there = True
        for source in polled.sources:
            try:
                self.adapter.download(source, file)
            except Refused as refused:
                if refused.status not in (404, 410):
                    raise
                there = False
            file.write(b"\n")
        return there

    def _check(self, batch: Mapping[str, Any], polled: Polled, file: IO[bytes], there: bool) -> None:
        """Refuses results that came torn, as often as may help, and results of somebody else's batch."""
        members = batch_rows.members(self.book, batch["id"])
        ids, torn = set(), 0
        for line in _parsed(file, self.adapter):
            if isinstance(line, Line):
                ids.add(line.key)
            torn += line is None or line.kind == "unreadable"
        if torn and batch["downloads_torn"] < MOST_TORN:
            batch_rows.update(self.book, batch["id"], downloads_torn=batch["downloads_torn"] + 1)
            self._wait(f"{called(batch)}: {torn} lines of its results came torn; they are downloaded again")
        elif not batch["proven"] and ids and not ids & members:
            self._disown(batch)
        else:
            self._import(batch, polled, file, there=there)

    def _disown(self, batch: Mapping[str, Any]) -> None:
        strangers = [*json.loads(batch["stranger_ids"]), batch["provider_id"]]
        freed = {"state": "unknown", "provider_id": None, "submitted_at": None, "stranger_ids": json.dumps(strangers)}
        batch_rows.update(self.book, batch["id"], **freed)
        self._wait(f"{called(batch)} is not {batch['provider_id']}, which was of its size; it is looked for again")

    def _import(self, batch: Mapping[str, Any], polled: Polled, file: IO[bytes] | None, *, there: bool = False) -> None:
        """Books every line, and every request without one. What an earlier try has booked stays, and counts again."""
        counts = Reconciled(requested=batch["requests"])
        members = batch_rows.members(self.book, batch["id"])
        seen: set[str] = set()
        stops: list[Trouble] = []
        portion: list[Settled] = []
        answered_there = 0
        for line in _parsed(file, self.adapter) if file else ():
            if line is None:
                counts.torn += 1
            elif line.key not in members:
                counts.strangers.append(clean(line.key, 200) or "")
            elif line.key in seen:
                counts.duplicates += 1
            else:
                seen.add(line.key)
                answered_there += line.kind == "answered"
                portion.append(self._verdict(line, polled, counts, stops))
            if len(portion) == 500:
                self._book(batch, portion)
                portion = []
        # What was done and did not come is billed: it is asked again only when a person says so.
        billed = not there or polled.done > answered_there
        for key in members - seen:
            portion.append(self._without_line(key, polled, counts, billed=billed))
        for some in chunks(portion):
            self._book(batch, some)
        counts.late = batch_rows.late(self.book, batch["id"])
        assert counts.ended() == counts.requested, f"batch {batch['id']}: {counts}"
        self._close(batch, polled, counts, stops)

    def _verdict(self, line: Line, polled: Polled, counts: Reconciled, stops: list[Trouble]) -> Settled:
        server = self.adapter.server
        body = self._secrets.body(line.body)
        ids: dict[str, Any] = {"request_id": clean(line.request_id, 200), "http_status": line.http_status}
        if line.kind == "unreadable":
            counts.unknown += 1
            return _settled(
                line.key, "unknown", "malformed", "unknown", "malformed: its line is no result", evidence=body[:65_536]
            )
        if line.kind == "answered":
            try:
                read = self._read(body)
            except Exception as error:  # what is wrong with one answer must not keep the others out
                counts.unknown += 1
                detail = f"malformed: the response is no whole answer: {redaction.safe(error)}"
                return _settled(line.key, "unknown", "malformed", "unknown", detail, evidence=body[:65_536], **ids)
            counts.answered += 1
            return Settled(number=0, key=line.key, state="answered", reserved=0, body=body, **read, **ids)
        if line.kind in ("expired", "cancelled"):
            setattr(counts, line.kind, getattr(counts, line.kind) + 1)
            outcome: Status = "expired" if line.kind == "expired" else "pending"
            return _settled(line.key, "failed", line.kind, outcome, f"the batch ended as {polled.final} before it")
        trouble = server.trouble(line.http_status, {}, body)
        message = redaction.redact(trouble.message)
        if trouble.kind == "reject":
            counts.rejected += 1
            cause = clean(trouble.cause, 64)
            return Settled(number=0, key=line.key, state="failed", reserved=0, cause=cause, body=body, **ids)
        counts.failed += 1
        if trouble.kind == "stop":
            stops.append(trouble)
        return _settled(line.key, "failed", trouble.cause, "exhausted", f"{trouble.cause}: {message}", **ids)

    def _read(self, body: bytes) -> dict[str, Any]:
        """Tokens and cost of an answer; an exception if it is none. What cannot be counted costs what was reserved."""
        reading = self.adapter.server.read(json.loads(body))
        tokens_in, tokens_out = reading.input_tokens, reading.output_tokens
        cost = batch_rows.AS_RESERVED
        if sold(self.price) and tokens_in is not None and tokens_out is not None:
            cost = self.price.cost(tokens_in, tokens_out, batch=True)
        return {"spent": cost, "input_tokens": tokens_in, "output_tokens": tokens_out}

    def _without_line(self, key: str, polled: Polled, counts: Reconciled, *, billed: bool) -> Settled:
        if billed:
            counts.unknown += 1
            detail = polled.detail or "the batch has no result for it, and may have billed it"
            return _settled(key, "unknown", "missing", "unknown", detail)
        if polled.final == "expired":
            counts.expired += 1
            return _settled(key, "failed", "expired", "expired", "the batch expired before it")
        counts.missing += 1
        detail = f"the batch ended as {polled.final} without it" + (f": {polled.detail}" if polled.detail else "")
        return _settled(key, "failed", "missing", "pending", detail)

    def _book(self, batch: Mapping[str, Any], portion: Sequence[Settled]) -> None:
        """One commit: what became of some requests, each once."""
        if not portion:
            return
        headers = json.dumps({"batch": batch["provider_id"]})
        with self.book.writing() as connection:
            batch_rows.settle(self.book, connection, batch, [replace(each, headers=headers) for each in portion])
        crash_points.reach("batch_after_import")

    def _close(self, batch: Mapping[str, Any], polled: Polled, counts: Reconciled, stops: Sequence[Trouble]) -> None:
        listed = {**asdict(counts), "strangers": counts.strangers[:STRANGERS_LISTED]}
        remedy = next((f"{trouble.message}: {trouble.remedy}" for trouble in stops), None)
        closed = {"state": "imported", "counts": json.dumps(listed), "remedy": remedy, "detail": polled.detail}
        batch_rows.update(self.book, batch["id"], **closed, ended_at=moment(self.clock()))
        self.result.imported[batch["id"]] = counts

    def _failed(self, batch: Mapping[str, Any], error: Exception) -> None:
        failed = batch["polls_failed"] + 1
        row = {"polled_at": self.clock(), "polls_failed": failed, "detail": clean(str(error), batch_rows.MOST_WORDS)}
        batch_rows.update(self.book, batch["id"], **row)
        wait = _due({**batch, **row}) - self.clock()
        self._wait(f"{called(batch)} cannot be asked about ({error}); next time in {wait:.0f} s")

    def _wait(self, sentence: str) -> None:
        self.result.waiting.append(sentence)


def _due(batch: Mapping[str, Any]) -> float:
    """When a batch may be asked about again: at any time while that works, else after twice as long each time."""
    if not batch["polls_failed"]:
        return 0.0
    doubled: float = 15.0 * 2.0 ** min(batch["polls_failed"], 10)
    return float(batch["polled_at"]) + min(LONGEST_POLL_WAIT, doubled)


def _parsed(file: IO[bytes], adapter: Batches) -> Iterator[Line | None]:
    """The lines of a file of results; None for one that is none."""
    file.seek(0)
    for raw in file:
        if not raw.strip():
            continue
        key = None
        try:
            said = json.loads(raw)
            key = said["custom_id"]
            line = adapter.read_line(said)
            if not 100 <= line.http_status < 600:
                raise ValueError(f"{line.http_status} is no status")
        except Exception:  # a line that is no result breaks its reading in many ways, and no other line with it
            yield Line(key=key, kind="unreadable", body=raw) if isinstance(key, str) else None
        else:
            yield line if isinstance(line.request_id, str) else replace(line, request_id=None)


def _settled(
    key: str, state: Literal["failed", "unknown"], cause: str, outcome: Status, detail: str, **more: Any
) -> Settled:
    """How a request ended that has no answer; its attempt is filled in when it is booked."""
    more |= {"cause": clean(cause, 64), "detail": clean(detail, batch_rows.MOST_WORDS)}
    return Settled(number=0, key=key, state=state, reserved=0, outcome=outcome, **more)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the batches of one teacher stand, by the book alone.

    `under_way` are batches at the provider, `unsent` chunks that may have to be created. `remedy` is what the last
    batch needs a person for. `digest` changes whenever a batch does.
    """

    batches: int
    under_way: int
    unsent: int
    remedy: str | None
    digest: str


def standing(book: Book, study: str, who: str) -> Standing:
    """Where the batches of a teacher stand now."""
    mine = (batches.c.study == study) & (batches.c.who == who)
    query = sa.select(batches.c.id, batches.c.state, batches.c.remedy).where(mine)
    with book.reading() as connection:
        rows = connection.execute(query.order_by(batches.c.intended_at, batches.c.id)).all()
    return Standing(
        batches=len(rows),
        under_way=sum(state == "submitted" for _, state, _ in rows),
        unsent=sum(state in batch_rows.UNSENT for _, state, _ in rows),
        remedy=rows[-1].remedy if rows else None,
        digest=hashlib.sha256(repr([tuple(row)[:2] for row in rows]).encode()).hexdigest()[:16],
    )


def missing(book: Book, keys: Sequence[str]) -> tuple[int, int]:
    """How many of the keys have no final answer and may be asked again, and how many only on a person's word."""
    without = sorted(set(keys) - book.answered(keys))
    found = book.outcomes(without)
    unknown = sum(found[key][0] == "unknown" for key in without if key in found)
    return len(without) - unknown, unknown


def reconciled(book: Book, asker: Asker) -> dict[str, Reconciled]:
    """What became of every request of every batch that was imported, by batch."""
    return {
        batch["id"]: Reconciled(**json.loads(batch["counts"])) for batch in batch_rows.of(book, asker, ("imported",))
    }


def cancel(book: Book, asker: Asker, adapter: Batches) -> list[str]:
    """Asks the provider to stop every batch under way; a sentence for each. They are collected like any other."""
    said = []
    for batch in batch_rows.of(book, asker, ("submitted",)):
        try:
            adapter.cancel(batch["provider_id"])
            said.append(f"{called(batch)} is being cancelled")
        except (Refused, Unclear) as error:
            said.append(f"{called(batch)} was not cancelled: {error}")
    return said
