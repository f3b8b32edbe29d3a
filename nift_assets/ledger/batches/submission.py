"""Submitting batches: a chunk is written down before anything leaves, and none is ever created twice.

Whatever is killed here is run again and goes on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from nift_assets import crash_points
from nift_assets.ledger import accounts
from nift_assets.ledger.batches import rows
from nift_assets.ledger.batches.chunking import ChunkItem, plan_chunks
from nift_assets.ledger.batches.creation import LISTINGS, SETTLE_SECONDS, Creation, SubmissionResult
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.dispatch import over_budget
from nift_assets.ledger.progress import Stop
from nift_assets.ledger.request_queue import PassedOver
from nift_assets.ledger.tables import batches
from nift_assets.protocol.batches import BatchApi, json_bytes
from nift_assets.protocol.request import Request
from nift_assets.rows import Price


def submit(
    book: Book,
    asker: Asker,
    questions: Sequence[Request],
    adapter: BatchApi,
    price: Price,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    listings: Sequence[float] = LISTINGS,
    clock: Callable[[], float] = time.time,
) -> SubmissionResult:
    """Batches of all that nobody has answered or is asking, after every chunk of an earlier run has been accounted for.

    Raises ValueError if another process asks as the same writer.
    """
    creation = Creation(
        book=book, asker=asker, adapter=adapter, settle_seconds=settle_seconds, listings=listings, clock=clock
    )
    result = creation.result
    with book.session(asker.writer) as session:
        book.open_accounts(asker)
        for chunk in rows.in_states(book, asker, rows.UNSENT):
            creation.finish(chunk)
            if result.stopped:
                return result
        if not result.waiting:
            _Submission(session, price, creation).submit(questions)
    return result


@dataclass
class _Submission:
    """Puts into chunks what is missing, as far as the budget reaches, and sends one after the other.

    It owns the numbers of the session's attempts.
    """

    session: int
    price: Price
    creation: Creation
    next_number: int = 1

    def submit(self, questions: Sequence[Request]) -> None:
        """Sends what is missing; what a provider finds too large goes into smaller chunks, until it is taken."""
        by_key = {question.key: question for question in questions}
        result = self.creation.result
        if stop := self._hopeless(set(by_key)):
            result.stopped = stop
            return
        while True:
            result.too_large = False
            self._submit(by_key)
            if not result.too_large or result.stopped or result.waiting:
                return

    def _hopeless(self, keys: set[str]) -> Stop | None:
        """Why what is wanted is not sent again: all of it was refused before for what its row says."""
        creation = self.creation
        for chunk, members in rows.hopeless(creation.book, creation.asker, creation.adapter.server.name):
            if unanswered := (members & keys) - creation.book.answered(members & keys):
                why = chunk["detail"] or "every request was refused alike"
                reason = f"{creation.asker.who}: {len(unanswered):,} requests were refused in a batch before ({why})"
                remedy = chunk["remedy"] or f"change the row {creation.asker.who!r}"
                return Stop(reason=reason, remedy=f"{remedy}; as they are they are not sent again", cause="parameter")
        return None

    def _submit(self, by_key: Mapping[str, Request]) -> None:
        creation, result, adapter = self.creation, self.creation.result, self.creation.adapter
        book, asker, ours = creation.book, creation.asker, result.requests
        claimed = book.intend(self.session, asker, list(by_key.values()))
        open_keys = (claimed.ours, claimed.elsewhere, claimed.in_batch, claimed.unknown)
        result.answered = len(by_key) - sum(map(len, open_keys))
        result.elsewhere, result.in_batch, result.unknown = map(len, open_keys[1:])
        result.in_batch -= ours
        items = [_item(by_key[key], adapter, self.price) for key in claimed.ours]
        dear = self._too_dear(items)
        refused = rows.too_large(book, asker, adapter.server.name)
        most = adapter.most_requests if refused is None else min(adapter.most_requests, max(1, refused // 2))
        plan = plan_chunks((item for item in items if item.key not in dear), most, adapter.most_bytes)
        self._reject(plan.too_large)
        result.left = sum(map(len, plan.chunks)) + len(dear)
        for items_of_chunk in plan.chunks:
            chunk = self._intend(items_of_chunk)
            if chunk is not None:
                result.left -= chunk["requests"]
                creation.create(chunk)
            if result.too_large or result.stopped or result.waiting:
                return
        if dear:
            asker_cap = next((who for who, cap in asker.caps() if cap is not None), "")
            passed_over = PassedOver()
            for key, amount in dear.items():
                passed_over.add(by_key[key], amount)
            result.stopped = over_budget(asker, asker_cap, passed_over)

    def _too_dear(self, items: Sequence[ChunkItem]) -> dict[str, int]:
        """The requests that may each cost more than the caps have left, with the most they can cost."""
        asker = self.creation.asker
        with self.creation.book.writing() as connection:
            left = accounts.left(connection, asker.study, asker.caps())
        return {item.key: item.amount for item in items if left is not None and item.amount > left}

    def _reject(self, items: Sequence[ChunkItem]) -> None:
        """Final answers for requests larger than a whole chunk: no model reads that much, by batch or online."""
        most = self.creation.adapter.most_bytes
        too_large = "the request has {:,} bytes, a batch takes {:,}"
        answers = [
            (item.key, 413, json_bytes({"error": {"message": too_large.format(item.size, most)}})) for item in items
        ]
        self.creation.book.keep(self.session, answers)
        self.creation.result.rejected = len(items)

    def _intend(self, items: Sequence[ChunkItem]) -> Mapping[str, Any] | None:
        """Writes a chunk down, with as many of its requests as the caps have room for; None if that is none."""
        book, asker, provider = self.creation.book, self.creation.asker, self.creation.adapter.server.name
        crash_points.reach("batch_before_intent")
        with book.writing() as connection:
            accounts.lock(connection, asker.study, asker.who)
            amounts = [item.amount for item in items]
            fitting, account = accounts.affordable(connection, asker.study, asker.caps(), amounts)
            if account is not None:
                self.creation.result.stopped = _over_budget(asker, account)
            if not fitting:
                return None
            ordinal = connection.execute(sa.select(sa.func.count()).select_from(batches)).scalar_one()
            digest = _digest([item.key for item in items[:fitting]], provider, ordinal)
            chunk = {
                "id": digest,
                "study": asker.study,
                "who": asker.who,
                "provider": provider,
                "model": items[0].model,
                "requests": fitting,
                "intended_at": rows.timestamp(self.creation.clock()),
            }
            rows.intend(connection, self.session, self.next_number, chunk, items[:fitting])
        self.next_number += fitting
        crash_points.reach("batch_after_intent")
        return rows.chunk(book, digest)


def _item(request: Request, adapter: BatchApi, price: Price) -> ChunkItem:
    payload = json.dumps(adapter.server.payload(request), ensure_ascii=False)
    size = len(payload.encode("utf-8", "surrogatepass"))
    return ChunkItem(
        key=request.key,
        model=request.model,
        size=len(adapter.line(request)),
        amount=price.most(size, request.output_limit, batch=True),
    )


def _over_budget(asker: Asker, account: str) -> Stop:
    cap = dict(asker.caps())[account] or 0
    name = f"{asker.study}/{account}" if account else f"the study {asker.study}"
    return Stop(
        reason=f"budget reached: the cap of {name} is ${cap / 1e9:,.2f} and leaves room for no more of this chunk",
        remedy="collect what is under way, which costs less than is reserved, or raise the cap; then run it again",
        cause="budget",
    )


def _digest(keys: Sequence[str], provider: str, ordinal: int) -> str:
    """A chunk's name: what is in it, who is asked, and which chunk of this book it is."""
    return hashlib.sha256("\n".join([provider, str(ordinal), *sorted(keys)]).encode()).hexdigest()
