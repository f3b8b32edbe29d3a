"""Submitting batches: a chunk is written down before anything leaves, and none is ever created twice.

What became of a creation nobody answered is found out by listing, and not by creating it again. Whatever is killed here
is run again and goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from nift_assets import crash_points
from nift_assets.ledger import accounts
from nift_assets.ledger.batches import rows
from nift_assets.ledger.batches.rows import called, moment
from nift_assets.ledger.book import Asker, Book, Settled
from nift_assets.ledger.database import chunks, clean
from nift_assets.ledger.progress import Stop
from nift_assets.ledger.tables import attempts, batches, requests
from nift_assets.protocol.batches import Batches, Refused, Unclear, json_bytes
from nift_assets.protocol.request import Message, Request
from nift_assets.rows import Price

# A creation without an answer may still show up in the list; after so long it has not happened.
SETTLE_SECONDS = 600.0
# The list is looked at after these waits when a creation got no answer; what it does not show by then waits for the
# next run.
LISTINGS = (1.0, 5.0, 15.0)
# Our clock and the provider's may differ: what was created so long before the intent may still be ours.
SKEW_SECONDS = 86_400.0


@dataclass(kw_only=True)
class Submitted:
    """What a submission came to: its chunks by their names in the book, and why it ended early if it did.

    `waiting` are sentences about chunks of which it is not yet known whether they were created; run it again later.
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

    def in_words(self) -> str:
        parts = [f"{len(self.created)} batches created, {len(self.adopted)} found again: {self.requests:,} requests"]
        named = ("answered", "in_batch", "elsewhere", "unknown", "rejected", "left")
        parts += [f"{getattr(self, name):,} {name.replace('_', ' ')}" for name in named if getattr(self, name)]
        return "; ".join([*parts, *self.waiting, *([str(self.stopped)] if self.stopped else [])])


def submit(
    book: Book,
    asker: Asker,
    questions: Sequence[Request],
    adapter: Batches,
    price: Price,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    listings: Sequence[float] = LISTINGS,
    clock: Callable[[], float] = time.time,
) -> Submitted:
    """Batches of all that nobody has answered or is asking, after every chunk of an earlier run has been accounted for.

    Raises ValueError if another process asks as the same writer.
    """
    with book.session(asker.writer) as session:
        submission = _Submission(book, session, asker, adapter, price, settle_seconds, listings, clock)
        submission.run(questions)
        return submission.result


