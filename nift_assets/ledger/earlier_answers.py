"""Questions that are new by their key and have been answered all the same.

One whose limit of tokens was raised: an answer that ended by itself below the limit is the answer above it. One whose
row says what its server was known by before. Only servers' answers are taken so: what is answered in this process costs
nothing, and may depend on its limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from nift_assets import providers
from nift_assets.ledger import stored_answers
from nift_assets.ledger.database import among, insert_new
from nift_assets.ledger.tables import CLAIMED_BY, IN_BATCH, answer_digest, answers, limitless_number, requests
from nift_assets.protocol.answer import Answer
from nift_assets.protocol.request import Request, restored
from nift_training.endings import ending


def take(connection: sa.Connection, session: int, questions: Sequence[Request], *, below_limit: bool) -> None:
    """Gives questions that nobody is asking the answers they have had, under a smaller limit too if that is wanted, for
    nothing."""
    found = answered(connection, questions, below_limit=below_limit)
    if not found:
        return
    # Those that are new are claimed by this session, and have not left.
    nobodys = CLAIMED_BY.in_((0, session)) & (IN_BATCH == "")
    free = connection.execute(
        sa.select(requests.c.key).where(among(connection, requests.c.key, found), nobodys)
    ).scalars()
    now = datetime.now(UTC).isoformat()
    rows = [
        {
            "key": key,
            "session": session,
            "http_status": found[key].http_status,
            "status": found[key].status,
            "headers": found[key].headers,
            "body": found[key].body,
            "answered_at": now,
            "digest": answer_digest(key, found[key].http_status, found[key].headers, found[key].body),
            "taken_from": found[key].taken_from or found[key].key,
        }
        for key in sorted(free)
    ]
    insert_new(connection, answers, rows)


def answered(connection: sa.Connection, questions: Sequence[Request], *, below_limit: bool) -> Mapping[str, Any]:
    """The stored answer of each question that has one by another key."""
    found = dict(_known_otherwise(connection, questions))
    if below_limit:
        found |= _below(connection, [question for question in questions if question.key not in found])
    return found


def _known_otherwise(connection: sa.Connection, questions: Sequence[Request]) -> Mapping[str, Any]:
    """The stored answer of each question that was asked while its server was known by another name, all else equal."""
    keys = {earlier: question.key for question in questions if (earlier := question.earlier_key)}
    if not keys:
        return {}
    rows = connection.execute(_CANDIDATES.where(among(connection, requests.c.key, keys))).all()
    return {keys[row.key]: row for row in rows if keys[row.key] != row.key}


def _below(connection: sa.Connection, questions: Sequence[Request]) -> Mapping[str, Any]:
    """The stored answer of each question that has one under a smaller limit, all else equal, that ended by itself."""
    by_limitless: dict[str, list[Request]] = {}
    for question in questions:
        by_limitless.setdefault(question.limitless_key, []).append(question)
    numbers = [limitless_number(key) for key in by_limitless]
    rows = connection.execute(_CANDIDATES.where(among(connection, requests.c.limitless, numbers))).all()
    found: dict[str, tuple[int, Any]] = {}
    for row in rows:
        asked = restored(row.request)
        if providers.load(row.provider).IN_PROCESS or (limit := asked.output_limit) is None:
            continue
        for question in by_limitless.get(asked.limitless_key, ()):
            most = question.output_limit
            is_below = question.key != row.key and (most is None or limit < most)
            # The largest below is the likeliest.
            if is_below and limit > found.get(question.key, (0, None))[0] and _ended_by_itself(row):
                found[question.key] = limit, row
    return {key: row for key, (_, row) in found.items()}


def _ended_by_itself(row: Any) -> bool:
    answer: Answer = providers.answer(stored_answers.read(row), restored(row.request))
    if answer.status not in ("ok", "refused", "empty"):
        return False
    return ending(answer.finish_reason or "") in ("whole", "refused")


_CANDIDATES = sa.select(
    *stored_answers.COLUMNS,
    answers.c.taken_from,
    requests.c.body.label("request"),
).join(requests, requests.c.key == answers.c.key)
