"""S15 and S16: a ledger that holds less than it did, or something else, is refused, and nothing is paid again."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from nift_assets.ledger import backups, high_water, question_counts, tables
from nift_assets.ledger.backups import accept, backup, check, restore
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import ask
from nift_assets.ledger.high_water import DamagedLedger, HighWater, Mark
from nift_assets.ledger.locks import AdvisoryLocks, FileLocks, Locks
from nift_assets.ledger.report import report
from nift_assets.ledger.tables import VERSION
from nift_assets.protocol import Request
from tests.counting import Counts
from tests.ledger.asking import Task, provider, questions
from tests.ledger.fault_server import FaultServer
from tests.ledgers import answered, play

ASKER = Asker(study="s", who="t", writer="s/t")
REMEDY = "nift ledger accept"
# As version 2 of the tables had it: five whole answers, three that were cut, one refusal, and three without an answer.
VERSION_2 = Path(__file__).with_name("version_2.sql")


def filled(folder: Path, answers: int = 60, *, text: str = "words and words ") -> Path:
    """A ledger that somebody was using a moment ago, as it lies on the disk: part of it in its `-wal`."""
    used = folder / "used"
    used.mkdir(parents=True)
    book = Book(f"sqlite:///{used}/ledger.sqlite")
    asked = questions(answers)
    half = answers // 2
    play(book, "s", "t", [(request, answered(f"{text * 20} {place}")) for place, request in enumerate(asked[:half])])
    with book.writing() as connection:
        connection.execute(sa.text("select 1"))
    with closing(sqlite3.connect(used / "ledger.sqlite")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    play(book, "s", "t", [(request, answered(f"{text * 20} {place}")) for place, request in enumerate(asked[half:])])
    kept = folder / "kept"
    copied(used, kept)
    assert (kept / "ledger.sqlite-wal").stat().st_size > 10_000
    return kept / "ledger.sqlite"


def copied(folder: Path, to: Path) -> None:
    to.mkdir()
    for file in sorted(folder.iterdir()):
        if file.is_file() and not file.name.endswith("-shm"):
            shutil.copy(file, to / file.name)


def paid_again(file: Path, count: int = 60) -> int | str:
    """How many of the questions would be asked again; the refusal where nobody may ask."""
    try:
        book = Book(f"sqlite:///{file}")
        with book.session(ASKER.writer) as session:
            book.open_accounts(ASKER)
            claims = book.intend(session, ASKER, questions(count))
        list(book.stored([request.key for request in questions(count)]))
    except ValueError as error:
        return str(error)
    return len(claims.ours)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("ledger"))


@pytest.fixture
def ledger(kept: Path, tmp_path: Path) -> Path:
    """A ledger of 60 answers of the test's own, to be injured."""
    copied(kept.parent, tmp_path / "ledger")
    return tmp_path / "ledger" / "ledger.sqlite"


def test_a_whole_ledger_asks_nothing_again(ledger: Path) -> None:
    assert paid_again(ledger) == 0
    assert check(f"sqlite:///{ledger}").whole


# -- the injuries


def no_wal(ledger: Path) -> None:
    ledger.with_name("ledger.sqlite-wal").unlink()


