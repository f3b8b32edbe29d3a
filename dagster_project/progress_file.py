"""How far the runs of other processes are: a file that each appends lines to, and that the command reads on from.

A line is one short write, so what a killed process leaves is at worst one line that is not read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

MOST_CHARACTERS = 500


@dataclass(frozen=True)
class ProgressLine:
    """What a step of a run has said last; a person is to have it `at_once` where it is a warning."""

    run: str
    step: str
    said: str
    at_once: bool = False


def tell(file: Path, line: ProgressLine) -> None:
    """Appends what was said, on one line and without what a terminal would act on."""
    said = "".join(sign if sign.isprintable() else " " for sign in line.said[:MOST_CHARACTERS])
    content = json.dumps(asdict(replace(line, said=said))) + "\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, content.encode())
    finally:
        os.close(descriptor)


class ProgressReader:
    """Reads what has been told since it last looked."""

    def __init__(self, file: Path) -> None:
        self._file, self._place = file, 0

    def lines(self) -> list[ProgressLine]:
        """The whole lines that are new; what is no line of ours is left out."""
        try:
            with self._file.open("rb") as file:
                file.seek(self._place)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._place += len(whole) + len(newline)
        found = []
        for text in whole.splitlines():
            try:
                found.append(ProgressLine(**json.loads(text)))
            except (ValueError, TypeError):
                continue
        return found
