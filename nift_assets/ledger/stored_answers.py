"""Answers as they are written to the ledger and read from it: each is compared with its digest, and none that differs
is used."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from nift_assets import providers
from nift_assets.ledger.database import among, insert_new
from nift_assets.ledger.high_water import DamagedLedger
from nift_assets.ledger.packing import packed, unpacked
from nift_assets.ledger.tables import answer_digest, answers, attempts, requests
from nift_assets.protocol.answer import Status, StoredResponse

# As they lie there: what a digest is of.
PACKED_HEADERS = sa.type_coerce(answers.c.headers, sa.LargeBinary).label("headers")
PACKED_BODY = sa.type_coerce(answers.c.body, sa.LargeBinary).label("body")
# What `read` needs of an answer and its request.
COLUMNS = (
    answers.c.key,
    requests.c.provider,
    answers.c.http_status,
    answers.c.status,
    PACKED_HEADERS,
    PACKED_BODY,
    answers.c.digest,
)


class FinalAnswer(NamedTuple):
    """A final answer that is to be stored, as it came; without a session's number it was made in this process."""

    key: str
    http_status: int
    headers: str
    body: bytes
    number: int | None = None


def store(connection: sa.Connection, session: int, now: str, came: Iterable[FinalAnswer]) -> None:
    """Stores final answers; where there is one already, that stays. In the order of keys, so that two who store the
    same do not wait for each other."""
    in_order = sorted(came, key=lambda answer: answer.key)
    if not in_order:
        return
    asked = _providers(connection, [answer.key for answer in in_order])
    insert_new(connection, answers, [_row(answer, session, now, asked.get(answer.key)) for answer in in_order])


def _row(answer: FinalAnswer, session: int, now: str, provider: str | None) -> dict[str, Any]:
    headers, body = packed(answer.headers.encode()), packed(answer.body)
    return {
        "key": answer.key,
        "session": session,
        "number": answer.number,
        "http_status": answer.http_status,
        "status": status(provider, answer.key, answer.http_status, answer.body),
        "headers": headers,
        "body": body,
        "answered_at": now,
        "digest": answer_digest(answer.key, answer.http_status, headers, body),
    }


def _providers(connection: sa.Connection, keys: Sequence[str]) -> Mapping[str, str]:
    """Who was asked for each key. Locked where others may write at the same time: what is counted of a question by who
    wants it is counted behind its answer or before it."""
    query = sa.select(requests.c.key, requests.c.provider).where(among(connection, requests.c.key, keys))
    return dict(map(tuple, connection.execute(query.order_by(requests.c.key).with_for_update())))


def status(provider: str | None, key: str, http_status: int, body: bytes) -> Status:
    """What an answer is, by the rules of its provider as they are now."""
    if provider is None:
        return "other"
    return providers.answer(StoredResponse(key=key, provider=provider, http_status=http_status, body=body)).status


def read(row: Any) -> StoredResponse:
    """The answer in a row that begins with `COLUMNS`; DamagedLedger for one that is not what was stored."""
    key, provider, http_status, read_as, headers, body, digest = row[: len(COLUMNS)]
    try:
        is_ours = digest is None or answer_digest(key, http_status, headers, body) == digest
        if is_ours and provider is not None:
            return StoredResponse(
                key=key, provider=provider, http_status=http_status, body=unpacked(body), status=read_as
            )
    except (ValueError, zlib.error):
        pass  # no digest is written by hand, and bytes that are none of ours
    raise DamagedLedger(
        f"the ledger's answer {key} is not what was stored: `nift ledger check` names all such answers, `nift "
        "ledger restore PATH` puts a backup back; after `nift ledger accept` they are asked and paid again"
    )


def there(connection: sa.Connection, keys: Sequence[str]) -> set[str]:
    """Those of the keys that have an answer; DamagedLedger where one was stored and cannot be found."""
    found = set(connection.execute(sa.select(answers.c.key).where(among(connection, answers.c.key, keys))).scalars())
    if len(found) == len(keys):
        return found
    answered = sa.select(attempts.c.key).where(
        among(connection, attempts.c.key, set(keys) - found), attempts.c.state == "answered"
    )
    if (lost := connection.execute(answered.limit(1)).scalar()) is not None:
        raise DamagedLedger(
            f"the ledger has lost the answer {lost}, which was stored: `nift ledger check` counts all that are lost, "
            "`nift ledger restore PATH` puts a backup back; after `nift ledger accept` they are asked and paid again"
        )
    return found
