"""Reading a benchmark's files where they lie, in the layouts their authors published."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from nift_assets.studies.study import Benchmark


def rows(benchmark: Benchmark, *parts: str) -> list[dict[str, Any]]:
    """The JSON objects of one file of the benchmark, one per line; ValueError names a file that is not there."""
    path = path_of(benchmark, *parts)
    # Lines end at "\n" alone: an answer may contain U+2028, at which splitlines() would cut the object in two.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def path_of(benchmark: Benchmark, *parts: str) -> Path:
    """The path of one file or folder of the benchmark; ValueError for one that is not there."""
    path = Path(benchmark.location, *parts)
    if not path.exists():
        raise ValueError(
            f"{path}: {benchmark.name} has no such file; put the benchmark's published files into {benchmark.location}"
        )
    return path


def own_file(benchmark: str) -> Path | None:
    """The questions of a benchmark, by its name on the command line, in the folder NIFT_BENCHMARKS, if they are."""
    folder = os.environ.get("NIFT_BENCHMARKS")
    names = {"mt-bench": "mt_bench/question.jsonl", "arena-hard": "arena_hard/question.jsonl"}
    path = Path(folder, names.get(benchmark, "ifeval/input_data.jsonl")) if folder else None
    return path if path and path.exists() else None


def fingerprint(benchmark: Benchmark, *parts: str) -> str:
    """The digest of a file or folder of the benchmark, so that what was made from other files is known to be stale."""
    hashed = hashlib.sha256()
    place = path_of(benchmark, *parts)
    for path in sorted(p for p in [place, *place.rglob("*")] if p.is_file()):
        hashed.update(path.name.encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
