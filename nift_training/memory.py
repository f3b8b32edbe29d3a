"""How much memory this process has needed, and how much is left."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
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
        line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / 2**20 if sys.platform == "darwin" else found / 1024


def available_bytes(device: torch.device) -> int:
    """The memory a device has left; of a CPU what Linux counts as available, elsewhere 8 GB."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if not info.exists():
        return 8 * 2**30
    line = next(each for each in info.read_text().splitlines() if each.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024
