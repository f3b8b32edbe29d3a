"""SQL models, dbt's way: one `select` per file, `{{ ref('table') }}` for what it reads, run by DuckDB in memory.

A file begins with `{{ config(by='teacher', group='completions') }}`. `{{ study('teachers') }}` is a relation with
one row per row of the active study, and `{{ partition }}` the name of the partition being made. `{{ ref('removals') }}`
is what all filters of the study would drop, their tables below each other, and in the funnel `{{ ref('filter_runs') }}`
which of these tables there are: one without a row is not one that is missing. Filters in SQL lie in `filters/`.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import polars as pl

from nift_assets import benchmarks, filters, providers
from nift_assets import rows as kinds
from nift_assets.costs import price_list
from nift_assets.rows import Adapter, Audit, Backbone, Benchmark, Cell, ReferenceSet, Teacher, TrainingSet
from nift_assets.study import Study
from nift_training.endings import ENDINGS

FOLDER = Path(__file__).parent
STUDY_PREFIX = "study_"
REMOVALS = "removals"
FUNNEL, FILTER_RUNS = "funnel", "filter_runs"
TRAINING_SETS, TRAINING_COSTS = "training_sets", "training_costs"


@dataclass(frozen=True)
class SqlModel:
    """A compiled SQL model: plain SQL over the tables in `refs` and the study's rows in `studies`."""

    name: str
    sql: str
    config: Mapping[str, Any]
    refs: tuple[str, ...]
    studies: tuple[str, ...]


def names() -> list[str]:
    """The names of all models, one per file."""
    return sorted(path.stem for path in FOLDER.glob("*.sql"))


def compile(name: str, path: Path | None = None) -> SqlModel:
    """The model in `sql/<name>.sql`, of the filter whose table has the name, or in the file at a path; ValueError names
    the file and the line of a misspelt placeholder."""
    config: dict[str, Any] = {}
    refs: list[str] = []
    studies: list[str] = []

    def ref(table: str) -> str:
        refs.append(table)
        return f'"{table}"'

    def study(rows: str) -> str:
        studies.append(rows)
        return f'"{STUDY_PREFIX}{rows}"'

    def configure(**values: Any) -> str:
        config.update(values)
        return ""

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
    file = FOLDER / f"{name}.sql"
    file = path or (file if file.exists() else filters.sql_file(name))
    try:
        template = environment.from_string(file.read_text(encoding="utf-8"))
        sql = template.render(ref=ref, study=study, config=configure, partition="getvariable('partition')").strip()
    except jinja2.TemplateError as error:
        raise ValueError(f"{file}, line {_line(error)}: {error.message}; mend it there") from error
    return SqlModel(name, sql, config, tuple(dict.fromkeys(refs)), tuple(dict.fromkeys(studies)))


