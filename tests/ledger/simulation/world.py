"""One simulated world: its clock, its chances, its processes, and what has happened in it."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

TRACED = 120
Attempt = tuple[int, int]


class Violated(Exception):
    """Something that must always hold did not."""


class Crashed(BaseException):
    """What code of a process that was killed meets instead of the world."""


class Loop(asyncio.SelectorEventLoop):
    """An event loop on which nothing takes time: where it would wait, its clock moves on."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self.clock = 1_000.0
        self._after_step = after_step
        super().__init__(_NoWaiting(self))
        self.connects: Callable[..., Any]

    def time(self) -> float:
        return self.clock

    def _run_once(self) -> None:
        super()._run_once()  # type: ignore[misc]
        self._after_step()

    async def sock_connect(self, sock: Any, address: Any) -> None:
        await self.connects()

    async def create_connection(self, protocol_factory: Any, *_: Any, sock: Any = None, **__: Any) -> Any:
        from tests.ledger.simulation.network import Wire

        sock.close()
        protocol = protocol_factory()
        wire = Wire(PROCESS.get(), protocol)
        protocol.connection_made(wire)
        return wire, protocol


class _NoWaiting(selectors.SelectSelector):
    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Violated("everybody waits and nothing will ever happen")
        self._loop.clock += max(timeout, 0.0)
        return []


@dataclass
class Bill:
    """What the server did for an attempt that it bills."""

    key_text: str
    at: float
    body: bytes | None = None
    cost: int = 0


@dataclass(eq=False)
class Process:
    """A process that asks: it is killed at its `dies_at`-th step, counted over database, disk and network."""

    name: str
    world: World
    dies_at: int | None = None
    steps: int = 0
    dead: bool = False
    is_gone: bool = False  # killed, or at its end
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    connections: list[Any] = field(default_factory=list)
    locks: set[Path] = field(default_factory=set)

    def step(self, what: str) -> None:
        """One thing that it does; Crashed where that is the end of it."""
        if self.dead or self.world.is_over:
            raise Crashed
        self.steps += 1
        if self.steps == self.dies_at:
            self.kill(what)
            raise Crashed

    def kill(self, where: str) -> None:
        """As SIGKILL: nothing more of it reaches the world, and the system lets go of what it held."""
        if self.dead:
            return
        self.dead = True
        self.world.counts["crashes"] += 1
        self.world.note(self.name, f"is killed at {where}")
        self.world.checks.at_a_kill(self)
        self.exit()
        for task in self.tasks:
            self.world.loop.call_soon(task.cancel)

    def exit(self) -> None:
        """The system lets go of what it held."""
        self.is_gone = True
        self.world.checks.at_an_exit()
        for connection in self.connections:
            connection.cut()
        for path in self.locks:
            self.world.file_locks.pop(path, None)


PROCESS: ContextVar[Process] = ContextVar("process")


class World:
    """Everything that is outside the code under test. The same seed is the same world, to the last byte."""

    def __init__(self, seed: int, folder: Path) -> None:
        from tests.ledger.simulation.invariants import Checks
        from tests.ledger.simulation.network import Server

        self.seed, self.folder = seed, folder
        self.chance = Random(seed)
        self.loop = Loop(self._after_step)
        self.is_server = bool(seed % 2)  # a database server, or a file
        self.path = folder / "ledger.sqlite"
        self.url = f"sqlite:///{self.path}"
        self.healthy = self.is_over = False
        self.counts: Counter[str] = Counter()
        self.trace: deque[tuple[float, str, str]] = deque(maxlen=TRACED)
        self.violation: str | None = None
        self.blocked = 0.0
        self.down_until = 0.0
        self.full_until: dict[Path, float] = {}
        self.restarted_at = -1.0
        self.fenced: set[int] = set()  # sessions that others have ended while they lived
        self.troubled_since = self.troubled_last = -1_000.0
        self.file_locks: dict[Path, Process] = {}
        self.advisory_locks: dict[int, Any] = {}
        self.connections: list[Any] = []
        self.rough = self.chance.choice((0.2, 1.0, 3.0))
        self.server = Server(self)
        self.checks = Checks(self)
        self.loop.connects = self.server.connects
        self.loop.set_task_factory(_task)
        self.loop.set_exception_handler(self._unforeseen)

    def now(self) -> float:
        return self.loop.clock

    def note(self, who: str, what: str) -> None:
        self.trace.append((self.now(), who, what))

    def block(self, seconds: float) -> None:
        """Time that passes while nobody runs."""
        self.loop.clock += seconds
        self.blocked += seconds

    def is_troubled(self) -> None:
        """The database has just failed or hung; what comes within half a minute is the same trouble."""
        if self.now() - self.troubled_last > 30:
            self.troubled_since = self.now()
        self.troubled_last = self.now()

    def awake(self) -> float:
        """The time that processes have had to run."""
        return self.now() - self.blocked

    def happens(self, share: float) -> bool:
        """Whether a misfortune of so many in a hundred thousand strikes now."""
        return not self.healthy and self.chance.random() < self.rough * share

    def violated(self, what: str) -> None:
        """Something that must hold does not: the first is kept, and ends the run at the next step of the loop."""
        if self.violation is None:
            self.violation = what
            self.note("!", what)

    def is_full(self, folder: Path) -> bool:
        """Whether the disk of a folder takes nothing now."""
        return self.now() < self.full_until.get(folder, 0.0)

    def get_well(self) -> None:
        self.healthy = True
        self.down_until = 0.0
        self.full_until.clear()

    def _after_step(self) -> None:
        if self.is_over:
            return
        self.counts["steps"] += 1
        if self.violation is not None:
            raise Violated(self.violation)
        self.checks.after_step()
        if self.happens(0.0002):
            seconds = self.chance.uniform(1, 600)
            self.note("*", f"the machine sleeps for {seconds:.0f} s")
            self.block(seconds)

    def _unforeseen(self, _: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, Crashed | asyncio.CancelledError | None):
            self.violated(f"an error that nobody looks at: {error!r}")


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **more)
    if process := PROCESS.get(None):
        process.tasks.add(task)
    return task


@contextmanager
def acting(process: Process) -> Iterator[None]:
    """What is begun in this block is done by a process."""
    token = PROCESS.set(process)
    try:
        yield
    finally:
        PROCESS.reset(token)
