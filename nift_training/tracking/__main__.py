"""The process in which a tracker's client works: reads what is to be sent, sends it, and says on stdout what is wrong.

    python -m nift_training.tracking --tracker mlflow:http://127.0.0.1:5000

Each line of stdin is what `measurements` has: how a run begins, what is measured, and how it ended, any number of runs
one after the other. What cannot be sent is kept and tried again. When stdin ends, so does this process, at the latest a
minute later.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TextIO

from nift_training import process_environment
from nift_training.tracking import trackers
from nift_training.tracking.measurements import Measurement, Opening, RunEnding, RunOfTracker, Told, of_line
from nift_training.tracking.trackers import Tracker

SLOW_SECONDS = 30.0
AGAIN_SECONDS = 30.0
LAST_SECONDS = 60.0
AT_ONCE = 500
MOST_WAITING = 200_000  # measurements, while a tracker is away for days; the first ones are kept
PASSWORD = re.compile(r"//\S+@")  # a password may have a slash in it
LONGEST = 300


@dataclass
class WaitingToBeSent:
    """What is still to be sent, handed from the thread that reads to the one that sends."""

    told: list[Told] = field(default_factory=list)
    closed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def add(self, told: Told) -> None:
        with self.changed:
            if len(self.told) < MOST_WAITING or not isinstance(told, Measurement):
                self.told.append(told)
            self.changed.notify()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify()

    def first(self) -> list[Told]:
        """The next to be sent, once there are any; none when there will be no more."""
        with self.changed:
            self.changed.wait_for(lambda: self.told or self.closed)
            return self.told[:AT_ONCE]

    def sent(self, count: int) -> None:
        with self.changed:
            del self.told[:count]

    def pause(self) -> bool:
        """Waits before the next try; false when there is none, because nobody will say more."""
        with self.changed:
            if self.closed:
                return False
            self.changed.wait_for(lambda: self.closed, timeout=AGAIN_SECONDS)
            return True


class Complaints:
    """What the process that started this one hears: one line, about the first thing that went wrong."""

    def __init__(self, tracker: Tracker, out: TextIO) -> None:
        self.tracker, self.out, self.lock, self.said = tracker, out, threading.Lock(), False

    def say(self, what: str) -> None:
        with self.lock:
            if not self.said:
                self.said = True
                print(json.dumps(f"{self.tracker.name} {without_secrets(what)}"), file=self.out, flush=True)


def without_secrets(text: str) -> str:
    """A line without the values of variables that hold secrets, and without the password of an address."""
    values = {value for name, value in os.environ.items() if value and process_environment.SECRET.search(name)}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "…")
    return " ".join(PASSWORD.sub("//…@", text).split())[:LONGEST]


class Sender:
    """Hands what is told to the tracker's client, one run after the other."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.module = importlib.import_module(f"{trackers.__package__}.{tracker.name}")
        self.run: RunOfTracker | None = None

    def send(self, told: list[Told]) -> int:
        """Sends what stands first, and how many that were; any exception of the client."""
        first = told[0]
        if isinstance(first, Opening):
            self.run = self.module.start(self.tracker.place, first)
            return 1
        assert self.run is not None, "a run begins before anything is said of it"
        if isinstance(first, RunEnding):
            self.run.end(finished=first.finished)
            return 1
        measurements = [*takewhile(lambda one: isinstance(one, Measurement), told)]
        self.run.send([one for one in measurements if isinstance(one, Measurement)])
        return len(measurements)


def deliver(sender: Sender, waiting: WaitingToBeSent, complaints: Complaints) -> None:
    """Sends all there is, until there will be no more; what fails is tried again."""
    while told := waiting.first():
        slow = threading.Timer(SLOW_SECONDS, complaints.say, [f"has not answered for {SLOW_SECONDS:.0f} s"])
        slow.daemon = True
        slow.start()
        try:
            waiting.sent(sender.send(told))
        except (Exception, SystemExit) as error:  # a client's own way to refuse may be anything
            complaints.say(f"cannot be told: {type(error).__name__}: {error}")
            if not waiting.pause():
                return
        finally:
            slow.cancel()


def read(lines: Iterable[str], waiting: WaitingToBeSent) -> None:
    """Takes in what comes, until nobody is there to say more; a run that nobody has ended has failed."""
    is_open = False
    # Who is killed while it writes a line leaves a part of it.
    for told in map(of_line, takewhile(lambda line: line.endswith("\n"), lines)):
        is_open = not isinstance(told, RunEnding)
        waiting.add(told)
    if is_open:
        waiting.add(RunEnding(finished=False))
    waiting.close()


def main() -> None:
    """Serves until stdin ends."""
    command_line = argparse.ArgumentParser(prog="python -m nift_training.tracking", description=__doc__)
    command_line.add_argument(process_environment.TRACKER_OPTION, required=True, type=trackers.parse)
    tracker: Tracker = command_line.parse_args().tracker
    complaints = Complaints(tracker, os.fdopen(os.dup(1), "w"))
    silent = os.open(os.devnull, os.O_WRONLY)  # clients print what people like to see, into the log of whoever asks
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    os.nice(10)
    waiting = WaitingToBeSent()
    sender = threading.Thread(target=deliver, args=(Sender(tracker), waiting, complaints), daemon=True)
    sender.start()
    read(sys.stdin, waiting)
    sender.join(LAST_SECONDS)
    # What a client would still wait for at the end of a process is what it was given a minute for.
    os._exit(0)


if __name__ == "__main__":
    main()
