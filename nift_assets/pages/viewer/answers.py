"""Answers: a benchmark's questions, what one model or two answer, and what the judge said of each.

Which tables and questions there are the benchmark's own file says. The columns that tell rows of one model apart are
those of the table's contract.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nift_assets import benchmarks
from nift_assets.pages.viewer import files as stored_files
from nift_assets.pages.viewer.conditions import quoted
from nift_assets.pages.viewer.files import TableFile
from nift_assets.pages.viewer.keys import key_columns
from nift_assets.pages.viewer.reading import Reader
from nift_assets.rows import Benchmark
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable

# What the text of an answer is called in the tables of answers, and that of a judgment in those of judgments.
TEXTS = ("answer", "response")
JUDGMENT = "judgment"
# What an answer counts, by the first of these that a table has.
POINTS = ("points", "rating", "prompt_strict")
TURN = "turn"


@dataclass(frozen=True)
class Judgment:
    """What the judge said of an answer, and what else its row tells."""

    text: str
    told: Mapping[str, Any]


@dataclass(frozen=True)
class ShownAnswer:
    """One answer of one model: its text, what else its row tells, and the judgments of it."""

    model: str
    key: Mapping[str, Any]
    text: str
    told: Mapping[str, Any]
    judgments: Sequence[Judgment]
    version: str = ""

    @property
    def points(self) -> float | None:
        """The mean of what its judgments count or, where nobody judges, what it counts itself."""
        counted = [value for each in self.judgments or (self,) if (value := _points(each.told)) is not None]
        return sum(counted) / len(counted) if counted else None


@dataclass(frozen=True)
class Exchange:
    """One row of a question (a run, a turn) with the answers of the models that are compared, None for who has none."""

    key: Mapping[str, Any]
    asked: str | None
    replies: Sequence[ShownAnswer | None]


@dataclass(frozen=True)
class ListedQuestion:
    """A question of a benchmark: what is asked, turn by turn, and how often and how well each model answers it."""

    name: str
    turns: Sequence[str]
    points: Sequence[float | None]
    answered: Sequence[int]


@dataclass(frozen=True)
class ShownScore:
    """What a model comes to on a benchmark, with its interval."""

    measure: str
    model: str
    score: float | None
    low: float | None
    high: float | None


def read_in_words(study: Study) -> list[Benchmark]:
    """The benchmarks of a study whose answers are texts that a person can read."""
    return [row for row in study.benchmarks if _text_column(benchmarks.answers_table(row.name))]


def models(study: Study, reader: Reader, row: Benchmark) -> list[str]:
    """The models whose answers are stored, in the study's order."""
    stored = {file.partition for file in stored_files.of_table(reader.store, benchmarks.answers_table(row.name))}
    known = [model.name for model in study.models if model.name in stored]
    return known + sorted(name for name in stored if name is not None and name not in known)


def question_column(row: Benchmark) -> str:
    """The column of its table that names a question."""
    return _own_key(benchmarks.answers_table(row.name))[0]


def texts(row: Benchmark) -> dict[str, list[str]]:
    """What is asked, turn by turn, by the name of the question. ValueError where the benchmark's files are not here."""
    asked: dict[str, list[str]] = {}
    for name, text in benchmarks.load(row.name).questions(row):
        asked.setdefault(name, []).append(text)
    return asked


def questions(
    row: Benchmark, reader: Reader, compared: Sequence[TableFile | None], asked: Mapping[str, list[str]]
) -> list[ListedQuestion]:
    """All questions that one of the models answers, without the texts of the answers."""
    column = question_column(row)
    counted = [_counted(reader, row, file, column) for file in compared]
    names = list(dict.fromkeys(name for each in counted for name in each))
    return [
        ListedQuestion(
            name,
            asked.get(name, ()),
            [each.get(name, (None, 0))[0] for each in counted],
            [each.get(name, (None, 0))[1] for each in counted],
        )
        for name in names
    ]


def containing(row: Benchmark, reader: Reader, compared: Sequence[TableFile | None], pattern: str) -> set[str]:
    """The questions of which an answer or a judgment of one of the models holds what a pattern says."""
    column = question_column(row)
    found: set[str] = set()
    for file in compared:
        for table in (file, file and _judgments(reader, row, file)):
            text = table and _text_column(table.table)
            if table and text:
                sql = (
                    f"select distinct {quoted(column)}::varchar from this where regexp_matches({quoted(text)}, ?, 'i')"
                )
                found |= {name for (name,) in reader.select(table, sql, [pattern])}
    return found