def cut_wal(ledger: Path) -> None:
    wal = ledger.with_name("ledger.sqlite-wal")
    os.truncate(wal, wal.stat().st_size * 2 // 3)


def copied_alone(ledger: Path) -> None:
    for name in ("ledger.sqlite-wal", "ledger.sqlite.mark"):
        ledger.with_name(name).unlink()


def gone(ledger: Path) -> None:
    ledger.unlink()
    no_wal(ledger)


def flipped_wal(ledger: Path) -> None:
    flip(ledger.with_name("ledger.sqlite-wal"), 20, random.Random(1))


def flip(path: Path, count: int, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for place in chance.sample(range(len(content)), count):
        content[place] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def another(ledger: Path) -> None:
    for file in list(ledger.parent.iterdir()):
        if file.name != "ledger.sqlite.mark":
            file.unlink()
    elsewhere = ledger.parent / "elsewhere"
    elsewhere.mkdir()
    book = Book(f"sqlite:///{elsewhere}/ledger.sqlite")
    for first in range(20):
        play(book, "s", "t", [(question, answered("another's")) for question in questions(5, first=100 + 5 * first)])
    backups.backup(f"sqlite:///{elsewhere}/ledger.sqlite", elsewhere / "copy.sqlite")
    (elsewhere / "copy.sqlite").rename(ledger)


INJURIES: Sequence[Callable[[Path], None]] = (no_wal, cut_wal, copied_alone, gone, flipped_wal, another)


@pytest.mark.fault("S16", runs="6 injuries")
@pytest.mark.parametrize("injury", INJURIES, ids=lambda injury: injury.__name__)
def test_a_ledger_that_holds_less_than_it_did_is_refused_with_the_remedy(
    injury: Callable[[Path], None], ledger: Path, counts: Counts
) -> None:
    injury(ledger)
    for _ in range(2):
        refusal = paid_again(ledger)
        assert REMEDY in str(refusal)
        assert str(ledger) in str(refusal)
    counts("S16", f"{injury.__name__}: refused with the remedy, 0 of 60 paid again without a word")


def test_what_was_lost_is_whole_again_when_it_is_put_back(ledger: Path) -> None:
    wal = ledger.with_name("ledger.sqlite-wal")
    content = wal.read_bytes()
    wal.unlink()
    assert REMEDY in str(paid_again(ledger))
    for beside in ("-wal", "-shm"):
        ledger.with_name(f"{ledger.name}{beside}").unlink(missing_ok=True)
    wal.write_bytes(content)
    assert paid_again(ledger) == 0


def test_a_shortened_ledger_goes_on_when_somebody_says_so(ledger: Path) -> None:
    no_wal(ledger)
    lost = accept(f"sqlite:///{ledger}")
    assert lost.answers == 30
    assert paid_again(ledger) == 30
    assert check(f"sqlite:///{ledger}").whole


def test_a_ledger_that_is_gone_begins_anew_when_somebody_says_so(ledger: Path) -> None:
    gone(ledger)
    accept(f"sqlite:///{ledger}")
    assert paid_again(ledger) == 60


FLIPS = 60


@pytest.mark.fault("S15", runs="60 ledgers, 20 bytes each")
def test_no_flipped_byte_is_another_answer_or_paid_again_without_a_word(
    kept: Path, tmp_path: Path, counts: Counts
) -> None:
    """20 flipped bytes anywhere in the file: every answer is the one that was stored, or the ledger is refused."""
    whole = tmp_path / "whole.sqlite"
    backup(f"sqlite:///{kept}", whole)
    texts = {row.key: row.body for row in Book(f"sqlite:///{whole}").stored([q.key for q in questions(60)])}
    refused = 0
    for seed in range(FLIPS):
        ledger = tmp_path / str(seed) / "ledger.sqlite"
        ledger.parent.mkdir()
        shutil.copy(whole, ledger)
        shutil.copy(f"{whole}.mark", f"{ledger}.mark")
        flip(ledger, 20, random.Random(seed))
        outcome = paid_again(ledger)
        refused += isinstance(outcome, str)
        if isinstance(outcome, str):
            assert "nift ledger" in outcome
            continue
        assert outcome == 0
        assert {r.key: r.body for r in Book(f"sqlite:///{ledger}").stored(list(texts))} == texts
    assert refused > FLIPS // 2
    counts(
        "S15", f"20 bytes flipped in {FLIPS} ledgers of 60 answers: {refused} refused, 0 paid again, 0 other answers"
    )


@pytest.mark.fault("S15")
def test_a_description_of_which_even_the_complaint_is_no_text_is_damage(kept: Path, tmp_path: Path) -> None:
    ledger = backup(f"sqlite:///{kept}", tmp_path / "ledger.sqlite")
    content = ledger.read_bytes()
    assert b"begin insert into" in content
    ledger.write_bytes(content.replace(b"begin insert into", b"begin \xf4\xffsert into"))
    assert REMEDY in str(paid_again(ledger))
    assert not check(f"sqlite:///{ledger}").whole


@pytest.mark.fault("S15")
def test_a_flipped_answer_is_named_and_the_others_stay(ledger: Path) -> None:
    book = Book(f"sqlite:///{ledger}")
    key = questions(60)[7].key
    with book.writing() as connection:
        of_key = tables.answers.c.key == key
        body = connection.execute(sa.select(tables.answers.c.body).where(of_key)).scalar_one()
        changed = body.replace(b"words", b"Words")
        connection.execute(sa.update(tables.answers).where(of_key).values(body=changed))
    with pytest.raises(DamagedLedger, match=f"answer {key} is not what was stored"):
        list(book.stored([key]))
    assert report(book).accounts[0].states == {"ok": 60}, "it counts, and reads no answer"
    assert list(check(f"sqlite:///{ledger}").damaged.values()) == [key]
    with pytest.raises(DamagedLedger, match="1 answers are not what was stored"):
        backup(f"sqlite:///{ledger}", ledger.with_name("copy.sqlite"))
    assert list(accept(f"sqlite:///{ledger}").damaged.values()) == [key]
    assert paid_again(ledger) == 1


@pytest.mark.parametrize("gone", [("answers",), ("answers", "requests")], ids="-".join)
def test_an_answer_that_only_its_attempt_remembers_is_not_asked_again(gone: Sequence[str], ledger: Path) -> None:
    book = Book(f"sqlite:///{ledger}")
    with book.writing() as connection:
        for table in gone:
            connection.execute(sa.text(f"delete from {table} where key = :key"), {"key": questions(1)[0].key})
    assert "has lost the answer" in str(paid_again(ledger))
    accept(f"sqlite:///{ledger}")
    assert paid_again(ledger) == 1


# -- the mark


def test_a_crash_between_commit_and_mark_refuses_no_whole_ledger(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mark, "write", lambda *_: None)
    play(Book(f"sqlite:///{ledger}"), "s", "t", [(q, answered("late")) for q in questions(5, first=60)])
    monkeypatch.undo()
    before = Mark(ledger).read()
    assert paid_again(ledger, 65) == 0
    after = Mark(ledger).read()
    assert before is not None
    assert after is not None
    assert after.commits > before.commits


def test_a_mark_that_cannot_be_written_stops_nobody(ledger: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = Book(f"sqlite:///{ledger}")
    Mark(ledger).path.unlink()
    play(book, "s", "t", [(q, answered("late")) for q in questions(5, first=60)])
    assert "cannot be written" in caplog.text


def test_a_torn_mark_is_the_one_before(tmp_path: Path) -> None:
    mark = Mark(tmp_path / "ledger.sqlite")
    made = mark.make()
    for commits in range(1, 10):
        mark.write(HighWater(made.ledger, commits))
        assert mark.read() == HighWater(made.ledger, commits)
    content = bytearray(mark.path.read_bytes())
    content[9 % high_water.SLOTS * high_water.SLOT_BYTES + 40] ^= 1
    mark.path.write_bytes(content)
    assert mark.read() == HighWater(made.ledger, 8)


def test_every_commit_that_changes_something_raises_the_mark_and_no_other(ledger: Path) -> None:
    book = Book(f"sqlite:///{ledger}")

    def commits() -> int:
        found = Mark(ledger).read()
        assert found is not None
        return found.commits

    before = commits()
    with book.reading() as connection:
        connection.execute(sa.text("select count(*) from answers")).scalar()
    with book.writing() as connection:
        connection.execute(sa.text("select count(*) from answers")).scalar()
    assert commits() == before
    with book.writing() as connection:
        connection.execute(sa.text("update requests set detail = 'x'"))
        connection.rollback()
    assert commits() == before
    with book.writing() as connection:
        connection.execute(sa.text("update requests set detail = 'x'"))
    assert commits() == before + 1
    found = high_water.look(ledger)
    assert found is not None
    assert found.mark == Mark(ledger).read()


def test_two_who_make_a_ledger_at_once_make_one(tmp_path: Path) -> None:
    made: list[Book | BaseException] = []

    def make() -> None:
        try:
            made.append(Book(f"sqlite:///{tmp_path}/ledger.sqlite"))
        except BaseException as error:
            made.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(book, Book) for book in made), made
    play(Book(f"sqlite:///{tmp_path}/ledger.sqlite"), "s", "t", [(questions(1)[0], answered("one"))])
    assert paid_again(tmp_path / "ledger.sqlite", 1) == 0


# -- copies


@pytest.mark.fault("S16")
def test_a_backup_of_a_ledger_in_use_is_whole_and_a_plain_copy_is_whole_or_refused(
    tmp_path: Path, counts: Counts
) -> None:
    """Two processes ask; meanwhile it is copied by both ways, again and again."""
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    short = refused = 0
    with FaultServer(latency=0.002) as server:
        tasks = [
            Task(ledger=url, server=server.url, count=700, first=700 * n, who=f"t{n}", writer=f"w{n}") for n in (0, 1)
        ]
        running = [task.start() for task in tasks]
        copies = 0
        while any(process.running() for process in running):
            found = high_water.look(tmp_path / "ledger.sqlite")
            if found is None or found.answers < 20:
                continue
            copies += 1
            whole = backup(url, tmp_path / f"backup-{copies}.sqlite")
            assert backups._count(whole) >= found.answers
            assert check(f"sqlite:///{whole}").whole
            plain = tmp_path / f"plain-{copies}"
            plain.mkdir()
            for file in sorted(tmp_path.glob("ledger.sqlite*")):
                if file.is_file() and not file.name.endswith("-shm"):
                    shutil.copy(file, plain / file.name)
                    time.sleep(0.05)
            try:
                Book(f"sqlite:///{plain}/ledger.sqlite")
            except DamagedLedger:
                refused += 1
            else:
                short += backups._count(plain / "ledger.sqlite") < found.answers
        for process in running:
            process.result()
    assert copies > 3
    assert short == 0
    counts(
        "S16",
        f"{copies} backups while two processes ask: all whole; {refused} of {copies} plain copies refused, "
        "the others whole",
    )


def test_a_backup_is_put_back_and_the_ledger_of_before_is_kept(ledger: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{ledger}"
    copy = backup(url, tmp_path)
    assert copy.name.startswith("ledger-")
    play(Book(url), "s", "t", [(q, answered("late")) for q in questions(5, first=60)])
    no_wal_now = Book(url)
    with pytest.raises(ValueError, match="a run is asking as s/t right now"), no_wal_now.session(ASKER.writer):
        restore(url, copy)
    restored = restore(url, copy)
    assert restored.answers == 60
    assert paid_again(ledger, 65) == 5
    assert restored.replaced is not None
    assert paid_again(restored.replaced, 65) == 0
    with pytest.raises(ValueError, match="is there already"):
        backup(url, copy)


def test_a_copy_that_cannot_be_made_is_one_line_and_leaves_nothing(ledger: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be copied to .*; free some space there, or see to its folder"):
        backup(f"sqlite:///{ledger}", tmp_path / "nowhere" / "copy.sqlite")
    with pytest.raises(ValueError, match="there is no ledger at"):
        backup(f"sqlite:///{tmp_path}/none.sqlite", tmp_path / "copy.sqlite")
    with pytest.raises(ValueError, match="there is no backup at"):
        restore(f"sqlite:///{ledger}", tmp_path / "copy.sqlite")
    assert {file.name for file in tmp_path.iterdir()} == {"ledger"}


def test_a_backup_is_put_where_there_was_nothing(ledger: Path, tmp_path: Path) -> None:
    copy = backup(f"sqlite:///{ledger}", tmp_path / "copy.sqlite")
    restored = restore(f"sqlite:///{tmp_path}/new/ledger.sqlite", copy)
    assert (restored.answers, restored.replaced) == (60, None)
    assert paid_again(tmp_path / "new" / "ledger.sqlite") == 0


def test_a_restore_that_is_killed_at_any_step_loses_nothing_without_a_word(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before each renaming in turn, it leaves a whole ledger or a refusal, and run again it ends."""
    copy = backup(f"sqlite:///{kept}", tmp_path / "copy.sqlite")
    for step in range(12):
        ledger = tmp_path / str(step) / "ledger.sqlite"
        copied(kept.parent, ledger.parent)
        left = step

        def stopping(name: str) -> Callable[..., object]:
            before = getattr(Path, name)

            def stops(self: Path, *arguments: object) -> object:
                nonlocal left
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
                return before(self, *arguments)

            return stops

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", stopping("rename"))
            patched.setattr(Path, "replace", stopping("replace"))
            try:
                restore(f"sqlite:///{ledger}", copy)
            except KeyboardInterrupt:
                ended = False
            else:
                ended = True
        outcome = paid_again(ledger)
        assert outcome == 0 or REMEDY in str(outcome)
        restore(f"sqlite:///{ledger}", copy)
        assert paid_again(ledger) == 0
        if ended:
            assert step > 4
            return
    raise AssertionError("it never ended")


def test_a_server_is_backed_up_by_its_own_tools() -> None:
    with pytest.raises(ValueError, match=r"the database server db.example: back it up there, with pg_dump"):
        backup("postgresql+psycopg://nift@db.example/nift", Path("copy.sqlite"))


# -- a ledger of version 2


@pytest.fixture
def old(tmp_path: Path) -> Path:
    file = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(VERSION_2.read_text())
    return file


def old_questions(limit: int = 20) -> list[Request]:
    return questions(12, parameters={"temperature": 0.0, "max_tokens": limit})


def test_a_ledger_of_version_2_is_brought_to_this_one_and_kept_as_it_was(old: Path) -> None:
    book = Book(f"sqlite:///{old}")
    stored = list(book.stored([request.key for request in old_questions()]))
    assert len(stored) == 9
    assert check(f"sqlite:///{old}").whole
    with book.reading() as connection:
        assert connection.scalar(sa.text("select count(*) from answers where digest is null")) == 0
        assert connection.scalar(sa.text("select count(*) from requests where limitless is null")) == 0
    with closing(sqlite3.connect(f"{old}.version-2")) as before:
        assert before.execute("select max(version) from schema").fetchone() == (2,)
        assert before.execute("select count(*) from answers").fetchone() == (9,)
    with FaultServer() as server:
        asked = ask(book, ASKER, old_questions(), provider(server.url))
        assert len(server.bills()) == asked.sent == 2
    assert asked.counts == {"ok": 5, "truncated": 5, "rejected": 1, "unknown": 1}
    assert Book(f"sqlite:///{old}").answered([r.key for r in old_questions()]) == {
        r.key for place, r in enumerate(old_questions()) if place != 9
    }


def test_a_migration_that_is_killed_is_made_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nift_assets.ledger import migrations

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "_pack_answers", killed)
    with pytest.raises(KeyboardInterrupt):
        Book(f"sqlite:///{old}")
    monkeypatch.undo()
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("select max(version) from schema").fetchone() == (2,)
    assert len(Book(f"sqlite:///{old}").answered([r.key for r in old_questions()])) == 9


def test_the_copy_of_version_2_can_be_put_back(old: Path) -> None:
    Book(f"sqlite:///{old}")
    restored = restore(f"sqlite:///{old}", Path(f"{old}.version-2"))
    assert restored.answers == 9
    assert len(Book(f"sqlite:///{old}").answered([r.key for r in old_questions()])) == 9


def test_a_ledger_of_version_2_put_over_a_later_one_is_refused(old: Path) -> None:
    book = Book(f"sqlite:///{old}")
    play(book, "s", "t", [(q, answered("late")) for q in questions(5, first=60)])
    book._engine.dispose()
    for beside in ("-wal", "-shm"):
        Path(f"{old}{beside}").unlink(missing_ok=True)
    shutil.copy(f"{old}.version-2", old)
    with pytest.raises(DamagedLedger, match=REMEDY):
        Book(f"sqlite:///{old}")
    accept(f"sqlite:///{old}")
    assert len(Book(f"sqlite:///{old}").answered([r.key for r in old_questions()])) == 9


# -- a ledger of version 3

# As version 3 of the tables had it: each way a question can stand, one wanted by two teachers, one answered below its
# limit, one in a batch.
VERSION_3 = Path(__file__).with_name("version_3.sql")
STATES_OF_VERSION_3 = {
    ("s", "t"): {
        "empty": 1,
        "exhausted": 1,
        "in batch": 1,
        "ok": 2,
        "pending": 2,
        "refused": 1,
        "rejected": 1,
        "truncated": 1,
        "unknown": 1,
    },
    ("s", "u"): {"ok": 1, "unknown": 1},
    ("s2", "t"): {"ok": 2, "pending": 1, "truncated": 1},
}


def of_version_3(file: Path) -> Path:
    """A ledger of version 3 with its mark."""
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(VERSION_3.read_text())
        ((ledger, commits),) = connection.execute("select ledger, commits from high_water").fetchall()
    Mark(file).put(HighWater(ledger, commits))
    return file


def is_as_version_3_said(book: Book) -> None:
    """The states, the requests sent, the tokens and the money are those that version 3 reported."""
    found = report(book)
    assert {(account.study, account.who): account.states for account in found.accounts} == STATES_OF_VERSION_3
    assert [account.reused for account in found.accounts] == [0, 0, 1]
    first = found.accounts[0]
    assert (first.sent, first.input_tokens, first.output_tokens) == (9, 50, 25)
    assert (first.spent, first.reserved) == (2_000_000, 2_000_000)
    assert found.totals == {"s": (2_000_000, 2_000_000), "s2": (0, 0)}
    with book.reading() as connection:
        assert question_counts.counted(connection) == question_counts.recounted(connection)


def test_a_ledger_of_version_3_is_brought_to_this_one_and_kept_as_it_was(tmp_path: Path) -> None:
    file = of_version_3(tmp_path / "ledger.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        came = dict(connection.execute("select key, body from answers").fetchall())
        headers = dict(connection.execute("select key, headers from answers").fetchall())
    book = Book(f"sqlite:///{file}")
    is_as_version_3_said(book)
    assert {stored.key: stored.body for stored in book.stored(list(came))} == came
    with book.reading() as connection:
        kept = connection.execute(sa.select(tables.answers.c.key, tables.answers.c.headers)).all()
    assert {key: text.decode() for key, text in kept} == headers
    assert check(f"sqlite:///{file}").whole
    with closing(sqlite3.connect(f"{file}.version-3")) as before:
        assert before.execute("select max(version) from schema").fetchone() == (3,)
        assert dict(before.execute("select key, body from answers").fetchall()) == came
    limited = questions(8, parameters={"temperature": 0.0, "max_tokens": 90})
    assert len(book.settled(limited, reuse_below_limit=True)) == 3, "found below the limit as before"
    assert restore(f"sqlite:///{file}", Path(f"{file}.version-3")).answers == 7
    is_as_version_3_said(Book(f"sqlite:///{file}"))


def test_a_migration_that_is_killed_at_any_statement_is_made_again(tmp_path: Path) -> None:
    whole = of_version_3(tmp_path / "whole" / "ledger.sqlite")
    statement = 0
    while True:
        file = tmp_path / str(statement) / "ledger.sqlite"
        copied(whole.parent, file.parent)
        left = statement

        def dies(*_: object) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

        sa.event.listen(sa.engine.Engine, "before_cursor_execute", dies)
        try:
            Book(f"sqlite:///{file}")
        except KeyboardInterrupt:
            ended = False
        else:
            ended = True
        finally:
            sa.event.remove(sa.engine.Engine, "before_cursor_execute", dies)
        if not ended:
            with closing(sqlite3.connect(file)) as connection:
                assert connection.execute("select max(version) from schema").fetchone() == (3,)
        is_as_version_3_said(Book(f"sqlite:///{file}"))
        if ended:
            break
        statement += 5
    assert statement > 30


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_ledger_is_not_brought_to_this_version_while_a_run_asks_through_it(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What comes back to a program of before would find no table to go into."""
    locks: Locks
    if database == "sqlite":
        url = f"sqlite:///{of_version_3(tmp_path / 'ledger.sqlite')}"
        locks = FileLocks(tmp_path / "ledger.sqlite.locks")
    else:
        url = str(request.getfixturevalue("database_url"))
        on_a_server(url, VERSION_3)
        locks = AdvisoryLocks(sa.create_engine(url))
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("update sessions set ended = false where id = 5"))
    lock = locks.hold("session 5")
    assert lock is not None
    with pytest.raises(ValueError, match="a run is asking as s/t right now"):
        Book(url)
    lock.release()
    is_as_version_3_said(Book(url))


def test_whoever_reads_a_ledger_does_not_keep_it_from_this_version(tmp_path: Path) -> None:
    file = of_version_3(tmp_path / "ledger.sqlite")
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        reader.execute("pragma journal_mode = wal")
        reader.execute("begin")
        assert reader.execute("select count(*) from answers").fetchone() == (7,)
        is_as_version_3_said(Book(f"sqlite:///{file}"))
        assert reader.execute("select count(*) from answers where headers = '{}'").fetchone() == (7,)


def test_a_damaged_answer_of_version_3_is_no_whole_one_of_this(tmp_path: Path) -> None:
    file = of_version_3(tmp_path / "ledger.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        ((key,),) = connection.execute(
            "update answers set body = cast(replace(body, 'whole', 'While') as blob) where instr(body, 'whole') "
            "and taken_from is null returning key"
        ).fetchall()
        connection.commit()
    book = Book(f"sqlite:///{file}")
    with pytest.raises(DamagedLedger, match=f"answer {key} is not what was stored"):
        list(book.stored([key]))
    assert list(check(f"sqlite:///{file}").damaged.values()) == [key]


def test_a_ledger_of_version_3_that_holds_less_than_it_did_is_refused_as_it_is(tmp_path: Path) -> None:
    file = of_version_3(tmp_path / "ledger.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        ((ledger, commits),) = connection.execute("select ledger, commits from high_water").fetchall()
    Mark(file).put(HighWater(ledger, commits + 1))
    with pytest.raises(DamagedLedger, match=REMEDY):
        Book(f"sqlite:///{file}")
    assert not Path(f"{file}.version-3").exists()
    accept(f"sqlite:///{file}")
    is_as_version_3_said(Book(f"sqlite:///{file}"))
    Mark(file).path.unlink()
    with pytest.raises(DamagedLedger, match="has no mark beside it"):
        Book(f"sqlite:///{file}")


def on_a_server(url: str, dump: Path) -> None:
    """The tables and rows of an SQLite dump, on a database server as the program of that version had made them."""
    engine = sa.create_engine(url)
    with closing(sqlite3.connect(":memory:")) as memory, engine.begin() as connection:
        memory.executescript(dump.read_text())
        for name, made in memory.execute("select name, sql from sqlite_master where type = 'table'").fetchall():
            if name in ("high_water", "sqlite_sequence"):
                continue
            made = made.replace("BLOB", "BYTEA").replace(
                "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", "SERIAL PRIMARY KEY"
            )
            connection.exec_driver_sql(made)
            table = sa.Table(name, sa.MetaData(), autoload_with=connection)
            rows = memory.execute(f"select * from {name}")
            truths = {column.name for column in table.columns if isinstance(column.type, sa.Boolean)}
            names = [column[0] for column in rows.description]
            for row in rows.fetchall():
                values = {key: bool(value) if key in truths else value for key, value in zip(names, row, strict=True)}
                connection.execute(sa.insert(table).values(values))
        for (made,) in memory.execute("select sql from sqlite_master where type = 'index' and sql is not null"):
            connection.exec_driver_sql(made)
    engine.dispose()


def test_a_ledger_of_version_2_in_postgresql_is_brought_to_this_one(database_url: str) -> None:
    on_a_server(database_url, VERSION_2)
    book = Book(database_url)
    assert len(list(book.stored([r.key for r in old_questions()]))) == 9
    assert len(book.settled(old_questions(30), reuse_below_limit=True)) == 5
    with book.reading() as connection:
        assert connection.scalar(sa.text("select count(*) from answers where digest is null")) == 0
        assert connection.scalar(sa.text("select max(version) from schema")) == VERSION


def test_a_ledger_of_version_3_in_postgresql_is_brought_to_this_one(database_url: str) -> None:
    on_a_server(database_url, VERSION_3)
    is_as_version_3_said(Book(database_url))
    is_as_version_3_said(Book(database_url))


# -- a ledger that can only be read

LOOKING = """
import os, sys
import sqlalchemy.dialects.sqlite
from nift_assets import providers
from nift_assets.ledger.book import Book
from nift_assets.ledger.report import report
url = sys.argv[1]
providers.load("openai")
os.setuid(65534)
try:
    Book(url)
except ValueError as error:
    print(error)
print([account.states for account in report(Book(url, look=True)).accounts])
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="nift-readers-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
@pytest.mark.parametrize("in_use", [False, True])
def test_a_ledger_that_cannot_be_written_can_be_looked_at(in_use: bool, open_folder: Path) -> None:
    folder = open_folder / "folder of 100% [who?]"
    folder.mkdir()
    url = sa.URL.create("sqlite", database=str(folder / "ledger.sqlite"))
    book = Book(url)
    play(book, "s", "t", [(q, answered("read me")) for q in questions(5)])
    if not in_use:
        book._engine.dispose()
        assert not (folder / "ledger.sqlite-wal").exists()
    address = url.render_as_string()
    looked = subprocess.run([sys.executable, "-c", LOOKING, address], capture_output=True, text=True, check=False)
    assert looked.stdout == (
        f"the ledger {folder}/ledger.sqlite cannot be written; give its file and its folder to whoever runs this\n"
        "[{'ok': 5}]\n"
    ), looked.stderr
    assert {file.name for file in folder.iterdir()} >= {"ledger.sqlite", "ledger.sqlite.mark"}


@pytest.mark.parametrize("name", ["a[b]", "what?", "100% sure", "a b", "ä#1"])
def test_a_ledger_may_lie_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = sa.URL.create("sqlite", database=str(folder / "ledger.sqlite"))
    play(Book(url), "s", "t", [(q, answered("there")) for q in questions(5)])
    assert len(Book(url, look=True).answered([q.key for q in questions(5)])) == 5
    assert backup(url, folder / "copy.sqlite").exists()
    assert {file.name for file in tmp_path.iterdir()} == {name}
