"""Rows of Parquet files by DuckDB: which of them a query chooses, found by portions, and the few that are shown.

What is kept of a query is the places of its rows alone, eight bytes each; texts are read for the page that shows them.
A search answers as soon as it has what is to be shown, goes on behind the page, and says how far it has come.
"""

from __future__ import annotations

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from nift_assets import catalogue
from nift_assets.pages.viewer.conditions import Query, condition_sql, quoted, search_sql, sort_sql
from nift_assets.pages.viewer.files import Changed, TableFile
from nift_assets.pages.viewer.ngrams import RowGroup, TextIndex
from nift_assets.store import Store
from nift_assets.table_files import ROWS_PER_GROUP, DamagedTable, LacksColumn, remedy

THREADS = 2
MEMORY = "256MB"
# So much of a file is searched first, to have something to show soon, and then twice as much each time up to the most:
# every portion reads the footer again, and its last groups of rows keep one core waiting for the other.
FIRST_BYTES, MOST_BYTES = 40_000_000, 160_000_000
SEARCHES_AT_ONCE = 2
# A search that nobody has asked about for so long is given up.
ABANDONED_SECONDS = 60.0
# So long a page waits to know how many there are, though it has enough to show.
QUICK_SECONDS = 0.25
KEPT_SEARCHES, KEPT_PLACES = 32, 10_000_000
MOST_FOOTERS = 4_096
# The place of a row: the number of its file, and its number in that file.
FILE_BITS = 40
Places = NDArray[np.int64]


@dataclass(frozen=True)
class ReadRow:
    """A row as it is shown: where it lies, its values, and the columns whose texts are longer than what was read."""

    file: TableFile
    number: int
    values: Mapping[str, Any]
    lengths: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SqlStep:
    """A piece of SQL with its values, and how many rows are looked at when it has run."""

    sql: str
    values: Sequence[Any] = ()
    rows: int = 0


@dataclass(frozen=True)
class Portion:
    """Some rows of a file that are read together, and how many have been looked at when they are."""

    first: int
    rows: int
    looked_at: int

    @property
    def sql(self) -> str:
        return f"file_row_number between {self.first} and {self.first + self.rows - 1}"


@dataclass(frozen=True)
class SearchPlan:
    """How the places of the rows of a query are found: what goes before, the portions, and what puts them in order,
    which reads them as `found(place)`."""

    steps: Sequence[SqlStep]
    before: Sequence[SqlStep] = ()
    order: SqlStep | None = None


@dataclass(frozen=True)
class Listing:
    """The places of the rows that a query has found so far, and how many rows were looked at for it."""

    places: Places | range | EveryRow
    searched: int
    rows: int
    ended: bool

    def __len__(self) -> int:
        return len(self.places)

    def page(self, start: int, count: int) -> list[int]:
        return [int(place) for place in self.places[start : start + count]]


@dataclass(frozen=True)
class EveryRow(Sequence[int]):
    """The places of all rows of some files, which nobody need write down."""

    heights: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.heights)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        for file, end in enumerate(accumulate(self.heights)):
            if index < end:
                return file << FILE_BITS | index - (end - self.heights[file])
        raise IndexError(index)


class Search:
    """The work on one query, in a thread of its own."""

    def __init__(
        self, plan: SearchPlan, connect: Callable[[], duckdb.DuckDBPyConnection], turn: threading.Semaphore
    ) -> None:
        self._plan, self._connect, self._turn = plan, connect, turn
        self._changed = threading.Condition()
        self._found: list[Places] = []
        self._places: Places | None = None
        self._error: BaseException | None = None
        self._searched = 0
        self.asked_at = time.monotonic()
        self.rows = sum(step.rows for step in plan.steps)
        threading.Thread(target=self._run, name="nift-look-search", daemon=True).start()

    def listing(self, wanted: int, seconds: float) -> Listing:
        """What is found as soon as it is so many rows, or all, or the time is over."""
        self.asked_at = time.monotonic()
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended, min(seconds, QUICK_SECONDS)):
                self._changed.wait_for(lambda: self._ended or self._count() >= wanted, seconds - QUICK_SECONDS)
            if self._error:
                raise self._error
            if self._places is not None:
                return Listing(self._places, self._searched, self.rows, True)
            # In the order that was asked for they are once all are found.
            found = _united(self._found)
            return Listing(found, self._searched, self.rows, False)

    @property
    def count(self) -> int:
        with self._changed:
            return self._count() if self._places is None else len(self._places)

    @property
    def is_lost(self) -> bool:
        """Whether it will never end well."""
        return self._error is not None

    @property
    def _ended(self) -> bool:
        return self._places is not None or self._error is not None

    def _count(self) -> int:
        return 0 if self._plan.order else sum(map(len, self._found))

    def _run(self) -> None:
        try:
            with self._turn, self._connect() as connection:
                for statement in self._plan.before:
                    connection.execute(statement.sql, statement.values)
                for step in self._plan.steps:
                    if time.monotonic() - self.asked_at > ABANDONED_SECONDS:
                        raise TimeoutError("nobody has asked for it any more")
                    found = _places(connection, step)
                    with self._changed:
                        self._found.append(found)
                        self._searched += step.rows
                        self._changed.notify_all()
                places = _united(self._found)
                if order := self._plan.order:
                    connection.register("found", _as_arrow(places))
                    places = _places(connection, order)
                with self._changed:
                    self._places, self._found = places, []
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()


