"""The store: the old table or the whole new one, its version in the file, and a catalogue of everything."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expectations.frames import portions
from nift_assets import catalogue
from nift_assets.store import Store, replacing
from nift_assets.table_files import RowsDigest, Version, data_version, naming_the_disk, write_portions
from nift_training import artifacts
from tests.counting import Counts

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


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that is being written lies on a disk without room: the operating system itself says so."""

    def partial(out: Path) -> Path:
        path = out.with_name(f".{out.name}.partial-0-full")
        path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(artifacts, "_partial", partial)


@pytest.mark.fault("S1")
@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("rows", [FRAME, "draft", b"a page"], ids=["polars", "a draft", "a page"])
def test_a_full_disk_is_one_line_with_the_remedy(rows: Any, store: Store, tmp_path: Path) -> None:
    if isinstance(rows, str):
        rows = tmp_path / rows
        write_portions(rows, [FRAME], "made from this")
    is_page = isinstance(rows, bytes)
    with pytest.raises(OSError, match=r"no space left: the disk of .*/demo is full .* set NIFT_WAREHOUSE"):
        store.write_bytes(rows, "page.html") if is_page else store.write("t", None, rows, version())
    assert list((tmp_path / "demo").iterdir()) == []


@pytest.mark.fault("S1")
@pytest.mark.parametrize(
    "write",
    [
        FRAME.write_parquet,
        lambda file: duckdb.sql("select * from range(100000)").write_parquet(str(file)),
        lambda file: parquet.write_table(FRAME.to_arrow(), file),
    ],
    ids=["polars", "duckdb", "arrow"],
)
def test_every_library_tells_of_a_full_disk_in_the_same_line(write: Callable[[Path], None], tmp_path: Path) -> None:
    full = tmp_path / "full.parquet"
    full.symlink_to("/dev/full")
    said = pytest.raises(OSError, match=rf"no space left: the disk of {tmp_path} is full .*, or buy one")
    with said as found, naming_the_disk(tmp_path, "buy one"):
        write(full)
    assert found.value.errno == errno.ENOSPC


def test_an_error_that_is_no_full_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^other$"), naming_the_disk(tmp_path, ""):
        raise ValueError("other")


ODD = "a [b] *c? 100%25 d'e"


def test_a_warehouse_may_have_any_name(tmp_path: Path) -> None:
    """`[`, `?` and `*` are patterns to DuckDB and Polars, `%` and `?` mean something in an address."""
    root = tmp_path / ODD
    (tmp_path / ODD.replace("[b]", "b")).mkdir()
    store = Store(root=str(root), study="demo")
    store.write("one", None, FRAME, version())
    for key in ("echo", "gpt-3.5"):
        store.write("many", key, FRAME, version())
    assert store.read("many", "echo").equals(FRAME)
    assert store.rows("one", None) == 2
    assert pl.concat(portions(store.table("one"))).equals(FRAME)
    assert store.set_aside("many", "echo") is None
    assert (counted(root, "demo.one"), counted(root, "demo.many")) == (2, 4)


def counted(root: Path, table: str = "demo.t") -> int:
    with catalogue.opened(root, Store(root=str(root), study="").refresh_catalogue) as views:
        return int(views.sql(f"select count(*) from {table}").fetchall()[0][0])


@pytest.mark.fault("S17")
def test_a_copied_warehouse_answers_from_its_own_place(store: Store, tmp_path: Path) -> None:
    store.write("t", None, FRAME, version())
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    longer = pl.concat([FRAME, FRAME])
    Store(root=str(tmp_path.with_name("copy")), study="demo").write("u", None, FRAME, version())
    store.write("t", None, longer, version(longer))
    assert counted(tmp_path.with_name("copy")) == 2
    assert counted(tmp_path) == 4


def test_a_catalogue_of_before_is_made_anew_where_it_lies(store: Store, tmp_path: Path) -> None:
    path = store.write("t", None, FRAME, version())
    (tmp_path / "nift.duckdb").unlink()
    with duckdb.connect(tmp_path / "nift.duckdb") as before:
        before.execute("create schema demo")
        before.execute(f"create view demo.t as select * from read_parquet('{path}')")
    tmp_path.rename(tmp_path.with_name("moved"))
    assert counted(tmp_path.with_name("moved")) == 2


