"""Where a table comes from, as links in Dagster's UI: the code that makes it, and its rows in the study's file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import dagster as dg

from nift_assets import filters, sql, studies
from nift_assets.steps.lineage import Graph
from nift_assets.steps.table import Step

MOST_ROWS = 30


def metadata(graph: Graph, step: Step, table: str) -> Mapping[str, dg.CodeReferencesMetadataValue]:
    """The references of one table, under the name that Dagster reads them by."""
    with warnings.catch_warnings():
        # A beta in this Dagster, which is pinned below the next minor version.
        warnings.simplefilter("ignore", dg.BetaWarning)
        references: list[dg.LocalFileCodeReference | dg.UrlCodeReference] = [_code(step, table), *_rows(graph, table)]
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=references)}


def _code(step: Step, table: str) -> dg.LocalFileCodeReference:
    """The SQL of a model or the filter's file; else the function that makes the table."""
    model = sql.FOLDER / f"{table}.sql"
    if model.exists():
        return dg.LocalFileCodeReference(file_path=str(model), line_number=1, label=model.name)
    written = step.function.__code__
    file = Path(written.co_filename)
    if own := _filter_file(table):
        return dg.LocalFileCodeReference(file_path=str(own), line_number=1, label=own.name)
    return dg.LocalFileCodeReference(file_path=str(file), line_number=written.co_firstlineno, label=file.name)


def _filter_file(table: str) -> Path | None:
    name = table.removesuffix("_removals")
    places = [Path(filters.__file__).with_name(f"{name}{ending}") for ending in (".sql", ".py")]
    return next((place for place in places if name != table and place.exists()), None)


def _rows(graph: Graph, table: str) -> list[dg.LocalFileCodeReference]:
    """The rows that the table has a partition for, where they stand in the file of the study."""
    if (file := studies.file()) is None:
        return []
    lines = _lines(file, file.stat().st_mtime_ns)
    keys = [key for key in graph.keys(table) if key is not None and key in lines][:MOST_ROWS]
    whole = dg.LocalFileCodeReference(file_path=str(file), line_number=1, label=f"study {file.name}")
    return [
        whole,
        *(
            dg.LocalFileCodeReference(file_path=str(file), line_number=lines[key], label=f"row {key}")
            for key in dict.fromkeys(keys)
        ),
    ]


@cache
def _lines(file: Path, _changed: int) -> Mapping[str, int]:
    """The first line of a file that has each quoted word, `name="…"` before others."""
    found: dict[str, int] = {}
    named: dict[str, int] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        for word in re.findall(r"""["']([a-z0-9._-]+)["']""", line):
            found.setdefault(word, number)
        for word in re.findall(r"""\bname=["']([a-z0-9._-]+)["']""", line):
            named.setdefault(word, number)
    return found | named