class Reader:
    """What reads the tables of one study; its connections see the study's folder and nothing else."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = TextIndex()
        folder = store.folder()
        self._is_local = not store.is_remote
        self._database = duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY})
        self._database.execute("set autoinstall_known_extensions = false; set autoload_known_extensions = false")
        # DuckDB holds what a link leads to against the folders, and takes a path with both for a pattern there.
        if self._is_local and not ("\\" in str(folder) and set(str(folder)) & catalogue.PATTERN):
            allowed = [str(Path(folder).absolute()), str(catalogue.links_of_process())]
            self._database.execute("set allowed_directories = [$1, $2]", allowed)
            self._database.execute("set enable_external_access = false; set lock_configuration = true")
        elif not self._is_local:
            self._database.register_filesystem(folder.fs)  # type: ignore[attr-defined]
        self._searches: OrderedDict[object, Search] = OrderedDict()
        self._footers: dict[TableFile, tuple[dict[str, str], int]] = {}
        self._lock = threading.Lock()
        self._turn = threading.Semaphore(SEARCHES_AT_ONCE)

    def types(self, files: Iterable[TableFile]) -> dict[str, str]:
        """The columns of some files with their types; those of the first file first."""
        found: dict[str, str] = {}
        for file in files:
            found |= {name: kind for name, kind in self._footer(file)[0].items() if name not in found}
        return found

    def height(self, file: TableFile) -> int:
        """How many rows a file has."""
        return self._footer(file)[1]

    def require(self, file: TableFile, columns: Sequence[str]) -> None:
        """DamagedTable for a file without one of some columns."""
        if absent := [name for name in columns if name not in self._footer(file)[0]]:
            raise LacksColumn(file.path, file.place, absent[0])

    def _footer(self, file: TableFile) -> tuple[dict[str, str], int]:
        """The columns of a file and the number of its rows, read once of each very file."""
        if (known := self._footers.get(file)) is not None:
            return known
        with self._connection() as connection, _damage_named(file):
            described = connection.execute(f"describe select * from {scan(file)}").fetchall()
            ((height,),) = connection.execute(f"select count(*) from {scan(file)}").fetchall()
        # The last column is DuckDB's own: the number of the row.
        footer = {name: kind for name, kind, *_ in described[:-1]}, int(height)
        if file.stamp:
            if len(self._footers) >= MOST_FOOTERS:
                self._footers.clear()
            self._footers[file] = footer
        return footer

    def portions(self, file: TableFile, search: str) -> list[Portion]:
        """The rows of a file that are read to find a text, portion by portion."""
        groups = self.index.that_may_hold(file, search)
        every = portions(self.height(file), file.bytes)
        if groups is None:
            return [Portion(start, rows, rows) for start, rows in every]
        return list(_narrowed(every, groups))

    def listing(self, files: Sequence[TableFile], query: Query, *, wanted: int, seconds: float) -> Listing:
        """The places of the rows of a table that a query chooses."""
        heights = tuple(map(self.height, files))
        if query.is_all and not query.sort:
            return sampled(Listing(EveryRow(heights), 0, sum(heights), True), query)
        types = [self.types([file]) for file in files]
        self._refuse_unknown(query, {name: kind for each in reversed(types) for name, kind in each.items()})
        read = [
            self.portions(file, query.search) if query.search else [Portion(0, height, height)]
            for file, height in zip(files, heights, strict=True)
        ]
        plan = table_plan(files, read, types, query)
        return self.found((tuple(files), query), plan, query, wanted=wanted, seconds=seconds)

    def found(self, key: object, plan: SearchPlan, query: Query, *, wanted: int, seconds: float) -> Listing:
        """What a plan finds, of which the places are kept for who turns the page."""
        with self._lock:
            search = self._searches.get(key)
            if search is None or search.is_lost:
                search = self._searches[key] = Search(plan, self._database.cursor, self._turn)
            self._searches.move_to_end(key)
            kept = sum(each.count for each in self._searches.values())
            while len(self._searches) > KEPT_SEARCHES or (kept > KEPT_PLACES and len(self._searches) > 1):
                kept -= self._searches.popitem(last=False)[1].count
        listing = search.listing(2**62 if query.sample is not None else wanted, seconds)
        return sampled(listing, query)

    def rows(self, files: Sequence[TableFile], places: Sequence[int], most: int) -> list[ReadRow]:
        """The rows at some places, in their order, each text up to so many characters. Changed if a file has been
        replaced since."""
        found: dict[int, ReadRow] = {}
        for number in dict.fromkeys(place >> FILE_BITS for place in places):
            file = files[number]
            wanted = [place & (1 << FILE_BITS) - 1 for place in places if place >> FILE_BITS == number]
            for row in self._rows_of(file, wanted, most):
                found[number << FILE_BITS | row.number] = row
        return [found[place] for place in places if place in found]

    def numbers(self, file: TableFile, key: Mapping[str, str]) -> list[int]:
        """The numbers of the rows of a file that have the values of a key."""
        types = self.types([file])
        parts = [_key_sql(column, value, types) for column, value in key.items()]
        where = " and ".join(sql for sql, _ in parts) or "true"
        values = [value for _, each in parts for value in each]
        with self._connection() as connection, _damage_named(file):
            sql = f"select file_row_number from {scan(file)} where {where} order by 1 limit 100"
            return [number for (number,) in connection.execute(sql, values).fetchall()]

    def select(self, file: TableFile, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query says of one file, which it calls `this`."""
        with self._connection() as connection, _damage_named(file):
            rows: list[tuple[Any, ...]] = connection.execute(
                f"with this as (from {scan(file)}) {sql}", values
            ).fetchall()
            return rows

    def _rows_of(self, file: TableFile, numbers: Sequence[int], most: int) -> list[ReadRow]:
        types = self.types([file])
        shown = [
            f"left({quoted(name)}, {most}) as {quoted(name)}" if kind == "VARCHAR" else quoted(name)
            for name, kind in types.items()
        ]
        texts = [name for name, kind in types.items() if kind == "VARCHAR"]
        lengths = [f"length({quoted(name)})" for name in texts]
        wanted = ", ".join(map(str, numbers)) or "-1"
        sql = f"select file_row_number, {', '.join([*shown, *lengths])} from {scan(file)}"
        with self._connection() as connection, _damage_named(file):
            read = connection.execute(f"{sql} where file_row_number in ({wanted})").fetchall()
        _refuse_changed(file)
        rows = []
        for number, *values in read:
            told = dict(zip(types, values, strict=False))
            rows.append(ReadRow(file, number, told, dict(zip(texts, values[len(types) :], strict=True))))
        return rows

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._database.cursor() as connection:
            yield connection

    @staticmethod
    def _refuse_unknown(query: Query, types: Mapping[str, str]) -> None:
        for condition in query.conditions:
            condition_sql(condition, types)
        if query.sort:
            sort_sql(query.sort, types)