def _line(error: jinja2.TemplateError) -> int:
    """The line of a template at which it stopped."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return (lines[-1] if lines else 0) or 1


# A model names the frames it is given, and reaches nothing else: no file, no address, no extension, no variable.
SEALED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "python_enable_replacements": False,
}


def run(model: SqlModel, frames: Mapping[str, pl.DataFrame], partition: str | None) -> pl.DataFrame:
    """The rows of the model over the given frames, which carry the names of its refs and of its study rows."""
    with duckdb.connect(config=SEALED) as connection:
        for name, frame in frames.items():
            # As Arrow's views, which DuckDB reads where they are: of texts in the older layout it would make a copy.
            connection.register(name, frame.to_arrow(compat_level=pl.CompatLevel.newest()))
        connection.execute("set variable partition = ?", [partition])
        rows: pl.DataFrame = connection.sql(model.sql).pl()
        return rows


def relations(study: Study, model: SqlModel) -> dict[str, pl.DataFrame]:
    """The rows of the study that a model reads, by the names of their relations."""
    return {f"{STUDY_PREFIX}{rows}": study_rows(study, rows) for rows in model.studies}


def study_rows(study: Study, rows: str) -> pl.DataFrame:
    """The study's rows of one kind as a relation, one column per text or number of the row.

    What a row has several of is a relation of its own: which filters a teacher or a training set names, in their order
    (`place`), and `cells`: the cells of the paper's tables that models, audits and quoted models fill, in the order of
    the study (`place`), each with the `kind` and `name` of the row that fills it.
    `prices` are what the teachers' tokens cost, `providers` who answers the study's rows, and whether in process,
    `measures` the numbers that the benchmarks give. `endings` are the known reasons to stop and what each means.
    """
    if rows == "endings":
        return pl.DataFrame({"reason": list(ENDINGS), "ending": list(ENDINGS.values())})
    if rows == "measures":
        return measures(study)
    if rows == "cells":
        return cells(study)
    if rows == "prices":
        return prices(study)
    if rows == "providers":
        used = sorted({row.provider for row in study.language_models})
        return pl.DataFrame(
            [{"name": name, "in_process": providers.load(name).IN_PROCESS} for name in used],
            schema={"name": pl.String, "in_process": pl.Boolean},
        )
    if rows in FILTERS:
        named, owner = FILTERS[rows]
        applied = [
            {owner: row.name, "filter": name, "place": place}
            for row in getattr(study, named)
            for place, name in enumerate(row.filters, start=1)
        ]
        return pl.DataFrame(applied, schema={owner: pl.String, "filter": pl.String, "place": pl.Int64}, orient="row")
    columns = _columns(ROWS[rows])
    return pl.DataFrame(
        [{name: getattr(row, name) for name in columns} for row in getattr(study, rows)], schema=columns, orient="row"
    )


def cells(study: Study) -> pl.DataFrame:
    """One row per cell of a table of the paper that a row of the study fills, table by table in the study's order, in
    each by its lines."""
    rows = [
        {"kind": kind, "name": row.name, **asdict(cell)}
        for kind, rows in CELLS.items()
        for row in getattr(study, rows)
        for cell in row.cells
    ]
    tables = list(dict.fromkeys(cell["table"] for cell in rows))
    rows.sort(key=lambda cell: (tables.index(cell["table"]), cell["line"]))
    schema = {"kind": pl.String, "name": pl.String, **_columns(Cell)}
    placed = pl.DataFrame(rows, schema=schema, orient="row").drop("line")
    return placed.with_columns(place=pl.int_range(1, pl.len() + 1, dtype=pl.Int64))


def measures(study: Study) -> pl.DataFrame:
    """One row per number that a benchmark of the study gives, with its scale."""
    return pl.DataFrame(
        [
            {"name": measure.name, "benchmark": row.name, "least": measure.least, "most": measure.limit}
            for row in study.benchmarks
            for measure in benchmarks.measures([row])
        ],
        schema={"name": pl.String, "benchmark": pl.String, "least": pl.Float64, "most": pl.Float64},
        orient="row",
    )


def prices(study: Study) -> pl.DataFrame:
    """One row per teacher whose list price is known, in dollars per million tokens; 0 for what costs nothing."""
    price_by_teacher = {row.name: _price(row) for row in study.teachers}
    return pl.DataFrame(
        [{"teacher": name, "input": price[0], "output": price[1]} for name, price in price_by_teacher.items() if price],
        schema={"teacher": pl.String, "input": pl.Float64, "output": pl.Float64},
        orient="row",
    )


def _price(teacher: Teacher) -> tuple[float, float] | None:
    if price_list.is_free(teacher):
        return 0.0, 0.0
    listed = price_list.listed(teacher.provider, teacher.model)
    price = teacher.price or (listed.price if listed else None)
    return (price.input, price.output) if price else None


def named_study_rows(study: Study, queries: Iterable[str]) -> dict[str, pl.DataFrame]:
    """The relations of study rows that SQL outside the models names, by those names."""
    named = {rows for query in queries for rows in re.findall(rf"\b{STUDY_PREFIX}(\w+)", query)}
    return {f"{STUDY_PREFIX}{rows}": study_rows(study, rows) for rows in sorted(named)}


ROWS: dict[str, type] = {
    "teachers": Teacher,
    "reference_sets": ReferenceSet,
    "training_sets": TrainingSet,
    "backbones": Backbone,
    "adapters": Adapter,
    "models": kinds.Model,
    "benchmarks": Benchmark,
    "filters": kinds.Filter,
    "audits": Audit,
    "questions": kinds.Question,
    "quoted": kinds.Quoted,
    "examples": kinds.Example,
    "judges": kinds.Judge,
    "publications": kinds.Publication,
}

# The kinds of rows that fill cells, as the relation of cells calls them.
CELLS = {"model": "models", "audit": "audits", "quoted": "quoted"}
# The rows that name filters, and what the column with their name is called.
FILTERS = {
    "teacher_filters": ("teachers", "teacher"),
    "training_set_filters": ("training_sets", "training_set"),
}


def _columns(kind: type) -> dict[str, Any]:
    """The fields of a row that are plain values, by what their annotation begins with."""
    types = {"str": pl.String, "Literal": pl.String, "int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean}
    annotations = {field.name: re.split(r"\W", str(field.type))[0] for field in fields(kind)}
    return {name: types[first] for name, first in annotations.items() if first in types}
