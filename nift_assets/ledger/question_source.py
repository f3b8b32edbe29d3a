"""Questions on their way from the thread that draws them to the one that sends them.

Drawing claims them in the ledger, which may have to wait for it; sending waits for nothing but the network.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from nift_assets.protocol.request import Request

# What is drawn ahead of what is being sent.
AHEAD = 1
SECONDS_BETWEEN_LOOKS = 0.2


class QuestionSource:
    """Questions that come by portions while others are sent; by `of`, questions that are all there."""

    def __init__(self) -> None:
        self._waiting: deque[deque[Request]] = deque()
        self._changed = threading.Condition()
        self._is_complete = self._is_given_up = False
        # Told when there is something new.
        self.arrived: Callable[[], None] = lambda: None

    @classmethod
    def of(cls, questions: Iterable[Request]) -> QuestionSource:
        source = cls()
        source._waiting.append(deque(questions))
        source._is_complete = True
        return source

    def put(self, questions: Sequence[Request]) -> bool:
        """Hands questions on, once those before them are being sent; False where nobody sends any more."""
        with self._changed:
            while len(self._waiting) > AHEAD and not self._is_given_up:
                self._changed.wait(SECONDS_BETWEEN_LOOKS)
            if self._is_given_up:
                return False
            self._waiting.append(deque(questions))
        self.arrived()
        return True

    def complete(self) -> None:
        """No more will come."""
        with self._changed:
            self._is_complete = True
        self.arrived()

    def give_up(self) -> None:
        """No more will be sent."""
        with self._changed:
            self._is_given_up = True
            self._changed.notify_all()

    def next(self) -> Request | None:
        """The next question; None while there is none."""
        with self._changed:
            while self._waiting and not self._waiting[0]:
                self._waiting.popleft()
                self._changed.notify_all()
            return self._waiting[0].popleft() if self._waiting else None

    def is_empty(self) -> bool:
        """Whether all have been sent, and no more will come."""
        with self._changed:
            return self._is_complete and not any(self._waiting)