def table_plan(
    files: Sequence[TableFile], read: Sequence[Sequence[Portion]], types: Sequence[Mapping[str, str]], query: Query
) -> SearchPlan:
    """How the rows of a table are found, a portion of a file after the other; `read` are those of each file."""
    every = {name: kind for each in reversed(types) for name, kind in each.items()}
    steps = [
        step
        for number, (file, portions_, own) in enumerate(zip(files, read, types, strict=True))
        for step in _file_steps(number, file, portions_, every, own, query)
    ]
    return SearchPlan(steps, order=_order(files, every, types, query) if query.sort else None)


def _file_steps(
    number: int,
    file: TableFile,
    read: Sequence[Portion],
    every: Mapping[str, str],
    own: Mapping[str, str],
    query: Query,
) -> Iterator[SqlStep]:
    where, values = where_sql(query, every)
    # What a file lacks is empty in it.
    columns = [f"null::{kind} as {quoted(name)}" for name, kind in every.items() if name not in own]
    source = f"(select *, {', '.join(columns)} from {scan(file)})" if columns else scan(file)
    for portion in read:
        sql = f"select {number << FILE_BITS} + file_row_number from {source} where {portion.sql} and {where}"
        yield SqlStep(sql, values, portion.looked_at)


def portions(height: int, size: int) -> Iterator[tuple[int, int]]:
    """The first row and the number of rows of each portion in which a file of so many rows and bytes is searched: of
    whole groups of rows, since a group is unpacked for each portion that has a row of it."""
    start, wanted = 0, FIRST_BYTES
    while start < height:
        groups = wanted * height // max(size, 1) // ROWS_PER_GROUP
        rows = min(max(groups, 1) * ROWS_PER_GROUP, height - start)
        yield start, rows
        start, wanted = start + rows, min(2 * wanted, MOST_BYTES)


