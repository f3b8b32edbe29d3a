"""The DuckDB catalogue `nift.duckdb`: a schema per study and a view per table, over the files beside it.

It holds no data and may go at any time. Its views find the files from where the catalogue lies when it is opened, so a
copy of the warehouse answers from its own; any DuckDB from 1.0 on reads it. It is for reading: nobody may write to its
file, and what somebody who could has left beside it is removed.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from nift_assets import table_files
from nift_assets.table_files import DamagedTable
from nift_training import file_locks

NAME = "nift.duckdb"
# The oldest DuckDB that reads it.
STORAGE = "v1.0.0"
# DuckDB names a temporary folder after the database that is opened: what stands before that name is where it lies. The
# characters of patterns stand for themselves.
HERE = (
    "replace(replace(replace(regexp_replace(current_setting('temp_directory'), '[^/]*$', ''), "
    "'[', '[[]'), '*', '[*]'), '?', '[?]')"
)
READ_ONLY = 0o444
PATTERN = frozenset("[*?")
# Most systems let a process have 1,024 files open, and two states are compared.
MOST_HELD = 400


def refresh(root: Path, replacing: Callable[[Path], AbstractContextManager[Path]]) -> None:
    """Make the catalogue of a root anew.

    It is made whole and renamed, so nobody who has it open is disturbed; the lock keeps two writers from replacing a
    newer list by an older one.
    """
    with file_locks.waited_for(root / f".{NAME}.lock"):
        with replacing(root / NAME) as temporary:
            temporary.write_bytes(_content(root))
            temporary.chmod(READ_ONLY)
        # A log of the catalogue that was replaced would be read as this one's, and this one refused for ever.
        (root / f"{NAME}.wal").unlink(missing_ok=True)


def columns_shown(root: Path, file: Path, *, partitioned: bool) -> Any:
    """The columns that a file about to be written has to have so that no view changes: those of the file it replaces,
    or of the first beside it. None where the catalogue has to be made anew in any case."""
    if not (root / NAME).exists() or (root / f"{NAME}.wal").exists():
        return None
    beside = sorted(file.parent.glob("[!.]*.parquet")) if partitioned else []
    return next((columns(earlier) for earlier in [file, *beside] if earlier.exists()), None)


def columns(file: Path) -> Any:
    """The names and types of a file's columns; None for what is no table."""
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_schema(file).remove_metadata()
    except (ArrowException, OSError):
        return None


