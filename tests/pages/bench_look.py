"""What it costs to read 300,000 rows of 5 kB: seconds to each page of a real `nift look`, and its memory.

    make bench-look
    python -m tests.pages.bench_look --rows 80000

The rows are written a portion at a time by the project's own writer, into a folder that is deleted at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_plus, urlencode

import numpy as np
import polars as pl

from nift_assets import table_files
from nift_assets.pages.viewer import links
from nift_assets.table_files import ROWS_PER_GROUP
from tests.pages.look_process import LookProcess, looking

CHARACTERS = 2_500
WORDS = 20_000
NOWHERE = "zzzqq nowhere"
# Of four bytes, three, two and one; and a sign of four.
RARE_AND_SHORT = ("qjxq", "jxq", "今", "ж", "~", "😀")
QUIET_LOOKS = 5
SO_FAR = re.compile(r"so far: ([\d,]+) of ([\d,]+) rows")
CHECKED = "these rows are what was written"


def main() -> None:
    """Prints a line per page: seconds until it has come, and for a search until all rows have been looked at."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=300_000)
    rows: int = options.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="nift-look-") as folder:
        root = Path(folder)
        (root / "demo").mkdir()
        began = time.monotonic()
        table_files.write_portions(root / "demo" / "halves.parquet", portions(rows), "bench", "halves")
        size = (root / "demo" / "halves.parquet").stat().st_size
        print(f"{rows:,} rows of {2 * CHARACTERS / 1000:.0f} kB, {size / 1e6:,.0f} MB on disk, ", end="")
        print(f"written in {time.monotonic() - began:.0f} s", flush=True)
        _measure(root, rows)


def _measure(root: Path, rows: int) -> None:
    began = time.monotonic()
    with looking(root) as server:
        print(f"{time.monotonic() - began:6.2f} s  until `nift look` serves", flush=True)
        pid = server.process.pid
        document = hashlib.sha256(str(rows // 2).encode()).hexdigest()[:32]
        pages = {
            "the first page of pairs": "/pairs",
            "the first page of the table": "/tables/halves",
            "what there is": "",
            "the last page": f"/tables/halves?start={rows - 25}",
            "one pair, by its permalink": f"/pairs/{document}",
            "25 rows at random": "/tables/halves?sample=25&seed=7",
            "sorted by a number": "/tables/halves?sort=sample_rank&order=down",
            "one of all documents, by a filter": f"/tables/halves?column=document_id&relation=is&value={document}",
            "a frequent word": "/tables/halves?search=word7",
        }
        print(f"{_pace():6.2f} s  five million steps of a Python loop", flush=True)
        for name, path in pages.items():
            used = _cpu(pid)
            seconds, _ = _asked(server, path)
            print(f"{seconds:6.2f} s  {name}{_of_cpu(pid, used)}", flush=True)
        _wait_for_check(server)
        for path, search in (("/tables/halves", NOWHERE), ("/pairs", NOWHERE.upper() + " ж")):
            _search(server, f"{path}?{urlencode({'search': search})}")
        _wait_until_idle(server)
        for path, search in (("/tables/halves", f"{NOWHERE} again"), ("/pairs", f"{NOWHERE} a third time")):
            _search(server, f"{path}?{urlencode({'search': search})}")
        for search in RARE_AND_SHORT:
            _search(server, f"/tables/halves?{urlencode({'search': search})}")
        print(f"{_pace():6.2f} s  five million steps of a Python loop", flush=True)
        print(f"{_memory(pid, 'VmHWM'):6,.0f} MB at the most, all together", flush=True)


def _search(server: LookProcess, path: str) -> None:
    """How long a search takes that finds nothing, so that it has to look at every row."""
    pid = server.process.pid
    place, _, said = unquote_plus(path).partition("?search=")
    began, used = time.monotonic(), _cpu(pid)
    first, page = _asked(server, path)
    while SO_FAR.search(page):
        _, page = _asked(server, path)
    assert re.search("No (rows|documents)", page), page[:2000]
    seconds = time.monotonic() - began
    print(
        f"{first:6.2f} s  {said!r}, which is nowhere in {place}: until the page says how far it is",
        flush=True,
    )
    print(f"{seconds:6.2f} s  … until every row is searched{_of_cpu(pid, used)}", flush=True)


def _wait_for_check(server: LookProcess) -> None:
    """The rows are held against their digests behind the pages; until then they share the cores."""
    began = time.monotonic()
    while CHECKED not in _asked(server, "/tables/halves?start=50")[1].lower():
        time.sleep(0.5)
    print(f"{time.monotonic() - began:6.2f} s  until the digests are checked, behind the pages", flush=True)


def _wait_until_idle(server: LookProcess) -> None:
    """Then it is noted which groups of rows may hold which texts, and a search unpacks no others."""
    began, before = time.monotonic(), _cpu(server.process.pid)
    used, quiet = before, 0
    # On a machine that others use too, what has the lowest priority waits for seconds in between.
    while quiet < QUIET_LOOKS:
        time.sleep(2)
        used, last = _cpu(server.process.pid), used
        quiet = quiet + 1 if used - last < 0.1 else 0
    print(
        f"{time.monotonic() - began:6.2f} s  until its texts are indexed{_of_cpu(server.process.pid, before)}",
        flush=True,
    )


def _asked(server: LookProcess, path: str) -> tuple[float, str]:
    began = time.monotonic()
    page = server.page(links.ROOT + path)
    return time.monotonic() - began, page


def _pace() -> float:
    """Seconds of CPU for five million steps of a loop, beside which all others are to be read."""
    began, steps = time.process_time(), 0
    for number in range(5_000_000):
        steps += number
    return time.process_time() - began


def _memory(pid: int, name: str) -> float:
    """A size of a process in MB, as Linux counts it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1000  # type: ignore[index]


def _of_cpu(pid: int, before: float) -> str:
    """What of it was work, of all threads together: the rest is waiting, for instance for a core that others have."""
    return f" ({_cpu(pid) - before:.2f} s of CPU)"


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def portions(rows: int) -> Iterator[pl.DataFrame]:
    """Rows of words that are as frequent as words are: the n-th comes a share of 1/n."""
    drawn = np.random.default_rng(3)
    shares = 1 / np.arange(1, WORDS + 1)
    words = np.array([f"{_syllables(number)}" for number in range(WORDS)], dtype=object)
    words[7] = "word7"
    count = round(CHARACTERS / (1 + float(np.dot(shares / shares.sum(), [len(word) for word in words]))))

    def texts(size: int) -> list[str]:
        return [" ".join(words[row]) for row in drawn.choice(WORDS, size=(size, count), p=shares / shares.sum())]

    for start in range(0, rows, ROWS_PER_GROUP):
        numbers = range(start, min(start + ROWS_PER_GROUP, rows))
        yield pl.DataFrame(
            {
                "document_id": [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in numbers],
                "sample_rank": list(numbers),
                "words": [2 * count] * len(numbers),
                "cut": [count] * len(numbers),
                "first_half": texts(len(numbers)),
                "second_half": texts(len(numbers)),
            }
        )


def _syllables(number: int) -> str:
    """A word of its own for each number."""
    written = ""
    for _ in range(2 + number % 3):
        number, sign = divmod(number, 17)
        written += "bcdfghklmnprstvwz"[sign] + "aeiou"[(number + sign) % 5]
    return written


if __name__ == "__main__":
    main()
