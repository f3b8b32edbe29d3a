"""What must hold in every world, looked at after every commit, every kill and every step."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from nift_assets.ledger import question_counts, spill
from nift_assets.ledger.packing import unpacked
from tests.ledger.simulation.world import Attempt, Process, World

# So long may an answer lie in a process that could write it somewhere.
SECONDS_TO_KEEP = 3.0
# How an attempt may stand whose answer is in the ledger: `written_off` was booked by a person before it was taken in.
ENDED_WELL = ("answered", "failed", "written_off")


class Checks:
    """The invariants of one world. It owns what was known at the last look."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._connection: sqlite3.Connection | None = None
        self._commits = 0
        self._promised: set[str] = set()
        self._attempts: dict[Attempt, str] = {}
        self._answered: set[str] = set()
        self._sessions: dict[int, str] = {}
        self._of_process: dict[int, Process] = {}
        self._sent_at: dict[int, float] = {}
        self.caps: dict[tuple[str, str], int] = {}
        self.folders: list[Path] = []
        # A copy of the ledger as it was after some commit, and how many it had had.
        self.older: tuple[Path, int] | None = None

    # -- when it looks

    def after_commit(self, process: Process) -> None:
        if not self._read("select 1 from sqlite_master where name = 'batches'"):
            return
        self._accounts()
        self._counts()
        self._copy()
        self._new_sessions(process)
        self._new_attempts()
        self._answers()

    def after_step(self) -> None:
        """What has come whole lies in the ledger or in the spill soon."""
        world = self._world
        nowhere = all(map(world.is_full, self.folders))
        for attempt, (process, at) in list(world.server.arrived.items()):
            if nowhere:
                world.server.arrived[attempt] = (process, world.awake())
            elif world.awake() - at > SECONDS_TO_KEEP:
                del world.server.arrived[attempt]
                self._is_kept(attempt, process)

    def at_a_kill(self, process: Process) -> None:
        """What came to it just now may be lost; what it had time to keep was looked at before."""
        arrived = self._world.server.arrived
        for attempt in [attempt for attempt, (to, _) in arrived.items() if to is process]:
            del arrived[attempt]

    def at_an_exit(self) -> None:
        """What is in the spill by then is promised to whoever comes next."""
        self._promised |= self.spilled()

    def at_a_bill(self, attempt: Attempt) -> None:
        if attempt not in self._states():
            self._world.violated(f"{attempt} reached the server and the ledger knows nothing of it")

    def at_the_end(self, questions: dict[str, str], outcomes: dict[str, str | None], *, over_budget: bool) -> None:
        """After everybody has ended well. `questions` are the texts by key."""
        world, states = self._world, self._states()
        stored = {
            (s, n): (key, unpacked(body))
            for key, s, n, body in self._read("select key, session, number, body from answers")
        }
        spent = {(s, n): amount for s, n, amount in self._read("select session, number, spent from attempts")}
        if open_still := [attempt for attempt, state in states.items() if state == "sent"]:
            world.violated(f"nobody has settled {open_still}")
        if spilled := self.spilled():
            world.violated(f"nobody has taken in what was spilled of {sorted(spilled)}")
        for attempt, bill in world.server.bills.items():
            state = states[attempt]
            if attempt in stored and bill.body is not None and stored[attempt][1] != bill.body:
                world.violated(f"the answer of {attempt} is not what the server sent")
            if state == "answered" and spent[attempt] != bill.cost:
                world.violated(f"{attempt} cost {bill.cost} and {spent[attempt]} is booked")
            if state not in ("answered", "unknown", "written_off"):
                world.violated(f"{attempt} was billed and is {state!r}")
        for attempt, state in states.items():
            if state == "answered" and attempt not in world.server.bills:
                world.violated(f"{attempt} is answered and was never billed")
            process = self._of_process[attempt[0]]
            lived = not process.dead and attempt[0] not in world.fenced
            if state == "unknown" and attempt not in world.server.left and lived:
                world.violated(f"{attempt} never left and stays reserved for good")
        for key, text in questions.items():
            if key not in self._answered and not over_budget and outcomes[key] not in ("unknown", "exhausted"):
                world.violated(f"{text!r} has no answer, and nobody was told why: {outcomes[key]}")

    def spilled(self) -> set[str]:
        """The keys of whole answers that lie in the spill."""
        files = [path for folder in self.folders if folder.is_dir() for path in folder.glob("*.jsonl")]
        rows = [row["attempt"] for path in files for row in spill._read(path).rows]
        return {row["key"] for row in rows if row["body"] is not None}

    # -- what it looks at

    def _copy(self) -> None:
        self._commits += 1
        if self._commits == 10 + self._world.seed % 30 and self._connection is not None:
            path = self._world.folder / "older.sqlite"
            with closing(sqlite3.connect(path)) as copy:
                self._connection.backup(copy)
            ((commits,),) = self._read("select commits from high_water")
            self.older = (path, commits)

    def _accounts(self) -> None:
        sums: Counter[tuple[str, str, str]] = Counter()
        for study, who, reserved, spent in self._read(
            "select study, who, sum(reserved), sum(spent) from attempts group by study, who"
        ):
            for account in (who, ""):
                sums[study, account, "reserved"] += reserved
                sums[study, account, "spent"] += spent
        for study, who, reserved, spent in self._read("select study, who, reserved, spent from spending"):
            booked = (sums[study, who, "reserved"], sums[study, who, "spent"])
            if (reserved, spent) != booked:
                self._world.violated(f"{study}/{who} has {(reserved, spent)} reserved and spent, its attempts {booked}")
            if min(reserved, spent) < 0:
                self._world.violated(f"{study}/{who} has {reserved} reserved and {spent} spent")
            if reserved + spent > self.caps.get((study, who), reserved + spent):
                self._world.violated(f"{study}/{who} has passed its cap: {reserved} + {spent}")

    def _counts(self) -> None:
        counted = "select study, who, state, reused, questions from question_counts where questions <> 0"
        if set(self._read(counted)) != set(self._read(question_counts.RECOUNTED)):
            self._world.violated("the questions are not as many as the report says")
        sent = Counter(dict(self._read("select study, count(*) from attempts group by study")))
        booked = Counter(dict(self._read("select study, sent from spending where who = ''")))
        if sent != booked:
            self._world.violated(f"{sent} requests are written down, and {booked} are counted")

    def _new_sessions(self, process: Process) -> None:
        for number, writer, ended in self._read("select id, writer, ended from sessions"):
            if number not in self._sessions:
                self._of_process[number] = process
                for other, of in self._sessions.items():
                    rival = self._of_process[other]
                    keeps = self._sent_at.get(other, -1.0) > self._world.restarted_at
                    if of == writer and not rival.is_gone and rival is not process and keeps:
                        self._world.violated(f"session {number} of {writer} was let in beside {other}")
                self._sessions[number] = writer
            elif ended and self._sessions[number]:
                self._sessions[number] = ""  # whoever comes now is not beside it
                if self._of_process[number] is not process and not self._of_process[number].is_gone:
                    self._world.fenced.add(number)
                if any(state == "sent" for (session, _), state in self._states().items() if session == number):
                    self._world.violated(f"session {number} has ended and left attempts open")

    def _new_attempts(self) -> None:
        states, keys = self._states(), self._keys()
        open_keys = Counter(keys[attempt] for attempt, state in states.items() if state == "sent")
        if twice := [key for key, count in open_keys.items() if count > 1]:
            self._world.violated(f"two are asking {twice} at once")
        new = states.keys() - self._attempts.keys()
        done = self._answered | self.spilled() if new else set()
        for session, number in new:
            self._sent_at[session] = self._world.now()
            if keys[session, number] in done:
                self._world.violated(f"{(session, number)} asks what is answered")
            if not self._sessions[session]:
                self._world.violated(f"{(session, number)} leaves from a session that others have ended")
        self._attempts = states

    def _answers(self) -> None:
        for key, session, number, state in self._read(
            "select a.key, a.session, a.number, t.state from answers a "
            "join attempts t on t.session = a.session and t.number = a.number"
        ):
            self._answered.add(key)
            if state not in ENDED_WELL:
                self._world.violated(f"the answer of {(session, number)} is kept, and it is {state!r}")
        if lost := self._answered - {key for (key,) in self._read("select key from answers")}:
            self._world.violated(f"answers are not there any more: {lost}")
        self._promised -= self._answered
        if self._promised and (lost := self._promised - self.spilled()):
            self._world.violated(f"answers were in the spill and are nowhere any more: {lost}")

    def _is_kept(self, attempt: Attempt, process: Process) -> None:
        if process.dead:
            return
        states = self._read("select state, cause, key from attempts where session = ? and number = ?", *attempt)
        state, cause, key = states[0]
        # An answer may come in the very moment in which nobody waits for it any more.
        if state == "unknown" and cause in ("timeout", "abandoned"):
            return
        if key not in self._answered and key not in self.spilled():
            self._world.violated(f"the answer of {attempt} has come and is neither stored nor spilled")

    def _states(self) -> dict[Attempt, str]:
        return {
            (s, n): state
            for s, n, state in self._read("select session, number, state from attempts where batch is null")
        }

    def _keys(self) -> dict[Attempt, str]:
        return {
            (s, n): key for s, n, key in self._read("select session, number, key from attempts where batch is null")
        }

    def _read(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        if self._connection is None:
            self._connection = sqlite3.connect(self._world.path)
        return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
