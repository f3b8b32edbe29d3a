"""The attempts under way: a task for each, and a clock that ends those that take too long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nift_assets.ledger.connection import Failure, Response
from nift_assets.ledger.request_queue import QueuedRequest
from nift_assets.secrets import redaction


@dataclass(eq=False)
class Attempt:
    """One sending of a request; `awake` counts the seconds this process was running since its `task` began."""

    queued: QueuedRequest
    number: int
    left_at: float
    on_the_wire: bool = False
    awake: float = 0.0
    timed_out: bool = False
    task: asyncio.Task[None] | None = None


class InFlight:
    """The attempts under way. It owns their tasks, and tells how each came out before it forgets it.

    An attempt may take so many seconds of the time this process was running: after a laptop has slept the answers may
    lie in the socket.
    """

    def __init__(self, seconds: float, ended: Callable[[Attempt, Response | Failure], None]) -> None:
        self._seconds, self._ended = seconds, ended
        self._attempts: dict[int, Attempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def attempts(self) -> list[Attempt]:
        """Those under way, in the order in which they left."""
        return list(self._attempts.values())

    def launch(self, attempt: Attempt, post: Callable[[Attempt], Awaitable[Response | Failure]]) -> None:
        """Sends an attempt, and does not wait for it."""
        self._attempts[attempt.number] = attempt
        # The loop holds it until it begins, and from then on the attempt does.
        asyncio.get_running_loop().create_task(self._run(attempt, post))

    def pass_time(self, seconds: float) -> None:
        """Ends the attempts that have taken too long, when so many more seconds have passed."""
        for attempt in self._attempts.values():
            # A task that is cancelled before it has begun never runs, and would be in flight for ever.
            if attempt.task is None:
                continue
            attempt.awake += seconds
            if attempt.awake > self._seconds and not attempt.timed_out:
                attempt.timed_out = True
                attempt.task.cancel()

    def abandon(self) -> None:
        """Ends every attempt that has begun; each is told of as any other."""
        for attempt in self._attempts.values():
            if attempt.task:
                attempt.task.cancel()

    async def _run(self, attempt: Attempt, post: Callable[[Attempt], Awaitable[Response | Failure]]) -> None:
        attempt.task = asyncio.current_task()
        try:
            outcome = await post(attempt)
        except asyncio.CancelledError:
            # Ours, for a timeout; or the loop's own, when a drain has taken too long.
            outcome = _without_answer(attempt)
        except Exception as error:
            outcome = _unforeseen(error)
        try:
            self._ended(attempt, outcome)
        except Exception as error:
            self._ended(attempt, _unforeseen(error))
        finally:
            del self._attempts[attempt.number]


def _unforeseen(error: Exception) -> Failure:
    """Nothing that comes from outside may end an attempt without a trace."""
    return Failure(cause="malformed", message=redaction.safe(error), sent=True)


def _without_answer(attempt: Attempt) -> Failure:
    if attempt.timed_out and not attempt.on_the_wire:
        return Failure(cause="unreachable", message="no connection in time", sent=False)
    return Failure(cause="timeout" if attempt.timed_out else "abandoned", message="no answer in time", sent=True)
