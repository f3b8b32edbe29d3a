"""Telling a tracker: what it is told costs the work no time, and no fault of the tracker reaches the work."""

from __future__ import annotations

import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import ClassVar

from nift_training import process_environment, progress
from nift_training.tracking import trackers
from nift_training.tracking.measurements import Measurement, Opening, RunEnding, Told, as_line

MOST_WAITING = 100_000
END_SECONDS = 10.0


class Follower:
    """Tells a tracker of one run after the other, through a process of its own. A fault of it is one line, said once.

    ValueError for a setting that names no tracker: that is a person's, and nothing has begun.
    """

    # The settings of those that this process has waited for in vain: it waits for each of them once.
    late: ClassVar[set[str]] = set()

    def __init__(self, setting: str, say: Callable[[str], None] = progress.say) -> None:
        trackers.parse(setting)
        self._setting = setting
        self._say_line = say
        self._waiting: queue.Queue[Told | None] = queue.Queue(MOST_WAITING)
        self._wrong: list[str] = []
        self._said = False
        self._is_open = False
        self._served = threading.Thread(target=self._serve, args=(setting,), daemon=True)
        self._served.start()

    def begin(self, opening: Opening) -> None:
        """The run that all further numbers are of."""
        self._is_open = True
        self._put(opening)

    def tell(self, step: int, numbers: Mapping[str, float | None]) -> None:
        """What was measured at a step; what is no finite number is left out."""
        finite = {name: number for name, number in numbers.items() if number is not None and math.isfinite(number)}
        if finite:
            self._put(Measurement(step=step, seconds=time.time(), numbers=finite))
        self._say()

    def end(self, *, finished: bool = True) -> None:
        """How the run ended."""
        self._is_open = False
        self._put(RunEnding(finished=finished))

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Waits some seconds for what is not sent yet, unless something is wrong already or was before; if the tracker
        takes it within a minute it is sent in any case."""
        if self._is_open:
            self.end(finished=kind is None)
        self._put(None)
        deadline = time.monotonic() + (0 if self._setting in self.late else END_SECONDS)
        while self._served.is_alive() and not self._wrong and time.monotonic() < deadline:
            self._served.join(0.05)
        if self._served.is_alive():
            self.late.add(self._setting)
        self._say()

    def _put(self, told: Told | None) -> None:
        try:
            self._waiting.put_nowait(told)
        except queue.Full:
            self._wrong.append("the tracker's process takes nothing more")

    def _serve(self, setting: str) -> None:
        command = [sys.executable, "-m", "nift_training.tracking", process_environment.TRACKER_OPTION, setting]
        try:
            process = subprocess.Popen(
                command,
                env=process_environment.told(command, os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is for the work; this ends with its stdin
            )
            listener = threading.Thread(target=self._listen, args=(process,), daemon=True)
            listener.start()
            assert process.stdin is not None, "it was asked for"
            while (told := self._waiting.get()) is not None:
                print(as_line(told), file=process.stdin, flush=True)
            process.stdin.close()
            listener.join()
        except OSError as error:  # it cannot be started, or has ended
            self._wrong.append(f"the tracker's process cannot be told: {error.strerror}")

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None, "it was asked for"
        self._wrong.extend(json.loads(line) for line in process.stdout)
        if status := process.wait():
            self._wrong.append(f"the tracker's process ended with exit status {status}")

    def _say(self) -> None:
        """From the thread of the work, because what listens there may know no other."""
        if self._wrong and not self._said:
            self._said = True
            self._say_line(f"tracker: {self._wrong[0]}; the work goes on")