@pytest.mark.fault("S17")
def test_who_opens_the_catalogue_to_write_breaks_it_for_nobody(store: Store, tmp_path: Path) -> None:
    """DuckDB's shell opens to write unless it is told otherwise, and what it leaves was taken for the next one's."""
    store.write("t", None, FRAME, version())
    file = tmp_path / "nift.duckdb"
    assert file.stat().st_mode & 0o222 == 0
    script = (
        "import duckdb, os, sys; c = duckdb.connect(sys.argv[1]); c.execute('create table mine (a int)'); "
        "c.execute('insert into mine select * from range(9)'); os._exit(1)"
    )
    file.chmod(0o644)
    subprocess.run([sys.executable, "-c", script, str(file)], check=False)
    assert (tmp_path / "nift.duckdb.wal").exists()
    store.write("t", None, FRAME, version())
    assert counted(tmp_path) == 2
    assert not (tmp_path / "nift.duckdb.wal").exists()


@pytest.mark.parametrize("injury", [b"", b"not a catalogue", None])
def test_a_catalogue_that_cannot_be_opened_is_made_anew(injury: bytes | None, store: Store, tmp_path: Path) -> None:
    store.write("t", None, FRAME, version())
    (tmp_path / "nift.duckdb").unlink()
    if injury is not None:
        (tmp_path / "nift.duckdb").write_bytes(injury)
    assert counted(tmp_path) == 2


@pytest.mark.fault("S17")
def test_any_duckdb_from_1_0_on_reads_the_catalogue(store: Store, tmp_path: Path) -> None:
    """By the number in the file's head, which is the storage's: 64 is that of 0.9 to 1.1."""
    store.write("t", None, FRAME, version())
    head = (tmp_path / "nift.duckdb").read_bytes()[:20]
    assert head[8:12] == b"DUCK"
    assert int.from_bytes(head[12:20], "little") == 64


def test_the_catalogue_shows_every_table_of_every_study(tmp_path: Path) -> None:
    for study in ("demo", "articles-1a2b3c"):
        store = Store(root=str(tmp_path), study=study)
        store.write("one", None, FRAME, version())
        store.write("many", "gpt-3.5", FRAME, version())
        store.write("many", "claude", FRAME, version())
    with duckdb.connect(tmp_path / "nift.duckdb", read_only=True) as catalogue:
        assert catalogue.sql("select count(*) from demo.one").fetchall() == [(2,)]
        assert catalogue.sql('select count(*) from "articles-1a2b3c".many').fetchall() == [(4,)]


def test_the_catalogue_is_made_anew_only_for_other_columns_and_for_a_table_it_lacks(
    store: Store, tmp_path: Path
) -> None:
    store.write("many", "a", pl.DataFrame({"x": [1]}), version())
    store.write("one", None, pl.DataFrame({"x": [1]}), version())
    made = (tmp_path / catalogue.NAME).stat().st_ino
    store.write("many", "b", pl.DataFrame({"x": [2]}), version())
    store.write("one", None, pl.DataFrame({"x": [3]}), version())
    assert (tmp_path / catalogue.NAME).stat().st_ino == made
    with duckdb.connect(tmp_path / catalogue.NAME, read_only=True) as views:
        assert views.sql("select sum(x) from demo.many").fetchall() == [(3,)]
        assert views.sql("select sum(x) from demo.one").fetchall() == [(3,)]
    store.write("many", "b", pl.DataFrame({"x": [2], "y": ["new"]}), version())
    with duckdb.connect(tmp_path / catalogue.NAME, read_only=True) as views:
        assert views.sql("select x, y from demo.many order by x").fetchall() == [(1, None), (2, "new")]
    # As after a kill between the table and its view.
    pl.DataFrame({"x": [1]}).write_parquet(store.path("two", None))
    with catalogue.opened(tmp_path, store.refresh_catalogue) as views:
        assert views.sql("select x from demo.two").fetchall() == [(1,)]


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
    (tmp_path / "draft").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"no space left: the disk of .* is full .* set TMPDIR"):
        write_portions(tmp_path / "draft", [FRAME], "")


def naming(folder: str) -> tuple[pl.DataFrame, Version]:
    frame = pl.DataFrame({"folder": [folder]})
    return frame, version(frame)


def test_folders_of_weights_are_removed_when_no_row_names_them(store: Store, tmp_path: Path) -> None:
    for name in ("backbones/pico/a", "backbones/pico/b", "merged_models/m/c", "merged_models/m/run-half"):
        (tmp_path / "demo" / name).mkdir(parents=True)
    store.write("backbones", "pico", *naming("backbones/pico/a"))
    store.write("merged_models", "m", *naming("merged_models/m/c"))
    # A model without an adapter points at its backbone's folder, here at an older one.
    store.write("merged_models", "plain", *naming("backbones/pico/b"))
    store.remove_unnamed_folders()
    left = {str(p.relative_to(tmp_path / "demo")) for p in (tmp_path / "demo").glob("*/*/*")}
    assert left == {"backbones/pico/a", "backbones/pico/b", "merged_models/m/c"}


