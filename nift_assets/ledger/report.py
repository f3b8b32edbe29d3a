"""What the ledger says about itself: who asked what, what became of it, what it cost, and what is still open."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from nift_assets.ledger import question_counts
from nift_assets.ledger.book import Book
from nift_assets.ledger.database import chunks
from nift_assets.ledger.question_counts import Group
from nift_assets.ledger.tables import UNCLAIMED, UNKNOWN, answers, attempts, batches, requests, spending, wanted
from nift_assets.protocol.answer import FINAL

# Enough answers to know what a model's answers are like, and few enough to read in a moment.
MOST_MEASURED, LEAST_MEASURED = 2_000, 20


@dataclass(frozen=True, kw_only=True)
class Account:
    """What one teacher or judge of a study has asked: questions by what became of them, requests sent, and the money.

    `states` counts the questions wanted, and `reused` those of them whose answer was there under a smaller limit of
    tokens; `sent`, tokens and money are of all attempts, those in vain too. Money is in billionths of a dollar.
    """

    study: str
    who: str
    states: Mapping[str, int] = field(default_factory=dict)
    reused: int = 0
    sent: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    spent: int = 0
    reserved: int = 0


@dataclass(frozen=True, kw_only=True)
class LostAttempt:
    """One attempt nobody knows the end of: it may have been billed, and its cost stays reserved.

    `sent_as` is the X-Client-Request-Id it left with, to look it up at the provider; `answered` whether another attempt
    has answered its question since.
    """

    study: str
    who: str
    key: str
    sent_as: str
    sent_at: str
    cause: str | None
    request_id: str | None
    reserved: int
    answered: bool


@dataclass(frozen=True, kw_only=True)
class SentChunk:
    """One chunk sent to a batch API."""

    id: str
    study: str
    who: str
    model: str
    requests: int
    state: str
    provider_id: str | None
    submitted_at: str | None
    ended_at: str | None
    detail: str | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole ledger or one study of it; `totals` are each study's own accounts, which caps are held against."""

    accounts: Sequence[Account]
    totals: Mapping[str, tuple[int, int]]
    lost: Sequence[LostAttempt]
    batches: Sequence[SentChunk]


@dataclass(frozen=True, kw_only=True)
class ReleaseResult:
    """How many questions may be asked again, and how many attempts were written off, or freed as not billed, for how
    many billionths."""

    questions: int
    attempts: int
    written_off: int = 0
    freed: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one model's answers to one teacher or judge were like: tokens per byte of input, tokens in and out."""

    answers: int
    input_per_byte: float
    input_mean: float
    output_mean: float
    output_low: float
    output_high: float


def report(book: Book, *, study: str | None = None) -> Report:
    """Everything there is to say, of one study or of all. It is counted as it is written: no question is read here."""
    with book.reading() as connection:
        states = question_counts.counted(connection, study)
        money = connection.execute(_of(sa.select(spending), spending, study)).all()
        lost = [_lost(row) for row in connection.execute(_of(_LOST, attempts, study))]
        chunks_sent = [SentChunk(**row) for row in connection.execute(_of(_BATCHES, batches, study)).mappings()]
    booked = {(row.study, row.who): row for row in money}
    asked = {(group.study, group.who) for group in states} | {name for name, row in booked.items() if row.sent}
    accounts = [_account(name, who, states, booked.get((name, who))) for name, who in sorted(asked) if who]
    totals = {name: (row.spent, row.reserved) for (name, who), row in sorted(booked.items()) if not who}
    return Report(accounts=accounts, totals=totals, lost=lost, batches=chunks_sent)


def spent_and_reserved(book: Book, study: str) -> dict[str, int]:
    """What each account of a study has spent and reserved, in billionths of a dollar; the study's own is ''."""
    query = sa.select(spending.c.who, spending.c.spent + spending.c.reserved).where(spending.c.study == study)
    with book.reading() as connection:
        return {who: int(amount) for who, amount in connection.execute(query)}


def answered(book: Book, study: str) -> dict[str, int]:
    """How many of the questions each teacher and judge of a study has wanted so far have a final answer."""
    found: Counter[str] = Counter()
    with book.reading() as connection:
        for group, questions in question_counts.counted(connection, study).items():
            found[group.who] += questions if group.state in FINAL else 0
    return dict(+found)


def usage(book: Book, provider: str, model: str, who: str) -> Usage | None:
    """What the latest answers of a model to rows of that name were like, in any study; None if there are too few.

    A judge and a teacher may be one model and write quite differently, so only the same row's answers count.
    """
    with book.reading() as connection:
        rows = connection.execute(_USED, {"of_provider": provider, "of_model": model, "of_who": who}).all()
    if len(rows) < LEAST_MEASURED:
        return None
    sizes = [sum(len(text.encode()) for _, text in json.loads(body)["messages"]) for body, _, _ in rows]
    into = [tokens for _, tokens, _ in rows]
    out = sorted(tokens for _, _, tokens in rows)
    return Usage(
        answers=len(rows),
        input_per_byte=sum(into) / max(1, sum(sizes)),
        input_mean=sum(into) / len(into),
        output_mean=sum(out) / len(out),
        output_low=out[round(0.05 * (len(out) - 1))],
        output_high=out[round(0.95 * (len(out) - 1))],
    )