@contextmanager
def opened(root: Path, refresh: Callable[[], None]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the catalogue of a root, for reading; made anew by `refresh` first where it cannot be opened,
    lacks a table or was made when its views still named a place. ValueError where there is nothing to show."""
    if not root.is_dir() or not any(True for _ in tables(root)):
        raise ValueError(f"there are no tables under {root}; `nift demo` or `nift run` makes some")
    if not _is_sound(root):
        with suppress(PermissionError):  # who may only read has it as it is
            refresh()
    with held(root) as files:
        shutil.copyfile(root / NAME, files / NAME)
        with duckdb.connect(files / NAME, read_only=True) as views:
            yield views


def check(root: Path, query: str, schema: str | None = None) -> None:
    """DamagedTable if a file of a table that the query names is not what was written; the tables of a schema may be
    named without it."""
    words = set(re.findall(r"[\w-]+", query))
    for study, table, files in tables(root):
        if table in words and (study == schema or words & {study, *study.split(".")}):
            for file, place in _places(table, files).items():
                table_files.check(file, place)


def as_pattern(path: Path | str) -> str:
    """A path as a person writes it for DuckDB, which takes it for a pattern: each special character stands for itself.
    There is none for a path that has a backslash too, which ends a folder in a pattern."""
    return "".join(f"[{sign}]" if sign in PATTERN else sign for sign in str(path))


def plain(path: Path | str) -> str:
    """The path by which DuckDB and Polars open this very file: its own or, where they would take that for a pattern, a
    link's. A pattern that stands for itself would be held against what lies beside the file, whatever that is called.
    """
    place = str(path)
    if "://" in place:
        return as_pattern(place)
    place = str(Path(place).absolute())
    if not set(place) & PATTERN:
        return place
    link = links_of_process() / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.parquet"
    with suppress(FileExistsError):
        link.symlink_to(place)
    return str(link)


@cache
def links_of_process() -> Path:
    """The folder of the links to files whose paths would be patterns, as long as this process lives."""
    folder = tempfile.mkdtemp(prefix="nift-links-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def tables(root: Path) -> Iterator[tuple[str, str, list[Path]]]:
    """Study, table and files of everything stored under a local root; a folder of partitions goes before a file."""
    for study in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = {path.stem: [path] for path in study.glob("[!.]*.parquet")}
        folders = {path.name: sorted(path.glob("[!.]*.parquet")) for path in study.iterdir() if path.is_dir()}
        for table, paths in sorted((files | {name: parts for name, parts in folders.items() if parts}).items()):
            yield study.name, table, paths


def _content(root: Path) -> bytes:
    """The catalogue of a root, which is made elsewhere: DuckDB writes to no path with a `?` in it."""
    with _links(root) as links:
        with duckdb.connect(links / NAME, config={"storage_compatibility_version": STORAGE}) as views:
            for study, table, files in tables(root):
                views.execute(f'create schema if not exists "{study}"')
                _create_view(views, root, study, table, files)
        return (links / NAME).read_bytes()


@contextmanager
def _links(root: Path) -> Iterator[Path]:
    """A temporary folder that has a link to each study of a root."""
    with tempfile.TemporaryDirectory(prefix="nift-") as folder:
        for study in {study for study, _, _ in tables(root)}:
            Path(folder, study).symlink_to((root / study).absolute())
        yield Path(folder)


@contextmanager
def held(root: Path, study: str | None = None) -> Iterator[Path]:
    """A temporary folder with a link to each file of a root, or of one study in it, as it is now, whatever is put in
    its place meanwhile.

    DuckDB opens a file once for its columns and once for its rows; of one that was replaced in between it would make
    rows that neither had. Where a process cannot hold as many files open, the links lead to what has their names.
    """
    with tempfile.TemporaryDirectory(prefix="nift-") as folder, ExitStack() as opened_files:
        files = [file for owner, _, paths in tables(root) if study in (None, owner) for file in paths]
        can_hold = table_files.OPEN_FILES.is_dir() and len(files) <= MOST_HELD
        for file in files:
            link = Path(folder, file.relative_to(root))
            link.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # gone since it was listed
                target = file.absolute()
                if can_hold:
                    target = table_files.OPEN_FILES / str(opened_files.enter_context(file.open("rb")).fileno())
                link.symlink_to(target)
        try:
            yield Path(folder)
        except DamagedTable as damage:  # named by its link
            raise DamagedTable(str(damage).replace(folder, str(root))) from None


def _create_view(views: duckdb.DuckDBPyConnection, root: Path, study: str, table: str, files: list[Path]) -> None:
    """The view of a table; one with a damaged file says so to whoever asks it, and costs nobody else anything."""
    name = f'"{study}"."{table}"'
    where = f"{study}/{table}.parquet" if files[0].parent == root / study else f"{study}/{table}/[!.]*.parquet"
    try:
        # A folder called `teacher=x` would be read as a column, in the place of the file's own.
        options = "union_by_name = true, hive_partitioning = false"
        views.execute(f"create view {name} as select * from read_parquet({HERE} || {_quoted(where)}, {options})")
    except duckdb.Error as error:
        damages = (_damage(file, place) for file, place in _places(table, files).items())
        why = next((damage for damage in damages if damage), str(error))
        views.execute(f"create view {name} as select error({_quoted(why)}) as damaged")


def _is_sound(root: Path) -> bool:
    """Whether the catalogue can be opened and has all tables, each found from where it lies; a process may have been
    killed between a table and its view."""
    try:
        with duckdb.connect(root / NAME, read_only=True) as views:
            ours = "select schema_name, view_name, sql from duckdb_views() where not internal"
            found = {(study, table): sql for study, table, sql in views.execute(ours).fetchall()}
    except duckdb.Error:
        return False
    by_place = {place for place, sql in found.items() if "temp_directory" in sql and "hive_partitioning" in sql}
    return {(study, table) for study, table, _ in tables(root)} <= by_place


def _places(table: str, files: list[Path]) -> dict[Path, str]:
    return {file: f"{table}/{file.stem}" if file.parent.name == table else table for file in files}


def _damage(file: Path, place: str) -> str | None:
    try:
        table_files.version(file, place)
    except DamagedTable as damage:
        return str(damage)
    return None


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
