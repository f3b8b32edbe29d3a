"""The demo study made once for a run of the tests, however many processes the tests run in.

    python -m tests.demo_run FOLDER OWNER

makes it behind all else that needs the processor, and gives it up when the process `OWNER` is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests import offline

PROJECT = Path(__file__).parent.parent
NIFT = str(Path(sys.executable).with_name("nift"))
# It is there for what hangs, not for a machine that is busy.
LONGEST_SECONDS = 1800


@dataclass(frozen=True)
class Demo:
    """A finished run of `nift demo`: where its tables and its Dagster instance lie, and what it printed.

    `pace` is how many times the machine's usual time for a piece of work it took while the demo was made. `asked` is
    what it has asked of other machines from a network of its own, None where this system permits none. Several
    processes look at one demo: who changes something works on a copy.
    """

    warehouse: Path
    home: Path
    printed: str = ""
    cpu_seconds: float = 0
    pace: float = 1
    asked: list[str] | None = None

    def environment(self) -> dict[str, str]:
        return {**os.environ, "NIFT_WAREHOUSE": str(self.warehouse), "DAGSTER_HOME": str(self.home)}

    def copy(self, folder: Path) -> Demo:
        """The same in a folder of one's own."""
        shutil.copytree(self.warehouse, folder / "warehouse")
        shutil.copytree(self.home, folder / "home")
        return replace(self, warehouse=folder / "warehouse", home=folder / "home")


def start(folder: Path, owner: int) -> subprocess.Popen[bytes] | None:
    """The process that makes the demo in `folder`; None where another process of this run has started it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return None
    command = [sys.executable, "-m", "tests.demo_run", str(folder), str(owner)]
    # A session of its own: Ctrl-C is for the tests, at whose end it ends too.
    return subprocess.Popen(command, cwd=PROJECT, start_new_session=True)


def finished(folder: Path) -> Demo:
    """The demo in `folder`, waited for."""
    end, until = folder / "end.json", time.monotonic() + LONGEST_SECONDS
    while not end.exists():
        assert time.monotonic() < until, f"the demo has not ended: {(folder / 'printed').read_text()}"
        time.sleep(0.1)
    facts, printed = json.loads(end.read_text()), (folder / "printed").read_text()
    assert facts.pop("status") == 0, printed
    return Demo(folder / "warehouse", folder / "home", printed, **facts)


def pace() -> float:
    """The time of Dagster's import here and now by the 0.5 s it takes where the limits of the tests were set."""
    script = "import dagster, resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return max(1.0, float(ran.stdout) / 0.5)


def make(folder: Path, owner: int) -> None:
    """Runs `nift demo` and writes how it ended; kills it when nobody is left who wants it."""
    before = pace()
    environment = Demo(folder / "warehouse", folder / "home").environment()
    if offline.permitted():
        environment = offline.unforbidden(environment)
    environment = offline.noting(environment, folder / "notes")
    with (folder / "printed").open("wb") as output:
        command, streams = ["nice", "-n", "3", NIFT, "demo"], {"stdout": output, "stderr": output}
        command = offline.alone(command) if offline.permitted() else command
        process = subprocess.Popen(command, env=environment, cwd=PROJECT, start_new_session=True, **streams)
    # Its own CPU seconds and those of the processes it has waited for, whatever else was started from here.
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        if not _runs(owner):
            os.killpg(process.pid, signal.SIGKILL)
            return
        time.sleep(0.1)
    _, status, used = ended
    facts = {
        "status": os.waitstatus_to_exitcode(status),
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "pace": max(before, pace()),
        "asked": offline.asked(folder / "notes") if offline.permitted() else None,
    }
    (folder / "end.partial").write_text(json.dumps(facts))
    (folder / "end.partial").rename(folder / "end.json")


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
