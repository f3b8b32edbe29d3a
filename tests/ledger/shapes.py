"""Both providers against the fault server: a row whose server it is, its questions, and one call of the door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from nift_assets import providers
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.door import AskResult, ask
from nift_assets.ledger.tables import attempts
from nift_assets.protocol import Request
from nift_assets.rows import LanguageModel, Limits, Price, Teacher
from tests.ledger.fault_server import Bill, FaultServer, expected_text

Shape = Literal["openai", "anthropic"]
SHAPES: tuple[Shape, ...] = ("openai", "anthropic")
MODEL = "m"
# An answer of the server has 24 to 87 tokens, a question of a test at most 100: no request costs more than this allows.
PRICE = Price(input=1.0, output=2.0, max_output=100)
KEY_VARIABLE = "FAULT_SERVER_API_KEY"
KEY = "sk-test-0123456789abcdef"


def teacher(shape: Shape, url: str, **changes: Any) -> Teacher:
    """A row whose server is at `url`, with a key from the environment variable `KEY_VARIABLE`."""
    own: dict[str, Any] = {"base_url": f"{url}/v1" if shape == "openai" else url, "key_variable": KEY_VARIABLE}
    if shape == "anthropic":
        own["max_tokens"] = 100
    return Teacher(**{"name": "t", "provider": shape, "model": MODEL, **own, **changes})


def prompts(count: int, *, first: int = 0) -> list[str]:
    """Texts that differ in their number only."""
    return [f"text {number}" for number in range(first, first + count)]


def questions(row: LanguageModel, texts: Sequence[str]) -> list[Request]:
    """What a row asks for these texts."""
    return [providers.request(row, text) for text in texts]


@dataclass
class Asking:
    """One ledger, and a row that is asked through it: what a test needs to ask and to look at afterwards."""

    ledger: str
    row: Teacher
    limits: dict[str, Any] = field(default_factory=dict)
    price: Price | None = PRICE
    who: str = "t"

    @property
    def book(self) -> Book:
        return Book(self.ledger)

    def ask(self, texts: Sequence[str], **changes: Any) -> AskResult:
        """One call of the door."""
        limits = Limits(
            **{"in_flight": 64, "backoff_seconds": 0.02, "seconds_per_request": 10, **self.limits, **changes}
        )
        asker = Asker(study="s", who=self.who, writer=f"s/{self.who}")
        provider = providers.load(self.row.provider).connect(self.row, None)
        return ask(self.book, asker, questions(self.row, texts), provider, limits=limits, price=self.price)

    def attempts(self) -> list[sa.Row[Any]]:
        """Every attempt in the book, in the order in which they were written down."""
        with self.book.reading() as connection:
            return list(connection.execute(sa.select(attempts).order_by(attempts.c.session, attempts.c.number)))

    def reserved(self) -> int:
        """What is reserved for attempts nobody knows the end of, in billionths of a dollar."""
        return sum(attempt.reserved for attempt in self.attempts())


@contextmanager
def asking(shape: Shape, folder: Path, *, faults: Sequence[dict[str, Any]] = (), **options: Any) -> Iterator[Both]:
    """A server with these faults, and a row that asks it through a fresh ledger in `folder`."""
    limits = options.pop("limits", {})
    with FaultServer(faults=faults, **options) as server:
        yield Both(server, Asking(f"sqlite:///{folder}/ledger.sqlite", teacher(shape, server.url), limits))


@dataclass(frozen=True)
class Both:
    """The server and who asks it."""

    server: FaultServer
    asking: Asking

    def ask(self, texts: Sequence[str], **changes: Any) -> AskResult:
        return self.asking.ask(texts, **changes)

    def bills(self) -> list[Bill]:
        return self.server.bills()

    def by_prompt(self) -> dict[str, list[Bill]]:
        """The arrivals of each prompt, in order."""
        found: dict[str, list[Bill]] = {}
        for bill in self.bills():
            assert bill.prompt is not None
            found.setdefault(bill.prompt, []).append(bill)
        return found


def right(texts: Sequence[str], asked: AskResult) -> int:
    """How many answers are `ok` and the text that belongs to their prompt."""
    pairs = zip(texts, asked.answers, strict=True)
    return sum(answer.status == "ok" and answer.text == expected_text(text, MODEL) for text, answer in pairs)