@dataclass
class _Submission:
    book: Book
    session: int
    asker: Asker
    adapter: Batches
    price: Price
    settle_seconds: float
    listings: Sequence[float]
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self.result = Submitted()
        self._next_number = 1

    def run(self, questions: Sequence[Request]) -> None:
        self.book.open_accounts(self.asker)
        for batch in rows.of(self.book, self.asker, rows.UNSENT):
            self._finish(batch)
            if self.result.stopped:
                return
        if not self.result.waiting:
            self._begin(questions)

    def _finish(self, batch: Mapping[str, Any]) -> None:
        """Accounts for a chunk of an earlier run: it is found at the provider, or surely not there and created."""
        if elsewhere := rows.elsewhere(batch, self.adapter):
            self.result.waiting.append(elsewhere)
            return
        if batch["state"] == "unknown":
            found = look_up(self.book, self.adapter, batch, self.clock())
            if found == "adopted":
                self.result.adopted.append(batch["id"])
                self.result.requests += batch["requests"]
                return
            since = self.clock() - (batch["tried_at"] or 0.0)
            if since < 0:
                # The clock was set back: the wait begins now.
                rows.update(self.book, batch["id"], tried_at=self.clock())
            if found != "absent":
                self.result.waiting.append(f"{called(batch)} may have been created, and the list {found}")
                return
            if since < self.settle_seconds:
                left = self.settle_seconds - max(since, 0.0)
                self.result.waiting.append(
                    f"{called(batch)} may have been created and is not in the list yet; run again in {left:.0f} s"
                )
                return
        self._send(batch)

    def _begin(self, questions: Sequence[Request]) -> None:
        """Puts into chunks what is missing, as far as the budget reaches, and sends one after the other."""
        by_key = {question.key: question for question in questions}
        intent = self.book.intend(self.session, self.asker, list(by_key.values()))
        known = (intent.ours, intent.elsewhere, intent.in_batch, intent.unknown)
        self.result.answered = len(by_key) - sum(map(len, known))
        self.result.elsewhere, self.result.in_batch, self.result.unknown = map(len, known[1:])
        plan = plan_chunks(
            (self._item(by_key[key]) for key in intent.ours), self.adapter.most_requests, self.adapter.most_bytes
        )
        self._reject(plan.too_large)
        left = sum(map(len, plan.chunks))
        for chunk in plan.chunks:
            batch = self._intend(chunk)
            if batch is not None:
                left -= batch["requests"]
                self._send(batch)
            if self.result.stopped or self.result.waiting:
                break
        self.result.left = left

    def _item(self, request: Request) -> Item:
        payload = json.dumps(self.adapter.server.payload(request), ensure_ascii=False)
        limit = request.parameters.get("max_tokens") or request.parameters.get("max_completion_tokens")
        # A byte is the smallest token there is, so this is the most the request can cost.
        input_tokens = len(payload.encode("utf-8", "surrogatepass"))
        return Item(
            key=request.key,
            model=request.model,
            size=len(self.adapter.line(request)),
            reserve=self.price.cost(input_tokens, int(limit or self.price.max_output), batch=True),
        )

    def _reject(self, items: Sequence[Item]) -> None:
        """Final answers for requests larger than a whole chunk: no model reads that much, by batch or online."""
        most = self.adapter.most_bytes
        here = [
            (
                i.key,
                413,
                json_bytes({"error": {"message": f"the request has {i.size:,} bytes, a batch takes {most:,}"}}),
            )
            for i in items
        ]
        self.book.keep(self.session, here)
        self.result.rejected = len(items)

    def _intend(self, chunk: Sequence[Item]) -> Mapping[str, Any] | None:
        """Writes a chunk down, with as many of its requests as the caps have room for; None if that is none."""
        crash_points.reach("batch_before_intent")
        with self.book.writing() as connection:
            study, who = self.asker.study, self.asker.who
            accounts.lock(connection, study, who)
            amounts = [item.reserve for item in chunk]
            fitting, account = accounts.affordable(connection, study, self.asker.caps(), amounts)
            if account is not None:
                self._over_budget(account)
            if not fitting:
                return None
            keys = [item.key for item in chunk[:fitting]]
            ordinal = connection.execute(sa.select(sa.func.count()).select_from(batches)).scalar_one()
            digest = _digest(keys, self.adapter.server.name, ordinal)
            now = moment(self.clock())
            row = {
                "id": digest,
                "study": study,
                "who": who,
                "provider": self.adapter.server.name,
                "model": chunk[0].model,
                "requests": fitting,
                "state": "intended",
                "intended_at": now,
            }
            connection.execute(sa.insert(batches).values(**row))
            for some in chunks(keys):
                ours = requests.c.key.in_(some)
                connection.execute(sa.update(requests).where(ours).values(in_batch=digest, claimed_by=None))
            sent = [
                {
                    "session": self.session,
                    "number": self._next_number + place,
                    "key": item.key,
                    "study": study,
                    "who": who,
                    "batch": digest,
                    "state": "sent",
                    "sent_at": now,
                    "reserved": item.reserve,
                    "spent": 0,
                }
                for place, item in enumerate(chunk[:fitting])
            ]
            connection.execute(sa.insert(attempts), sent)
            accounts.post(connection, study, who, reserved=sum(amounts[:fitting]), spent=0)
        self._next_number += fitting
        crash_points.reach("batch_after_intent")
        return rows.one(self.book, digest)

    def _send(self, batch: Mapping[str, Any]) -> None:
        """Uploads a chunk and has it created. Before the creation leaves, the book says that it may have happened."""
        digest, file_id = batch["id"], batch["file_id"]
        state = "uploaded" if file_id else "intended"
        try:
            if file_id is None and (file_id := self.adapter.upload(digest, self._lines(digest))) is not None:
                crash_points.reach("batch_after_upload")
                state = "uploaded"
                rows.update(self.book, digest, state=state, file_id=file_id)
        except Refused as refused:
            self._refuse(batch, refused)
            return
        except Unclear as unclear:
            # Files cost nothing: this one is uploaded again, whether or not it arrived.
            self.result.waiting.append(f"{called(batch)} was not uploaded ({unclear}); run again")
            return
        rows.update(self.book, digest, state="unknown", file_id=file_id, tried_at=self.clock())
        crash_points.reach("batch_before_create")
        try:
            provider_id = self.adapter.create(digest, file_id, self._lines(digest))
        except Refused as refused:
            self._refuse(batch, refused)
        except Unclear as unclear:
            self._look_for(batch, unclear, state)
        else:
            crash_points.reach("batch_after_create")
            submitted = {"state": "submitted", "provider_id": provider_id, "proven": True, "detail": None}
            rows.update(self.book, digest, **submitted, submitted_at=moment(self.clock()))
            crash_points.reach("batch_after_record")
            self.result.created.append(digest)
            self.result.requests += batch["requests"]

    def _look_for(self, batch: Mapping[str, Any], unclear: Unclear, before: str) -> None:
        """After a creation without an answer: the list says whether it happened, now or in a later run."""
        if not unclear.reached:
            rows.update(self.book, batch["id"], state=before)
            self.result.waiting.append(f"{called(batch)} was not created: {unclear}; run again")
            return
        rows.update(self.book, batch["id"], tried_at=self.clock(), detail=str(unclear))
        batch = rows.one(self.book, batch["id"])
        for wait in self.listings:
            time.sleep(wait)
            if look_up(self.book, self.adapter, batch, self.clock()) == "adopted":
                self.result.adopted.append(batch["id"])
                self.result.requests += batch["requests"]
                return
        self.result.waiting.append(
            f"{called(batch)} may have been created ({unclear}); run again in {self.settle_seconds:.0f} s"
        )

    def _refuse(self, batch: Mapping[str, Any], refused: Refused) -> None:
        """Takes a chunk back that the provider refused: nothing was bought, and its requests are free again."""
        remedy = refused.trouble.remedy or "change the row, or run it again later"
        said = clean(refused.trouble.message, rows.MOST_WORDS)
        keys = sorted(rows.members(self.book, batch["id"]))
        with self.book.writing() as connection:
            for some in chunks(keys):
                settled = [
                    Settled(
                        number=0,
                        key=key,
                        state="failed",
                        reserved=0,
                        cause=clean(refused.trouble.cause, 64),
                        http_status=refused.status,
                        outcome="pending",
                        detail=said,
                    )
                    for key in some
                ]
                rows.settle(self.book, connection, batch, settled)
            row = {"state": "failed", "detail": said, "remedy": clean(remedy, rows.MOST_WORDS)}
            connection.execute(sa.update(batches).where(batches.c.id == batch["id"]).values(**row))
        reason = f"{self.asker.who}: {self.adapter.server.name} refuses a batch: {refused.trouble.message}"
        self.result.stopped = Stop(reason=reason, remedy=remedy, cause=refused.trouble.cause)

    def _over_budget(self, account: str) -> None:
        cap = dict(self.asker.caps())[account] or 0
        name = f"{self.asker.study}/{account}" if account else f"the study {self.asker.study}"
        self.result.stopped = Stop(
            reason=f"budget reached: the cap of {name} is ${cap / 1e9:,.2f} and leaves room for no more of this chunk",
            remedy="collect what is under way, which costs less than is reserved, or raise the cap; then run it again",
            cause="budget",
        )

    def _lines(self, digest: str) -> Iterator[bytes]:
        """The lines of a chunk as the book has its requests: the same ones after a crash, whatever the study says."""
        with self.book.reading() as connection:
            query = sa.select(attempts.c.key).where(attempts.c.batch == digest).order_by(attempts.c.number)
            keys = connection.execute(query).scalars().all()
        for some in chunks(keys):
            with self.book.reading() as connection:
                query = sa.select(requests.c.key, requests.c.body).where(requests.c.key.in_(some))
                bodies: dict[str, str] = dict(map(tuple, connection.execute(query)))
            for key in some:
                yield self.adapter.line(_restored(bodies[key]))


