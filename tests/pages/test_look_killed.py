"""Two people judge at once while `nift look` is killed and started again: no verdict that was taken is lost."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.client import HTTPException
from itertools import product
from pathlib import Path
from urllib.error import HTTPError

import pytest

from nift_assets import crash_points, reviews
from nift_assets.pages.viewer import links
from nift_assets.store import Store
from tests.pages.look_process import LookProcess, looking
from tests.pages.viewer_store import document, filled, texts

DOCUMENTS, KILLED_BETWEEN = 40, 4
# At this verdict a process ends itself at a crash point.
VISIT = 6
SECONDS = 120
Verdict = tuple[str, str]  # who, and her reason, which no other verdict has


class Reviewer(threading.Thread):
    """Somebody who sends one verdict after the other to whichever server there is, and none twice."""

    def __init__(self, name: str, servers: dict[str, LookProcess]) -> None:
        super().__init__(name=name, daemon=True)
        self._servers = servers
        self.taken: list[Verdict] = []
        self.unanswered: list[Verdict] = []
        self.refused: list[str] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        for number, (turn, n, teacher) in enumerate(product(range(10**6), range(DOCUMENTS), ("echo", "original"))):
            while (server := self._servers.get("now")) is None and not self.stopped.is_set():
                time.sleep(0.01)
            if server is None or self.stopped.is_set():
                return
            self._send(server, n, teacher, f"{turn}-{number} ж\u2028{'why ' * 300}")

    def _send(self, server: LookProcess, n: int, teacher: str, reason: str) -> None:
        first_half, _, completion = texts(n)
        told = {
            "kind": "pair", "verdict": "drop", "reviewer": self.name, "reason": reason, "document_id": document(n),
            "teacher": teacher, "content": reviews.content(first_half, completion if n % 5 else ""),
        }  # fmt: skip
        verdict = self.name, "\n".join(reason.splitlines()).strip()
        try:
            server.post(links.reviews(), told)
        except HTTPError as error:
            self.refused.append(error.read().decode())
            self.stopped.set()
        except (OSError, HTTPException):  # killed meanwhile: nobody knows whether this one was taken
            self.unanswered.append(verdict)
            time.sleep(0.05)
        else:
            self.taken.append(verdict)


@pytest.mark.slow
def test_a_verdict_that_was_taken_is_kept_once_whenever_the_server_is_killed(tmp_path: Path) -> None:
    store = filled(str(tmp_path), documents=DOCUMENTS)
    servers: dict[str, LookProcess] = {}
    people = [Reviewer(name, servers) for name in ("Ada", "José")]
    for person in people:
        person.start()
    chance = random.Random(5)
    try:
        for point in [*(name for name in crash_points.POINTS if name.startswith("review_")), None, None]:
            environment = {"NIFT_CRASH": f"{point}:{VISIT}"} if point else {}
            with looking(tmp_path, environment=environment) as server:
                servers["now"] = server
                if point is None:
                    _wait_for_more(people, KILLED_BETWEEN)
                    time.sleep(chance.uniform(0, 0.05))
                    server.process.send_signal(signal.SIGKILL)
                assert server.process.wait(SECONDS) == -signal.SIGKILL
                del servers["now"]
        with looking(tmp_path) as server:
            servers["now"] = server
            _wait_for_more(people, 1)
            for person in people:
                person.stopped.set()
            for person in people:
                person.join(SECONDS)
                assert not person.is_alive()
    finally:
        for person in people:
            person.stopped.set()
    assert [person.refused for person in people] == [[], []]
    kept = Counter((review.reviewer, review.reason) for review in reviews.read(store))
    taken = {verdict for person in people for verdict in person.taken}
    unanswered = {verdict for person in people for verdict in person.unanswered}
    assert taken <= set(kept) <= taken | unanswered
    assert set(kept.values()) == {1}
    lines = list(_lines(store))
    assert len(lines) == kept.total()
    assert all(json.loads(line)["reviewer"] in ("Ada", "José") for line in lines)
    print(f"{len(taken)} verdicts were taken and are kept; {len(unanswered)} met a killed server, of which ", end="")
    print(f"{len(set(kept) - taken)} are kept")


def _lines(store: Store) -> Iterator[bytes]:
    """The lines of the file, each of which has its end."""
    for line in reviews.path(store).read_bytes().splitlines(keepends=True):
        assert line.endswith(b"\n")
        yield line


def _wait_for_more(people: Sequence[Reviewer], count: int) -> None:
    """Until so many more verdicts of each person are taken."""
    wanted, end = [len(person.taken) + count for person in people], time.monotonic() + SECONDS
    while any(len(person.taken) < least for person, least in zip(people, wanted, strict=True)):
        assert time.monotonic() < end, f"not after {SECONDS} s"
        time.sleep(0.005)
