"""The ledger's report: every question counted once by what became of it, and money that adds up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from nift_assets import providers, studies
from nift_assets.ledger import door, report
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.database import AT_A_TIME
from nift_assets.ledger.tables import attempts, batches, requests
from nift_assets.protocol import Request
from nift_assets.rows import Teacher
from tests.conftest import nift_here
from tests.ledgers import RESERVE, SPENT, answered, exhausted, play, rejected, unknown

ROW = Teacher(name="t", provider="openai", model="m")
ECHO = Teacher(name="echo", provider="echo", model="continue", max_tokens=8)


def questions(count: int, row: Teacher = ROW, what: str = "text") -> list[Request]:
    return [providers.request(row, f"{what} number {number} goes on") for number in range(count)]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(f"sqlite:///{tmp_path}/ledger.sqlite")


ENDINGS: list[tuple[str, Callable[[], dict[str, object]] | None]] = [
    ("ok", lambda: answered("whole")),
    ("truncated", lambda: answered("half", finish_reason="length")),
    ("refused", lambda: answered("", finish_reason="content_filter")),
    ("empty", lambda: answered(" ")),
    ("other", lambda: answered("x", finish_reason="tool_calls")),
    ("rejected", rejected),
    ("exhausted", exhausted),
    ("unknown", unknown),
    ("pending", None),
]


def test_every_question_is_counted_once_by_what_became_of_it(book: Book) -> None:
    asked = questions(len(ENDINGS))
    play(book, "s", "t", [(q, end() if end else None) for q, (_, end) in zip(asked, ENDINGS, strict=True)])
    (account,) = report.report(book).accounts
    assert account.states == {state: 1 for state, _ in ENDINGS}
    assert (account.study, account.who, account.sent) == ("s", "t", len(ENDINGS) - 1)
    assert (account.input_tokens, account.output_tokens) == (50, 25)
    assert (account.spent, account.reserved) == (5 * SPENT, RESERVE)
    assert report.report(book).totals == {"s": (5 * SPENT, RESERVE)}


def test_a_question_in_a_batch_is_counted_as_such_and_its_batch_is_listed(book: Book) -> None:
    (one, other) = questions(2)
    play(book, "s", "t", [(one, None), (other, None)])
    with book.writing() as connection:
        connection.execute(sa.update(requests).where(requests.c.key == one.key).values(in_batch="b1"))
        row = {"id": "b1", "study": "s", "who": "t", "provider": "openai", "model": "m", "requests": 1}
        connection.execute(sa.insert(batches).values(**row, state="submitted", intended_at="2026-01-01"))
    found = report.report(book)
    assert found.accounts[0].states == {"in batch": 1, "pending": 1}
    assert [(batch.id, batch.requests, batch.state) for batch in found.batches] == [("b1", 1, "submitted")]


def test_more_answers_than_fit_into_one_portion_are_all_counted(book: Book) -> None:
    count = 2 * AT_A_TIME + 1
    asker = Asker(study="s", who="echo", writer="w")
    asked = door.ask(book, asker, questions(count, ECHO), providers.load("echo").connect(ECHO, None))  # type: ignore[arg-type]
    (account,) = report.report(book).accounts
    assert sum(account.states.values()) == count
    assert account.states == asked.counts
    assert account.sent == account.spent == 0  # answered in this process


def test_a_study_is_reported_alone_when_it_is_named(book: Book) -> None:
    play(book, "one", "t", [(questions(1)[0], answered("a"))])
    play(book, "two", "t", [(questions(1, what="other")[0], unknown())])
    assert [account.study for account in report.report(book, study="one").accounts] == ["one"]
    assert report.report(book, study="one").lost == []
    assert [lost.study for lost in report.report(book).lost] == ["two"]


def test_an_unknown_attempt_is_listed_with_the_id_it_left_with(book: Book) -> None:
    (question,) = questions(1)
    session = play(book, "s", "t", [(question, unknown())])
    (lost,) = report.report(book).lost
    assert (lost.sent_as, lost.cause, lost.key, lost.reserved) == (
        f"nift-{session}-1",
        "disconnected",
        question.key,
        RESERVE,
    )


def test_looking_changes_nothing(book: Book) -> None:
    play(book, "s", "t", [(q, unknown()) for q in questions(2)])
    before = report.report(book)
    assert report.report(book) == before


def test_asking_again_books_what_was_reserved_as_spent_and_frees_the_question(book: Book) -> None:
    first, second, third = questions(3)
    play(book, "s", "t", [(first, unknown()), (second, answered("a")), (third, unknown(given_up=False))])
    released = report.ask_unknown_again(book)
    # The third attempt's question was not given up: the next run asks it anyway, and nobody else settles its money.
    assert (released.questions, released.attempts, released.written_off) == (1, 2, 2 * RESERVE)
    found = report.report(book)
    assert found.accounts[0].spent == SPENT + 2 * RESERVE
    assert found.accounts[0].reserved == 0
    assert found.totals["s"] == (SPENT + 2 * RESERVE, 0)
    assert found.accounts[0].states == {"ok": 1, "pending": 2}
    with book.reading() as connection:
        states = connection.execute(sa.select(attempts.c.state, attempts.c.reserved, attempts.c.spent)).all()
    assert sorted(map(tuple, states)) == [
        ("answered", 0, SPENT),
        ("written_off", 0, RESERVE),
        ("written_off", 0, RESERVE),
    ]
    with book.session("s/t") as session:
        intent = book.intend(session, Asker(study="s", who="t", writer="s/t"), [first, third])
    assert set(intent.ours) == {first.key, third.key}
    assert intent.unknown == []
    assert report.ask_unknown_again(book).questions == 0


def test_asking_again_for_one_teacher_leaves_the_other_alone(book: Book) -> None:
    play(book, "s", "t", [(questions(1)[0], unknown())])
    play(book, "s", "u", [(questions(1, what="other")[0], unknown())])
    assert report.ask_unknown_again(book, who="u").questions == 1
    states = {account.who: account.states for account in report.report(book).accounts}
    assert states == {"t": {"unknown": 1}, "u": {"pending": 1}}
    assert [lost.who for lost in report.report(book).lost] == ["t"]


def test_an_attempt_whose_question_was_answered_since_is_said_so_and_written_off(book: Book) -> None:
    (question,) = questions(1)
    play(book, "s", "t", [(question, unknown(given_up=False))])
    play(book, "s", "t", [(question, answered("a"))])
    (lost,) = report.report(book).lost
    assert lost.answered
    assert report.report(book).totals["s"] == (SPENT, RESERVE)
    released = report.ask_unknown_again(book)
    assert (released.questions, released.attempts, released.written_off) == (0, 1, RESERVE)
    assert report.report(book).totals["s"] == (SPENT + RESERVE, 0)
    assert report.report(book).accounts[0].reserved == 0
    assert report.report(book).lost == []
    assert report.ask_unknown_again(book).attempts == 0


def test_what_was_not_billed_is_freed_for_those_it_is_said_of_alone(book: Book) -> None:
    one, other, asked_again = questions(3)
    play(book, "s", "t", [(one, unknown()), (asked_again, unknown(given_up=False))])
    play(book, "s", "u", [(other, unknown())])
    released = report.ask_unknown_again(book, study="s", who="t", not_billed=True)
    assert (released.questions, released.attempts, released.freed, released.written_off) == (1, 2, 2 * RESERVE, 0)
    assert {account.who: (account.spent, account.reserved) for account in report.report(book).accounts} == {
        "t": (0, 0),
        "u": (0, RESERVE),
    }
    assert report.report(book).totals["s"] == (0, RESERVE)
    assert [lost.who for lost in report.report(book).lost] == ["u"]


def test_an_attempt_somebody_is_at_work_on_is_left_alone(book: Book) -> None:
    (question,) = questions(1)
    play(book, "s", "t", [(question, unknown(given_up=False))])
    with book.session("s/t") as session:
        book.intend(session, Asker(study="s", who="t", writer="s/t"), [question])
        assert report.ask_unknown_again(book).attempts == 0
        assert report.ask_unknown_again(book, not_billed=True).attempts == 0
    assert report.ask_unknown_again(book).attempts == 1


def test_many_unknown_questions_are_written_off_in_one_go(book: Book) -> None:
    count = AT_A_TIME + 1
    play(book, "s", "t", [(q, unknown()) for q in questions(count)])
    assert report.ask_unknown_again(book, study="s").written_off == count * RESERVE
    assert report.report(book).totals["s"] == (count * RESERVE, 0)


def test_usage_is_that_of_the_same_row_and_needs_enough_answers(book: Book) -> None:
    few = report.LEAST_MEASURED - 1
    play(book, "s", "t", [(q, answered("a", input_tokens=12, output_tokens=n)) for n, q in enumerate(questions(few))])
    assert report.usage(book, "openai", "m", "t") is None
    more = questions(20, what="again")
    play(book, "s", "t", [(q, answered("a", input_tokens=12, output_tokens=n)) for n, q in enumerate(more)])
    used = report.usage(book, "openai", "m", "t")
    assert used is not None
    outputs = [*range(few), *range(20)]
    sizes = [len(q.messages[0].content) for q in [*questions(few), *more]]
    assert used.answers == few + 20
    assert used.output_mean == pytest.approx(sum(outputs) / len(outputs))
    assert used.input_per_byte == pytest.approx(12 * len(sizes) / sum(sizes))
    assert used.output_low == 1
    assert used.output_high == 18
    assert report.usage(book, "openai", "m", "judge") is None


def ledger(folder: Path, *arguments: str) -> tuple[int, str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    ran = nift_here("ledger", *arguments, environment=ours | {"NIFT_WAREHOUSE": str(folder), "NIFT_STUDY": "today"})
    return ran.returncode, ran.stdout, ran.stderr


def test_the_command_says_the_same_as_json_and_in_words(book: Book, tmp_path: Path) -> None:
    session = play(book, "today", "t", [(q, unknown() if n else answered("a")) for n, q in enumerate(questions(2))])
    code, printed, _ = ledger(tmp_path, "--json")
    found = json.loads(printed)
    assert code == 0
    assert found["accounts"][0]["states"] == {"ok": 1, "unknown": 1}
    assert found["accounts"][0]["spent"] == pytest.approx(SPENT / 1e9)
    assert found["studies"]["today"] == {
        "spent": SPENT / 1e9,
        "reserved": RESERVE / 1e9,
        "cap": studies.load("today").budget_usd,
    }
    assert found["unknown"][0]["sent_as"] == f"nift-{session}-2"
    _, words, _ = ledger(tmp_path)
    assert "1 ok, 1 unknown" in words
    assert f"nift-{session}-2" in words
    assert f"cap ${studies.load('today').budget_usd:,.2f}" in words
    code, said, _ = ledger(tmp_path, "--ask-unknown-again")
    assert code == 0
    assert said.startswith("1 questions are asked again by the next run; $0.0010 of 1 attempts are booked as spent.")
    assert "1 ok, 1 pending" in said


def test_the_command_frees_what_was_not_billed(book: Book, tmp_path: Path) -> None:
    play(book, "today", "t", [(questions(1)[0], unknown())])
    code, _, said = ledger(tmp_path, "--not-billed")
    assert code == 1
    assert "give --ask-unknown-again with it" in said
    code, said, _ = ledger(tmp_path, "--ask-unknown-again", "--not-billed", "--who", "t")
    assert code == 0
    assert said.startswith("1 questions are asked again by the next run; $0.0010 of 1 attempts are free again.")
    assert report.report(book).totals["today"] == (0, 0)


def test_the_command_makes_no_ledger_where_there_is_none(tmp_path: Path) -> None:
    code, printed, _ = ledger(tmp_path / "warehouse")
    assert (code, printed) == (0, "The ledger is empty: nothing has been asked yet.\n")
    assert list(tmp_path.iterdir()) == []


def test_the_commands_copy_a_ledger_check_it_and_put_it_back(tmp_path: Path) -> None:
    warehouse = tmp_path / "100% of [what?]"
    warehouse.mkdir()
    file = warehouse / "ledger.sqlite"
    book = Book(sa.URL.create("sqlite", database=str(file)))
    play(book, "today", "t", [(q, answered("a")) for q in questions(3)])
    copy = tmp_path / "copy.sqlite"
    assert ledger(warehouse, "backup", str(copy)) == (0, f"{copy} is a whole copy of the ledger.\n", "")
    assert ledger(warehouse, "check") == (0, "3 answers: 0 damaged, 0 lost.\n", "")
    play(book, "today", "t", [(q, answered("a")) for q in questions(5)[3:]])
    book._engine.dispose()
    file.write_bytes(copy.read_bytes())
    code, _, said = ledger(warehouse)
    assert code == 1
    assert "lacks what was written last" in said
    assert len(said.splitlines()) == 1
    code, said, _ = ledger(warehouse, "check")
    assert code == 1
    assert said.endswith("3 answers: 0 damaged, 0 lost.\n")
    assert ledger(warehouse, "accept")[1].startswith("The ledger goes on with 3 answers.")
    assert ledger(warehouse, "check")[0] == 0
    code, said, _ = ledger(warehouse, "restore", str(copy))
    assert code == 0
    assert said.startswith("The ledger holds 3 answers; the one before lies at ")
    assert "3 ok" in ledger(warehouse)[1]


def test_a_ledger_whose_file_is_gone_is_not_taken_for_an_empty_one(book: Book, tmp_path: Path) -> None:
    play(book, "today", "t", [(questions(1)[0], answered("a"))])
    book._engine.dispose()
    (tmp_path / "ledger.sqlite").unlink()
    code, _, said = ledger(tmp_path)
    assert code == 1
    assert "is gone or empty" in said


def test_a_teacher_alone_is_refused_with_the_option_it_belongs_to(tmp_path: Path) -> None:
    code, _, said = ledger(tmp_path, "--who", "t")
    assert code == 1
    assert "give --ask-unknown-again with it" in said
