"""The GPUs of this machine, of which each process that computes gets its own.

Whoever computes holds the lock of a GPU, whichever command, UI or worker started it, and sees no other GPU.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from nift_training import file_locks

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_LOOKS = 0.2
ASKING_SECONDS = 20
# As `nvidia-smi -L` lists them: `GPU 0: NVIDIA H200 (UUID: GPU-…)`, and below it the parts that it is cut into, if any.
WHOLE = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[\w-]+)\)")
PART = re.compile(r"^\s+MIG .*\(UUID: (MIG-[\w/-]+)\)")


def listed() -> list[str]:
    """The GPUs that this process may use, by a name that is the same in every process; none where there is none.

    What `CUDA_VISIBLE_DEVICES` names, else all that the driver lists.
    """
    of_driver = _of_driver(shutil.which("nvidia-smi"))
    visible = os.environ.get(VISIBLE) if _own is None else _visible_before
    if visible is None:
        return [name for parts in of_driver for name in parts]
    # As the driver reads it: the first name that is none ends the list.
    names: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        if name.isdigit():
            number = int(name)
            names += of_driver[number] if number < len(of_driver) else [name]
        elif name.startswith(("GPU-", "MIG-")):
            names.append(name)
        else:
            break
    return names


@contextmanager
def taken(count: int) -> Iterator[Sequence[str]]:
    """So many GPUs that nobody else has, once there are; none on a machine without. ValueError for more than it has.

    All or none are held while it waits, so that two who want several do not wait for each other.
    """
    if not (there := listed()) or count < 1:
        yield ()
        return
    if count > len(there):
        raise ValueError(f"{count} GPUs are asked for and {len(there)} are here: {', '.join(there)}")
    with ExitStack() as held:
        yield _waited_for(held, there, count)


@contextmanager
def of_this_process() -> Iterator[None]:
    """A GPU for what is computed in this very process, which sees no other one from then on: torch looks once."""
    global _own, _visible_before
    there = [_own] if _own else listed()
    if not there:
        yield
        return
    with ExitStack() as held:
        (found,) = _waited_for(held, there, 1)
        if _own is None:
            _own, _visible_before = found, os.environ.get(VISIBLE)
            os.environ[VISIBLE] = _own
        try:
            yield
        finally:
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()  # for whoever gets it next


# Which this process computes on, and what it might have taken before it did: that is for what it starts.
_own: str | None = None
_visible_before: str | None = None


def _waited_for(held: ExitStack, there: Sequence[str], count: int) -> list[str]:
    while True:
        with ExitStack() as now:
            found: list[str] = []
            for name in there:
                if len(found) < count and (lock := file_locks.take(_folder() / name.replace("/", "_"))):
                    now.callback(lock.release)
                    found.append(name)
            if len(found) == count:
                held.push(now.pop_all())
                return found
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _folder() -> Path:
    """Where the locks lie, which is not of this machine alone where homes are shared."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    folder = Path(state, "nift", "gpus", os.uname().nodename)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _of_driver(program: str | None) -> list[list[str]]:
    """What NVIDIA's driver lists: of each GPU itself, or the parts that it is cut into."""
    if program is None:
        return []
    try:
        text = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=ASKING_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    found: list[list[str]] = []
    parts: list[list[str]] = []
    for line in text.splitlines():
        if whole := WHOLE.match(line):
            found.append([whole[2]])
            parts.append([])
        elif (part := PART.match(line)) and parts:
            parts[-1].append(part[1])
    return [of_gpu or whole for whole, of_gpu in zip(found, parts, strict=True)]