def test_a_file_that_is_no_table_costs_only_its_own_view(store: Store, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "junk.parquet").write_bytes(b"not a table")
    store.write("t", None, FRAME, version())
    with duckdb.connect(tmp_path / "nift.duckdb", read_only=True) as catalogue:
        assert catalogue.sql("select count(*) from demo.t").fetchall() == [(2,)]


HOLD = """
import sys, time
from nift_assets.store import Store
with Store(root=sys.argv[1], study="demo").writing("merged_models", "m"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def making(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is making the weights of a model."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.fault("S14")
def test_what_another_process_is_making_is_deleted_by_nobody_until_it_has_ended(store: Store, tmp_path: Path) -> None:
    half = tmp_path / "demo" / "merged_models" / "m" / "making"
    half.mkdir(parents=True)
    store.write("t", None, FRAME, version())
    with making(tmp_path) as process:
        store.remove_unnamed_folders()
        with pytest.raises(
            ValueError, match=r"a run is making merged_models\.m of demo right now; wait .* or cancel it"
        ):
            store.forget()
        refusal = "another run is making merged_models/m right now"
        with pytest.raises(ValueError, match=refusal), store.writing("merged_models", "m"):
            pass
        assert half.exists()
        assert store.read("t", None).equals(FRAME)
        process.kill()
        process.wait()
        # A lock outlives nobody.
        store.remove_unnamed_folders()
        assert not half.exists()
        store.forget()
        assert not store.folder().exists()


@pytest.mark.fault("S14")
def test_nothing_begins_while_a_study_is_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("t", None, FRAME, version())
    begun: list[bool] = []

    def remove(folder: Path) -> None:
        def begin() -> None:
            with store.writing("t", None):
                begun.append(store.path("t", None).exists())

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join(0.2)
        assert begun == []
        shutil_rmtree(folder)
        threads.append(thread)

    threads: list[threading.Thread] = []
    shutil_rmtree = shutil.rmtree
    monkeypatch.setattr("nift_assets.store.shutil.rmtree", remove)
    store.forget()
    threads[0].join()
    assert begun == [False]


@pytest.mark.fault("S18")
def test_folders_that_a_damaged_row_may_have_named_are_kept(store: Store, tmp_path: Path) -> None:
    (tmp_path / "demo" / "lora_adapters" / "a" / "0123").mkdir(parents=True)
    path = store.write("lora_adapters", "a", *naming("lora_adapters/a/0123"))
    path.write_bytes(b"not a table")
    store.remove_unnamed_folders()
    said = store.set_aside("lora_adapters", "a")
    assert said is not None
    assert "lora_adapters --partition a" in said
    store.remove_unnamed_folders()
    assert (tmp_path / "demo" / "lora_adapters" / "a" / "0123").exists()
    assert (path.parent / ".a.parquet.damaged").read_bytes() == b"not a table"


def test_a_step_that_nobody_has_ended_keeps_no_lock(store: Store) -> None:
    """Dagster leaves a step behind whose output could not be stored, and Python ends it when it looks for circles."""

    def step() -> Iterator[list[object]]:
        holds: list[object] = []
        with store.writing("t", None):
            yield holds

    begun = step()
    next(begun).append(begun)
    with pytest.raises(ValueError, match="another run is making t right now"), store.writing("t", None):
        pass
    del begun
    with store.writing("t", None):
        pass


@pytest.mark.fault("S6", runs="at least 15 swaps beside 3 readers")
def test_who_reads_beside_a_writer_gets_the_old_or_the_new(store: Store, tmp_path: Path, counts: Counts) -> None:
    frames = [FRAME, pl.concat([FRAME] * 300)]
    store.write("t", None, frames[0], version())
    is_over, seen, faults = threading.Event(), [0, 0], []

    def read() -> None:
        while not is_over.is_set():
            try:
                found = store.stored("t", None)
                assert found is not None
                seen[[frame.equals(found.rows) for frame in frames].index(True)] += 1
                assert found.version.inputs == str(found.rows.height)
                assert counted(tmp_path) in {frame.height for frame in frames}
            except Exception as fault:
                faults.append(fault)
                return

    store.write("t", None, frames[0], replace(version(frames[0]), inputs=str(frames[0].height)))
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    deadline, swaps = time.monotonic() + 60, 0
    while swaps < 15 or (not all(seen) and not faults and time.monotonic() < deadline):
        swaps += 1
        frame = frames[swaps % 2]
        store.write("t", None, frame, replace(version(frame), inputs=str(frame.height)))
    is_over.set()
    for reader in readers:
        reader.join()
    assert faults == []
    assert all(seen)
    counts("S6", f"{swaps} swaps beside 3 readers: {sum(seen)} reads, each the old or the new")
