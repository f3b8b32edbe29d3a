"""A command in a network of its own, which has nothing but its loopback, and what it has asked for all the same (X12).

python -m tests.offline COMMAND …

brings the loopback up and becomes the command; `alone` says how that is started.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

NAMESPACE = ("unshare", "--map-root-user", "--net")
REASON = f"this system permits no network namespace: {' '.join(NAMESPACE)} true"


@cache
def permitted() -> bool:
    """Whether a process may have a network of its own here; containers and some systems forbid it."""
    try:
        return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def alone(command: Sequence[str]) -> list[str]:
    """The command in a network of its own; it keeps the process id of who starts it."""
    return [*NAMESPACE, sys.executable, "-m", "tests.offline", *command]


def unforbidden(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with nothing set that forbids to ask: what is shipped asks for nothing by itself."""
    return {name: value for name, value in environment.items() if not name.startswith(("HF_", "DO_NOT_TRACK"))}


def noting(environment: Mapping[str, str], notes: Path) -> dict[str, str]:
    """The environment in which every Python process notes in a folder what it asks of other machines."""
    notes.mkdir(parents=True, exist_ok=True)
    paths = [str(Path(__file__).parent / "notes"), *filter(None, [environment.get("PYTHONPATH")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(paths), "PYTHON_NETWORK_NOTES": str(notes)}


def asked(notes: Path) -> list[str]:
    """What was asked of other machines, one line each."""
    return [line for file in sorted(notes.iterdir()) for line in file.read_text().splitlines()]
