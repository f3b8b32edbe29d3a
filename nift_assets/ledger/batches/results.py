"""The results of one batch: each is in the book before anyone uses it, and every request's end is accounted for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Any, Literal

from nift_assets import crash_points
from nift_assets.ledger.batches import rows
from nift_assets.ledger.book import AttemptResult, Book
from nift_assets.ledger.database import AT_A_TIME, chunks, clean
from nift_assets.protocol.answer import Reading, Status
from nift_assets.protocol.batches import TOO_LARGE, BatchApi, BatchProgress, ResultLine, has_batch_price
from nift_assets.protocol.server import ServerError
from nift_assets.rows import Price
from nift_assets.secrets import redaction

STRANGERS_LISTED = 100
# What is kept of a line that is no result, and of the names in one that is.
EVIDENCE_BYTES, NAME, CAUSE = 65_536, 200, 64


@dataclass(kw_only=True)
class Reconciliation:
    """What became of every request of a batch, and what came back besides.

    `requested` is the sum of answered, rejected, failed, expired, cancelled, missing and unknown. `missing` were not
    done and not billed; `unknown` may have been billed and stay reserved. Of `answered`, `late` are those that had got
    another answer meanwhile, which is kept. `duplicates` and `strangers` (ids nobody asked for) are only counted. A
    batch that failed for being `too_large` goes out again in smaller chunks; one of which every request was refused for
    what its row says is `hopeless`, and goes out no more.
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
    too_large: bool = False
    hopeless: bool = False

    def ended(self) -> int:
        """All requests whose end is accounted for."""
        return self.answered + self.rejected + self.failed + self.expired + self.cancelled + self.missing + self.unknown

    def stored(self) -> str:
        """As the book keeps it; of many strangers the first."""
        return json.dumps({**asdict(self), "strangers": self.strangers[:STRANGERS_LISTED]})


