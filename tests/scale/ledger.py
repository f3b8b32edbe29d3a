"""What the ledger costs beside many questions, in SQLite and in PostgreSQL.

    python -m tests.scale.ledger --sizes 10000 1000000 --databases sqlite postgresql

For each size a ledger is filled by bulk inserts, with the rows that the program itself would have stored: questions of
about 500 bytes with a limit of tokens, answers of about 2 kB with a server's headers, an attempt each. Keys come in no
order.
Then the program itself takes 10,000 new questions in, reads 20,000 that lie anywhere among the others, opens the ledger
and reports. CPU is this process's: a server's own is not in it. 10,000,000 questions need 25 GB of disk.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from nift_assets.ledger import question_counts, report
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import ask
from nift_assets.ledger.packing import packed, unpacked
from nift_assets.ledger.tables import answer_digest, limitless_number
from nift_assets.protocol import Message, Request
from tests.ledger.fault_server import WORDS
from tests.postgres import postgres
from tests.scale.pace import Took, timed

NEW, READ = 10_000, 20_000
AT_A_TIME = 20_000
# The rows of a ledger are filled from so many texts and answers, which differ as real ones do.
TEXTS, ANSWERS = 5_000, 2_000
TEACHERS = tuple(f"teacher-{number}" for number in range(8))
MODEL = "gpt-4o-mini-2024-07-18"
AT = "2026-01-01T00:00:00.000000+00:00"
COLUMNS = {
    "requests": "number key provider model body intended_at limitless",
    "wanted": "request study who",
    "attempts": "session number key study who state http_status request_id sent_at input_tokens output_tokens "
    "reserved spent",
    "answers": "key session number http_status status headers body answered_at digest",
}
Rows = dict[str, list[tuple[Any, ...]]]


def question(number: int) -> Request:
    """One of the questions of the ledger, or one that is not in it."""
    chance = random.Random(number)
    text = " ".join([str(number), *chance.choices(WORDS, k=55)])
    parameters = {"temperature": 0.0, "max_tokens": 1024}
    return Request(
        provider="openai", model=MODEL, messages=(Message(role="user", content=text),), parameters=parameters
    )


def answer_body(chance: random.Random) -> bytes:
    """A response as OpenAI's server sends it, of about 2 kB."""
    message = {
        "role": "assistant",
        "content": " ".join(chance.choices(WORDS, k=240)),
        "refusal": None,
        "annotations": [],
    }
    body = {
        "id": f"chatcmpl-{chance.getrandbits(116):029x}",
        "object": "chat.completion",
        "created": 1_790_000_000 + chance.randrange(10_000_000),
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": chance.randrange(90, 140),
            "completion_tokens": chance.randrange(280, 400),
            "total_tokens": chance.randrange(370, 540),
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": f"fp_{chance.getrandbits(40):010x}",
    }
    return json.dumps(body, indent=2).encode()


def answer_headers(chance: random.Random) -> bytes:
    """What stood above it."""
    headers = {
        "Date": f"Mon, 30 Nov 2026 {chance.randrange(24):02}:{chance.randrange(60):02}:{chance.randrange(60):02} GMT",
        "Content-Type": "application/json",
        "openai-processing-ms": str(chance.randrange(400, 6_000)),
        "openai-version": "2020-10-01",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-requests": str(chance.randrange(9_000, 10_000)),
        "x-ratelimit-remaining-tokens": str(chance.randrange(1_900_000, 2_000_000)),
        "x-request-id": f"req_{chance.getrandbits(128):032x}",
        "Server": "cloudflare",
        "CF-RAY": f"{chance.getrandbits(64):016x}-FRA",
    }
    return json.dumps(headers).encode()


