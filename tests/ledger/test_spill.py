"""Answers that arrive while the ledger cannot be written: none is lost and none is paid again, whoever ends when."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from nift_assets.ledger import database, dispatch
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import AskResult, ask
from nift_assets.ledger.report import spent_and_reserved
from nift_assets.ledger.spill import Spill, SpillFile, folders
from nift_assets.rows import Limits
from tests.counting import Counts
from tests.ledger.asking import PRICE, Task, books, open_sessions, provider, questions, same_text, wait
from tests.ledger.fault_server import FaultServer
from tests.postgres import postgres

ASKER = Asker(study="s", who="t", writer="s/t", study_cap=10**12)
ANSWERED = {"number": 1, "state": "answered", "reserved": 1, "body": b"{}", "http_status": 200}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder, where a spill lies that has no place beside its ledger."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose patience is short; what it waits for takes minutes elsewhere."""
    monkeypatch.setattr(database, "HURRIED_SECONDS", 0.05)
    monkeypatch.setattr(database, "SECONDS_TO_WAIT", 0.5)
    monkeypatch.setattr(dispatch, "BOOK_PATIENCE_SECONDS", 1.0)


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Somebody writes an SQLite ledger and comes to no end."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=10)) as holder:
        holder.execute("begin immediate")
        yield
        holder.execute("rollback")


def ask_in_the_background(book: Book, server: FaultServer, count: int, results: list[Any]) -> threading.Thread:
    limits = Limits(in_flight=32)
    thread = threading.Thread(
        target=lambda: results.append(
            ask(book, ASKER, questions(count), provider(server.url), limits=limits, price=PRICE)
        )
    )
    thread.start()
    return thread


@pytest.mark.fault("T24", runs="32 in flight")
@pytest.mark.usefixtures("hurried")
def test_what_came_under_a_lock_that_outlasts_the_run_is_in_the_ledger_of_the_next(
    sqlite_url: str, counts: Counts
) -> None:
    book, results = Book(sqlite_url), list[AskResult]()
    with FaultServer(latency=0.4) as server:
        running = ask_in_the_background(book, server, 96, results)
        wait(lambda: len(server.bills()) >= 40)
        with locked(sqlite_url):
            running.join()
            (first,) = results
            assert first.stopped is not None
            assert first.stopped.cause == "ledger"
            assert f"{sqlite_url.removeprefix('sqlite:///')}.spill/" in first.stopped.remedy
            bills = len(server.bills())
            assert bills - first.counts["ok"] == 32
        again = Book(sqlite_url)
        assert len(again.answered([question.key for question in questions(96)])) == bills
        asked = ask(again, ASKER, questions(96), provider(server.url), limits=Limits(in_flight=96), price=PRICE)
        assert (asked.sent, asked.counts) == (96 - bills, {"ok": 96})
        found = books(sqlite_url, server.bills())
    assert len(found.bills) == same_text(sqlite_url) == 96
    found.check(most_extra=0)
    assert spent_and_reserved(again, "s")[""] == sum(row["spent"] for row in found.attempts.values())
    assert not again.spill.sessions()
    counts("T24", "a lock longer than the patience: 0 of 32 that were in flight dropped, 0 paid again")


