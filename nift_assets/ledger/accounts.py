"""Accounts: what a study and each of its teachers and judges has spent and reserved, held against their caps.

Every function works inside the caller's transaction. Money is in billionths of a dollar; the study's own account is ''.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from nift_assets.ledger.database import insert_new
from nift_assets.ledger.tables import spending


def create(connection: sa.Connection, study: str, who: str) -> None:
    """Makes the accounts a call is booked on, where they are not there yet."""
    rows = [{"study": study, "who": account, "spent": 0, "reserved": 0} for account in _both(who)]
    insert_new(connection, spending, rows)


def lock(connection: sa.Connection, study: str, who: str) -> None:
    """Locks the accounts until the transaction ends, in one order, so that two writers never wait for each other.

    SQLite has one writer at a time, and needs no lock.
    """
    if connection.dialect.name != "sqlite":
        for account in _both(who):
            connection.execute(_TAKEN, {"of_study": study, "of_who": account})


def affordable(
    connection: sa.Connection, study: str, caps: Sequence[tuple[str, int | None]], amounts: Sequence[int]
) -> tuple[int, str | None]:
    """How many of the amounts every cap has room for, in their order, and which account is in the way of the next."""
    capped = [(account, cap) for account, cap in caps if cap is not None]
    if not capped or not any(amounts):
        return len(amounts), None
    taken = {}
    for account, _ in capped:
        taken[account] = connection.execute(_TAKEN, {"of_study": study, "of_who": account}).scalar() or 0
    sum_so_far = 0
    for count, amount in enumerate(amounts):
        sum_so_far += amount
        for account, cap in capped:
            if taken[account] + sum_so_far > cap:
                return count, account
    return len(amounts), None


def left(connection: sa.Connection, study: str, caps: Sequence[tuple[str, int | None]]) -> int | None:
    """How much the caps leave for a single request, None without a cap."""
    of = {account: {"of_study": study, "of_who": account} for account, _ in caps}
    rooms = [cap - (connection.execute(_TAKEN, of[account]).scalar() or 0) for account, cap in caps if cap is not None]
    return min(rooms) if rooms else None


def post(
    connection: sa.Connection,
    study: str,
    who: str,
    *,
    reserved: int = 0,
    spent: int = 0,
    sent: int = 0,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> None:
    """Adds to what is reserved and spent, to the requests sent and to the tokens of their answers, on the account and
    on the study's own."""
    entry = {
        "more_spent": spent,
        "more_reserved": reserved,
        "more_sent": sent,
        "more_input_tokens": input_tokens,
        "more_output_tokens": output_tokens,
    }
    if any(entry.values()):
        connection.execute(_POST, [{**entry, "of_study": study, "of_who": account} for account in _both(who)])


def _both(who: str) -> list[str]:
    return sorted({"", who})


_ACCOUNT = (spending.c.study == sa.bindparam("of_study")) & (spending.c.who == sa.bindparam("of_who"))
_TAKEN = sa.select(spending.c.spent + spending.c.reserved).where(_ACCOUNT).with_for_update()
_POST = (
    sa.update(spending)
    .where(_ACCOUNT)
    .values(
        {
            name: spending.c[name] + sa.bindparam(f"more_{name}")
            for name in ("spent", "reserved", "sent", "input_tokens", "output_tokens")
        }
    )
)