class ResultImport:
    """Books the results of one batch: every line, and every request without one.

    What an earlier try has booked stays, and counts again. It owns the counts, and the troubles that need a person.
    """

    def __init__(
        self, book: Book, adapter: BatchApi, price: Price | None, chunk: Mapping[str, Any], polled: BatchProgress
    ) -> None:
        self._book, self._server, self._price = book, adapter.server, price
        self._chunk, self._polled, self._adapter = chunk, polled, adapter
        self._secrets = redaction.SecretSnapshot(adapter.server.key)
        self._members = rows.members(book, chunk["id"])
        self._errors: list[ServerError] = []
        self.counts = Reconciliation(requested=chunk["requests"])

    def remedy(self) -> str | None:
        """What the first of the troubles needs a person for."""
        who = f"the row {self._chunk['who']!r}"
        said = (f"{error.message}: {error.remedy.replace('the row', who)}" for error in self._errors)
        return next(said, None)

    def run(self, file: IO[bytes] | None, *, complete: bool) -> None:
        """Books a file of results; None, or one that is not `complete`, may lack what was billed."""
        seen: set[str] = set()
        portion: list[AttemptResult] = []
        answered_there = 0
        for line in parse_results(file, self._adapter) if file else ():
            if line is None:
                self.counts.torn += 1
            elif line.key not in self._members:
                self.counts.strangers.append(clean(line.key, NAME) or "")
            elif line.key in seen:
                self.counts.duplicates += 1
            else:
                seen.add(line.key)
                answered_there += line.kind == "answered"
                portion.append(self._settled(line))
            if len(portion) == AT_A_TIME:
                self._store(portion)
                portion = []
        # What was done and did not come is billed: it is asked again only when a person says so.
        billed = not complete or self._polled.done > answered_there
        portion += [self._without_line(key, billed=billed) for key in self._members - seen]
        for part in chunks(portion):
            self._store(part)
        self.counts.too_large = self._polled.final == "failed" and self._polled.cause in TOO_LARGE
        refused = [error for error in self._errors if error.kind == "row"]
        self.counts.hopeless = len(refused) == self.counts.requested
        self.counts.late = rows.late_answers(self._book, self._chunk["id"])
        assert self.counts.ended() == self.counts.requested, f"batch {self._chunk['id']}: {self.counts}"

    def _settled(self, line: ResultLine) -> AttemptResult:
        """How the request of a line ended."""
        body = self._secrets.body(line.body)
        http: dict[str, Any] = {"request_id": clean(line.request_id, NAME), "http_status": line.http_status}
        if line.kind == "unreadable":
            return self._malformed(line.key, "its line is no result", body)
        if line.kind == "answered":
            try:
                reading = self._server.read(json.loads(body))
                cost = self._cost(reading)
            except Exception as error:  # what is wrong with one answer must not keep the others out
                why = f"the response is no whole answer: {redaction.safe(error)}"
                return self._malformed(line.key, why, body, **http)
            if reading.failed:
                self.counts.failed += 1
                cause = str(reading.finish_reason)
                why = f"the server ended it with {cause!r}"
                return replace(_ended(line.key, "failed", cause, "exhausted", why, **http), **cost)
            self.counts.answered += 1
            return AttemptResult(number=0, key=line.key, state="answered", reserved=0, body=body, **cost, **http)
        if line.kind in ("expired", "cancelled"):
            setattr(self.counts, line.kind, getattr(self.counts, line.kind) + 1)
            outcome: Status = "expired" if line.kind == "expired" else "pending"
            return _ended(line.key, "failed", line.kind, outcome, f"the batch ended as {self._polled.final} before it")
        return self._error_line(line, body, http)

    def _error_line(self, line: ResultLine, body: bytes, http: Mapping[str, Any]) -> AttemptResult:
        error = self._server.read_error(line.http_status, {}, body)
        if error.kind == "reject":
            self.counts.rejected += 1
            cause = clean(error.cause, CAUSE)
            return AttemptResult(number=0, key=line.key, state="failed", reserved=0, cause=cause, body=body, **http)
        self.counts.failed += 1
        if error.kind in ("stop", "row"):
            self._errors.append(error)
        detail = f"{error.cause}: {redaction.redact(error.message)}"
        return _ended(line.key, "failed", error.cause, "exhausted", detail, **http)

    def _malformed(self, key: str, why: str, body: bytes, **http: Any) -> AttemptResult:
        self.counts.unknown += 1
        evidence = body[:EVIDENCE_BYTES]
        return _ended(key, "unknown", "malformed", "unknown", f"malformed: {why}", evidence=evidence, **http)

    def _cost(self, reading: Reading) -> dict[str, Any]:
        """Tokens and cost of an answer. What is not counted costs what was reserved."""
        tokens_in, tokens_out = reading.input_tokens, reading.output_tokens
        cost = rows.AS_RESERVED
        if has_batch_price(self._price) and tokens_in is not None and tokens_out is not None:
            cost = self._price.cost(tokens_in, tokens_out, batch=True)
        return {"spent": cost, "input_tokens": tokens_in, "output_tokens": tokens_out}

    def _without_line(self, key: str, *, billed: bool) -> AttemptResult:
        polled = self._polled
        if billed:
            self.counts.unknown += 1
            detail = polled.detail or "the batch has no result for it, and may have billed it"
            return _ended(key, "unknown", "missing", "unknown", detail)
        if polled.final == "expired":
            self.counts.expired += 1
            return _ended(key, "failed", "expired", "expired", "the batch expired before it")
        self.counts.missing += 1
        detail = f"the batch ended as {polled.final} without it" + (f": {polled.detail}" if polled.detail else "")
        return _ended(key, "failed", "missing", "pending", detail)

    def _store(self, portion: Sequence[AttemptResult]) -> None:
        """One commit: what became of some requests, each once."""
        headers = json.dumps({"batch": self._chunk["provider_id"]})
        with self._book.writing() as connection:
            rows.settle_requests(connection, self._chunk, [replace(attempt, headers=headers) for attempt in portion])
        crash_points.reach("batch_after_import")


def parse_results(file: IO[bytes], adapter: BatchApi) -> Iterator[ResultLine | None]:
    """The lines of a file of results; None for one that is none."""
    file.seek(0)
    for raw in file:
        if not raw.strip():
            continue
        key = None
        try:
            fields = json.loads(raw)
            key = fields["custom_id"]
            line = adapter.read_line(fields)
            if not 100 <= line.http_status < 600:
                raise ValueError(f"{line.http_status} is no status")
        except Exception:  # a line that is no result breaks its reading in many ways, and no other line with it
            yield ResultLine(key=key, kind="unreadable", body=raw) if isinstance(key, str) else None
        else:
            yield line if isinstance(line.request_id, str) else replace(line, request_id=None)


def _ended(
    key: str, state: Literal["failed", "unknown"], cause: str, outcome: Status, detail: str, **more: Any
) -> AttemptResult:
    """How a request ended that has no answer; its attempt is filled in when it is booked."""
    more |= {"cause": clean(cause, CAUSE), "detail": clean(detail, rows.MOST_WORDS)}
    return AttemptResult(number=0, key=key, state=state, reserved=0, outcome=outcome, **more)
