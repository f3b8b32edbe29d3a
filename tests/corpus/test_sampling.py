"""One sample whatever the files: their order, number, kind, row groups and the threads that read them."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from expectations import contract as contracts
from expectations.runner import check
from nift_assets import corpus, sql
from nift_assets.corpus import Sample, halves, sampling
from nift_assets.rows import Corpus
from nift_assets.table_files import data_version
from tests.corpus.documents import hostile
from tests.counting import Counts
from tests.shared_data import shared

TEXTS = [f"Article {i} says\n\nsomething – « {i} » {'and on ' * (i % 50)}" for i in range(1_500)]


def at(location: object, documents: int | None = None, seed: int = 42) -> Corpus:
    return Corpus(name="c", location=str(location), documents=documents, seed=seed, licence="ours")


def written(folder: Path, texts: list[str], files: int, *, rows_per_group: int = 250) -> Path:
    """The texts in so many Parquet files of about the same length."""
    folder.mkdir()
    for number in range(files):
        frame = pl.DataFrame({"text": texts[number::files]})
        frame.write_parquet(folder / f"part-{number}.parquet", row_group_size=rows_per_group)
    return folder


def without_places(sample: Sample) -> str:
    """The digest of all that does not say which file a document lies in."""
    return data_version(sample.documents.drop("file", "row"))


@pytest.mark.parametrize("documents", [None, 100])
def test_the_sample_is_the_same_bytes_however_the_files_are_cut_and_read(
    documents: int | None, tmp_path: Path, counts: Counts
) -> None:
    shuffled = random.Random(5).sample(TEXTS, len(TEXTS))
    places = [
        written(tmp_path / "one", TEXTS, 1),
        written(tmp_path / "seven", TEXTS, 7, rows_per_group=13),
        written(tmp_path / "shuffled", shuffled, 4),
    ]
    samples = [corpus.sample(at(place, documents), threads=threads) for place in places for threads in (1, 2, 5)]
    assert len({without_places(sample) for sample in samples}) == 1
    for first in range(0, len(samples), 3):
        assert len({data_version(sample.documents) for sample in samples[first : first + 3]}) == 1
    counts("S11", f"{len(samples)} samplings of {len(TEXTS):,} texts by 3 ways to cut files and 1, 2, 5 threads: 1 set")


def test_a_smaller_sample_is_a_prefix_of_a_larger_one(tmp_path: Path) -> None:
    place = written(tmp_path / "c", TEXTS, 3)
    whole = corpus.sample(at(place)).documents
    for documents in (1, 10, 400, 1_499, 1_500, 5_000):
        assert corpus.sample(at(place, documents)).documents.equals(whole.head(documents))
    assert corpus.sample(at(place, 50, seed=43)).documents["text"].to_list() != whole["text"].head(50).to_list()


def test_the_order_is_fixed_for_ever(tmp_path: Path) -> None:
    place = written(tmp_path / "c", ["Alpha.", "Beta.", "Gamma.", "Delta."], 1)
    assert corpus.sample(at(place, seed=42)).documents["text"].to_list() == ["Gamma.", "Alpha.", "Beta.", "Delta."]
    assert corpus.sample(at(place, seed=7)).documents["text"].to_list() == ["Delta.", "Gamma.", "Alpha.", "Beta."]


def test_every_document_is_as_likely_to_come_first(tmp_path: Path) -> None:
    place = written(tmp_path / "c", ["a", "b", "c", "d"], 1)
    first = Counter(corpus.sample(at(place, 1, seed=seed), threads=1).documents["text"][0] for seed in range(120))
    chi_square = sum((count - 30) ** 2 / 30 for count in first.values())
    assert chi_square < 16.3  # 3 degrees of freedom, one in a thousand


@pytest.mark.parametrize("threads", [1, 4])
def test_of_a_repeated_text_the_first_place_stays_and_the_others_are_listed(threads: int, tmp_path: Path) -> None:
    for number in range(8):
        texts = [TEXTS[i] for i in range(number, 40)] + [TEXTS[0], TEXTS[0]]
        pl.DataFrame({"text": texts}).write_parquet(tmp_path / f"{number}.parquet", row_group_size=3)
    sample = corpus.sample(at(tmp_path, 20), threads=threads)
    whole = corpus.sample(at(tmp_path), threads=1)
    assert set(whole.documents["file"]) == {str(tmp_path / "0.parquet")}
    assert sample.documents.equals(whole.documents.head(20))
    assert sample.rejects.equals(whole.rejects)
    assert whole.documents.height + whole.rejects.height == whole.read.rows
    assert whole.rejects["document_id"].is_in(whole.documents["document_id"].implode()).all()


def test_what_is_seen_is_looked_at_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = written(tmp_path / "c", TEXTS[:400] * 3, 3)
    expected = corpus.sample(at(place, 9))
    monkeypatch.setattr("nift_assets.corpus.duplicates.MOST_IN_MEMORY", 64)
    monkeypatch.setattr(sampling, "TEXT_AT_ONCE", 100)
    again = corpus.sample(at(place, 9))
    assert expected.rejects.height == 800
    assert again.rejects.equals(expected.rejects)
    assert again.documents.equals(expected.documents)


def test_a_long_reading_says_how_far_it_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SECONDS_BETWEEN_REPORTS", 0.0)
    said: list[str] = []
    sample = corpus.sample(
        at(written(tmp_path / "c", TEXTS, 2)), threads=1, report=lambda progress: said.append(str(progress))
    )
    assert said[0].startswith("250 documents, ")
    assert "1 of 2 files read" in said[-1]
    assert (sample.read.rows, sample.read.files) == (1_500, 2)


def through_sample_and_halves(place: object, seed: int = 42) -> tuple[Sample, pl.DataFrame, pl.DataFrame]:
    """A corpus through both steps as they are in the graph, each table held against its contract."""
    sample = corpus.sample(at(place, seed=seed))
    cut = halves.halve(sample.documents, seed=seed)
    short = sql.run(sql.compile("halves_rejects"), {"raw_sample": sample.documents}, None)
    tables = {
        "raw_sample": sample.documents,
        "raw_sample_rejects": sample.rejects,
        "halves": cut,
        "halves_rejects": short,
    }
    for name, frame in tables.items():
        results = check(frame, contracts.load(name), tables)
        assert [r for r in results if not r.passed and r.severity == "error"] == []
    return sample, cut, short


def assert_nothing_is_lost(sample: Sample, cut: pl.DataFrame, short: pl.DataFrame, seed: int = 42) -> None:
    assert sample.documents.height + sample.rejects.height == sample.read.rows
    assert cut.height + short.height == sample.documents.height
    rows = dict(zip(cut["document_id"], cut.rows(), strict=True))
    for name, rank, text in sample.documents.select("document_id", "sample_rank", "text").iter_rows():
        expected = halves.cut(text, document_id=name, seed=seed)
        assert (expected is None) == (name not in rows)
        if expected:
            assert rows[name] == (name, rank, expected.words, expected.cut, expected.first, expected.second)
            assert expected.first + expected.second == text
            assert math.ceil(expected.words / 4) <= expected.cut <= math.floor(3 * expected.words / 4)


@pytest.mark.fault("S12", runs="10,000 documents")
def test_ten_thousand_hostile_documents_lose_nothing(tmp_path: Path, counts: Counts) -> None:
    texts = list(hostile(10_000, seed=12))
    pl.DataFrame({"text": texts[:6_000]}).write_parquet(tmp_path / "a.parquet", row_group_size=777)
    (tmp_path / "b.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[6_000:]))
    sample, cut, short = through_sample_and_halves(tmp_path)
    assert sample.read.rows == len(texts)
    assert set(sample.documents["text"]) == set(texts)
    assert_nothing_is_lost(sample, cut, short)
    counts("S12", sums("10,000 hostile documents", sample, cut, short))


@pytest.mark.fault("S12", "S13")
def test_real_documents_of_many_scripts_lose_nothing(counts: Counts) -> None:
    files = sorted(shared("documents").glob("*.parquet"))
    texts = [text for file in files for text in pl.read_parquet(file)["text"]]
    sample, cut, short = through_sample_and_halves(files[0].parent)
    assert sample.read.rows == len(texts)
    assert set(sample.documents["text"]) == set(texts)
    assert_nothing_is_lost(sample, cut, short)
    assert sample.documents["text"].is_unique().all()
    counts("S12", sums(f"{len(files)} files of real documents", sample, cut, short))
    repeated = sample.rejects.filter(pl.col("reason") == "duplicate").height
    counts("S13", f"{len(texts):,} real documents, {repeated} of them again: each is sampled once")
    assert repeated == len(texts) - len(set(texts))


def sums(what: str, sample: Sample, cut: pl.DataFrame, short: pl.DataFrame) -> str:
    left_out = ", ".join(f"{n} {reason}" for reason, n in sample.rejects["reason"].value_counts(sort=True).iter_rows())
    too_short = ", ".join(f"{n} {reason}" for reason, n in short["reason"].value_counts(sort=True).iter_rows())
    return (
        f"{what}: {sample.read.rows:,} rows = {sample.documents.height:,} sampled + {sample.rejects.height:,} left out "
        f"({left_out or 'none'}); {sample.documents.height:,} = {cut.height:,} cut + {short.height:,} too short "
        f"({too_short or 'none'})"
    )