def look_up(book: Book, adapter: Batches, batch: Mapping[str, Any], now: float) -> Literal["adopted", "absent"] | str:
    """Whether the provider's list has a chunk nobody knows of, which is then ours; else why that cannot be said."""
    since = datetime.fromisoformat(batch["intended_at"]).timestamp() - SKEW_SECONDS
    try:
        found = adapter.find(batch["id"], batch["requests"], since)
    except (Refused, Unclear) as error:
        return f"cannot be had ({error}); run again"
    with book.writing() as connection:
        known = sa.select(batches.c.provider_id, batches.c.proven).where(
            batches.c.provider_id.is_not(None), batches.c.id != batch["id"], batches.c.provider == batch["provider"]
        )
        taken: dict[str, bool] = dict(map(tuple, connection.execute(known)))
        strangers = json.loads(batch["stranger_ids"])
        possible = [each for each in found if each.provider_id not in strangers and not taken.get(each.provider_id)]
        free = [each for each in possible if each.provider_id not in taken]
        if free:
            intended = since + SKEW_SECONDS
            ours = min(free, key=lambda each: abs(each.created_at - intended))
            adopted = {"state": "submitted", "provider_id": ours.provider_id, "proven": ours.proven, "detail": None}
            still_unknown = (batches.c.id == batch["id"]) & (batches.c.state == "unknown")
            connection.execute(
                sa.update(batches).where(still_unknown).values(**adopted, submitted_at=moment(now), polls_failed=0)
            )
            return "adopted"
    if possible:
        # Another chunk of the same size has taken it; its results will show whose it is.
        return "has one of its size that another chunk has taken for its own; run again when that one has ended"
    return "absent"