def _narrowed(every: Iterable[tuple[int, int]], groups: Sequence[RowGroup]) -> Iterator[Portion]:
    """What is left of portions if only some groups of rows are read; the rows between count as looked at."""
    looked_at = 0
    for start, rows in every:
        looked_at += rows
        inside = [(max(each.first, start), min(each.first + each.rows, start + rows)) for each in groups]
        runs: list[tuple[int, int]] = []
        for first, end in inside:
            if first < end:
                runs = [*runs[:-1], (runs[-1][0], end)] if runs and runs[-1][1] == first else [*runs, (first, end)]
        for number, (first, end) in enumerate(runs, start=1):
            yield Portion(first, end - first, looked_at if number == len(runs) else 0)
        looked_at = 0 if runs else looked_at
    if looked_at:
        yield Portion(0, 0, looked_at)


def where_sql(query: Query, types: Mapping[str, str]) -> tuple[str, list[Any]]:
    """What a query asks of a row, as SQL with its values."""
    parts = [condition_sql(condition, types) for condition in query.conditions]
    if query.search:
        parts.append(search_sql(query.search, types))
    return " and ".join(sql for sql, _ in parts) or "true", [value for _, values in parts for value in values]


def _order(
    files: Sequence[TableFile], every: Mapping[str, str], types: Sequence[Mapping[str, str]], query: Query
) -> SqlStep:
    key = sort_sql(query.sort, every)
    keys = [
        f"select {number << FILE_BITS} + file_row_number as place, "
        f"{key if query.sort in own else 'null'} as key from {scan(file)}"
        for number, (file, own) in enumerate(zip(files, types, strict=True))
    ]
    direction = "desc" if query.descending else "asc"
    return SqlStep(
        f"select place from ({' union all '.join(keys)}) where place in (select place from found) "
        f"order by key {direction} nulls last, place"
    )


def sampled(listing: Listing, query: Query) -> Listing:
    """A random sample of what was found, the same for the same seed; of all, once all is found."""
    if query.sample is None or not listing.ended:
        return listing
    drawn = random.Random(query.seed).sample(range(len(listing)), min(query.sample, len(listing)))
    if query.sort:
        drawn.sort()
    places = np.array([listing.places[number] for number in drawn], dtype=np.int64)
    return Listing(places, listing.searched, listing.rows, True)


def scan(file: TableFile) -> str:
    """A file as a relation of DuckDB with the numbers of its rows."""
    path = catalogue.plain(file.path)
    # A folder called `teacher=x` would be read as a column, in the place of the file's own.
    options = "file_row_number = true, hive_partitioning = false"
    return f"read_parquet('{path.replace(chr(39), chr(39) * 2)}', {options})"


def _key_sql(column: str, value: str, types: Mapping[str, str]) -> tuple[str, list[Any]]:
    if column not in types:
        raise ValueError(f"there is no column {column!r:.80} here; there are {', '.join(types)}")
    name = quoted(column)
    return (f"{name}::varchar = ?", [value]) if value else (f"coalesce({name}::varchar, '') = ''", [])


def _places(connection: duckdb.DuckDBPyConnection, statement: SqlStep) -> Places:
    columns = connection.execute(statement.sql, statement.values).fetchnumpy()
    (places,) = columns.values()
    return np.asarray(places, dtype=np.int64)


def _united(found: Sequence[Places]) -> Places:
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _as_arrow(places: Places) -> Any:
    import pyarrow as pa

    return pa.table({"place": places})


def _refuse_changed(file: TableFile) -> None:
    if not file.stamp:
        return
    try:
        stat = file.path.stat()
    except FileNotFoundError:
        raise Changed from None
    if (stat.st_ino, stat.st_mtime_ns) != (file.stamp[1], file.stamp[3]):
        raise Changed


@contextmanager
def _damage_named(file: TableFile) -> Iterator[None]:
    """DamagedTable with the file and the remedy where DuckDB stumbles over a file; Changed where it is gone."""
    try:
        yield
    except duckdb.Error as error:
        if not file.path.exists():
            raise Changed from None
        if isinstance(error, duckdb.OutOfMemoryException | duckdb.PermissionException | duckdb.InterruptException):
            raise
        why = " ".join(str(error).split())[:160]
        raise DamagedTable(f"{file.path} is damaged ({why}); {remedy(file.place)}") from None
