"""Reading a benchmark's files where they lie, in the layouts their authors published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets import environment
from nift_assets.corpus import locations
from nift_assets.rows import Benchmark, Corpus
from nift_assets.store import replacing

# A leaderboard whose location is this is lm-eval's own, on the data of the Hub.
HUB = "hub"
# Splits whose rows are examples in a prompt, or nothing at all; they are not asked.
SHOWN = ("train", "dev")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One file of a benchmark at its home: a commit of a public repository, and the sha256 of what is there."""

    path: str
    url: str
    sha256: str


_FASTCHAT = "https://raw.githubusercontent.com/lm-sys/FastChat/{}/fastchat/llm_judge/data/"
_ARENA_HARD = "https://raw.githubusercontent.com/lmarena/arena-hard-auto/{}/"
PUBLISHED: dict[str, tuple[Published, ...]] = {
    "mt_bench": (
        Published(
            path="question.jsonl",
            url=_FASTCHAT.format("589532dcfa83700f950b9aa3983416c543afabc0") + "mt_bench/question.jsonl",
            sha256="119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
        ),
        Published(
            path="judge_prompts.jsonl",
            url=_FASTCHAT.format("0e6e7fdc78bf64aceea1508694ce4e6472810b8b") + "judge_prompts.jsonl",
            sha256="fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
        ),
        Published(
            path="reference_answer/gpt-4.jsonl",
            url=_FASTCHAT.format("ae7cdfd1b823f0a7ed50b843963887a8b460c451") + "mt_bench/reference_answer/gpt-4.jsonl",
            sha256="f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
        ),
    ),
    "arena_hard": (
        Published(
            path="question.jsonl",
            url=_ARENA_HARD.format("6c82720015d5da7b8795b809b91f63ef74abbf6a") + "data/arena-hard-v0.1/question.jsonl",
            sha256="4daad38811161c3ba5c248f26b90c3cef89634f4c772002ed9138c1e13f63e9f",
        ),
        Published(
            path="model_answer/gpt-4-0314.jsonl",
            url=_ARENA_HARD.format("e0a8ea1df42c1df76451a6cd04b14e31ff992b87")
            + "data/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl",
            sha256="245109b8fe7c3bef0304f1c559d29da377f97f61535ad1170b46a61a08eb9ac7",
        ),
        Published(
            path="judge_config.yaml",
            url=_ARENA_HARD.format("b88a301e1b9abca0fe37458ed69e0bbb35b09a69") + "config/judge_config.yaml",
            sha256="6e001736bacacdb1591ffca7eec953a7089f8f5604872d1ca4f9a6f9de1ee451",
        ),
    ),
    "ifeval": (
        Published(
            path="input_data.jsonl",
            url="https://raw.githubusercontent.com/google-research/google-research/"
            "19638399cc9e03623c5b9087a1d6fa8813974ce9/instruction_following_eval/data/input_data.jsonl",
            sha256="48a13f6e56fcd38da37fb9a7da78277792643bb96a1b0e60e79405e6a5d10fca",
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class OnTheHub:
    """What a task of the leaderboard asks: one Parquet file of a dataset on the Hub, at a commit."""

    dataset: str
    revision: str
    file: str


TASKS = {
    "arc_challenge": OnTheHub(
        dataset="allenai/ai2_arc",
        revision="210d026faf9955653af8916fad021475a3f00453",
        file="ARC-Challenge/test-00000-of-00001.parquet",
    ),
    "hellaswag": OnTheHub(
        dataset="Rowan/hellaswag",
        revision="218ec52e09a7e7462a5400043bb9a69a41d06b76",
        file="data/validation-00000-of-00001.parquet",
    ),
    "mmlu": OnTheHub(
        dataset="cais/mmlu",
        revision="c30699e8356da336a370243923dbaf21066bb9fe",
        file="all/test-00000-of-00001.parquet",
    ),
    "truthfulqa_mc2": OnTheHub(
        dataset="truthfulqa/truthful_qa",
        revision="741b8276f2d1982aa3d5b832d3ee81ed3b896490",
        file="multiple_choice/validation-00000-of-00001.parquet",
    ),
    "winogrande": OnTheHub(
        dataset="allenai/winogrande",
        revision="01e74176c63542e6b0bcb004dcdea22d94fb67b5",
        file="winogrande_xl/validation-00000-of-00001.parquet",
    ),
    "gsm8k": OnTheHub(
        dataset="openai/gsm8k",
        revision="740312add88f781978c0658806c59bc2815b9866",
        file="main/test-00000-of-00001.parquet",
    ),
}


def fetch(name: str, folder: Path, published: Sequence[Published] | None = None) -> list[Path]:
    """The files of a benchmark in a folder, fetched from their home unless they are there; each whole or not at all.

    ValueError for one whose sha256 is another, whether it was there or came so: the texts decide the score.
    """
    from urllib.request import urlopen

    made = []
    for file in PUBLISHED[name] if published is None else published:
        path = folder / file.path
        if not path.exists():
            with replacing(path) as temporary, urlopen(file.url, timeout=60) as answer:
                temporary.write_bytes(_expected(answer.read(), file, file.url))
        _expected(path.read_bytes(), file, str(path))
        made.append(path)
    return made


def _expected(content: bytes, file: Published, place: str) -> bytes:
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"{place} is not the published {file.path}: its sha256 is {found[:16]}…, not {file.sha256[:16]}…; remove it"
        )
    return content


def rows(benchmark: Benchmark, *parts: str) -> list[dict[str, Any]]:
    """The JSON objects of one file of the benchmark, one per line; ValueError names a file that is not there."""
    path = path_of(benchmark, *parts)
    # Lines end at "\n" alone: an answer may contain U+2028, at which splitlines() would cut the object in two.
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def task_rows(benchmark: Benchmark) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row the tasks of a leaderboard are asked from, with its file and number: those of its folder and the
    folders in it, without the rows that are only shown; or those of its tasks on the Hub.

    ValueError for a task whose rows cannot be had.
    """
    if benchmark.location == HUB:
        files = [(task.name, hub_file(task.name)) for task in benchmark.tasks]
    else:
        folder = path_of(benchmark)
        below = sorted(p for p in folder.rglob("*") if p.suffix in (".jsonl", ".parquet") and p.stem not in SHOWN)
        files = [(p.stem if p.parent == folder else p.parent.name, str(p)) for p in below]
    for name, file in files:
        yield from ((f"{name} {number}", row) for number, row in enumerate(_rows_of(file), start=1))


def hub_file(task: str) -> str:
    """The address of the file a task of the leaderboard is asked from; ValueError if the Hub cannot be reached."""
    if task not in TASKS:
        raise ValueError(f"where the Hub keeps the task {task!r} is not known; it is of {', '.join(TASKS)}")
    asked = TASKS[task]
    location = f"hf://datasets/{asked.dataset}/{asked.file}"
    return locations.files(Corpus(name=task, location=location, revision=asked.revision, licence="its own"))[0]


def _rows_of(file: str) -> Iterator[dict[str, Any]]:
    try:
        with locations.opened(file) as opened:
            # Lines end at "\n" alone: an answer may contain U+2028, at which splitlines() would cut the object in two.
            if file.endswith(".jsonl"):
                yield from (json.loads(line) for line in opened.read().decode().split("\n") if line.strip())
            else:
                yield from pl.read_parquet(opened).iter_rows(named=True)
    except Exception as error:
        raise ValueError(
            f"{file}: cannot be read ({locations.one_line(error)}); check the file or the network"
        ) from None


def path_of(benchmark: Benchmark, *parts: str) -> Path:
    """The path of one file or folder of the benchmark; ValueError for one that is not there."""
    path = Path(benchmark.location, *parts)
    if not path.exists():
        raise ValueError(
            f"{path}: {benchmark.name} has no such file; put the benchmark's published files into {benchmark.location} "
            "(`nift benchmarks` fetches them), or set NIFT_BENCHMARKS to the folder that has them"
        )
    return path


def own_file(benchmark: str) -> Path | None:
    """The questions of a benchmark, by its name on the command line, in the folder NIFT_BENCHMARKS, if they are."""
    folder = environment.benchmarks()
    names = {"mt-bench": "mt_bench/question.jsonl", "arena-hard": "arena_hard/question.jsonl"}
    path = Path(folder, names.get(benchmark, "ifeval/input_data.jsonl")) if folder else None
    return path if path and path.exists() else None


def source(benchmark: Benchmark) -> str:
    """What the files of a benchmark are called in the graph."""
    return f"{benchmark.name}_files"


def described(benchmark: Benchmark) -> list[dict[str, str]]:
    """One row per file of the published layout that lies in the benchmark's folder: its digest, and its home if it is
    the published one."""
    rows = []
    for file in PUBLISHED.get(benchmark.name, ()):
        path = Path(benchmark.location, file.path)
        if path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append({"file": file.path, "sha256": found, "home": file.url if found == file.sha256 else "its own"})
    return rows


def fingerprint(benchmark: Benchmark, *parts: str) -> str:
    """The digest of a file or folder of the benchmark, so that what was made from other files is known to be stale."""
    hashed = hashlib.sha256()
    place = path_of(benchmark, *parts)
    for path in sorted(p for p in [place, *place.rglob("*")] if p.is_file()):
        hashed.update(path.name.encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()