def _restored(body: str) -> Request:
    """The request whose canonical body stands in the book."""
    said = json.loads(body)
    messages = tuple(Message(role=role, content=content) for role, content in said.pop("messages"))
    return Request(**said, messages=messages)


def _digest(keys: Sequence[str], provider: str, ordinal: int) -> str:
    """A chunk's name: what is in it, who is asked, and which chunk of this book it is."""
    return hashlib.sha256("\n".join([provider, str(ordinal), *sorted(keys)]).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Item:
    """A request that is to go into a chunk: its size there, and the most it can cost."""

    key: str
    model: str
    size: int
    reserve: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The chunks in the order of the requests, and the requests that are too large for any."""

    chunks: Sequence[Sequence[Item]]
    too_large: Sequence[Item]


def plan_chunks(items: Iterable[Item], most_requests: int, most_bytes: int) -> Plan:
    """Chunks of one model each within both limits, as far as possible of different sizes.

    A provider that lets us attach no name to a batch shows how many requests are in it: by that a chunk is found again.
    """
    by_model: dict[str, list[Item]] = {}
    too_large = []
    for item in items:
        if item.size > most_bytes:
            too_large.append(item)
        else:
            by_model.setdefault(item.model, []).append(item)
    cut: list[list[Item]] = []
    sizes: set[int] = set()
    for waiting in by_model.values():
        start = 0
        while start < len(waiting):
            count = _different(_fill(waiting, start, most_requests, most_bytes), sizes)
            sizes.add(count)
            cut.append(waiting[start : start + count])
            start += count
    return Plan(chunks=cut, too_large=too_large)


def _fill(waiting: Sequence[Item], start: int, most_requests: int, most_bytes: int) -> int:
    size = 0
    for count in range(min(most_requests, len(waiting) - start)):
        size += waiting[start + count].size
        if size > most_bytes:
            return count
    return min(most_requests, len(waiting) - start)


def _different(count: int, sizes: Collection[int]) -> int:
    """The largest size up to this one that no other chunk has; this one where all are taken."""
    return next((size for size in range(count, 0, -1) if size not in sizes), count)
