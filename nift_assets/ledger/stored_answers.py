"""Answers as they are read from the ledger: each is compared with its digest, and none that differs is used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger.database import among
from nift_assets.ledger.high_water import DamagedLedger
from nift_assets.ledger.tables import answer_digest, answers, attempts, requests
from nift_assets.protocol.answer import StoredResponse

# What `read` needs of an answer and its request.
COLUMNS = (
    answers.c.key,
    requests.c.provider,
    answers.c.http_status,
    answers.c.headers,
    answers.c.body,
    answers.c.digest,
)


def read(row: Any) -> StoredResponse:
    """The answer in a row; DamagedLedger for one that is not what was stored."""
    body = bytes(row.body)
    if not is_whole(row) or row.provider is None:
        raise DamagedLedger(
            f"the ledger's answer {row.key} is not what was stored: `nift ledger check` names all such answers, `nift "
            "ledger restore PATH` puts a backup back; after `nift ledger accept` they are asked and paid again"
        )
    return StoredResponse(
        key=row.key, provider=row.provider, http_status=row.http_status, headers=json.loads(row.headers), body=body
    )


def is_whole(row: Any) -> bool:
    """Whether an answer is what was stored, as far as is known: a program of an earlier version writes no digest."""
    if row.digest is None:
        return True
    return answer_digest(row.key, row.http_status, row.headers, bytes(row.body)) == bytes(row.digest)


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