def ask_unknown_again(
    book: Book, *, study: str | None = None, who: str | None = None, not_billed: bool = False
) -> ReleaseResult:
    """Lets the next run ask the questions whose fate is unknown once more, and books what they may have cost as spent.

    So it books every other unknown attempt that nobody is at work on: of a question that was asked again and answered,
    or that will be. With `not_billed`, for who has looked them up at the provider, they are freed and cost nothing. One
    transaction: either all of it is in the book, or nothing. `study` and `who` choose whose.
    """
    if not not_billed:
        # What a killed run left in flight is unknown too. Nobody has looked up what was not listed as such, though.
        book.recover()
    with book.writing() as connection:
        unknown = requests.c.outcome == UNKNOWN
        lost = _lost_attempts(connection, study, who, unknown)
        questions = sa.select(requests.c.key).where(unknown).order_by(requests.c.key).with_for_update()
        if study or who:
            whose = _of(sa.select(wanted.c.request), wanted, study).where(wanted.c.request == requests.c.number)
            questions = questions.where((whose.where(wanted.c.who == who) if who else whose).exists())
        keys = connection.execute(questions).scalars().all()
        for portion in chunks(keys):
            again = sa.update(requests).where(requests.c.key.in_(portion))
            connection.execute(again.values(outcome=None, detail=None))
        total = _release(connection, lost, not_billed=not_billed)
    amounts = {"freed": total} if not_billed else {"written_off": total}
    return ReleaseResult(questions=len(keys), attempts=len(lost), **amounts)


def _lost_attempts(
    connection: sa.Connection, study: str | None, who: str | None, unknown: sa.ColumnElement[bool]
) -> Sequence[Any]:
    """The unknown attempts that nobody is at work on, held until the end of the transaction."""
    idle = unknown | UNCLAIMED
    answer, question = answers.c.key == attempts.c.key, requests.c.key == attempts.c.key
    # Looked up for each of these few attempts: of questions that nobody is at work on there are as many as questions.
    done = sa.exists().where(answer) | sa.exists().where(question, idle)
    columns = (attempts.c.session, attempts.c.number, attempts.c.study, attempts.c.who, attempts.c.reserved)
    query = _of(sa.select(*columns).where(attempts.c.state == UNKNOWN, done), attempts, study)
    query = query.where(attempts.c.who == who) if who else query
    return connection.execute(query.order_by(attempts.c.session, attempts.c.number).with_for_update()).all()


def _release(connection: sa.Connection, lost: Sequence[Any], *, not_billed: bool) -> int:
    """Books attempts as spent, or frees them, on their accounts as well; the sum of what was reserved for them."""
    amounts: Counter[tuple[str, str]] = Counter()
    for row in lost:
        for account in {row.who, ""}:
            amounts[row.study, account] += row.reserved
    if lost:
        booked = {
            "state": "not_billed" if not_billed else "written_off",
            "spent": attempts.c.spent + (0 if not_billed else attempts.c.reserved),
            "reserved": 0,
        }
        of_row = (attempts.c.session == sa.bindparam("of_session")) & (attempts.c.number == sa.bindparam("of_number"))
        rows = [{"of_session": row.session, "of_number": row.number} for row in lost]
        connection.execute(sa.update(attempts).where(of_row).values(booked), rows)
    # In one order always, so that two who move money never wait for each other.
    for (of_study, of_who), amount in sorted(amounts.items()):
        account = (spending.c.study == of_study) & (spending.c.who == of_who)
        spent = spending.c.spent + (0 if not_billed else amount)
        moved = {"spent": spent, "reserved": spending.c.reserved - amount}
        connection.execute(sa.update(spending).where(account).values(moved))
    return sum(row.reserved for row in lost)


def _account(study: str, who: str, states: Mapping[Group, int], booked: Any) -> Account:
    mine = {group: count for group, count in states.items() if (group.study, group.who) == (study, who)}
    by_state: Counter[str] = Counter()
    for group, count in mine.items():
        by_state[group.state] += count
    return Account(
        study=study,
        who=who,
        states=dict(sorted(by_state.items())),
        reused=sum(count for group, count in mine.items() if group.reused),
        sent=booked.sent if booked else 0,
        input_tokens=booked.input_tokens if booked else 0,
        output_tokens=booked.output_tokens if booked else 0,
        spent=booked.spent if booked else 0,
        reserved=booked.reserved if booked else 0,
    )


def _lost(row: Any) -> LostAttempt:
    return LostAttempt(
        study=row.study,
        who=row.who,
        key=row.key,
        sent_as=f"nift-{row.session}-{row.number}",
        sent_at=row.sent_at,
        cause=row.cause,
        request_id=row.request_id,
        reserved=row.reserved,
        answered=row.answered is not None,
    )


def _of(query: sa.Select[Any], table: sa.Table, study: str | None) -> sa.Select[Any]:
    return query.where(table.c.study == study) if study else query


_LOST = (
    sa.select(attempts, answers.c.key.label("answered"))
    .outerjoin(answers, answers.c.key == attempts.c.key)
    .where(attempts.c.state == UNKNOWN)
    .order_by(attempts.c.study, attempts.c.who, attempts.c.sent_at)
)
_BATCHES = sa.select(
    *(
        batches.c[name]
        for name in (
            "id",
            "study",
            "who",
            "model",
            "requests",
            "state",
            "provider_id",
            "submitted_at",
            "ended_at",
            "detail",
        )
    )
).order_by(batches.c.study, batches.c.who, batches.c.intended_at)
_USED = (
    sa.select(requests.c.body, attempts.c.input_tokens, attempts.c.output_tokens)
    .join(requests, requests.c.key == attempts.c.key)
    .where(
        attempts.c.state == "answered",
        attempts.c.who == sa.bindparam("of_who"),
        attempts.c.input_tokens.is_not(None),
        attempts.c.output_tokens.is_not(None),
        requests.c.provider == sa.bindparam("of_provider"),
        requests.c.model == sa.bindparam("of_model"),
    )
    .order_by(attempts.c.session.desc(), attempts.c.number.desc())
    .limit(MOST_MEASURED)
)
