"""How many questions of each teacher or judge are in which state, without a look at the questions.

The database counts in the very transaction that changes a state, by triggers: whatever writes it is counted. A report
reads a row for each teacher and state, however many questions there are.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import sqlalchemy as sa

from nift_assets.ledger.tables import question_counts

# The state of a question that has no answer, by the name of its row.
OPEN = "case when {0}.in_batch is not null then 'in batch' else coalesce({0}.outcome, 'pending') end"
STATE = f"coalesce(a.status, {OPEN.format('r')})"
REUSED = "case when {0}.taken_from is null then 0 else 1 end"
# Each question wanted with its request and its answer, if it has one.
RECOUNTED = (
    f"select w.study, w.who, {STATE}, {REUSED.format('a')}, count(*) from wanted w "
    "join requests r on r.number = w.request left join answers a on a.key = r.key "
    f"group by w.study, w.who, {STATE}, {REUSED.format('a')}"
)


class Group(NamedTuple):
    """Questions that are counted together; those `reused` have an answer from under a smaller limit of tokens."""

    study: str
    who: str
    state: str
    reused: bool


def counted(connection: sa.Connection, study: str | None = None) -> Counter[Group]:
    """How many questions there are of each kind, of one study or of all, as the database has counted them."""
    groups = (question_counts.c.study, question_counts.c.who, question_counts.c.state, question_counts.c.reused)
    query = sa.select(*groups, sa.func.sum(question_counts.c.questions)).group_by(*groups)
    rows = connection.execute(query.where(question_counts.c.study == study) if study else query)
    return +Counter({Group(of, who, state, bool(reused)): int(count) for of, who, state, reused, count in rows})


def recounted(connection: sa.Connection) -> Counter[Group]:
    """The same from the questions themselves, which reads all of them."""
    rows = connection.execute(sa.text(RECOUNTED))
    return Counter({Group(of, who, state, bool(reused)): int(count) for of, who, state, reused, count in rows})


def count_anew(connection: sa.Connection) -> None:
    """Puts the counts in the place of those that were there. Nobody else may write the ledger meanwhile."""
    connection.execute(sa.delete(question_counts))
    rows = [
        {**group._asdict(), "reused": int(group.reused), "slot": 0, "questions": questions}
        for group, questions in recounted(connection).items()
    ]
    if rows:
        connection.execute(sa.insert(question_counts), rows)


def gather(connection: sa.Connection) -> None:
    """Adds up what the connections of a server have counted each for itself. Rows in use are left for the next time."""
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql(_GATHER)


def create_triggers(connection: sa.Connection) -> None:
    """Has the database count from now on."""
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.exec_driver_sql(statement)


def drop_triggers(connection: sa.Connection) -> None:
    """Has an SQLite database count no more, as before much is written at once that is counted anew afterwards."""
    for name in _NAMES:
        connection.exec_driver_sql(f"drop trigger if exists {name}")


def _add(selected: str) -> str:
    return (
        f"insert into question_counts (study, who, state, reused, slot, questions) {selected} "
        "on conflict (study, who, state, reused, slot) "
        "do update set questions = question_counts.questions + excluded.questions"
    )


# -- SQLite: a trigger runs for each row, and one process writes at a time


def _row(state: str, reused: str, change: int, where: str) -> str:
    return _add(
        f"select w.study, w.who, {state}, {reused}, 0, {change} "
        f"from requests r join wanted w on w.request = r.number where {where}"
    )


def _sqlite(name: str, when: str, *statements: str) -> str:
    return f"create trigger {name} {when} begin {'; '.join(statements)}; end"


_OF_ANSWER = "r.key = {0}.key"
_SQLITE = (
    _sqlite(
        "wanted_counted",
        "after insert on wanted",
        _add(
            f"select new.study, new.who, {STATE}, {REUSED.format('a')}, 0, 1 from requests r "
            "left join answers a on a.key = r.key where r.number = new.request"
        ),
    ),
    _sqlite(
        "requests_counted",
        f"after update of in_batch, outcome on requests when {OPEN.format('old')} is not {OPEN.format('new')} "
        "and not exists (select 1 from answers a where a.key = new.key)",
        _row(OPEN.format("old"), "0", -1, "r.number = new.number"),
        _row(OPEN.format("new"), "0", 1, "r.number = new.number"),
    ),
    _sqlite(
        "answers_counted_in",
        "after insert on answers",
        _row(OPEN.format("r"), "0", -1, _OF_ANSWER.format("new")),
        _row("new.status", REUSED.format("new"), 1, _OF_ANSWER.format("new")),
    ),
    _sqlite(
        "answers_counted_out",
        "after delete on answers",
        _row("old.status", REUSED.format("old"), -1, _OF_ANSWER.format("old")),
        _row(OPEN.format("r"), "0", 1, _OF_ANSWER.format("old")),
    ),
    _sqlite(
        "answers_counted_again",
        "after update of status, taken_from on answers",
        _row("old.status", REUSED.format("old"), -1, _OF_ANSWER.format("old")),
        _row("new.status", REUSED.format("new"), 1, _OF_ANSWER.format("new")),
    ),
)
_NAMES = ("wanted_counted", "requests_counted", "answers_counted_in", "answers_counted_out", "answers_counted_again")


# -- PostgreSQL: a trigger runs for each statement, and each connection counts in rows of its own


def _postgresql(name: str, table: str, event: str, referencing: str, changes: str) -> tuple[str, ...]:
    """What counts after an event. `changes` are the rows (study, who, state, reused, change) that it comes to."""
    summed = _add(
        "select study, who, state, reused, pg_backend_pid(), sum(change) "
        f"from ({changes}) changes group by study, who, state, reused having sum(change) <> 0"
    )
    return (
        f"create or replace function nift_{name}() returns trigger language plpgsql as "
        f"$$ begin {summed}; return null; end $$",
        f"drop trigger if exists {name} on {table}",
        f"create trigger {name} after {event} on {table} referencing {referencing} "
        f"for each statement execute function nift_{name}()",
    )


def _of_answers(source: str, state: str, reused: str, change: int) -> str:
    return (
        f"select w.study, w.who, {state} as state, {reused} as reused, {change} as change "
        f"from {source} a join requests r on r.key = a.key join wanted w on w.request = r.number"
    )


def _of_requests(source: str, change: int) -> str:
    return (
        f"select w.study, w.who, {OPEN.format('r')} as state, 0 as reused, {change} as change "
        f"from changed c join {source} r on r.number = c.number join wanted w on w.request = r.number "
        "where not exists (select 1 from answers a where a.key = r.key)"
    )


_ANSWERED, _UNANSWERED = ("a.status", REUSED.format("a")), (OPEN.format("r"), "0")
_POSTGRESQL = (
    *_postgresql(
        "wanted_counted",
        "wanted",
        "insert",
        "new table as added",
        f"select w.study, w.who, {STATE} as state, {REUSED.format('a')} as reused, 1 as change from added w "
        "join requests r on r.number = w.request left join answers a on a.key = r.key",
    ),
    *_postgresql(
        "requests_counted",
        "requests",
        "update",
        "old table as before new table as behind",
        # Most updates are claims, which are no states.
        f"with changed as materialized (select o.number from before o join behind n on n.number = o.number "
        f"where {OPEN.format('o')} <> {OPEN.format('n')}) "
        f"{_of_requests('before', -1)} union all {_of_requests('behind', 1)}",
    ),
    *_postgresql(
        "answers_counted_in",
        "answers",
        "insert",
        "new table as added",
        f"{_of_answers('added', *_UNANSWERED, -1)} union all {_of_answers('added', *_ANSWERED, 1)}",
    ),
    *_postgresql(
        "answers_counted_out",
        "answers",
        "delete",
        "old table as gone",
        f"{_of_answers('gone', *_ANSWERED, -1)} union all {_of_answers('gone', *_UNANSWERED, 1)}",
    ),
    *_postgresql(
        "answers_counted_again",
        "answers",
        "update",
        "old table as before new table as behind",
        f"{_of_answers('before', *_ANSWERED, -1)} union all {_of_answers('behind', *_ANSWERED, 1)}",
    ),
)
# Whoever counts just now holds its row; to wait for it here, while it waits for another row, would be for ever.
_GATHER = (
    "with gone as (delete from question_counts where (study, who, state, reused, slot) in "
    "(select study, who, state, reused, slot from question_counts where slot <> 0 for update skip locked) "
    "returning study, who, state, reused, questions) "
    + _add("select study, who, state, reused, 0, sum(questions) from gone group by study, who, state, reused")
)
