"""Reading articles wherever they lie, sampling them whatever their order, and one clear line for what is wrong."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from nift_assets import corpus
from nift_assets.rows import Corpus

TEXTS = [f"Article {i} says\n\nsomething – « {i} »." for i in range(40)]


def at(location: object, documents: int | None = None, column: str = "text") -> Corpus:
    return Corpus(name="c", location=str(location), documents=documents, text_column=column, licence="ours")


def as_parquet(folder: Path) -> Path:
    pl.DataFrame({"text": TEXTS}).write_parquet(folder / "c.parquet")
    return folder / "c.parquet"


def as_json_lines(folder: Path) -> Path:
    (folder / "c.jsonl").write_text("".join(json.dumps({"text": t, "n": 1}) + "\n" for t in TEXTS))
    return folder / "c.jsonl"


def as_gzip(folder: Path) -> Path:
    with gzip.open(folder / "c.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": t}) + "\n" for t in TEXTS)
    return folder / "c.jsonl.gz"


def as_text_folder(folder: Path) -> Path:
    (folder / "texts" / "deeper").mkdir(parents=True)
    for i, text in enumerate(TEXTS):
        (folder / "texts" / ("deeper" if i % 2 else ".") / f"{i}.txt").write_bytes(text.encode())
    return folder / "texts"


def as_pattern(folder: Path) -> str:
    pl.DataFrame({"text": TEXTS[:15]}).write_parquet(folder / "part-1.parquet")
    pl.DataFrame({"text": TEXTS[15:]}).write_parquet(folder / "part-2.parquet")
    return f"{folder}/part-*.parquet"


@pytest.mark.parametrize("write", [as_parquet, as_json_lines, as_gzip, as_text_folder, as_pattern])
def test_the_sample_is_the_same_from_every_kind_of_file(write: Callable[[Path], object], tmp_path: Path) -> None:
    sample = corpus.sample(at(write(tmp_path)))
    expected = corpus.sample(at(as_parquet(tmp_path)))
    assert sorted(sample.documents["text"]) == sorted(TEXTS)
    assert sample.documents.drop("file", "row").equals(expected.documents.drop("file", "row"))


def test_a_smaller_sample_is_a_prefix_of_a_larger_one_whatever_the_order(tmp_path: Path) -> None:
    shuffled = TEXTS.copy()
    random.Random(1).shuffle(shuffled)
    pl.DataFrame({"text": shuffled}).write_parquet(tmp_path / "shuffled.parquet")
    small = corpus.sample(at(tmp_path / "shuffled.parquet", documents=7)).documents
    large = corpus.sample(at(as_parquet(tmp_path), documents=20)).documents
    assert small.height == 7
    assert small["text"].equals(large["text"].head(7))
    assert small["document_id"].equals(large["document_id"].head(7))


def test_what_cannot_be_sampled_is_listed_with_its_reason(tmp_path: Path) -> None:
    pl.DataFrame({"text": ["a b", None, "a b", "c d"]}).write_parquet(tmp_path / "c.parquet")
    sample = corpus.sample(at(tmp_path / "c.parquet"))
    assert sample.documents.height == 2
    assert sample.rejects.select("row", "reason").rows() == [(1, "no text"), (2, "duplicate")]


@pytest.mark.parametrize(
    "texts", [["2021-01-01", "2022-02-02"], ["10:00:00"], ["123e4567-e89b-12d3-a456-426614174000"]]
)
def test_a_text_that_looks_like_something_else_stays_text(texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    assert [found.text for found in corpus.read(at(tmp_path / "c.jsonl"))] == texts


def test_any_text_column_can_be_named(tmp_path: Path) -> None:
    pl.DataFrame({'odd "name': TEXTS, "text": [1] * len(TEXTS)}).write_parquet(tmp_path / "c.parquet")
    assert corpus.sample(at(tmp_path / "c.parquet", column='odd "name')).documents.height == len(TEXTS)


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    before = corpus.fingerprint(at(as_parquet(tmp_path)))
    pl.DataFrame({"text": TEXTS[:-1]}).write_parquet(tmp_path / "c.parquet")
    assert corpus.fingerprint(at(tmp_path / "c.parquet")) != before


def missing(folder: Path) -> object:
    return folder / "nothing.parquet"


def truncated_parquet(folder: Path) -> object:
    path = as_parquet(folder)
    path.write_bytes(path.read_bytes()[:-50])
    return path


def truncated_gzip(folder: Path) -> object:
    path = as_gzip(folder)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def torn_json(folder: Path) -> object:
    (folder / "c.jsonl").write_text('{"text": "a b"}\n{"text": "c')
    return folder / "c.jsonl"


def no_column(folder: Path) -> object:
    pl.DataFrame({"body": TEXTS}).write_parquet(folder / "c.parquet")
    return folder / "c.parquet"


def numbers(folder: Path) -> object:
    pl.DataFrame({"text": [1, 2]}).write_parquet(folder / "c.parquet")
    return folder / "c.parquet"


def dates(folder: Path) -> object:
    pl.DataFrame({"text": ["2021-01-01"]}).with_columns(pl.col("text").str.to_date()).write_parquet(
        folder / "c.parquet"
    )
    return folder / "c.parquet"


def not_utf8(folder: Path) -> object:
    (folder / "c.txt").write_bytes(b"caf\xe9")
    return folder / "c.txt"


def no_document(folder: Path) -> object:
    pl.DataFrame({"text": []}, schema={"text": pl.String}).write_parquet(folder / "c.parquet")
    return folder / "c.parquet"


def other_kind(folder: Path) -> object:
    (folder / "c.docx").write_bytes(b"PK")
    return folder / "c.docx"


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (missing, "no such file"),
        (truncated_parquet, "cannot be read to its end"),
        (truncated_gzip, "cannot be read to its end"),
        (torn_json, "cannot be read to its end"),
        (no_column, "there is no column 'text', but body"),
        (numbers, "is BIGINT, not text"),
        (dates, "is DATE, not text"),
        (not_utf8, "byte 3 is not UTF-8"),
        (no_document, "no document with text"),
        (other_kind, "not a kind of file"),
    ],
)
def test_bad_input_is_one_line_that_names_the_file(
    write: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    location = write(tmp_path)
    with pytest.raises(ValueError, match=problem) as refused:
        corpus.sample(at(location))
    assert str(refused.value).startswith(str(location))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["memory://articles", "memory://articles/*.parquet", "memory://articles/part-1.parquet"]
)
def test_a_remote_address_is_read_like_a_local_one(address: str) -> None:
    """`hf://` and `s3://` go the same way: whatever fsspec can open, DuckDB reads."""
    import fsspec

    remote = fsspec.filesystem("memory")
    for part, texts in (("part-1", TEXTS[:15]), ("part-2", TEXTS[15:])):
        with remote.open(f"/articles/{part}.parquet", "wb") as file:
            pl.DataFrame({"text": texts}).write_parquet(file)
    found = corpus.sample(at(address)).documents
    assert sorted(found["text"]) == sorted(TEXTS[:15] if "part-1" in address else TEXTS)


def test_an_address_that_cannot_be_reached_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^hf://datasets/nobody/nothing: ") as refused:
        corpus.sample(at("hf://datasets/nobody/nothing"))
    assert "check the address" in str(refused.value)
    assert "\n" not in str(refused.value)
