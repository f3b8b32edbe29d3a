"""Two states of a study's tables, compared a partition at a time: how many rows came, went or changed, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import duckdb

from expectations import contract
from expectations.contract import Contract
from nift_assets.differences import reasons, row_differences
from nift_assets.differences.row_differences import DIFFERING
from nift_assets.differences.states import REMOVALS, StudyState, TablePartition, height, is_removals
from nift_training.messages import one_line

# Texts whose change is worth reading.
TEXTS = ("text", "first_half", "second_half", "prompt", "response", "completion", "answer", "judgment")
# As they are made from one another; all others follow, by name.
FIRST = (
    *("raw_sample", "raw_sample_rejects", "halves", "halves_rejects", "completions", "completion_rejects", REMOVALS),
    *("filtered_completions", "training_sets"),
)


@dataclass(frozen=True, kw_only=True)
class PartitionDifference:
    """What became of the rows of one partition: how many there were and are, None where it is not there at all.

    `columns` counts the changed rows by column, and `why` the rows that came, went or changed by the reason, where one
    is known. `columns_out` and `columns_in` are those that only one of the two has.
    """

    table: str
    partition: str | None
    before: int | None
    after: int | None
    rows_in: int = 0
    rows_out: int = 0
    changed: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)
    why: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    columns_in: Sequence[str] = ()
    columns_out: Sequence[str] = ()

    @property
    def place(self) -> str:
        return _words((self.table, self.partition))

    @property
    def is_whole(self) -> bool:
        """Whether the partition itself came or went, and not some of its rows."""
        return (self.before is None) != (self.after is None)

    @property
    def is_same(self) -> bool:
        return not (
            self.is_whole or self.rows_in or self.rows_out or self.changed or self.columns_in or self.columns_out
        )


@dataclass(frozen=True, kw_only=True)
class ChangedText:
    """A text that is another one now, by its row and column."""

    key: str
    column: str
    before: str
    after: str


@dataclass(frozen=True)
class Comparison:
    """Two states, and a database with the rows of theirs that were found to differ."""

    before: StudyState
    after: StudyState
    database: duckdb.DuckDBPyConnection

    def places(self, tables: Sequence[str] = ()) -> list[TablePartition]:
        """The partitions of either state, of these tables if any are named, in the order in which tables are made."""
        order = {table: number for number, table in enumerate(FIRST)}

        def position(place: TablePartition) -> tuple[int, str, str]:
            table, partition = place
            return order.get(REMOVALS if is_removals(table) else table, len(FIRST)), table, partition or ""

        found = {*self.before.files, *self.after.files}
        return sorted((place for place in found if not tables or place[0] in tables), key=position)

    def of(self, place: TablePartition) -> PartitionDifference:
        """What became of the rows of one partition. DamagedTable if one of its files is not what was written;
        ValueError for rows that cannot be told apart or have other types."""
        try:
            return self._of(place)
        except duckdb.Error as error:
            said = one_line(str(error).partition("\n")[0])  # behind it stands the SQL
            raise ValueError(f"{_words(place)}: the rows of the two states cannot be compared: {said}") from error

    def _of(self, place: TablePartition) -> PartitionDifference:
        heights = [height(s.files[place]) if place in s.files else None for s in (self.before, self.after)]
        found = PartitionDifference(table=place[0], partition=place[1], before=heights[0], after=heights[1])
        if found.is_whole:
            state, change = (self.before, "out") if heights[1] is None else (self.after, "in")
            state.check(place)
            columns = row_differences.view(self.database, "whole", state.files[place])
            key = [column for column in key_of(contract.load(place[0])) if column in columns]
            row_differences.keep_all(self.database, place, key, "document_id" in columns, change)
            return replace(found, rows_in=heights[1] or 0, rows_out=heights[0] or 0)
        if self.before.versions[place] == self.after.versions[place]:
            return found
        shown = self._shown(place)
        both = [column for column in shown[0] if column in shown[1]]
        contract_ = contract.load(place[0])
        key = [column for column in key_of(contract_) if column in both]
        if not key:
            raise ValueError(f"{found.place}: no column of its key {', '.join(key_of(contract_))} is in both states")
        for side, state in zip(row_differences.SIDES, (self.before, self.after), strict=True):
            if twice := row_differences.key_twice(self.database, side, key):
                if absent := [column for column in key_of(contract_) if column not in both]:
                    raise ValueError(f"{found.place}: {absent[0]} of its key is not in both states; make it again")
                raise ValueError(
                    f"{found.place}: several rows of {state.name} have the key {twice}; make that table again"
                )
        types = {column.name: column.type for column in contract_.columns}
        teachers = self.before.teacher, self.after.teacher
        row_differences.compare(self.database, place, key, both, types, teachers)
        reasons.explain(self.database, place, key, self.before, self.after)
        if teachers == (None, None):  # what is published has fewer columns, and is meant to
            only = [[column for column in one if column not in other] for one, other in (shown, shown[::-1])]
            found = replace(found, columns_out=only[0], columns_in=only[1])
        return self._counted(found)

    def differing(self) -> duckdb.DuckDBPyRelation:
        """Every row that was found to differ, in the order of its table: what became of it, why, and which columns."""
        shown = '"table", partition, document_id, key, change, reason, columns'
        return self.database.sql(f'select {shown} from {DIFFERING} order by "table", partition, sample_rank, key')

    def changed_texts(self, place: TablePartition, most: int) -> Iterator[ChangedText]:
        """Texts of a partition that have changed, column by column and in the order of their keys, at most so many."""
        columns = self._shown(place)
        both = [column for column in columns[0] if column in columns[1]]
        key = row_differences.key_text([column for column in key_of(contract.load(place[0])) if column in both])
        for column in (column for column in TEXTS if column in both):
            rows = self.database.execute(
                f"""
                with wanted as materialized (
                    select key, document_id from {DIFFERING}
                    where "table" = ? and partition is not distinct from ? and list_contains(columns, ?)
                    order by key limit ?
                ),
                old as (select {key} as key, {column} as said from before where {key} in (select key from wanted)),
                new as (select {key} as key, {column} as said from after where {key} in (select key from wanted))
                select coalesce(document_id, key), coalesce(old.said, ''), coalesce(new.said, '')
                from wanted join old using (key) join new using (key)
                order by key
                """,
                [*place, column, most],
            ).fetchall()
            for named, old, new in rows:
                yield ChangedText(key=named, column=column, before=old, after=new)
            most -= len(rows)

    def _shown(self, place: TablePartition) -> list[list[str]]:
        """Turns the views to a partition of both states, once its files have been held against their footers; the
        columns of each."""
        columns = []
        for side, state in zip(row_differences.SIDES, (self.before, self.after), strict=True):
            state.check(place)
            columns.append(row_differences.view(self.database, side, state.files[place]))
        return columns

    def _counted(self, found: PartitionDifference) -> PartitionDifference:
        """The numbers of the rows that stand in the table of those that differ."""
        asked = f'from {DIFFERING} where "table" = ? and partition is not distinct from ?'
        values = [found.table, found.partition]
        number: dict[str, int] = {}
        why: dict[str, dict[str, int]] = {}
        counted = self.database.execute(
            f"select change, reason, count(*) {asked} group by all order by 3 desc, 2", values
        )
        for change, reason, rows in counted.fetchall():
            number[change] = number.get(change, 0) + rows
            if reason is not None:
                why.setdefault(change, {})[reason] = rows
        columns = self.database.execute(
            f"select name, count(*) from (select unnest(columns) as name {asked}) group by name order by 2 desc, 1",
            values,
        )
        return replace(
            found,
            rows_in=number.get("in", 0),
            rows_out=number.get("out", 0),
            changed=number.get("changed", 0),
            columns=dict(columns.fetchall()),
            why=why,
        )


@contextmanager
def opened(before: StudyState, after: StudyState) -> Iterator[Comparison]:
    """A comparison of two states, in which nothing has been compared yet."""
    with row_differences.database() as database:
        yield Comparison(before, after, database)


def _words(place: TablePartition) -> str:
    table, partition = place
    return f"{table}/{partition}" if partition else table


def key_of(table: Contract) -> list[str]:
    """The columns that name a row of a table, which is the first thing that its contract says is unique."""
    return next(list(test.arguments["columns"]) for test in table.tests if test.kind == "unique")
