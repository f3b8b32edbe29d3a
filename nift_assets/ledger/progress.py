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
    """What a run has done so far; `news` is what a person is to be told now and not again: that it waits for a server
    that is away, or that this is back."""

    wanted: int = 0
    sent: int = 0
    settled: int = 0
    output_tokens: int = 0
    spent: int = 0
    news: str | None = None
