"""A process of its own whose children append verdicts and are killed; it prints what had been kept, as JSON.

One is killed at each crash point. Then two append side by side and both are killed, again and again.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable

from nift_assets import crash_points, reviews
from nift_assets.reviews import Review
from nift_assets.store import Store

ROUNDS = 6


def pair(reviewer: str, number: int) -> Review:
    return reviews.of_pair(
        reviewer=reviewer,
        teacher="echo",
        document_id=f"article-{number}",
        first_half="Ж" * 700,
        completion="and\u2028so on",
        version="v1",
        verdict="drop",
        reason="一文字" * 100,
    )


def points(store: Store) -> dict[str, list[str]]:
    """Who had been kept after each crash point was reached."""
    kept = {}
    for number, point in enumerate(p for p in crash_points.POINTS if p.startswith("review_")):

        def crash(point: str = point, number: int = number) -> None:
            crash_points._point, crash_points.reach = point, crash_points._reach
            reviews.append(store, pair(point, number))

        _, status = os.waitpid(_fork(crash), 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        kept[point] = [review.reviewer for review in reviews.read(store)]
    return kept


def race(store: Store) -> list[list[str]]:
    """The digests that writers had been told are kept, writer by writer, in the order in which they were told."""
    chance, told = random.Random(7), []
    for turn in range(ROUNDS):
        writers = []
        for name in (f"ann-{turn}", f"bob-{turn}"):
            inside, outside = os.pipe()

            def write(name: str = name, outside: int = outside) -> None:
                for number in range(10**6):
                    time.sleep(0.002)  # or the other never gets the lock
                    (kept,) = reviews.append(store, pair(name, number))
                    os.write(outside, f"{kept.id}\n".encode())

            writers.append((_fork(write), inside))
            os.close(outside)
        begun = [os.read(inside, 1) for _, inside in writers]  # each has been told of one
        time.sleep(chance.uniform(0, 0.1))
        for pid, _ in writers:
            os.kill(pid, signal.SIGKILL)
        for first, (pid, inside) in zip(begun, writers, strict=True):
            os.waitpid(pid, 0)
            with os.fdopen(inside, "rb") as lines:
                told.append((first + lines.read()).decode().split())
    return told


def _fork(work: Callable[[], None]) -> int:
    if pid := os.fork():
        return pid
    try:
        work()
    finally:
        os._exit(1)


if __name__ == "__main__":
    at_points, side_by_side = (Store(root=sys.argv[1], study=study) for study in ("points", "race"))
    print(json.dumps({"points": points(at_points), "race": race(side_by_side)}))