def exchanges(
    row: Benchmark, reader: Reader, compared: Sequence[TableFile | None], question: str, turns: Sequence[str]
) -> list[Exchange]:
    """Every answer to one question, the models' side by side."""
    found: dict[tuple[tuple[str, Any], ...], list[ShownAnswer | None]] = {}
    for place, file in enumerate(compared):
        for reply in _replies(row, reader, file, question) if file else ():
            found.setdefault(tuple(reply.key.items()), [None] * len(compared))[place] = reply
    column = question_column(row)
    return [
        Exchange({name: value for name, value in key if name != column}, _asked(dict(key), turns), replies)
        for key, replies in sorted(found.items(), key=lambda each: [str(value).rjust(20) for _, value in each[0]])
    ]


def scores(reader: Reader, row: Benchmark, compared: Sequence[str]) -> tuple[list[ShownScore], str | None]:
    """What the compared models come to on a benchmark, and why that cannot be read, if it cannot."""
    columns = ("benchmark", "model", "score", "low", "high")
    wanted = [measure.name for measure in benchmarks.measures([row])]
    for file in stored_files.of_table(reader.store, "benchmark_scores"):
        try:
            told = reader.select(file, f"select {', '.join(columns)} from this")
        except DamagedTable as damage:
            return [], str(damage)
        return [ShownScore(*each) for each in told if each[0] in wanted and each[1] in compared], None
    return [], None


def _asked(key: Mapping[str, Any], turns: Sequence[str]) -> str | None:
    number = int(key.get(TURN, 1) or 1)
    return turns[number - 1] if 0 < number <= len(turns) else None


def _replies(row: Benchmark, reader: Reader, file: TableFile, question: str) -> list[ShownAnswer]:
    own, judged = _own_key(file.table), _judgments(reader, row, file)
    text = _text_column(file.table)
    assert text is not None, "who lists questions asks of benchmarks that are answered in words alone"
    judgments: dict[tuple[Any, ...], list[Judgment]] = {}
    for told in _rows(reader, judged, own[0], question) if judged else ():
        place = tuple(told.pop(name, None) for name in own)
        judgments.setdefault(place, []).append(Judgment(told.pop(JUDGMENT, None) or "", told))
    replies = []
    for told in _rows(reader, file, own[0], question):
        key = {name: told.pop(name, None) for name in own}
        replies.append(
            ShownAnswer(
                model=str(told.pop("model", file.partition)),
                key=key,
                text=told.pop(text) or "",
                told=told,
                judgments=judgments.get(tuple(key.values()), ()),
            )
        )
    return replies


def _rows(reader: Reader, file: TableFile, column: str, question: str) -> list[dict[str, Any]]:
    names = [name for name in reader.types([file]) if name != "request_key"]
    sql = f"select {', '.join(map(quoted, names))} from this where {quoted(column)}::varchar = ? limit 1000"
    return [dict(zip(names, values, strict=True)) for values in reader.select(file, sql, [question])]


def _counted(
    reader: Reader, row: Benchmark, file: TableFile | None, column: str
) -> dict[str, tuple[float | None, int]]:
    """Of each question that a model answers what it gets for it, and how many answers there are."""
    if file is None:
        return {}
    name = f"{quoted(column)}::varchar"
    answered = reader.select(
        file, f"select {name}, count(*) from this group by {quoted(column)} order by {quoted(column)}"
    )
    judged = _judgments(reader, row, file) or file
    points = next((each for each in POINTS if each in reader.types([judged])), None)
    sql = f"select {name}, avg({points}::double) from this group by all"
    counted = dict(reader.select(judged, sql)) if points else {}
    return {name: (counted.get(name), count) for name, count in answered}


def _judgments(reader: Reader, row: Benchmark, file: TableFile) -> TableFile | None:
    """The judgments of a model's answers; None where nobody judges, or has yet."""
    table = benchmarks.results_table(row.name)
    found = stored_files.of_table(reader.store, table, file.partition) if table != file.table else []
    return found[0] if found else None


def _own_key(table: str) -> list[str]:
    """The columns that tell the rows of one model apart, the question's first."""
    return [name for name in key_columns(table) or () if name != "model"]


def _text_column(table: str) -> str | None:
    from expectations import contract

    names = {column.name for column in contract.load(table).columns}
    return next((name for name in (*TEXTS, JUDGMENT) if name in names), None)


def _points(told: Mapping[str, Any]) -> float | None:
    return next((float(told[name]) for name in POINTS if told.get(name) is not None), None)
