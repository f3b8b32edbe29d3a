"""Pairs: a document's first half, its own second half, and what each teacher wrote instead, side by side.

The tables of a pair are joined by the document's id. A condition on what a teacher wrote is asked of that teacher's
file alone, so no text goes through a join.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from expectations import contract
from expectations.frames import schema
from nift_assets import filters
from nift_assets.costs import price_list
from nift_assets.pages.viewer import files as stored_files
from nift_assets.pages.viewer.conditions import (
    NEGATIONS,
    Condition,
    Query,
    condition_sql,
    quoted,
    search_sql,
    sort_sql,
)
from nift_assets.pages.viewer.files import TableFile
from nift_assets.pages.viewer.reading import (
    Listing,
    Reader,
    ReadRow,
    SearchPlan,
    SqlStep,
    scan,
)
from nift_assets.rows import Teacher
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable

DOCUMENTS, COMPLETIONS, AUDIT = "halves", "completions", "content_audit"
REJECTS, KEPT = "completion_rejects", "filtered_completions"
KEY = "document_id"
# The columns without which a table tells nothing of a pair.
NEEDED = {
    DOCUMENTS: (KEY, "sample_rank", "words", "cut", "first_half", "second_half"),
    COMPLETIONS: (KEY, "status", "completion"),
    AUDIT: (KEY, "question", "verdict"),
}
# Columns of a teacher's that come from other tables than its completions.
FILTER, REASON = "found by filter", "reason of the filter"


@dataclass(frozen=True)
class Finding:
    """What a filter found in a completion; `drops` if the teacher's data leaves out what it finds."""

    filter: str
    reason: str
    drops: bool


@dataclass(frozen=True)
class Verdict:
    """What an auditor said of a completion, or of it with an attack planted."""

    question: str
    verdict: str
    answer: str
    auditor: str
    attack: str | None


@dataclass(frozen=True)
class TeacherText:
    """What one teacher made of a document. `row` is None where it was not asked about it, `usd` at list prices."""

    teacher: str
    row: ReadRow | None
    usd: float | None = None
    findings: Sequence[Finding] = ()
    rejected: str | None = None
    kept: bool | None = None
    verdicts: Sequence[Verdict] = ()

    @property
    def dropped_by(self) -> list[str]:
        return [finding.filter for finding in self.findings if finding.drops]


@dataclass(frozen=True)
class DocumentPair:
    """A document with its two halves and the continuations; what could not be read is a sentence in `damages`."""

    document_id: str
    halves: ReadRow
    continuations: Sequence[TeacherText]
    damages: Sequence[str] = ()


@dataclass(frozen=True)
class PairFiles:
    """The files that pairs are read from: the documents, and of each teacher the tables that tell of it."""

    documents: TableFile
    completions: Mapping[str, TableFile]
    removals: Mapping[str, Sequence[tuple[str, TableFile]]]
    audits: Mapping[str, Sequence[TableFile]]
    rejects: Mapping[str, TableFile]
    kept: Mapping[str, TableFile]
    damages: Sequence[str] = field(default=(), compare=False)

    @property
    def every(self) -> tuple[TableFile, ...]:
        several = (*self.removals.values(),)
        return (
            self.documents,
            *self.completions.values(),
            *(file for each in several for _, file in each),
            *(file for each in self.audits.values() for file in each),
        )


def sources(study: Study, reader: Reader, checks: stored_files.Checks) -> PairFiles | str:
    """The files of pairs as far as they are made and sound, or the sentence that says why there are none."""
    damages: list[str] = []

    def sound(table: str, partition: str | None) -> TableFile | None:
        for file in stored_files.of_table(reader.store, table, partition):
            try:
                checks.state(file)
                reader.require(file, NEEDED.get(table, (KEY,)))
            except DamagedTable as damage:
                damages.append(str(damage))
            else:
                return file
        return None

    documents = sound(DOCUMENTS, None)
    if documents is None:
        return damages[0] if damages else f"no document has been cut in two yet; `nift run {DOCUMENTS}` does that"
    teachers = [teacher.name for teacher in study.teachers]
    removals = {
        teacher: [(row.name, file) for row in study.filters if (file := sound(filters.table(row), teacher))]
        for teacher in teachers
    }
    audits = {
        teacher: [
            file
            for audit in study.audits
            if audit.kind in ("teacher", "planted") and teacher in (audit.name, audit.of)
            if (file := sound(AUDIT, audit.name))
        ]
        for teacher in teachers
    }
    of_teachers = {
        table: {teacher: file for teacher in teachers if (file := sound(table, teacher))}
        for table in (COMPLETIONS, REJECTS, KEPT)
    }
    return PairFiles(
        documents, of_teachers[COMPLETIONS], removals, audits, of_teachers[REJECTS], of_teachers[KEPT], tuple(damages)
    )


