"""The stored inputs of a partition that is being made: held as they are, and handed on by portions of documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import polars as pl

from expectations import contract
from expectations.frames import Rows, Table, schema
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store
from nift_assets.table_files import Version

# Of each table; of articles and what was made of them some 100 MB together.
ROWS_AT_ONCE = 10_000
DOCUMENT = "document_id"


@dataclass(frozen=True)
class StoredInputs:
    """The inputs of one partition as they were when it began, and the version of each file they lie in.

    A table is a file where it lies in one, and a frame where it lies in several or on a remote root.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    versions: Mapping[Partition, Version | None] = field(default_factory=dict)

    def frame(self, table: str, *columns: str) -> pl.DataFrame:
        """A table whole, or some columns of it."""
        with self.rows(table) as rows:
            return rows.select(*columns) if columns else rows.between(0, rows.height)

    def rows(self, table: str) -> Rows:
        """The rows of a table, to be read by their numbers."""
        return Rows(self.tables[table])

    def portions(self, column: str, rows: int | None = None) -> Iterator[dict[str, pl.DataFrame]]:
        """All tables, those of documents a range of `column` at a time, so that all about one document comes together;
        the others whole, every time. There is one portion at least.

        Where a table is not in the order of the column, or two have other values of it for a document, as those have
        that were made of different samples, all is one portion.
        """
        rows = rows or ROWS_AT_ONCE
        with ExitStack() as stack:
            opened = {name: stack.enter_context(self.rows(name)) for name in self.tables}
            cut = {name: table for name, table in opened.items() if {column, DOCUMENT} <= set(table.columns)}
            whole = {name: table.between(0, table.height) for name, table in opened.items() if name not in cut}
            of_documents = {name: table.select(column, DOCUMENT) for name, table in cut.items()}
            placed = {name: frame[column] for name, frame in of_documents.items()}
            together = _go_together(list(of_documents.values()))
            last = max((int(values[-1]) for values in placed.values() if together and len(values)), default=0)
            bounds = [*range(0, last + 1, rows), last + 1]
            if len(bounds) < 3:
                yield whole | {name: table.between(0, table.height) for name, table in cut.items()}
                return
            for low, high in pairwise(bounds):
                ranges = {
                    name: (int(values.search_sorted(low)), int(values.search_sorted(high)))
                    for name, values in placed.items()
                }
                yield whole | {name: cut[name].between(*ranges[name]) for name in cut}


@contextmanager
def held(graph: Graph, store: Store, partition: Partition) -> Iterator[StoredInputs]:
    """What a partition is made from; none of it where the step gathers what there is of all partitions of a table, and
    reads that by itself. DamagedTable for what is not what was written."""
    step = graph.tables[partition.table]
    if graph.merges_partitions(step):
        yield StoredInputs()
        return
    with ExitStack() as stack:
        stored = {place: stack.enter_context(store.held(*place)) for place in graph.upstream(partition)}
        by_table: dict[str, list[Table]] = {name: [] for name in step.inputs}
        for place, there in stored.items():
            by_table[place.table] += [there[0]] if there else []
        tables = {
            name: _one(name, parts, partitioned=graph.tables[name].partitions is not None)
            for name, parts in by_table.items()
        }
        yield StoredInputs(tables, {place: there[1] if there else None for place, there in stored.items()})


def _one(name: str, parts: Sequence[Table], *, partitioned: bool) -> Table:
    """The partitions of a table below each other. One may be older than a column of the contract: what it lacks is null
    until it is made again."""
    declared = schema(contract.load(name))
    if len(parts) == 1:
        with Rows(parts[0]) as rows:
            if not partitioned or rows.columns == list(declared):
                return parts[0]
    frames = [pl.DataFrame(schema=declared)]
    for part in parts:
        with Rows(part) as rows:
            frames.append(rows.between(0, rows.height))
    return pl.concat(frames, how="diagonal").select(*declared)


def _go_together(placed: Sequence[pl.DataFrame]) -> bool:
    """Whether each table is in the order of its first column, and a document has one value of it in all of them."""
    if not all(frame.to_series(0).null_count() == 0 and frame.to_series(0).is_sorted() for frame in placed):
        return False
    if not placed:
        return True
    pairs = pl.concat(
        [frame.select(pl.nth(0).cast(pl.Int64).alias("value"), pl.nth(1).hash().alias("document")) for frame in placed]
    ).unique()
    return pairs.height == pairs["document"].n_unique()
