"""What sampling and cutting cost: beside a plain scan of the same Parquet files, and beside `datasets.map`.

    python -m tests.corpus.bench

Three corpora are made up: 80,000 documents of about 900 words, 300,000 of them, and 2,000,000 of about twenty. Every
measurement is a process of its own, so that its peak memory is its own. What one document and what one byte cost
follows from sampling the long and the short, and with it the time for OpenWebText.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from nift_assets import corpus
from nift_assets.corpus import halves
from nift_assets.rows import Corpus
from nift_assets.table_files import data_version
from nift_training.memory import peak_rss_mb

PROJECT = Path(__file__).parent.parent.parent
SEED = 42
SAMPLED = 80_000
# From the card of Skylion007/openwebtext: num_examples and num_bytes.
OPENWEBTEXT_DOCUMENTS, OPENWEBTEXT_BYTES = 8_013_769, 39_769_491_688


@dataclass(frozen=True)
class Size:
    documents: int
    words: int
    files: int


SIZES = {"long": Size(80_000, 900, 8), "short": Size(2_000_000, 20, 8), "many": Size(300_000, 900, 8)}
STUDY = """
from dataclasses import replace
from nift_assets import studies
from nift_assets.studies import Corpus

CORPUS = Corpus(name="{name}", location={place!r}, licence="made up")
STUDY = replace(studies.load("demo"), name="{name}", corpus=CORPUS)
"""


@dataclass(frozen=True)
class Result:
    """One measurement: how long it and its processor took, and the most memory its process held before and after."""

    what: str
    corpus: str
    seconds: float
    cpu_seconds: float
    before_mb: float
    peak_mb: float
    digest: str


# -- made-up corpora ---------------------------------------------------------------------------------------------------


def generate(folder: Path, name: str) -> None:
    """Documents of words as frequent as those of a language, with paragraphs and typographic signs."""
    size = SIZES[name]
    chance = np.random.default_rng(SEED)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    vocabulary = ["".join(chance.choice(letters, 1 + chance.poisson(4))) for _ in range(20_000)]
    vocabulary += ["naïve", "–", "“quoted”", "it’s", "end.\n\nNew"] * 40
    words = np.array(vocabulary, dtype=object)
    shares = 1 / np.arange(10, 10 + len(words))
    (folder / name).mkdir(parents=True)
    for part in range(size.files):
        lengths = chance.integers(size.words * 2 // 3, size.words * 4 // 3, size.documents // size.files)
        drawn = words[chance.choice(len(words), int(lengths.sum()), p=shares / shares.sum())]
        stops = np.cumsum(lengths)
        pieces = zip((stops - lengths).tolist(), stops.tolist(), strict=True)
        texts = [f"{part}-{start} " + " ".join(drawn[start:stop]) for start, stop in pieces]
        frame = pl.DataFrame({"text": texts})
        frame.write_parquet(folder / name / f"{part}.parquet", row_group_size=max(1_000, 20_000 // size.words))


# -- what is measured --------------------------------------------------------------------------------------------------

Prepared = Callable[[], pl.DataFrame]


def scan(folder: Path, name: str) -> Prepared:
    """Every text of the files in memory once, a thousand at a time, and nothing done with it."""
    import pyarrow.parquet as pq

    def run() -> pl.DataFrame:
        for file in sorted((folder / name).glob("*.parquet")):
            for _ in pq.ParquetFile(file).iter_batches(1_000, columns=["text"]):
                pass
        return pl.DataFrame()

    return run


def sample(folder: Path, name: str, documents: int, threads: int) -> Prepared:
    row = Corpus(name="bench", location=str(folder / name), documents=documents, seed=SEED, licence="made up")
    return lambda: corpus.sample(row, threads=threads).documents.select("document_id", "text")


def halve(folder: Path) -> Prepared:
    frame = pl.read_parquet(folder / "sample.parquet")
    return lambda: halves.halve(frame, seed=SEED)


def map_with_datasets(folder: Path, *, in_memory: bool) -> Prepared:
    """The same rule through `datasets.map(batched=True)`, document by document in Python."""
    import datasets

    datasets.disable_progress_bars()
    loaded = datasets.Dataset.from_parquet(str(folder / "sample.parquet"), cache_dir=str(folder / "cache"))

    def cut_all(batch: dict[str, list[str]]) -> dict[str, list[object]]:
        pairs = zip(batch["document_id"], batch["text"], strict=True)
        cuts = [cut for name, text in pairs if (cut := halves.cut(text, document_id=name, seed=SEED))]
        return {
            "words": [cut.words for cut in cuts],
            "cut": [cut.cut for cut in cuts],
            "first_half": [cut.first for cut in cuts],
            "second_half": [cut.second for cut in cuts],
        }

    def run() -> pl.DataFrame:
        made = loaded.map(
            cut_all, batched=True, remove_columns=["text"], keep_in_memory=in_memory, load_from_cache_file=False
        )
        return pl.DataFrame(pl.from_arrow(made.data.table))

    return run


def store_sample(folder: Path) -> Prepared:
    """What the halves are cut from, written for the measurements below; not one itself."""
    made = sample(folder, "long", SAMPLED, 1)().with_row_index("sample_rank")
    made.with_columns(pl.col("sample_rank").cast(pl.Int64)).write_parquet(folder / "sample.parquet")
    return pl.DataFrame


def whole_step(folder: Path, name: str, table: str) -> Prepared:
    """A step of the graph on all documents as a run of Dagster does it: made, checked and stored."""
    study = folder / f"{name}.py"
    study.write_text(STUDY.format(name=name, place=str(folder / name)))
    os.environ.update(NIFT_STUDY=str(study), NIFT_WAREHOUSE=str(folder / "warehouse"))
    import dagster as dg

    from dagster_project.definitions import ACTIVE, defs

    job = defs.resolve_implicit_global_asset_job_def()

    def run() -> pl.DataFrame:
        assert job.execute_in_process(
            asset_selection=[dg.AssetKey(each) for each in ACTIVE.tables[table].tables]
        ).success
        return pl.DataFrame()

    return run


MEASURED: dict[str, tuple[str, Callable[[Path], Prepared]]] = {
    "plain scan": ("long", lambda folder: scan(folder, "long")),
    "sample 10,000": ("long", lambda folder: sample(folder, "long", 10_000, 1)),
    "sample 10,000, 2 threads": ("long", lambda folder: sample(folder, "long", 10_000, 2)),
    "sample all": ("long", lambda folder: sample(folder, "long", SAMPLED, 1)),
    "plain scan, short": ("short", lambda folder: scan(folder, "short")),
    "plain scan, many": ("many", lambda folder: scan(folder, "many")),
    "sample 80,000, short": ("short", lambda folder: sample(folder, "short", SAMPLED, 1)),
    "sample 80,000, short, 2 threads": ("short", lambda folder: sample(folder, "short", SAMPLED, 2)),
    "halves": ("long", halve),
    "the step raw_sample": ("long", lambda folder: whole_step(folder, "long", "raw_sample")),
    "the step halves": ("long", lambda folder: whole_step(folder, "long", "halves")),
    "the step raw_sample, many": ("many", lambda folder: whole_step(folder, "many", "raw_sample")),
    "the step halves, many": ("many", lambda folder: whole_step(folder, "many", "halves")),
    "datasets.map": ("long", lambda folder: map_with_datasets(folder, in_memory=False)),
    "datasets.map, keep_in_memory": ("long", lambda folder: map_with_datasets(folder, in_memory=True)),
}


def measured(what: str, folder: Path) -> Result:
    """One measurement, from inside its process."""
    name, prepare = MEASURED[what]
    run = prepare(folder)
    before, began, worked = peak_rss_mb(), time.monotonic(), time.process_time()
    made = run()
    seconds, cpu_seconds, peak = time.monotonic() - began, time.process_time() - worked, peak_rss_mb()
    columns = ["document_id", "text"] if "text" in made.columns else ["document_id", "words", "cut"]
    digest = data_version(made.select(*columns)) if made.height else ""
    lengths = made.select(pl.col("^.*_half$").str.len_bytes()).sum().row(0)
    return Result(
        what=what,
        corpus=name,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        before_mb=before,
        peak_mb=peak,
        digest=f"{digest} {lengths}",
    )


def run(what: str, folder: Path) -> Result:
    """One measurement in a process of its own."""
    command = [sys.executable, "-m", "tests.corpus.bench", "--folder", str(folder), "--measure", what]
    ran = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return Result(**json.loads(ran.stdout.splitlines()[-1]))


# -- the table ---------------------------------------------------------------------------------------------------------


def table(results: dict[str, Result], bytes_of: dict[str, int]) -> str:
    """The results as a Markdown table, each beside the plain scan of the same files."""
    lines = [
        "| step | documents | text MB | s | CPU s | MB/s | of a plain scan | peak RSS MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for what, result in results.items():
        size = bytes_of[result.corpus] / 1e6
        scanned = results["plain scan" if result.corpus == "long" else f"plain scan, {result.corpus}"]
        share = f"{scanned.seconds / result.seconds:.0%}"
        lines.append(
            f"| {what} | {SIZES[result.corpus].documents:,} | {size:,.0f} | {result.seconds:.2f} "
            f"| {result.cpu_seconds:.2f} "
            f"| {size / result.seconds:,.0f} | {share} | {result.peak_mb:,.0f} |"
        )
    return "\n".join(lines)


def extrapolated(results: dict[str, Result], bytes_of: dict[str, int], one: str, other: str) -> str:
    """The time for OpenWebText and what it costs in CPU, from what a document and a byte take in the two samplings."""
    both = [results[what] for what in (one, other)]
    rows = np.array([[SIZES[each.corpus].documents, bytes_of[each.corpus]] for each in both], float)
    taken = np.array([[each.seconds, each.cpu_seconds] for each in both])
    per_part = np.linalg.solve(rows, taken)
    document, byte = per_part[:, 0]
    seconds, cpu_seconds = [OPENWEBTEXT_DOCUMENTS, OPENWEBTEXT_BYTES] @ per_part
    return (
        f"{document * 1e6:.1f} µs a document and {byte * 1e9:.2f} ns a byte: OpenWebText's "
        f"{OPENWEBTEXT_DOCUMENTS:,} documents of {OPENWEBTEXT_BYTES / 1e9:.1f} GB take {seconds / 60:.1f} minutes, "
        f"{cpu_seconds / 60:.1f} of CPU"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--measure", choices=list(MEASURED))
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    if options.measure:
        print(json.dumps(asdict(measured(options.measure, options.folder))))
    else:
        with tempfile.TemporaryDirectory(prefix="nift-bench-") as folder:
            compare(Path(folder), options.rounds)


def compare(folder: Path, rounds: int) -> None:
    """All measurements by turns, and of each the quickest: these machines are noisy."""
    for name in SIZES:
        generate(folder, name)
    bytes_of = {name: text_bytes(folder / name) for name in SIZES}
    store_sample(folder)
    found = [run(what, folder) for _ in range(rounds) for what in MEASURED]
    results = {what: min((r for r in found if r.what == what), key=lambda r: r.seconds) for what in MEASURED}
    for same in (("sample 10,000", "sample 10,000, 2 threads"), ("halves", "datasets.map")):
        assert len({results[what].digest for what in same}) == 1, f"{same} did not come to the same"
    print(table(results, bytes_of))
    for threads, tail in ((1, ""), (2, ", 2 threads")):
        said = extrapolated(results, bytes_of, f"sample 10,000{tail}", f"sample 80,000, short{tail}")
        print(f"\nWith {threads} thread{'s' * (threads > 1)}, {said}.")
    ours, theirs = results["halves"], [results["datasets.map"], results["datasets.map, keep_in_memory"]]
    print(
        f"\nHalves are cut {min(r.seconds for r in theirs) / ours.seconds:.1f} times as fast as through the faster "
        f"datasets.map, and cost {min(r.cpu_seconds for r in theirs) / ours.cpu_seconds:.1f} times less CPU."
    )


def text_bytes(folder: Path) -> int:
    return int(pl.scan_parquet(folder / "*.parquet").select(pl.col("text").str.len_bytes().sum()).collect().item())


if __name__ == "__main__":
    main()
