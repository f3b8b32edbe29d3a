"""How much memory this process has needed, and how much is left."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def peak_rss_mb() -> float:
    """The most memory this process has held since it began, in MiB.

    Linux's `ru_maxrss` counts what the process that started this one held at that moment as well, `VmHWM` does not;
    elsewhere there is only the former, on macOS in bytes.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


@dataclass
class PeakMemory:
    """The most memory that one process was seen to hold, in MiB; None where the system does not tell."""

    mb: float | None = None


@contextmanager
def watched(seconds: float = 0.2) -> Iterator[PeakMemory]:
    """The peak of this process and all that it started, while the block runs: of the largest of them, not their sum,
    since a fork holds the pages of its parent once more. Looked at every so many seconds."""
    peak, over = PeakMemory(), Event()
    if not Path("/proc/self/statm").exists():
        yield peak
        return

    def look() -> None:
        while True:
            peak.mb = max(peak.mb or 0.0, *(_resident_mb(process) for process in _family(os.getpid())))
            if over.wait(seconds):
                return

    watching = Thread(target=look, daemon=True)
    watching.start()
    try:
        yield peak
    finally:
        over.set()
        watching.join()


def _family(process: int) -> Iterator[int]:
    yield process
    with suppress(OSError):  # it may have ended since its parent was read
        for thread in Path("/proc", str(process), "task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _resident_mb(process: int) -> float:
    try:
        pages = int(Path("/proc", str(process), "statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * resource.getpagesize() / 2**20


def available_bytes(device: torch.device) -> int:
    """The memory a device has left; of a CPU what Linux counts as available, elsewhere 8 GB."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if not info.exists():
        return 8 * 2**30
    line = next(line for line in info.read_text().splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024
