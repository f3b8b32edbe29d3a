"""What each step of the data line costs at size: seconds, CPU seconds and the most memory of its process.

    python -m tests.scale.steps --pairs 80000

The pairs are of about 5 kB, made up; their second halves are the authors' own (the teacher `original`), which the
ledger stores as it does every answer. Each step is a Dagster run in a process of its own, with its checks, as
`nift run` has it. Everything lies in a folder that is deleted at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nift_training.memory import peak_rss_mb

PROJECT = Path(__file__).parent.parent.parent
SEED = 42
WORDS, FILES = 900, 8
AUTHOR, PAIRS = "author", "author-filtered"
STUDY = f"""
from nift_assets.studies import Corpus, Filter, Publication, Study, Teacher, TrainingSet

FILTERS = ("uppercase_start", "prompt_echo", "exact_duplicates", "near_duplicates")
STUDY = Study(
    name="scale",
    title="Scale",
    corpus=Corpus(name="made_up", location={{place!r}}, licence="made up", documents=None),
    # What is made up is in no language, so that filter reports and drops nothing.
    filters=tuple(Filter(name=name) for name in (*FILTERS, "language")),
    teachers=(Teacher(name="{AUTHOR}", provider="original", model="original", filters=FILTERS),),
    training_sets=(TrainingSet(name="{PAIRS}", teacher="{AUTHOR}", filters=FILTERS),),
    publications=(Publication(name="scale", teacher="{AUTHOR}", repository="nobody/scale", licence="made up"),),
)
"""
STEPS: tuple[tuple[str, str | None], ...] = (
    ("raw_sample", None),
    ("halves", None),
    ("halves_rejects", None),
    ("completions", AUTHOR),
    ("completion_rejects", AUTHOR),
    ("uppercase_start_removals", AUTHOR),
    ("prompt_echo_removals", AUTHOR),
    ("language_removals", AUTHOR),
    ("exact_duplicates_removals", AUTHOR),
    ("near_duplicates_removals", AUTHOR),
    ("filtered_completions", AUTHOR),
    ("training_sets", PAIRS),
    ("training_files", PAIRS),
    ("funnel", None),
    ("hub_datasets", AUTHOR),
    ("report", None),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, nargs="+", default=[80_000])
    options.add_argument("--only", nargs="*", help="these tables, of a folder that is kept")
    options.add_argument("--folder", type=Path, help="where everything is to lie, and stay")
    options.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.one:
        print(json.dumps(_made(given.one[0], given.one[1] or None)))
        return
    for pairs in given.pairs:
        with tempfile.TemporaryDirectory(prefix="nift-scale-") as scratch:
            measure(given.folder or Path(scratch), pairs, given.only)


def measure(folder: Path, pairs: int, only: list[str] | None = None) -> list[dict[str, Any]]:
    """A line per step, printed as it comes."""
    prepare(folder, pairs)
    print(f"{pairs:,} pairs of {WORDS} words")
    print(f"{'step':<28}{'rows':>10}{'seconds':>10}{'CPU s':>9}{'peak MiB':>10}")
    results = []
    for table, key in STEPS:
        if only and table not in only:
            continue
        results.append(result := step(folder, table, key))
        figures = f"{result['rows']:>10,}{result['seconds']:>10.1f}{result['cpu_seconds']:>9.1f}"
        print(f"{table:<28}{figures}{result['peak_mb']:>10,.0f}", flush=True)
    return results


def prepare(folder: Path, pairs: int) -> None:
    """A corpus of so many documents, a study of it, and an empty home for Dagster, where they are not there yet."""
    if (folder / "study.py").exists():
        return
    (folder / "corpus").mkdir(parents=True)
    (folder / "home").mkdir()
    for part, texts in enumerate(_texts(pairs)):
        pl.DataFrame({"text": texts}).write_parquet(folder / "corpus" / f"{part:02}.parquet", row_group_size=1_000)
    (folder / "study.py").write_text(STUDY.format(place=str(folder / "corpus")), encoding="utf-8")


def step(folder: Path, table: str, key: str | None) -> dict[str, Any]:
    """One table made in a process of its own: rows, seconds, CPU seconds, and the most memory that the process held."""
    environment = {
        **os.environ,
        "NIFT_STUDY": str(folder / "study.py"),
        "NIFT_WAREHOUSE": str(folder / "warehouse"),
        "DAGSTER_HOME": str(folder / "home"),
    }
    command = [sys.executable, "-m", "tests.scale.steps", "--one", table, key or ""]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{table} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _made(table: str, key: str | None) -> dict[str, Any]:
    """Makes a table in this process as a run of `nift run` does."""
    import dagster as dg

    from dagster_project.definitions import ACTIVE, defs
    from dagster_project.settings import warehouse
    from nift_assets.store import Store

    began, cpu = time.monotonic(), time.process_time()
    step, store = ACTIVE.tables[table], Store(root=warehouse(), study=ACTIVE.study.name)
    # The report shows tables of scores too, which have no row here.
    first = [above for above in ACTIVE.ancestors(step) if above.partitions is None] if table == "report" else []
    tables = [name for of in (*first, step) for name in of.tables if of is step or store.version(name, None) is None]
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            partition_key=key,
            asset_selection=[dg.AssetKey(name) for name in tables],
            instance=instance,
            raise_on_error=False,
        )
    if not result.success:
        reasons = [event.step_failure_data.error_display_string for event in result.all_events if event.is_step_failure]
        raise SystemExit("\n".join(reasons))
    return {
        "table": table,
        "rows": store.rows(table, key),
        "seconds": time.monotonic() - began,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mb": peak_rss_mb(),
    }


def _texts(documents: int) -> Iterator[list[str]]:
    """The documents file by file: words as frequent as those of a language, one in fifty a changed copy of another."""
    chance = np.random.default_rng(SEED)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = np.array(["".join(chance.choice(letters, 1 + chance.poisson(4))) for _ in range(20_000)], dtype=object)
    shares = 1 / np.arange(10, 10 + len(words))
    files = max(FILES, documents // 25_000)
    for part in range(files):
        count = documents // files + (part < documents % files)
        drawn = words[chance.choice(len(words), count * WORDS, p=shares / shares.sum())].reshape(count, WORDS)
        for copy in range(1, count, 50):
            drawn[copy] = drawn[copy - 1]
            drawn[copy, -1] = "changed"
        yield [f"{part}-{place} {' '.join(row)}" for place, row in enumerate(drawn)]


if __name__ == "__main__":
    main()
