"""The shim that fails the n-th operation on a disk: built with the system's compiler, and asked from within."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


def build(folder: Path, source: Path = SOURCE) -> Path | None:
    """The library for LD_PRELOAD; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


class Shim:
    """The shim in a process that was started with it."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self._library.fail_at.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_char_p]
        self._library.operations.restype = ctypes.c_long

    @contextmanager
    def failing(self, at: int, number: int, folder: Path, *, stays: bool) -> Iterator[None]:
        self._library.fail_at(at, number, int(stays), str(folder).encode())
        try:
            yield
        finally:
            self._library.fail_at(0, 0, 0, b"")

    def operations(self) -> int:
        """How many operations there were since the last `failing` began, while it lasts."""
        return int(self._library.operations())
