"""What became of an attempt, as it is settled: an answer, a refusal, a failure, or nobody knows."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from nift_assets.ledger.book import Asker, AttemptResult
from nift_assets.ledger.connection import Failure, Response, asked_wait
from nift_assets.ledger.in_flight import Attempt
from nift_assets.ledger.progress import Counts, Stop
from nift_assets.ledger.refusals import Refusals
from nift_assets.ledger.retries import Retries
from nift_assets.ledger.throttle import Throttle
from nift_assets.protocol.answer import Reading
from nift_assets.protocol.server import Remote, ServerError
from nift_assets.rows import Price
from nift_assets.secrets import redaction

log = logging.getLogger(__name__)

EVIDENCE_BYTES = 64 * 2**10


class Settlement:
    """Reads what became of each attempt of one run, and says which attempts are settled by it.

    It owns the refusals that are held back, whether anything was answered yet, and the secrets no row may show.
    """

    def __init__(
        self,
        asker: Asker,
        server: Remote,
        price: Price | None,
        *,
        counts: Counts,
        throttle: Throttle,
        retries: Retries,
        stop: Callable[[Stop], None],
    ) -> None:
        self._asker, self._server, self._price = asker, server, price
        self._counts, self._throttle, self._retries, self._stop = counts, throttle, retries, stop
        self.refusals = Refusals()
        self._answered_any = False
        self._secrets = redaction.SecretSnapshot(server.key)

    def settled(self, attempt: Attempt, outcome: Response | Failure, now: float) -> list[AttemptResult]:
        """The attempts that are settled now: this one, unless it is held back, and those that waited for it."""
        if isinstance(outcome, Failure):
            if outcome.sent:
                return [self._unknown(attempt, outcome.cause, outcome.message, now)]
            return [self._never_sent(attempt, outcome, now)]
        body = self._secrets.body(outcome.body)
        response = outcome if body is outcome.body else replace(outcome, body=body)
        try:
            return self._read(attempt, response, now)
        except Exception as error:
            why = f"the response is no whole answer: {redaction.safe(error)}"
            return [self._unknown(attempt, "malformed", why, now, response)]

    def _read(self, attempt: Attempt, response: Response, now: float) -> list[AttemptResult]:
        """How an attempt ended that has a response. Raises whatever reading a response that is none may raise."""
        status = response.status
        self._listen(response.headers)
        if status == 200:
            body = json.loads(response.body)
            if code := _error_within(body):
                error = self._server.read_error(code, response.headers, response.body)
                return self._error_response(attempt, replace(response, status=code), error, now)
            reading = self._server.read(body)
            return (self._not_made if reading.failed else self._answered)(attempt, response, reading, now)
        if 200 < status < 300:
            return [self._unknown(attempt, "malformed", f"HTTP {status} is no answer", now, response)]
        if 300 <= status < 400:
            server_error = ServerError(
                kind="stop",
                cause="redirected",
                message=f"{self._server.url} redirects ({status}), and a key is sent to no other place",
                remedy="set base_url in the row to the server's real address",
            )
        else:
            server_error = self._server.read_error(status, response.headers, response.body)
        return self._error_response(attempt, response, server_error, now)

    def _listen(self, headers: Mapping[str, str]) -> None:
        """Takes what the headers say of the limits; what cannot be read there spoils no answer."""
        try:
            if quota := self._server.quota(headers):
                self._throttle.heard(quota)
        except Exception as error:
            log.warning("the limits in the headers cannot be read: %s", redaction.safe(error))

    def _not_made(self, attempt: Attempt, response: Response, reading: Reading, now: float) -> list[AttemptResult]:
        """An answer that the server says it could not finish: what it counted is booked, and it is asked again."""
        why = f"the server ended it with {reading.finish_reason!r}"
        failed = _failed(attempt, str(reading.finish_reason), response.body[:EVIDENCE_BYTES], response)
        tokens_in, tokens_out = reading.input_tokens, reading.output_tokens
        spent = self._spent(reading, attempt.queued.amount) if tokens_in or tokens_out else 0
        self._counts.spent += spent
        asked = asked_wait(response.headers)
        failed = replace(failed, spent=spent, input_tokens=tokens_in, output_tokens=tokens_out)
        return [self._retries.failed(failed, attempt.queued, why, now, asked=asked)]

    def _spent(self, reading: Reading, most: int) -> int:
        """What an answer cost. One that does not count its tokens is booked at the most it can have cost."""
        if not self._price:
            return 0
        if reading.input_tokens is None or reading.output_tokens is None:
            return most
        return self._price.cost(reading.input_tokens, reading.output_tokens)

    def _answered(self, attempt: Attempt, response: Response, reading: Reading, now: float) -> list[AttemptResult]:
        self._answered_any = True
        self._retries.succeeded(now)
        spent = self._spent(reading, attempt.queued.amount)
        self._counts.output_tokens += reading.output_tokens or 0
        self._counts.spent += spent
        answered = AttemptResult(
            number=attempt.number,
            key=attempt.queued.request.key,
            state="answered",
            reserved=attempt.queued.amount,
            spent=spent,
            http_status=response.status,
            request_id=response.request_id(),
            input_tokens=reading.input_tokens,
            output_tokens=reading.output_tokens,
            headers=self._secrets.headers(response.headers),
            body=response.body,
        )
        return [*self.refusals.believe(before=attempt.left_at), answered]

    def _error_response(
        self, attempt: Attempt, response: Response, server_error: ServerError, now: float
    ) -> list[AttemptResult]:
        message = redaction.redact(server_error.message)
        safe_body = redaction.redact(response.body[:EVIDENCE_BYTES].decode("utf-8", "replace")).encode()
        failed = _failed(attempt, server_error.cause, safe_body, response)
        kind = server_error.kind
        if kind == "row":
            # What has been accepted from others is wrong with this text, not with the row of the study.
            kind = "reject" if self._answered_any else "stop"
        match kind:
            case "reject":
                refusal = replace(failed, headers=self._secrets.headers(response.headers), body=safe_body)
                return self._refused(refusal, message, now)
            case "unclear":
                return [self._unknown(attempt, server_error.cause, message, now, response)]
            case "wait":
                return [self._retries.turned_away(failed, attempt, response.headers, now)]
            case "again":
                asked = asked_wait(response.headers)
                return [self._retries.failed(failed, attempt.queued, message, now, asked=asked)]
        reason = f"{self._asker.who}: {self._server.name} answers {response.status} {message[:500]}"
        self._stop(Stop(reason=reason, remedy=server_error.remedy, cause=server_error.cause))
        return [failed]

    def _refused(self, refusal: AttemptResult, message: str, now: float) -> list[AttemptResult]:
        ruling = self.refusals.add(refusal, message, now)
        if ruling.stop:
            reason = f"{self._asker.who}: every request is refused alike: {message[:500]}"
            remedy = "change the row's parameters or its model, or see to the account, then run again"
            self._stop(Stop(reason=reason, remedy=remedy, cause="rejected"))
        return list(ruling.settled)

    def _never_sent(self, attempt: Attempt, failure: Failure, now: float) -> AttemptResult:
        """An attempt that never reached the server and costs nothing."""
        failed = _failed(attempt, failure.cause, failure.message.encode())
        return self._retries.failed(failed, attempt.queued, failure.message, now)

    def _unknown(
        self, attempt: Attempt, cause: str, message: str, now: float, response: Response | None = None
    ) -> AttemptResult:
        """An attempt that may have been billed without an answer that counts: it stays reserved."""
        evidence = (response.body if response else b"") or message.encode()
        unknown = replace(_failed(attempt, cause, evidence[:EVIDENCE_BYTES], response), state="unknown")
        return self._retries.unknown(unknown, attempt.queued, message, now)


def _error_within(body: Any) -> int | None:
    """The status that an error has which came as a success, as gateways to several servers send it; None if it is an
    answer."""
    if not isinstance(body, dict) or not isinstance(error := body.get("error"), dict):
        return None
    if body.get("choices") or body.get("content"):
        return None
    code = error.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _failed(attempt: Attempt, cause: str, evidence: bytes, response: Response | None = None) -> AttemptResult:
    return AttemptResult(
        number=attempt.number,
        key=attempt.queued.request.key,
        state="failed",
        reserved=attempt.queued.amount,
        cause=cause,
        http_status=response.status if response else None,
        request_id=response.request_id() if response else None,
        evidence=evidence,
    )
