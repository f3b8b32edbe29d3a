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
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import polars as pl

from nift_assets import table_files
from nift_assets.table_files import ROWS_PER_GROUP
from tests.ui.server import DIRECT, free_port

CHARACTERS = 2_500
WORDS = 20_000
NOWHERE = "zzzqq nowhere"
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
        table_files.write_portions(root / "demo" / "halves.parquet", _portions(rows), "bench", "halves")
        size = (root / "demo" / "halves.parquet").stat().st_size
        print(f"{rows:,} rows of {2 * CHARACTERS / 1000:.0f} kB, {size / 1e6:,.0f} MB on disk, ", end="")
        print(f"written in {time.monotonic() - began:.0f} s", flush=True)
        _measure(root, rows)


def _measure(root: Path, rows: int) -> None:
    port = free_port()
    environment = {**os.environ, "NIFT_WAREHOUSE": str(root), "NIFT_STUDY": "demo"}
    command = [str(Path(sys.executable).with_name("nift")), "look", "--port", str(port)]
    began = time.monotonic()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            print(f"{time.monotonic() - began:6.2f} s  until `nift look` serves", flush=True)
            token = said.partition("token=")[2].split()[0]
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
            for name, path in pages.items():
                used = _cpu(process.pid)
                seconds, _ = _asked(port, token, path)
                print(f"{seconds:6.2f} s  {name}{_of_cpu(process.pid, used)}", flush=True)
            _wait_for_check(port, token)
            for search in (NOWHERE, NOWHERE.upper() + " ж"):
                _search(port, token, f"/tables/halves?{urlencode({'search': search})}", process.pid)
            print(f"{_memory(process.pid, 'VmHWM'):6,.0f} MB at the most, all together", flush=True)
        finally:
            process.send_signal(signal.SIGINT)


def _search(port: int, token: str, path: str, pid: int) -> None:
    """How long a search takes that finds nothing, so that it has to look at every row."""
    began, used = time.monotonic(), _cpu(pid)
    first, page = _asked(port, token, path)
    while SO_FAR.search(page):
        _, page = _asked(port, token, path)
    assert "No rows" in page, page[:2000]
    print(f"{first:6.2f} s  a word that is nowhere: until the page says how far it is", flush=True)
    seconds = time.monotonic() - began
    print(f"{seconds:6.2f} s  … until every row is searched{_of_cpu(pid, used)}", flush=True)


def _wait_for_check(port: int, token: str) -> None:
    """The rows are held against their digests behind the pages; until then they share the cores."""
    began = time.monotonic()
    while CHECKED not in _asked(port, token, "/tables/halves?start=50")[1].lower():
        time.sleep(0.5)
    print(f"{time.monotonic() - began:6.2f} s  until the digests are checked, behind the pages", flush=True)


def _asked(port: int, token: str, path: str) -> tuple[float, str]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/study/look{path}", headers={"Authorization": f"Bearer {token}"}
    )
    began = time.monotonic()
    with DIRECT.open(request, timeout=300) as answer:
        page = answer.read().decode()
    return time.monotonic() - began, page


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


def _portions(rows: int) -> Iterator[pl.DataFrame]:
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
