"""Why a row of answers or pairs came, went or changed, from the tables that it is made from.

A row that went is looked for in the tables of the later state, one that came in those of the earlier: the first that
lacks it, or the filter that found it, is the reason. No study is asked, so a state may be anybody's copy. Which filters
drop for a table is seen in the table: those of whose findings none stands in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from nift_assets.differences.row_differences import DIFFERING, key_text, quoted, reading
from nift_assets.differences.states import StudyState, TablePartition, is_removals

# Tables of which the tables before them say why a row is not there.
OF_ANSWERS = ("completions", "filtered_completions", "training_sets")
ELSEWHERE = f"when {DIFFERING}.columns = ['sample_rank'] then 'another place in the sample'"
# What shapes a request besides the first half.
ASKED_WITH = ("system_prompt", "temperature", "max_tokens", "api_version")


def explain(
    connection: duckdb.DuckDBPyConnection,
    place: TablePartition,
    key: Sequence[str],
    before: StudyState,
    after: StudyState,
) -> None:
    """Writes the reason of each row of a partition that was found to differ, where there is one to be known. The views
    `before` and `after` are those of the partition."""
    table, _ = place
    if table == "halves":
        _say(connection, place, "in", _absent_case(before, place, None))
        _say(connection, place, "out", _absent_case(after, place, None))
        _say(connection, place, "changed", _case([_when(["first_half", "cut"], "another halving"), ELSEWHERE]))
    elif table in OF_ANSWERS:
        for teacher in _teachers(connection, place):
            for change, state in (("in", before), ("out", after)):
                if ("completions", teacher) in {*before.files, *after.files}:
                    _say(connection, place, change, _absent_case(state, place, teacher), teacher)
            _say(connection, place, "changed", _changed_case(place, before, after), teacher)
    elif table == "raw_sample":
        _say(connection, place, "changed", _case([ELSEWHERE]))
    elif says_its_own_reason(table):
        for teacher in _teachers(connection, place):
            for change, side in (("in", "after"), ("out", "before")):
                told = f"(select any_value(reason) from {side} where {key_text(key)} = {DIFFERING}.key)"
                _say(connection, place, change, told, teacher)


def says_its_own_reason(table: str) -> bool:
    """Whether each row of a table says why it is there."""
    return is_removals(table) or table.endswith("_rejects")


def _say(
    connection: duckdb.DuckDBPyConnection, place: TablePartition, change: str, case: str, teacher: str | None = None
) -> None:
    """Sets the reason of the rows of one kind of change to what an expression over them gives."""
    connection.execute(
        f"""
        update {DIFFERING} set reason = {case}
        where "table" = ? and partition is not distinct from ? and change = ? and teacher is not distinct from ?
        """,
        [*place, change, teacher],
    )


def _teachers(connection: duckdb.DuckDBPyConnection, place: TablePartition) -> list[str | None]:
    asked = f'select distinct teacher from {DIFFERING} where "table" = ? and partition is not distinct from ?'
    return [teacher for (teacher,) in connection.execute(asked, list(place)).fetchall()]


def _absent_case(state: StudyState, place: TablePartition, teacher: str | None) -> str:
    """The reason why a row is not in a partition of a state: the first of the tables before it that lacks it."""
    table, _ = place
    steps = []
    if files := state.files.get(("raw_sample", None)):
        steps.append(f"when differing.document_id not in ({_documents(files)}) then 'not in the sample'")
    if files := state.files.get(("halves_rejects", None)):
        cause = f"select any_value(reason) from {reading(files)} as rejects where {_same_document('rejects')}"
        steps.append(f"when differing.document_id in ({_documents(files)}) then 'not to be cut in two: ' || ({cause})")
    if table == "halves":
        return _case(steps)
    if files := state.files.get(("halves", None)):
        steps.append(f"when differing.document_id not in ({_documents(files)}) then 'not cut in two'")
    asked = state.files.get(("completions", teacher))
    if asked is None:
        return _case([*steps, "when true then 'the teacher was not asked'"])
    steps.append(f"when differing.document_id not in ({_documents(asked)}) then 'not asked'")
    if table == "completions":
        return _case(steps)
    return _case([*steps, *_left_out(state, place, teacher, asked)])


def _left_out(state: StudyState, place: TablePartition, teacher: str | None, asked: Sequence[Path]) -> list[str]:
    """Why an answer that is there is not in a table of pairs: its status, a filter, or the size of the set."""
    kept = _documents(state.files[place])
    status = f"select any_value(status) from {reading(asked)} as asked where {_same_document('asked')}"
    accepted = f"select distinct status from {reading(asked)} where document_id in ({kept})"
    steps = [f"when ({status}) <> 'ok' and ({status}) not in ({accepted}) then 'answer ' || ({status})"]
    tables = [table for table in state.files if is_removals(table[0]) and table[1] == teacher]
    found = [file for table in tables for file in state.files[table]]
    if found:
        dropping = _dropping(state, place, teacher, found)
        by = (
            f"select string_agg(distinct filter, ' and ' order by filter) from {reading(found)} as found "
            f"where {_same_document('found')} and filter in ({dropping})"
        )
        steps.append(f"when ({by}) is not null then 'dropped by ' || ({by})")
    steps.append(
        f"when differing.sample_rank > (select max(sample_rank) from {reading(state.files[place])}) "
        "then 'behind the last of the set'"
    )
    return steps


def _dropping(state: StudyState, place: TablePartition, teacher: str | None, found: Sequence[Path]) -> str:
    """The filters that drop for a table: as the funnel says, and else those of whose findings none stands in it."""
    funnel = state.files.get(("funnel", None))
    if place[0] == "filtered_completions" and funnel and teacher:
        return f"select step from {reading(funnel)} where is_filter and drops and teacher = {quoted(teacher)}"
    kept = _documents(state.files[place])
    return f"select filter from {reading(found)} group by filter having not bool_or(document_id in ({kept}))"


def _changed_case(place: TablePartition, before: StudyState, after: StudyState) -> str:
    """The reason why a row is another one: who was asked, what, or what came back."""
    steps = [_when(["teacher"], "another teacher"), _when(["prompt"], "another halving")]
    halves = [state.files.get(("halves", None)) for state in (before, after)]
    if halves[0] and halves[1] and before.versions["halves", None] != after.versions["halves", None]:
        other = (
            f"select document_id from {reading(halves[0])} as old join {reading(halves[1])} as new using (document_id) "
            "where old.first_half <> new.first_half"
        )
        steps.append(f"when differing.document_id in ({other}) then 'another halving'")
    if place[0] == "completions":
        steps.append(_when(ASKED_WITH, "asked with other parameters"))
    else:
        of_completion = (
            f"select any_value(other.reason) from {DIFFERING} as other where other.\"table\" = 'completions' and "
            f"other.partition = {DIFFERING}.teacher and other.document_id = {DIFFERING}.document_id "
            "and other.change = 'changed'"
        )
        steps.append(f"when ({of_completion}) is not null then ({of_completion})")
    steps += [
        _when(["completion", "response", "status"], "another answer"),
        ELSEWHERE,
    ]
    return _case(steps)


def _documents(files: Sequence[Path]) -> str:
    return f"select document_id from {reading(files)}"


def _same_document(other: str) -> str:
    return f"{other}.document_id = differing.document_id"


def _when(columns: Sequence[str], reason: str) -> str:
    names = ", ".join(map(quoted, columns))
    return f"when list_has_any(differing.columns, [{names}]) then {quoted(reason)}"


def _case(steps: Sequence[str]) -> str:
    return f"case {' '.join(steps)} end" if steps else "null"