@dataclass(frozen=True)
class Filling:
    """The rows of a ledger of so many questions. Every so many of them is one that the program can ask for again; the
    others have keys and texts that are as good."""

    count: int

    def asked_again(self, number: int) -> bool:
        return number % max(1, self.count // READ) == 0

    def to_read(self) -> list[Request]:
        numbers = [number for number in range(self.count) if self.asked_again(number)][:READ]
        random.Random(0).shuffle(numbers)
        return [question(number) for number in numbers]

    def portions(self) -> Iterator[Rows]:
        """All rows, a portion at a time."""
        bodies = [question(number).body() for number in range(TEXTS)]
        chance = random.Random(1)
        kept = [(packed(answer_headers(chance)), packed(answer_body(chance))) for _ in range(ANSWERS)]
        for first in range(0, self.count, AT_A_TIME):
            rows: Rows = {table: [] for table in COLUMNS}
            for number in range(first, min(first + AT_A_TIME, self.count)):
                self._add(rows, number, bodies, kept)
            yield rows

    def _add(self, rows: Rows, number: int, bodies: Sequence[str], kept: Sequence[tuple[bytes, bytes]]) -> None:
        who = TEACHERS[number * len(TEACHERS) // self.count]
        if self.asked_again(number):
            request = question(number)
            key, body, limitless = request.key, request.body(), request.limitless_key
        else:
            key, body = hashlib.sha256(b"%d" % number).hexdigest(), bodies[number % TEXTS]
            limitless = key[::-1]
        headers, answer = kept[number % ANSWERS]
        place = number + 1
        rows["requests"].append((place, key, "openai", MODEL, body, AT, limitless_number(limitless)))
        rows["wanted"].append((place, "today", who))
        sent = (1, place, key, "today", who, "answered", 200, f"req_{key[:32]}", AT, 120, 340, 0, 222_000)
        rows["attempts"].append(sent)
        digest = answer_digest(key, 200, headers, answer)
        rows["answers"].append((key, 1, place, 200, "ok", headers, answer, AT, digest))


@dataclass(frozen=True)
class Filled:
    """A ledger that was filled: where it is, and how many bytes its bodies have as they came and as they lie there."""

    url: str
    size: Callable[[], int]
    filling: Filling

    def measure(self) -> Iterator[str]:
        """What the program does with it, a line each."""
        yield f"file           {self._in_bytes()}"
        book, opened = timed(lambda: Book(self.url))
        yield f"opened in      {opened.seconds:.2f} s (pace {opened.pace:.2f})"
        found, took = timed(lambda: report.report(book))
        assert sum(sum(account.states.values()) for account in found.accounts) == self.filling.count
        yield f"report         {took.seconds:.3f} s (pace {took.pace:.2f})"
        yield f"taken in       {self._take_in(book).said(NEW)}"
        asked = self.filling.to_read()
        keys, hashed = timed(lambda: [request.key for request in asked])
        yield f"keys made      {hashed.said(len(asked))}"
        for _ in range(2):  # the first time from wherever it lies
            stored, took = timed(lambda: list(book.stored(keys)))
            assert len(stored) == len(asked)
            yield f"answers read   {took.said(len(asked))}"
        asker = Asker(study="today", who=TEACHERS[0], writer="bench")
        for _ in range(2):  # the first time some of them are another teacher's
            done, took = timed(lambda: ask(book, asker, asked, nobody))
            assert done.counts == {"ok": len(asked)}
            yield f"teacher's path {took.said(len(asked))}"
        book._engine.dispose()

    def _take_in(self, book: Book) -> Took:
        new = [question(number) for number in range(10**9, 10**9 + NEW)]
        asker = Asker(study="today", who=TEACHERS[0], writer="bench")
        with book.session("bench") as session:
            book.open_accounts(asker)
            claims, took = timed(lambda: book.intend(session, asker, new))
        assert len(claims.ours) == NEW
        return took

    def _in_bytes(self) -> str:
        """The size of the database, beside that of the bodies in it: of the first thousands, which are as all are."""
        book = Book(self.url)
        length = "length(cast(r.body as blob))" if self.url.startswith("sqlite") else "octet_length(r.body)"
        with book.reading() as connection:
            sizes = f"select {length} as size from requests r limit {TEXTS}"
            asked = float(connection.exec_driver_sql(f"select avg(size) from ({sizes}) sizes").scalar_one())
            stored = connection.exec_driver_sql(f"select body from answers limit {ANSWERS}").scalars().all()
        book._engine.dispose()
        lies = sum(len(body) for body in stored) / len(stored)
        came = sum(len(unpacked(bytes(body))) for body in stored) / len(stored)
        each = self.size() / self.filling.count
        return (
            f"{self.size() / 2**20:,.0f} MB, {each:,.0f} bytes each: {each / (asked + came):.2f} of the bodies as they "
            f"came ({asked:,.0f} + {came:,.0f}), {each / (asked + lies):.2f} as they lie there "
            f"({asked:,.0f} + {lies:,.0f})"
        )


def nobody() -> Any:
    raise AssertionError("everything is there already")


def fill_sqlite(folder: Path, filling: Filling) -> Filled:
    """An SQLite ledger, filled past every promise of its own: nobody counts on it before it is whole."""
    file = folder / "ledger.sqlite"
    url = f"sqlite:///{file}"
    book = Book(url)
    with book.writing() as connection:
        question_counts.drop_triggers(connection)
        connection.exec_driver_sql("drop trigger answers_written")
    book._engine.dispose()
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = off")
        connection.execute("pragma synchronous = off")
        connection.execute("pragma cache_size = -4000000")
        for rows in filling.portions():
            connection.execute("begin")
            for table, columns in COLUMNS.items():
                names = columns.split()
                values = ", ".join("?" * len(names))
                connection.executemany(f"insert into {table} ({', '.join(names)}) values ({values})", rows[table])
            connection.execute("commit")
        connection.execute("update high_water set answers = (select count(*) from answers)")
        connection.execute(
            "create trigger answers_written after insert on answers "
            "begin update high_water set answers = answers + 1; end"
        )
        connection.execute("pragma journal_mode = wal")
    _close_the_books(url)
    return Filled(url, lambda: file.stat().st_size, filling)


def fill_postgresql(url: str, filling: Filling) -> Filled:
    """A ledger in a PostgreSQL server."""
    Book(url)._engine.dispose()
    address = sa.make_url(url)
    with psycopg.connect(
        host=address.host, port=address.port, user=address.username, dbname=address.database, autocommit=True
    ) as connection:
        for table in COLUMNS:
            connection.execute(f"alter table {table} disable trigger user")  # type: ignore[arg-type]
        for rows in filling.portions():
            for table, columns in COLUMNS.items():
                names = ", ".join(columns.split())
                copy_in = f"copy {table} ({names}) from stdin"
                with connection.cursor() as cursor, cursor.copy(copy_in) as copy:  # type: ignore[arg-type]
                    for row in rows[table]:
                        copy.write_row(row)
        for table in COLUMNS:
            connection.execute(f"alter table {table} enable trigger user")  # type: ignore[arg-type]
        connection.execute(
            "select setval(pg_get_serial_sequence('requests', 'number'), (select max(number) from requests))"
        )
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")

    def size() -> int:
        with psycopg.connect(
            host=address.host, port=address.port, user=address.username, dbname=address.database
        ) as connection:
            row = connection.execute("select pg_database_size(current_database())").fetchone()
            assert row is not None
            return int(row[0])

    _close_the_books(url)
    return Filled(url, size, filling)


def _close_the_books(url: str) -> None:
    """Counts what was written past the triggers, and the accounts."""
    book = Book(url)
    with book.writing() as connection:
        question_counts.count_anew(connection)
        if connection.dialect.name == "sqlite":
            question_counts.create_triggers(connection)
        sent = "count(*), sum(input_tokens), sum(output_tokens), sum(spent)"
        for whose in ("who", "''"):
            connection.exec_driver_sql(
                "insert into spending (study, who, sent, input_tokens, output_tokens, spent, reserved) "
                f"select study, {whose}, {sent}, 0 from attempts group by study, {whose}"
                if whose == "who"
                else "insert into spending (study, who, sent, input_tokens, output_tokens, spent, reserved) "
                f"select study, '', {sent}, 0 from attempts group by study"
            )
    book._engine.dispose()


@contextmanager
def filled(database: str, count: int, folder: Path) -> Iterator[Filled]:
    """A ledger of so many questions, as long as the block."""
    with tempfile.TemporaryDirectory(prefix="nift-scale-", dir=folder) as place:
        if database == "sqlite":
            yield fill_sqlite(Path(place), Filling(count))
            return
        Path(place).chmod(0o755)
        with postgres(Path(place)) as server:
            yield fill_postgresql(server.url, Filling(count))


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--folder", type=Path, default=None, help="where the ledgers are made; the system's by default")
    options = parser.parse_args(None if arguments is None else list(arguments))
    for count, database in itertools.product(options.sizes, options.databases):
        began = time.monotonic()
        with filled(database, count, options.folder) as ledger:
            print(f"{database}, {count:,} questions (filled in {time.monotonic() - began:,.0f} s)", flush=True)
            for line in ledger.measure():
                print(f"  {line}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
