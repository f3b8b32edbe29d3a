"""The benchmarks: one file each, which gives all there is to know of it. No other file names one.

A row `Benchmark(name="<file>")` of a study runs it. The file gives what `scoring.interface` asks for: the names of its
numbers, its published files, what it is run with, every text a model is asked, its answers and its score as frames and,
if a judge reads the answers, what the judge is asked. A part that is forgotten is an error when the file is loaded.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from nift_assets.benchmarks.scoring.interface import (
    BenchmarkModule,
    JudgedModule,
    Measure,
    ReadingModule,
    ScoredFiles,
    WritingModule,
)

if TYPE_CHECKING:
    from nift_assets.benchmarks.scoring.scores import Measured
    from nift_assets.rows import Benchmark

PARTS = (
    "VERSION", "TITLE", "MEASURES", "PUBLISHED", "ASKED", "RUNNER", "check", "options", "questions", "answers", "score",
)  # fmt: skip
JUDGED_PARTS = ("SIZE", "requests", "retries", "judgments")


def names() -> list[str]:
    """The names of all benchmarks, one per file of this folder; what they share lies in `scoring`."""
    return sorted(module_info.name for module_info in pkgutil.iter_modules(__path__) if not module_info.ispkg)


def load(name: str) -> BenchmarkModule:
    """The file of a benchmark; ValueError for one that is not there or lacks a part."""
    return cast(BenchmarkModule, module(name))


@cache
def module(name: str) -> ModuleType:
    """The file of a benchmark as the module that it is."""
    if name not in names():
        raise ValueError(
            f"there is no benchmark {name!r}; use one of {', '.join(names())}, or write its file, "
            f"nift_assets/benchmarks/{name}.py"
        )
    file = importlib.import_module(f"{__name__}.{name}")
    needed = PARTS + (JUDGED_PARTS if any(hasattr(file, part) for part in JUDGED_PARTS) else ())
    if missing := [part for part in needed if not hasattr(file, part)]:
        raise ValueError(
            f"{file.__file__}: the benchmark {name!r} lacks {', '.join(missing)}; a benchmark gives "
            f"{', '.join(PARTS)} and, if a judge reads its answers, {', '.join(JUDGED_PARTS)}"
        )
    return file


def is_judged(name: str) -> bool:
    return hasattr(load(name), "requests")


def judged(name: str) -> JudgedModule:
    """The file of a benchmark whose answers a judge reads."""
    assert is_judged(name), f"nobody judges {name}"
    return cast(JudgedModule, load(name))


def writing(name: str) -> WritingModule:
    """The file of a benchmark whose judgments can be written as its own tool writes them; ValueError for another."""
    if not is_judged(name):
        raise ValueError(f"{name.replace('_', '-')} needs no judge: score its answers with nift score")
    file = judged(name)
    if missing := [part for part in ("published_judgments", "published_answer") if not hasattr(file, part)]:
        raise ValueError(
            f"{module(name).__file__} does not give {' and '.join(missing)}; add that to have files judged"
        )
    return cast(WritingModule, file)


def readable() -> dict[str, str]:
    """The benchmarks of which other tools' files can be scored, by what they are called on the command line."""
    files = {name: load(name) for name in names()}
    return {
        getattr(file, "COMMAND", name.replace("_", "-")): name for name, file in files.items() if hasattr(file, "read")
    }


def read(name: str, inputs: ScoredFiles) -> list[Measured]:
    """The scores of files that other tools wrote, one per model and measure.

    Files of one tool look alike whatever they are of: those of a benchmark's successor are scored as that.
    """
    for other in names():
        successor: Any = load(other)
        if getattr(successor, "SUCCEEDS", None) == name and successor.owns(inputs):
            return cast(ReadingModule, successor).read(inputs)
    return cast(ReadingModule, load(name)).read(inputs)


def expensive(name: str) -> list[Callable[..., Any]]:
    """The functions of a benchmark's file that make what takes a GPU or money: they carry its `VERSION`."""
    file = load(name)
    asking = (judged(name).requests, judged(name).retries, judged(name).judgments) if is_judged(name) else ()
    return [file.options, file.answers, *asking]


def check(row: Benchmark) -> None:
    """ValueError for a row without a file, or that lacks what its file needs."""
    if not re.fullmatch("[a-z0-9_]+", row.name):
        raise ValueError(f"benchmark {row.name!r} names tables; use the characters a-z 0-9 _")
    file = load(row.name)
    if is_judged(row.name) and row.judge is None:
        raise ValueError(f"benchmark {row.name!r} has no judge; name one of the study's judges")
    if not is_judged(row.name) and row.judge is not None:
        raise ValueError(f"benchmark {row.name!r} names the judge {row.judge!r}, but nobody judges it; leave it out")
    file.check(row)


def answers_table(name: str) -> str:
    """The table of what models answer, one partition per model."""
    own: Any = load(name)
    return f"{name}_answers" if is_judged(name) else getattr(own, "TABLE", name)


def results_table(name: str) -> str:
    """The table that the score is made of: the judgments or, where nobody judges, the answers."""
    return f"{name}_judgments" if is_judged(name) else answers_table(name)


def tables(of: Iterable[str]) -> dict[str, str]:
    """The tables of some benchmarks, each with the benchmark it is of."""
    return {table: name for name in of for table in (answers_table(name), results_table(name))}


def measures(rows: Iterable[Benchmark]) -> list[Measure]:
    """The numbers that some benchmarks give, in their order."""
    return [measure for row in rows for measure in load(row.name).MEASURES]


def heads() -> dict[str, str]:
    """What a column with a benchmark's number, or with that of a part of it, is called in a table of the paper."""
    return dict(_heads())


def _heads() -> Iterator[tuple[str, str]]:
    for name in names():
        file: Any = load(name)
        own: Mapping[str, str] = getattr(file, "HEADS", {})
        yield from ({measure.name: measure.title for measure in file.MEASURES} | {**own}).items()
