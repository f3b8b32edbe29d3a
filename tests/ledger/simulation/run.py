"""What happens in a world: two teachers' processes ask much the same, are killed and begun again, and one in between
has unknown questions asked again; then everything is well, and the ledger is laid beside the server's truth."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from nift_assets.ledger import database, locks, report, retries, spill
from nift_assets.ledger.batches import collection, creation, rows
from nift_assets.ledger.batches.submission import submit
from nift_assets.ledger.book import Asker, Book
from nift_assets.ledger.dispatch import Dispatch, over_budget
from nift_assets.ledger.high_water import DamagedLedger, Mark
from nift_assets.ledger.locks import AdvisoryLocks
from nift_assets.ledger.progress import Stop
from nift_assets.ledger.question_source import QuestionSource
from nift_assets.protocol import Request
from nift_assets.rows import Limits
from tests.ledger.asking import PRICE, provider, question
from tests.ledger.simulation import files
from tests.ledger.simulation.batches import Batches
from tests.ledger.simulation.database import engine
from tests.ledger.simulation.world import Crashed, Process, Violated, World, acting

LIVES = 4
OVER = "budget"
BATCH_PRICE = replace(PRICE, batch_input=0.25, batch_output=0.75)
DAY = 86_400.0
# How wrong the clocks of machines are that ask by batch.
SKEWS = (0.0, 3 * DAY, -3 * DAY)


@dataclass(frozen=True)
class Outcome:
    """What one seed came to; `violation` is what did not hold, with what had happened before."""

    seed: int
    violation: str | None
    counts: dict[str, int]

    def report(self) -> str:
        return f"seed {self.seed}: {self.violation}\n\npython -m tests.ledger.simulation {self.seed}"


def run(seed: int) -> Outcome:
    """One world from its beginning to its end."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="nift-simulation-", dir=memory) as folder:
        world = World(seed, Path(folder))
        asyncio.set_event_loop(world.loop)
        violation = None
        try:
            with simulated(world):
                try:
                    world.loop.run_until_complete(Scenario(world).play())
                except Violated as error:
                    violation = str(error)
                finally:
                    _put_away(world)
        finally:
            world.checks.close()
        if violation is not None:
            told = "\n".join(f"{at:10.2f}  {who:6} {what}" for at, who, what in world.trace)
            violation = f"{violation}\n\n{told}\n"
        counts = world.counts
        counts["virtual seconds"] = int(world.now())
        counts["bills"] = len(world.server.bills)
        return Outcome(seed, violation, dict(counts))


def _put_away(world: World) -> None:
    """Ends what a world that went wrong has left in the middle."""
    world.is_over = True
    left = asyncio.all_tasks(world.loop)
    for task in left:
        task.cancel()
    if left:
        world.loop.run_until_complete(asyncio.wait(left))
    world.loop.close()
    asyncio.set_event_loop(None)
    for connection in list(world.connections):
        connection.close()


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """The code under test in this world: what it takes from outside is the world's."""
    own = random.Random(world.seed)
    clock = SimpleNamespace(sleep=world.block, monotonic=world.now, time=world.now)
    tokens = SimpleNamespace(token_hex=lambda count: own.randbytes(count).hex())
    chances = SimpleNamespace(Random=lambda: random.Random(own.random()))
    take = files.Locks(world)
    logging.disable(logging.CRITICAL)
    try:
        with ExitStack() as stack:
            for module, name, stand_in in (
                (database, "file_engine", lambda file, mark=None: engine(world, file, mark)),
                (Mark, "write", files.marking(Mark.write)),
                (database, "time", clock),
                (retries, "random", chances),
                (creation, "time", clock),
                (locks, "file_locks", take),
                (spill, "file_locks", take),
                (spill, "secrets", tokens),
                (spill, "os", files.Disk(world)),
            ):
                stack.enter_context(patch.object(module, name, stand_in))
            stack.enter_context(patch.dict(os.environ, {"XDG_STATE_HOME": str(world.folder / "state")}))
            yield
    finally:
        logging.disable(logging.NOTSET)