def columns(found: PairFiles, reader: Reader) -> dict[str, list[str]]:
    """The columns that a condition can name, by where they come from: those of the documents, then each teacher's as
    `teacher:column`."""
    named = {DOCUMENTS: list(reader.types([found.documents]))}
    for teacher, file in found.completions.items():
        own = [name for name in reader.types([file]) if name not in (KEY, "teacher", "sample_rank")]
        extra = [FILTER, REASON] if found.removals[teacher] else []
        audited = [f"audit: {question}" for question in _questions(found, reader, teacher)]
        named[teacher] = [f"{teacher}:{name}" for name in (*own, *extra, *audited)]
    return named


def listing(found: PairFiles, reader: Reader, query: Query, *, wanted: int, seconds: float) -> Listing:
    """The places in the table of documents of those that a query chooses."""
    own = reader.types([found.documents])
    if not query.search and all(each.column in own for each in query.conditions) and query.sort in ("", *own):
        return reader.listing([found.documents], query, wanted=wanted, seconds=seconds)
    return reader.found((found.every, query), _plan(found, reader, query, own), query, wanted=wanted, seconds=seconds)


def read(study: Study, found: PairFiles, reader: Reader, rows: Sequence[ReadRow], most: int) -> list[DocumentPair]:
    """The pairs of some documents, each text up to so many characters."""
    ids = [row.values[KEY] for row in rows]
    damages = list(found.damages)
    wanted = ", ".join("?" * len(ids))

    def having(file: TableFile | None, columns: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of a file that tell of the documents, by document."""
        told: dict[str, list[dict[str, Any]]] = {}
        if file is None or not ids:
            return told
        try:
            sql = f"select {', '.join(map(quoted, columns))} from this where {KEY} in ({wanted})"
            for values in reader.select(file, sql, ids):
                row = dict(zip(columns, values, strict=True))
                told.setdefault(row[KEY], []).append(row)
        except DamagedTable as damage:
            damages.append(str(damage))
        return told

    by_document: dict[str, list[TeacherText]] = {document: [] for document in ids}
    for teacher in study.teachers:
        name = teacher.name
        try:
            written = _completions(reader, found.completions.get(name), ids, most)
        except DamagedTable as damage:
            damages.append(str(damage))
            continue
        findings = [(each, having(file, (KEY, "reason"))) for each, file in found.removals[name]]
        rejected = having(found.rejects.get(name), (KEY, "reason"))
        kept = having(found.kept.get(name), (KEY,)) if name in found.kept else None
        audited = [
            having(file, (KEY, "question", "verdict", "answer", "auditor", "attack")) for file in found.audits[name]
        ]
        for document in ids:
            by_document[document].append(
                TeacherText(
                    teacher=name,
                    row=(row := written.get(document)),
                    usd=None if row is None else _usd(teacher, row.values),
                    findings=[
                        Finding(each, told["reason"], each in teacher.filters)
                        for each, removals in findings
                        for told in removals.get(document, ())
                    ],
                    rejected=next((told["reason"] for told in rejected.get(document, ())), None),
                    kept=None if kept is None or row is None else document in kept,
                    verdicts=[
                        Verdict(**{key: value for key, value in told.items() if key != KEY})
                        for audit in audited
                        for told in audit.get(document, ())
                    ],
                )
            )
    once = list(dict.fromkeys(damages))
    return [DocumentPair(row.values[KEY], row, by_document[row.values[KEY]], once) for row in rows]


def _completions(reader: Reader, file: TableFile | None, ids: Sequence[str], most: int) -> dict[str, ReadRow]:
    if file is None or not ids:
        return {}
    sql = f"select file_row_number from this where {KEY} in ({', '.join('?' * len(ids))})"
    numbers = [number for (number,) in reader.select(file, sql, list(ids))]
    # A table may be older than a column of its contract.
    absent = dict.fromkeys(schema(contract.load(file.table)))
    rows = reader.rows([file], numbers, most)
    return {row.values[KEY]: replace(row, values=absent | dict(row.values)) for row in rows}


def _usd(teacher: Teacher, row: Mapping[str, Any]) -> float | None:
    """What a completion costs online at list prices; None where nobody knows."""
    if price_list.is_free(teacher):
        return 0.0
    price, tokens = price_list.last_price(teacher), (row.get("input_tokens"), row.get("output_tokens"))
    if price is None or None in tokens:
        return None
    return price.cost(int(tokens[0] or 0), int(tokens[1] or 0)) / 1e9


def _questions(found: PairFiles, reader: Reader, teacher: str) -> list[str]:
    asked = [reader.select(file, "select distinct question from this order by 1") for file in found.audits[teacher]]
    return list(dict.fromkeys(str(question) for rows in asked for (question,) in rows))


def _plan(found: PairFiles, reader: Reader, query: Query, own: Mapping[str, str]) -> SearchPlan:
    """How documents are found by what is in several files: first those that keep all conditions, as a table of ids;
    of these, portion by portion, those with the text in any half or completion."""
    parts = [_condition(found, reader, condition, own) for condition in query.conditions]
    where = " and ".join(sql for sql, _ in parts) or "true"
    values = [value for _, each in parts for value in each]
    chosen = f"select {KEY}, file_row_number as place from {scan(found.documents)} where {where}"
    before = [SqlStep(f"create temp table chosen as {chosen}", values)]
    steps: list[SqlStep] = [SqlStep("select place from chosen")]
    if query.search:
        documents = "select file_row_number as place from matching"
        if query.conditions:
            documents += " where place in (select place from chosen)"
        written = f"select place from chosen where {KEY} in (select {KEY} from matching)"
        searched = [(found.documents, documents), *((file, written) for file in found.completions.values())]
        steps = [step for file, sql in searched for step in _search(reader, file, query.search, sql)]
    return SearchPlan(steps, before, _order(found, reader, query, own) if query.sort else None)


def _search(reader: Reader, file: TableFile, search: str, sql: str) -> Iterator[SqlStep]:
    """A text in the rows of a file; what they say of the documents is `sql`, which calls them `matching`."""
    where, values = search_sql(search, reader.types([file]))
    for portion in reader.portions(file, search):
        matching = f"select * from {scan(file)} where {portion.sql} and {where}"
        yield SqlStep(f"with matching as not materialized ({matching}) {sql}", values, portion.looked_at)


def _condition(found: PairFiles, reader: Reader, condition: Condition, own: Mapping[str, str]) -> tuple[str, list[Any]]:
    if condition.column in own:
        return condition_sql(condition, own)
    relation, column, types = _relation(found, reader, condition.column)
    positive = Condition(column, NEGATIONS.get(condition.relation, condition.relation), condition.value)
    sql, values = condition_sql(positive, types)
    inside = f"{KEY} in (select {KEY} from {relation} where {sql})"
    return (f"not {inside}" if condition.relation in NEGATIONS else inside), values


def _order(found: PairFiles, reader: Reader, query: Query, own: Mapping[str, str]) -> SqlStep:
    direction = "desc" if query.descending else "asc"
    if query.sort in own:
        keys = f"select file_row_number as place, {sort_sql(query.sort, own)} as key from {scan(found.documents)}"
    else:
        relation, column, types = _relation(found, reader, query.sort)
        key = f"select {KEY}, min({sort_sql(column, types)}) as key from {relation} group by {KEY}"
        keys = f"select place, key from chosen left join ({key}) using ({KEY})"
    return SqlStep(
        f"select place from ({keys}) where place in (select place from found) "
        f"order by key {direction} nulls last, place"
    )


def _relation(found: PairFiles, reader: Reader, named: str) -> tuple[str, str, dict[str, str]]:
    """The relation that a column such as `echo:status` is of, the column's name in it, and its columns' types."""
    teacher, _, column = named.partition(":")
    if teacher in found.completions:
        if column in (FILTER, REASON) and found.removals[teacher]:
            each = [
                f"select {KEY}, '{name}' as {quoted(FILTER)}, reason as {quoted(REASON)} from {scan(file)}"
                for name, file in found.removals[teacher]
            ]
            return f"({' union all '.join(each)})", column, {FILTER: "VARCHAR", REASON: "VARCHAR"}
        question = column.removeprefix("audit: ")
        if question != column and question in _questions(found, reader, teacher):
            text = question.replace("'", "''")
            audits = [
                f"select {KEY}, verdict as {quoted(column)} from {scan(file)} where question = '{text}'"
                for file in found.audits[teacher]
            ]
            return f"({' union all '.join(audits)})", column, {column: "VARCHAR"}
        types = reader.types([found.completions[teacher]])
        if column in types:
            return scan(found.completions[teacher]), column, types
    known = [name for names in columns(found, reader).values() for name in names]
    raise ValueError(f"there is no column {named!r:.80} here; there are {', '.join(known)}")