@pytest.mark.fault("T24", runs="32 in flight")
def test_under_a_lock_that_ends_in_time_the_run_goes_on(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    monkeypatch.setattr(database, "HURRIED_SECONDS", 0.05)
    book, results = Book(sqlite_url), list[AskResult]()
    with FaultServer(latency=0.2) as server:
        running = ask_in_the_background(book, server, 96, results)
        wait(lambda: len(server.bills()) >= 40)
        with locked(sqlite_url):
            wait(lambda: bool(book.spill.sessions()))
            # Somebody else who looks meanwhile leaves alone what is not his.
            assert not list(Spill(folders(sa.make_url(sqlite_url))).left_behind())
        running.join()
        found = books(sqlite_url, server.bills())
    assert [(each.counts, each.stopped) for each in results] == [({"ok": 96}, None)]
    assert len(found.bills) == 96
    found.check(most_extra=0)
    assert not list(Path(f"{sqlite_url.removeprefix('sqlite:///')}.spill").iterdir())
    counts("T24", "a lock that ends in time: 96 of 96 answered and paid once in the same run")


@pytest.mark.fault("T24", runs="32 in flight")
def test_what_a_killed_process_had_put_outside_is_taken_in_by_the_next(sqlite_url: str, counts: Counts) -> None:
    with FaultServer(latency=0.4) as server:
        task = Task(ledger=sqlite_url, server=server.url, count=96, limits={"in_flight": 32})
        process = task.start()
        wait(lambda: len(server.bills()) >= 40)
        spill = Spill(folders(sa.make_url(sqlite_url)))
        with locked(sqlite_url):
            wait(lambda: sum(path.read_bytes().count(b"\n") for path in spill._files()) >= 32, every=0.05)
            process.kill()
        bills = len(server.bills())
        asked = task.ask()
        found = books(sqlite_url, server.bills())
    assert asked.counts == {"ok": 96}
    assert len(found.bills) == same_text(sqlite_url) == 96
    assert asked.sent == 96 - bills
    found.check(most_extra=0)
    counts("T24", "killed while the ledger was locked: 0 of 32 in flight lost, 0 paid again")


@pytest.mark.fault("T24", runs="32 in flight")
@pytest.mark.usefixtures("hurried")
def test_what_came_while_a_disk_was_full_is_kept_on_another(sqlite_url: str, home: Path, counts: Counts) -> None:
    book, results = Book(sqlite_url), list[AskResult]()
    # A file where the folder beside the ledger would be: as good as a disk without room for either.
    Path(f"{sqlite_url.removeprefix('sqlite:///')}.spill").touch()

    def full(connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("nift_reading"):
            connection.exec_driver_sql("pragma max_page_count = 1")

    with FaultServer(latency=0.3) as server:
        running = ask_in_the_background(book, server, 96, results)
        wait(lambda: len(server.bills()) >= 40)
        sa.event.listen(book._engine, "begin", full)
        running.join()
        (first,) = results
        assert first.stopped is not None
        assert "database or disk is full" in first.stopped.reason
        assert str(home) in first.stopped.remedy
        bills = len(server.bills())
        again = Book(sqlite_url)
        asked = ask(again, ASKER, questions(96), provider(server.url), limits=Limits(in_flight=96), price=PRICE)
        found = books(sqlite_url, server.bills())
    assert (asked.sent, asked.counts) == (96 - bills, {"ok": 96})
    found.check(most_extra=0)
    counts("T24", f"a full disk: {bills} of {bills} that were sent kept, 0 paid again")


@pytest.mark.fault("T24", runs="32 in flight")
@pytest.mark.usefixtures("hurried")
def test_without_a_place_outside_a_run_waits_for_the_ledger(
    sqlite_url: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for place in folders(sa.make_url(sqlite_url)):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    book, results = Book(sqlite_url), list[AskResult]()
    with FaultServer(latency=0.2) as server:
        running = ask_in_the_background(book, server, 64, results)
        wait(lambda: len(server.bills()) >= 32)
        with locked(sqlite_url):
            running.join(3)
            assert running.is_alive()
        running.join()
        assert len(server.bills()) == 64
    assert [(each.counts, each.stopped) for each in results] == [({"ok": 64}, None)]
    assert "is nowhere but here" in caplog.text


@pytest.mark.fault("T24", runs="32 in flight")
@pytest.mark.usefixtures("hurried")
def test_what_came_while_postgresql_was_away_is_taken_in_when_it_is_back(home: Path, counts: Counts) -> None:
    results = list[Any]()

    def asking() -> None:
        try:
            ask(book, ASKER, questions(96), provider(server.url), limits=Limits(in_flight=32), price=PRICE)
        except sa.exc.OperationalError as error:  # who is away cannot be read either
            results.append(error)

    with (
        tempfile.TemporaryDirectory(prefix="nift-postgres-") as folder,
        postgres(Path(folder)) as away,
        FaultServer(latency=0.4) as server,
    ):
        book = Book(away.url)
        running = threading.Thread(target=asking)
        running.start()
        wait(lambda: len(server.bills()) >= 40)
        away.stop()
        running.join()
        assert len(results) == 1
        assert list(home.rglob("*.jsonl"))
        away.start()
        bills = len(server.bills())
        asked = ask(
            Book(away.url), ASKER, questions(96), provider(server.url), limits=Limits(in_flight=96), price=PRICE
        )
        found = books(away.url, server.bills())
    assert (asked.sent, asked.counts) == (96 - bills, {"ok": 96})
    assert len(found.bills) == 96
    found.check(most_extra=0)
    assert not list(home.rglob("*.jsonl"))
    counts("T24", f"PostgreSQL gone for good under a run: {bills} of {bills} that were sent kept, 0 paid again")


@pytest.mark.fault("T24")
def test_a_session_that_has_lost_its_lock_is_not_ended_while_something_of_it_is_outside(sqlite_url: str) -> None:
    """Else what it claims is free, and asked again although the answer is there."""
    book, other = Book(sqlite_url), Book(sqlite_url)
    with book.session("w") as session:
        file = book.spill.of(session)
        file.keep({1: {"session": session, "study": "s", "who": "t", "attempt": {**ANSWERED, "key": "0" * 64}}})
        for lock in book._held[session]:
            lock.release()
        other.recover()
        assert [number for number, _ in open_sessions(sqlite_url)] == [session]
        file.close()
        other.recover()
        assert not open_sessions(sqlite_url)


# -- the file itself


def rows(*numbers: int) -> dict[int, dict[str, Any]]:
    return {number: {"n": number, "body": bytes([number, 0, 10, 255]), "none": None} for number in numbers}


def written(folder: Path, *numbers: int) -> Path:
    """A file of a session that is gone, with a row for each number."""
    file = Spill([folder]).of(7)
    file.keep(rows(*numbers))
    (path,) = file.places()
    file.close()
    return path


def test_rows_come_back_as_they_were_and_only_once(tmp_path: Path) -> None:
    spill = Spill([tmp_path / "a"])
    file = spill.of(7)
    file.keep(rows(1))
    file.keep(rows(1, 2))
    assert spill.sessions() == {7}
    assert not list(spill.left_behind())
    file.close()
    (left,) = spill.left_behind()
    assert (list(left.rows), left.damaged) == ([*rows(1, 2).values()], 0)
    for left in spill.left_behind():
        left.discard()
    assert not list((tmp_path / "a").iterdir())


@pytest.mark.parametrize("cut", range(1, 120, 17))
def test_a_last_line_that_was_cut_short_is_no_row_and_spoils_none(cut: int, tmp_path: Path) -> None:
    path = written(tmp_path, 1, 2, 3)
    whole = path.read_bytes()
    last = len(whole) - whole[:-1].rfind(b"\n") - 1
    path.write_bytes(whole[: -min(cut, last)])
    (left,) = Spill([tmp_path]).left_behind()
    assert (list(left.rows), left.damaged) == ([*rows(1, 2).values()], 0)


def test_a_flipped_byte_costs_its_own_line_and_is_told(tmp_path: Path) -> None:
    whole = written(tmp_path, 1, 2, 3).read_bytes()
    for place in range(len(whole)):
        path = next(tmp_path.glob("*.jsonl"))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        (left,) = Spill([tmp_path]).left_behind()
        good = [row for row in left.rows if row in rows(1, 2, 3).values()]
        assert list(left.rows) == good
        assert len(good) + max(left.damaged, place == len(whole) - 1) >= 2
        assert len(good) < 3


def test_a_full_disk_leaves_no_half_line_and_the_next_folder_takes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    pwrite, room = os.pwrite, 150

    def full(descriptor: int, content: bytes, at: int) -> int:
        if Path(os.readlink(f"/proc/self/fd/{descriptor}")).parent.name != "full":
            return pwrite(descriptor, content, at)
        if at >= room:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, content[: min(30, room - at)], at)

    monkeypatch.setattr("os.pwrite", full)
    spill = Spill([tmp_path / "full", tmp_path / "roomy"])
    file = spill.of(7)
    for number in (1, 2, 3, 4):
        file.keep(rows(number))
    assert len(file.places()) == 2
    file.close()
    found = [row for left in spill.left_behind() for row in left.rows]
    assert sorted(row["n"] for row in found) == [1, 2, 3, 4]
    assert not any(left.damaged for left in spill.left_behind())
    with pytest.raises(OSError, match="No space left"):
        Spill([tmp_path / "full"]).of(8).keep(rows(1, 2, 3))


def test_what_a_ledger_does_not_know_is_put_aside_and_named(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the ledger has been moved away and begun anew: its sessions have the old ones' numbers."""
    folder = folders(sa.make_url(sqlite_url))[0]
    file: SpillFile = Spill([folder]).of(1)
    file.keep({1: {"session": 1, "study": "s", "who": "t", "attempt": {**ANSWERED, "key": "0" * 64}}})
    file.close()
    book = Book(sqlite_url)
    assert not book.answered(["0" * 64])
    (aside,) = folder.glob("*.aside")
    assert str(aside) in caplog.text
    assert not book.spill.sessions()


def test_where_a_spill_lies(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside, own = folders(sa.make_url(f"sqlite:///{tmp_path}/ledger.sqlite"))
    assert beside == tmp_path / "ledger.sqlite.spill"
    assert home in own.parents
    (server,) = folders(sa.make_url("postgresql+psycopg://me:secret@db.example.org/nift"))
    assert folders(sa.make_url("postgresql+psycopg2://you@db.example.org/nift?sslmode=require")) == [server]
    assert folders(sa.make_url("postgresql+psycopg://me@db.example.org/other")) != [server]
    assert folders(sa.make_url("sqlite://")) == []
    monkeypatch.setenv("NIFT_LEDGER_SPILL", str(tmp_path / "shared"))
    assert folders(sa.make_url("postgresql+psycopg://me@db.example.org/nift")) == [tmp_path / "shared" / server.name]
