"""How far a run of requests is, and why it ended early if it did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why a run ended before everything was asked, in one line, and what a person can do about it."""

    reason: str
    remedy: str
    cause: str

    def __str__(self) -> str:
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


@dataclass(kw_only=True)
class Counts:
    """How far a run is: how many questions are wanted, and how many of them are settled, those that were before among
    them; which of its portions is being asked; what was sent, written and spent.

    `news` is what a person is to be told now and not again: that it waits for a server that is away, or that this is
    back. `waits` says that it has told that it waits for another process.
    """

    wanted: int = 0
    portions: int = 1
    portion: int = 0
    waits: bool = False
    sent: int = 0
    settled: int = 0
    output_tokens: int = 0
    spent: int = 0
    news: str | None = None