class Scenario:
    """The processes of a world and what they ask. It owns which of them are at work."""

    def __init__(self, world: World) -> None:
        self._world, chance = world, world.chance
        count = chance.randint(6, 24)
        texts = [f"text {n}" for n in range(count)]
        if chance.random() < 0.3:
            texts += ["refused a", "refused b"]
        self._questions = {teacher: self._some(texts) for teacher in ("t", "u")}
        most = PRICE.most(200, 88)
        cap = chance.choice((None, None, most * count, most * 4))
        self._askers = {
            who: Asker(study="s", who=who, writer=f"s/{who}", study_cap=cap, who_cap=cap and cap * 2 // 3)
            for who in self._questions
        }
        self._askers["b"] = Asker(study="s", who="b", writer="s/b", study_cap=cap)
        self._questions["b"] = [question(f"batch {n}") for n in range(chance.randint(0, 9))]
        self._batches = Batches(world, named=chance.random() < 0.5)
        for who in ("t", "u") if cap is not None else ():
            world.checks.caps |= {("s", ""): cap, ("s", who): cap * 2 // 3}
        world.checks.folders = spill.folders(sa.make_url(world.url))
        self._dispatches: list[Dispatch] = []
        self._begun = 0

    def _some(self, texts: Sequence[str]) -> list[Request]:
        chosen = [text for text in texts if self._world.chance.random() < 0.8]
        self._world.chance.shuffle(chosen)
        return [question(text) for text in chosen]

    async def play(self) -> None:
        world = self._world
        lives = [self._live(who) for who in self._askers for _ in range(1 + (world.chance.random() < 0.3))]
        await asyncio.gather(*lives, self._person(), self._interruptions())
        world.get_well()
        world.note("*", "everything is well from now on")
        await self._somebody_puts_back_an_older_file()
        stopped = set()
        for who in [*self._askers, *self._askers, "b", "b", "b"]:
            stopped.add(await self._process(who, None))
            await asyncio.sleep(creation.SETTLE_SECONDS)
        over = "budget" in stopped
        outcomes = await self._do(
            lambda book: {key: out for key, (out, _) in book.outcomes(list(self._keys())).items()}
        )
        world.checks.at_the_end(self._keys(), {key: outcomes.get(key) for key in self._keys()}, over_budget=over)
        if world.violation is not None:
            raise Violated(world.violation)

    def _keys(self) -> dict[str, str]:
        return {q.key: q.messages[-1].content for questions in self._questions.values() for q in questions}

    async def _live(self, who: str) -> None:
        """One teacher's processes, one after the other."""
        chance = self._world.chance
        for _ in range(LIVES):
            await asyncio.sleep(chance.uniform(0, 20))
            dies_at = chance.choice((None, chance.randint(1, 120), chance.randint(1, 900)))
            if await self._process(who, dies_at) == "done":
                return

    async def _process(self, who: str, dies_at: int | None) -> str:
        """One process from its beginning to its end, however that comes; why it ended."""
        world = self._world
        self._begun += 1
        process = Process(f"{who}{self._begun}", world, dies_at)
        with acting(process):
            work = self._ask_by_batch if who == "b" else self._ask
            task = asyncio.create_task(work(process, self._askers[who], self._questions[who]))
        await asyncio.wait({task})
        ended = await self._ended(process, task)
        world.note(process.name, f"has ended: {ended}")
        return ended

    async def _ended(self, process: Process, task: asyncio.Task[str]) -> str:
        world = self._world
        rest = {one for one in process.tasks if not one.done()}
        if rest:
            await asyncio.wait(rest)
        process.tasks.clear()
        error = None if task.cancelled() else task.exception()
        if process.dead or task.cancelled():
            return "killed"
        process.exit()
        if error is None:
            return task.result()
        if isinstance(error, Crashed):
            raise Violated("a process that lives has met its end")
        if isinstance(error, ValueError) and "another run is asking" in str(error):
            return "another is asking"
        if isinstance(error, ValueError) and "has taken over" in str(error):
            return "fenced"
        if isinstance(error, sa.exc.DBAPIError) and not world.healthy:
            return f"could not use the database: {error.orig}"
        raise Violated(f"{process.name} ended with {error!r}") from error

    async def _ask_by_batch(self, process: Process, asker: Asker, questions: Sequence[Request]) -> str:
        """Batches are submitted and collected, on a machine with a clock of its own."""
        world = self._world
        skew = world.chance.choice(SKEWS)
        try:
            book = self._open()
        except sa.exc.DBAPIError:
            return "found no database"
        world.note(process.name, f"begins, its clock {skew / DAY:+.0f} days off")
        given: dict[str, Any] = {"clock": lambda: self._batches.clock() + skew}
        submitted = submit(book, asker, questions, self._batches, BATCH_PRICE, **given)
        await asyncio.sleep(world.chance.uniform(1, 60))
        collection.collect(book, asker, self._batches, BATCH_PRICE, **given)
        if submitted.stopped:
            return submitted.stopped.cause
        return "under way" if rows.in_states(book, asker, rows.OPEN) else "done"

    async def _somebody_puts_back_an_older_file(self) -> None:
        """As a copy of the file alone would be: whoever opens it is told, and nothing is asked."""
        world, older = self._world, self._world.checks.older
        known = Mark(world.path).read()
        if older is None or known is None or older[1] >= known.commits:
            return
        parts = [Path(f"{world.path}{end}") for end in ("", "-wal", "-shm")]
        for part in parts:
            if part.exists():
                part.rename(f"{part}.right")
        shutil.copyfile(older[0], world.path)
        ended = await self._process("t", None)
        if ended != "refused":
            world.violated(f"a ledger that lacks what was written last was used: {ended}")
        world.counts["injuries"] += 1
        for part in parts:
            part.unlink(missing_ok=True)
            if Path(f"{part}.right").exists():
                Path(f"{part}.right").rename(part)

    async def _ask(self, process: Process, asker: Asker, questions: Sequence[Request]) -> str:
        """What the door does, on this loop instead of a thread of its own."""
        try:
            book = self._open()
        except sa.exc.DBAPIError:
            return "found no database"
        except DamagedLedger:
            return "refused"
        self._world.note(process.name, "begins")
        try:
            return await self._asked(process, book, asker, questions)
        except sa.exc.DBAPIError:
            troubled = self._world.now() - self._world.troubled_since
            if self._world.is_server and troubled < database.SECONDS_TO_WAIT:
                self._world.violated("a server that was away for a moment has ended a run")
            raise

    async def _asked(self, process: Process, book: Book, asker: Asker, questions: Sequence[Request]) -> str:
        dispatch: Dispatch | None = None
        with book.session(asker.writer) as session:
            book.open_accounts(asker)
            while True:
                claims = book.intend(session, asker, questions)
                ours = [question for question in questions if question.key in set(claims.ours)]
                if ours:
                    limits = Limits(in_flight=4, seconds_per_request=20.0, backoff_seconds=0.5)
                    dispatch = dispatch or Dispatch(
                        book, session, asker, provider("http://127.0.0.1:8000"), limits, PRICE
                    )
                    self._dispatches.append(dispatch)
                    try:
                        dispatch.counts.wanted += len(ours)
                        await dispatch.run(QuestionSource.of(ours))
                    finally:
                        self._dispatches.remove(dispatch)
                    if dispatch.passed_over:
                        over_budget(asker, str(dispatch.over_budget), dispatch.passed_over)
                        return OVER
                    if dispatch.stopped:
                        return dispatch.stopped.cause
                if not claims.elsewhere:
                    return "done"
                await asyncio.sleep(0.5)
                book.recover()
                questions = [question for question in questions if question.key in set(claims.elsewhere)]

    def _open(self) -> Book:
        book = Book(self._world.url)
        if self._world.is_server:
            book.locks = AdvisoryLocks(book._engine)
        return book

    async def _do(self, work: Any) -> Any:
        """Something that a person does with the ledger."""
        process = Process("person", self._world)
        with acting(process):
            try:
                return work(self._open())
            except (sa.exc.DBAPIError, Crashed):
                return None
            finally:
                process.exit()

    async def _person(self) -> None:
        """Somebody has what is unknown asked again."""
        for _ in range(self._world.chance.randint(0, 2)):
            await asyncio.sleep(self._world.chance.uniform(5, 60))
            self._world.note("person", "lets unknown questions be asked again")
            await self._do(report.ask_unknown_again)

    async def _interruptions(self) -> None:
        while self._world.chance.random() < 0.3:
            await asyncio.sleep(self._world.chance.uniform(1, 30))
            for dispatch in self._dispatches[:1]:
                self._world.counts["interruptions"] += 1
                dispatch.stop(Stop(reason="interrupted", remedy="", cause="interrupted"))


def run_all(seeds: Sequence[int]) -> tuple[list[Outcome], float]:
    """The outcome of each seed, and the CPU seconds they took together."""
    began = time.process_time()
    outcomes = []
    for seed in seeds:
        outcomes.append(run(seed))
    return outcomes, time.process_time() - began


def told(outcomes: Sequence[Outcome], seconds: float) -> str:
    """What all seeds came to, in one line."""
    names = {
        "crashes": "crashes",
        "outages": "outages of the database",
        "unheard": "commits unheard",
        "spilled": "writes to the spill",
        "bills": "bills",
        "batches": "batches",
        "injuries": "older files put back",
        "virtual seconds": "virtual seconds",
    }
    counted = ", ".join(
        f"{sum(each.counts.get(name, 0) for each in outcomes):,} {words}" for name, words in names.items()
    )
    return f"{len(outcomes)} seeds: {counted}, in {seconds:.1f} CPU s"
