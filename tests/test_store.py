"""The store: the old table or the whole new one, its version in the file, and a catalogue of everything."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.frames import portions
from nift_assets.store import RowsDigest, Store, Version, data_version, replacing, write_portions

FRAME = pl.DataFrame({"a": [1, 2], "t": ["x", "<b>y"]})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=str(tmp_path), study="demo")


def version(frame: pl.DataFrame = FRAME) -> Version:
    return Version(data=data_version(frame), inputs="made from this")


@pytest.mark.parametrize("root", ["{tmp}", "memory://warehouse"])
@pytest.mark.parametrize("partition", [None, "gpt-3.5-turbo-0125"])
def test_a_table_comes_back_with_its_version(root: str, partition: str | None, tmp_path: Path) -> None:
    store = Store(root=root.format(tmp=tmp_path), study="demo")
    store.write("t", partition, FRAME, version())
    assert store.read("t", partition).equals(FRAME)
    assert store.version("t", partition) == version()
    assert store.version("t", "absent") is None


def test_a_write_that_breaks_leaves_the_old_table_and_nothing_else(store: Store) -> None:
    path = store.write("t", None, FRAME, version())
    with contextlib.suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half a table")
        raise RuntimeError("killed here")
    assert store.read("t", None).equals(FRAME)
    assert [p.name for p in path.parent.iterdir()] == ["t.parquet"]


def test_a_full_disk_is_one_line_with_the_remedy(store: Store) -> None:
    path = store.write("t", None, FRAME, version())
    with pytest.raises(OSError, match=r"is full .* set NIFT_WAREHOUSE"), replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert store.read("t", None).equals(FRAME)


def test_the_catalogue_shows_every_table_of_every_study(tmp_path: Path) -> None:
    for study in ("demo", "articles-1a2b3c"):
        store = Store(root=str(tmp_path), study=study)
        store.write("one", None, FRAME, version())
        store.write("many", "gpt-3.5", FRAME, version())
        store.write("many", "claude", FRAME, version())
    with duckdb.connect(tmp_path / "nift.duckdb", read_only=True) as catalogue:
        assert catalogue.sql("select count(*) from demo.one").fetchall() == [(2,)]
        assert catalogue.sql('select count(*) from "articles-1a2b3c".many').fetchall() == [(4,)]


def test_writers_at_the_same_time_lose_no_table_from_the_catalogue(store: Store, tmp_path: Path) -> None:
    writers = [threading.Thread(target=store.write, args=(f"t{i}", None, FRAME, version())) for i in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with duckdb.connect(tmp_path / "nift.duckdb", read_only=True) as catalogue:
        assert len(catalogue.sql("show all tables").fetchall()) == 12


def test_the_data_version_is_that_of_the_rows() -> None:
    assert data_version(FRAME) == data_version(pl.concat([FRAME[:1], FRAME[1:]], rechunk=False))
    assert data_version(FRAME) != data_version(FRAME.reverse())
    assert data_version(FRAME) != data_version(pl.DataFrame({"a": [1, 2], "t": ["x<", "b>y"]}))
    assert data_version(FRAME) != data_version(FRAME.with_columns(a=pl.Series([1, 3])))
    assert data_version(FRAME) != data_version(FRAME.rename({"a": "b"}))
    assert data_version(FRAME) != data_version(FRAME.cast({"a": pl.Int32}))


def test_a_table_is_on_the_disk_before_it_has_its_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = store.write("t", None, FRAME, version())
    assert any(name.startswith(str(path.parent / ".t.parquet.partial")) for name in synced)
    assert str(path.parent) in synced


@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.text(max_size=5),
            st.none() | st.integers(-5, 5),
            st.none() | st.booleans(),
            st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3),
        ),
        max_size=8,
    )
)
def test_the_data_version_survives_the_disk_and_any_way_to_the_same_rows(rows: list[tuple[Any, ...]]) -> None:
    schema = {"text": pl.String, "number": pl.Int64, "flag": pl.Boolean, "list": pl.List(pl.String)}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    stored = io.BytesIO()
    frame.write_parquet(stored)
    stored.seek(0)
    assert data_version(pl.read_parquet(stored)) == data_version(frame)
    parts = [frame.slice(start, 3) for start in range(0, frame.height + 1, 3)]
    assert data_version(pl.concat(parts)) == data_version(frame)
    digest = RowsDigest()
    for part in parts:
        digest.add(part)
    assert digest.hexdigest() == data_version(frame)
    doubled = pl.concat([frame, frame]).head(frame.height)
    assert data_version(doubled) == data_version(frame)


@pytest.mark.parametrize("root", ["{tmp}", "memory://portions"])
def test_a_table_written_by_portions_is_the_table(root: str, tmp_path: Path) -> None:
    store = Store(root=root.format(tmp=tmp_path / "warehouse"), study="demo")
    frame = pl.DataFrame({"a": range(10), "t": [f"text {i}" if i % 3 else None for i in range(10)]})
    made = write_portions(tmp_path / "draft", [frame[:0], frame[:3], frame[3:9], frame[9:]], "made from this")
    assert made == Version(data=data_version(frame), inputs="made from this")
    store.write("t", None, tmp_path / "draft", made)
    assert store.version("t", None) == made
    assert store.read("t", None).equals(frame)
    assert pl.concat(portions(store.table("t"))).equals(frame)


def test_a_full_temporary_folder_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    def rows() -> Iterator[pl.DataFrame]:
        yield FRAME
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"is full .* set TMPDIR"):
        write_portions(tmp_path / "draft", rows(), "")


def test_folders_of_weights_are_removed_when_no_row_names_them(store: Store, tmp_path: Path) -> None:
    for name in ("backbones/pico/a", "backbones/pico/b", "merged_models/m/c", "merged_models/m/run-half"):
        (tmp_path / "demo" / name).mkdir(parents=True)
    store.write("backbones", "pico", pl.DataFrame({"folder": ["backbones/pico/a"]}), version())
    store.write("merged_models", "m", pl.DataFrame({"folder": ["merged_models/m/c"]}), version())
    # A model without an adapter points at its backbone's folder, here at an older one.
    store.write("merged_models", "plain", pl.DataFrame({"folder": ["backbones/pico/b"]}), version())
    store.remove_unnamed_folders()
    left = {str(p.relative_to(tmp_path / "demo")) for p in (tmp_path / "demo").glob("*/*/*")}
    assert left == {"backbones/pico/a", "backbones/pico/b", "merged_models/m/c"}


def test_a_file_that_is_no_table_costs_only_its_own_view(store: Store, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "junk.parquet").write_bytes(b"not a table")
    store.write("t", None, FRAME, version())
    with duckdb.connect(tmp_path / "nift.duckdb", read_only=True) as catalogue:
        assert catalogue.sql("select count(*) from demo.t").fetchall() == [(2,)]
