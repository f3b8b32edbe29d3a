"""Refusals, held back until it is known whether they are about the texts or about the row that sends them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nift_assets.ledger.book import AttemptResult

# So many refusals in a row with the same words are not about so many texts.
REFUSED_ALIKE = 20


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """The refusals that are to be settled now; `stop` says that every request is refused alike."""

    settled: Sequence[AttemptResult]
    stop: bool = False


class Refusals:
    """Takes a refusal for final only when a request that left after it comes back otherwise.

    If nothing but the same refusal comes, the row or the account is wrong, and not the texts: then none of them is
    refused for good. It owns the refusals not yet settled, which all have the same words.
    """

    def __init__(self) -> None:
        self._held: list[tuple[float, AttemptResult]] = []
        self._message = ""

    def __len__(self) -> int:
        return len(self._held)

    def add(self, refusal: AttemptResult, message: str, now: float) -> Ruling:
        """Holds a refusal back, and says what is to be settled because of it."""
        believed = self.believe() if message != self._message else []
        self._message = message
        self._held.append((now, refusal))
        if len(self._held) < REFUSED_ALIKE:
            return Ruling(settled=believed)
        return Ruling(settled=[*believed, *self.doubt()], stop=True)

    def believe(self, *, before: float = math.inf) -> list[AttemptResult]:
        """Those that came before a moment, as final answers."""
        believed = [refusal for at, refusal in self._held if at < before]
        self._held = [(at, refusal) for at, refusal in self._held if at >= before]
        return believed

    def doubt(self) -> list[AttemptResult]:
        """All of them, as attempts that failed: the next run asks again."""
        doubted = [replace(refusal, body=None, headers=None) for _, refusal in self._held]
        self._held = []
        return doubted
