"""A teacher's data as shards: nothing written twice, the same bytes again, and what changed is counted."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from expectations import contract
from nift_assets.hub import data_files
from nift_assets.hub.data_files import ShardSource
from nift_training.artifacts import sha256

PAIRS = contract.load("training_sets")
COLUMNS = ("document_id", "sample_rank", "prompt", "response")
HOSTILE = (
    "# a\n---\nb: c",
    "'; drop table",
    "\x00\u202e",
    "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
)


def stored(folder: Path, name: str, rows: int, *, changed: int | None = None, first: int = 0) -> ShardSource:
    """A training set of so many rows, one of which may say something else."""
    frame = pl.DataFrame({"document_id": [f"d{n}" for n in range(first, rows)], "sample_rank": range(first, rows)})
    frame = frame.with_columns(
        pl.lit(name).alias("training_set"),
        pl.lit("echo").alias("teacher"),
        pl.Series("prompt", [HOSTILE[n % 4] + str(n) for n in range(first, rows)]),
        pl.Series("response", ["else" if n == changed else f"said {n}" for n in range(first, rows)]),
    )
    folder.mkdir(exist_ok=True)
    frame.write_parquet(folder / f"{name}.parquet", row_group_size=7)
    return ShardSource(
        name=name,
        title="pairs",
        paths=(folder / f"{name}.parquet",),
        contract=PAIRS,
        columns=COLUMNS,
        key=("document_id",),
        prefix=True,
    )


def read(folder: Path, files: tuple[str, ...]) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(folder / name) for name in files])


def test_sets_that_are_the_beginning_of_another_share_its_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_files, "ROWS_PER_SHARD", 40)
    sources = [stored(tmp_path / "in", name, rows) for name, rows in (("ten", 10), ("hundred", 100), ("fifty", 50))]
    apart = stored(tmp_path / "in", "apart", 30, first=5)
    made = {each.name: each for each in data_files.write(tmp_path / "out", [*sources, apart])}
    assert [each.name for each in made.values()] == ["hundred", "fifty", "apart", "ten"]
    assert [made[name].rows for name in ("ten", "fifty", "hundred", "apart")] == [10, 50, 100, 25]
    assert made["ten"].files == made["hundred"].files[:1]
    assert made["fifty"].files == made["hundred"].files[:3]
    assert len(list((tmp_path / "out").rglob("*.parquet"))) == len(made["hundred"].files) + 1 == 6
    for source in (*sources, apart):
        assert read(tmp_path / "out", made[source.name].files).equals(pl.read_parquet(source.paths[0]).select(COLUMNS))


def test_the_same_rows_are_the_same_bytes_however_they_were_stored(tmp_path: Path) -> None:
    source = stored(tmp_path / "in", "pairs", 5_000)
    files = data_files.write(tmp_path / "first", [source])[0].files
    pl.read_parquet(source.paths[0]).write_parquet(source.paths[0], row_group_size=1_111, compression="snappy")
    assert data_files.write(tmp_path / "second", [source])[0].files == files
    assert [sha256(tmp_path / "first" / name) for name in files] == [
        sha256(tmp_path / "second" / name) for name in files
    ]


def test_what_has_no_rows_is_no_configuration(tmp_path: Path) -> None:
    none = stored(tmp_path / "in", "none", 0)
    empty = ShardSource(
        name="removals", title="", paths=none.paths * 2, contract=PAIRS, columns=COLUMNS, key=("document_id",)
    )
    assert data_files.write(tmp_path / "out", [stored(tmp_path / "in", "pairs", 3), empty])[1:] == []
