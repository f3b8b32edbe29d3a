"""Work that calls back, as values that are asked for one by one: it goes on only while the next is waited for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class _Abandoned(Exception):
    """Nobody asks for the next value any more."""


@dataclass(frozen=True)
class _Ended:
    mistake: BaseException | None


def steps(work: Callable[[Callable[[int], None]], object]) -> Iterator[int]:
    """What the work hands to its callback, one at a time, with the random numbers it would draw undisturbed.

    The work stands still between two of them, so that several answers can be followed in turn by one thread: each gets
    the same random numbers as by itself. Whoever stops asking ends the work.
    """
    came: queue.SimpleQueue[int | _Ended] = queue.SimpleQueue()
    wanted = threading.Semaphore(0)
    abandoned = False

    def hand(value: int) -> None:
        came.put(value)
        wanted.acquire()
        if abandoned:
            raise _Abandoned

    def run() -> None:
        mistake: BaseException | None = None
        wanted.acquire()
        try:
            if not abandoned:
                work(hand)
        except _Abandoned:
            pass
        except BaseException as raised:  # it is raised again where the values are asked for
            mistake = raised
        came.put(_Ended(mistake))

    thread = threading.Thread(target=run, name="steps", daemon=True)
    thread.start()
    try:
        state: list[torch.Tensor] | None = None
        while True:
            if state is not None:
                _draw_on(state)
            wanted.release()
            value = came.get()
            if isinstance(value, _Ended):
                if value.mistake is not None:
                    raise value.mistake
                return
            state = _drawn()
            yield value
    finally:
        abandoned = True
        wanted.release()
        thread.join()


def _drawn() -> list[torch.Tensor]:
    """How far the random numbers of every device have been drawn."""
    import torch

    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())]


def _draw_on(state: list[torch.Tensor]) -> None:
    import torch

    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])
