"""How long the checks of 80,000 rows with whole texts take: `python -m tests.expectations.bench`.

Each contract is held against a table of generated documents of about 5 kB, after it was held against a few rows of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import sys
import time
from collections.abc import Iterator

import polars as pl

import nift_assets.graph  # noqa: F401  importing it declares all tables
from expectations import contract, runner
from expectations.frames import conform, schema
from nift_assets import sql, studies
from nift_assets.assets.sql_models import removals
from tests.demo import GRAPH

ROWS = 80_000
WORDS = 900
WARMING = 9  # rows checked before the clock starts: what is imported and planned once is not what 80,000 cost
TEACHER, SET = "echo", "echo-filtered"
VOCABULARY = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "harbour",
    "morning",
    "went",
    "later",
    "again",
    "–",
    "“tomorrow”",
    "was",
]


def texts(rows: int) -> list[str]:
    """Different documents, each a stretch of one long text behind a number of its own."""
    chance = random.Random(0)
    words = chance.choices(VOCABULARY, k=20 * WORDS)
    starts = [chance.randrange(19 * WORDS) for _ in range(rows)]
    return [f"{number} {' '.join(words[start : start + WORDS - 1])}" for number, start in enumerate(starts)]


def tables(rows: int) -> dict[str, pl.DataFrame]:
    """The tables from article to training set, all of whose rows keep their promises."""
    documents = texts(rows)
    cut = WORDS // 2
    first = [" ".join(text.split(" ", cut)[:cut]) for text in documents]
    ids = [hashlib.sha256(text.encode()).hexdigest()[:32] for text in documents]
    base = pl.DataFrame({"document_id": ids, "sample_rank": range(rows)})
    second = pl.Series([text[len(half) :] for text, half in zip(documents, first, strict=True)])
    completions = base.with_columns(
        pl.lit(TEACHER).alias("teacher"),
        pl.lit("ok").alias("status"),
        second.alias("completion"),
        pl.lit("stop").alias("finish_reason"),
        pl.lit(False).alias("echoes_prompt"),
        pl.lit(WORDS, pl.Int64).alias("input_tokens"),
        (pl.col("document_id") + pl.col("document_id")).alias("request_key"),
    )
    made = {
        "raw_sample": base.with_columns(
            pl.Series("text", documents),
            pl.lit(WORDS, pl.Int64).alias("words"),
            pl.lit("f").alias("file"),
            pl.col("sample_rank").alias("row"),
        ),
        "halves": base.with_columns(
            pl.lit(WORDS, pl.Int64).alias("words"),
            pl.lit(cut, pl.Int64).alias("cut"),
            pl.Series("first_half", first),
            second.alias("second_half"),
        ),
        "completions": completions,
        "filtered_completions": completions,
        "training_sets": base.with_columns(
            pl.lit(SET).alias("training_set"),
            pl.lit(TEACHER).alias("teacher"),
            pl.Series("prompt", first),
            second.alias("response"),
        ),
    }
    return {name: _filled(frame, name) for name, frame in made.items()}


def _filled(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    """`frame` with the columns of the table and no other; what it lacks is null."""
    declared = schema(contract.load(table))
    lacking = [pl.lit(None, dtype).alias(name) for name, dtype in declared.items() if name not in frame.columns]
    return conform(frame.with_columns(*lacking).select(*declared), contract.load(table))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What the check of one table took, in seconds and in seconds of all processors; and the ERROR tests it failed."""

    table: str
    tests: int
    megabytes: float
    seconds: float
    cpu_seconds: float
    failed: list[str]


def measured(rows: int) -> Iterator[Measured]:
    """Each table from article to training set, checked once."""
    made = tables(rows)
    demo = studies.load("demo")
    unlimited = [dataclasses.replace(each, rows=None, refill=True) for each in demo.training_sets]
    study = dataclasses.replace(demo, training_sets=tuple(unlimited))
    for name, frame in made.items():
        promised = contract.load(name)
        empty = {each: _filled(pl.DataFrame(), each) for each in GRAPH.tables[name].inputs if each not in made}
        inputs = {each: made[each] for each in GRAPH.tables[name].inputs if each in made} | empty
        known = sql.named_study_rows(study, (test.arguments.get("sql", "") for test in promised.tests))
        given = inputs | known | removals(study, inputs)
        runner.check(frame.head(WARMING), promised, given)
        began, cpu = time.perf_counter(), time.process_time()
        found = runner.check(frame, promised, given)
        yield Measured(
            table=name,
            tests=len(found),
            megabytes=frame.estimated_size("mb"),
            seconds=time.perf_counter() - began,
            cpu_seconds=time.process_time() - cpu,
            failed=[result.name for result in found if not result.passed and result.severity == "error"],
        )


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print(f"{rows:,} rows of about {WORDS} words\n")
    print("table                 tests  MB of texts  seconds  CPU seconds")
    for each in measured(rows):
        numbers = f"{each.tests:5}  {each.megabytes:11.0f}  {each.seconds:7.2f}  {each.cpu_seconds:11.2f}"
        print(f"{each.table:20}  {numbers}  {', '.join(each.failed)}".rstrip())


if __name__ == "__main__":
    main()
