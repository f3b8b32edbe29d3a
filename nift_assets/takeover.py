"""What was stored before versions were digests of syntax trees is taken over, once.

A table's footer holds the digest of all that it was made from. Until the version of a step was the digest of the code
it reaches (`steps/code`), that was a digest of source texts, and of rows with absolute paths. That formula is kept here
as it was: for each stored partition that it finds up to date, the digest that the footer would have today is written
down beside the tables (`Store.take_over`). No table is written again.

`takeover.json` holds what the formula needs of the commit 92d1d38: the version of each step's code and the version it
counts as now, the step's inputs, the fields of the rows, and their columns in SQL. All of it may go when nobody has a
warehouse of before.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from nift_assets import DEMO_FILES, catalogue, filters, sql
from nift_assets.benchmarks.scoring import files
from nift_assets.corpus import locations
from nift_assets.pages import report
from nift_assets.pairs import reference_sets
from nift_assets.rows import Benchmark, Corpus, LanguageModel, Model, digest
from nift_assets.steps.code import FOLDER
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.steps.table import Step
from nift_assets.store import Store
from nift_assets.study import Study
from nift_assets.table_files import DamagedTable, Version
from nift_training.machine import ONE_DEVICE

BEFORE = json.loads(Path(__file__).with_name("takeover.json").read_text(encoding="utf-8"))
REMOVALS = "removals"
# What of a language model's row shaped no answer.
FREE = {"limits", "budget_usd", "price", "key_variable", "filters"}


def take_over(graph: Graph, store: Store, folders: Sequence[Path] | None = None) -> None:
    """Takes over what is stored, the first time anything is. `folders` are those in which the code may have lain, whose
    names were part of rows: by default the one it lies in and those of `folders_before`."""
    if store.has_taken_over():
        return
    stored = [
        (Partition(table, key), version.inputs)
        for table in graph.tables
        for key in graph.keys(table)
        if (version := _version(store, table, key))
    ]
    if not stored:
        return
    folders = [FOLDER, *folders_before(store)] if folders is None else folders
    taken = {
        inputs: graph.inputs_version(store, place, code=_counts_as(graph.tables[place.table], place, before["as"]))
        for place, inputs in stored
        if (before := BEFORE["steps"].get(_name(graph.study, place.table)))
        if inputs in _inputs_before(graph, store, place, folders)
    }
    with suppress(OSError):  # who may only read looks again the next time
        store.take_over(taken)


def known_to_dagster(study: Study, step: Step, table: str) -> str:
    """What Dagster is told of the version of a step's code: the one it remembers, as long as that counts as today's.

    Else its UI would show everything that was made before as out of date, and offer to make it again.
    """
    version = step.version_of(None, table) if step.version is None else step.code_version
    before = BEFORE["steps"].get(_name(study, table))
    return str(before["code"]) if before and before["as"] == version else version


def folders_before(store: Store, here: Path = FOLDER) -> list[Path]:
    """Where the code lay when the catalogue was written, if the warehouse has been moved with it to where it is."""
    file = Path(store.root, catalogue.NAME)
    if store.is_remote or not file.exists():
        return []
    import duckdb

    root = Path(store.root).resolve()
    try:
        with duckdb.connect(file, read_only=True) as database:
            views = database.execute(
                "select view_name, sql from duckdb_views() where schema_name = ?", [store.study]
            ).fetchall()
    except duckdb.Error:  # it is made again with the next table
        return []
    folders: dict[Path, None] = {}
    for view, text in views:
        place = re.search(rf"read_parquet\('(.+?)/{re.escape(store.study)}/{view}(\.parquet|/)", text)
        if place and Path(place[1]) != root:
            folders[Path(os.path.normpath(Path(place[1], os.path.relpath(here, root))))] = None
    return list(folders)


def _version(store: Store, table: str, key: str | None) -> Version | None:
    """What is stored; what is damaged counts as not made, here as everywhere."""
    try:
        return store.version(table, key)
    except DamagedTable:
        return None


def _counts_as(step: Step, place: Partition, version: str) -> str:
    """The version of the code that made a partition, as it is called today: before, a plug-in was part of its step."""
    plugins = 0 if step.version is None else len({*step.plugins(place.key, place.table)})
    return " ".join([version] * (1 + plugins))


def _name(study: Study, table: str) -> str:
    """What a step is called in `takeover.json`: a filter by its file."""
    return {filters.table(row): f"filters/{row.file}" for row in study.filters}.get(table, table)


def _inputs_before(graph: Graph, store: Store, place: Partition, folders: Sequence[Path]) -> Iterator[str]:
    """The digests that the footer of a partition may have had, with the code in each of some folders."""
    study, (table, key) = graph.study, place
    step, before = graph.tables[table], BEFORE["steps"][_name(study, table)]
    stored = [
        (name, source, version.data if (version := _version(store, name, source)) else None)
        for name in _inputs(study, before["inputs"])
        if graph.partitions.is_needed(name, step.tables[0], key)
        for source in graph.partitions.upstream_keys(graph.tables[name].partitions, step.partitions, key)
    ]
    for folder in folders:
        move = partial(_moved, folder)
        # A row that cannot be written as it was (a file is gone, a field too) was not what made the table.
        with suppress(ValueError, OSError, AttributeError, KeyError):
            rows = [_as_it_was(row) for row in _rows(study, table, key, before, move)]
            text = json.dumps([before["code"], rows, stored], sort_keys=True, ensure_ascii=False)
            yield hashlib.sha256(move(text).encode()).hexdigest()


def _inputs(study: Study, named: Sequence[str]) -> list[str]:
    removals = [filters.table(row) for row in study.filters]
    return [table for name in named for table in (removals if name == REMOVALS else [name])]


def _moved(folder: Path, text: str) -> str:
    return text.replace(f"{FOLDER}/", f"{folder}/")


def _as_it_was(value: Any) -> Any:
    """A row with the fields that it had, as JSON; KeyError for a kind of row that there was not."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _as_it_was(getattr(value, name)) for name in BEFORE["fields"][type(value).__name__]}
    if isinstance(value, list | tuple):
        return [_as_it_was(item) for item in value]
    return {name: _as_it_was(item) for name, item in value.items()} if isinstance(value, dict) else value


def _rows(
    study: Study, table: str, key: str | None, before: dict[str, Any], move: Callable[[str], str]
) -> Sequence[Any]:
    """The rows and values a partition depended on, besides its inputs, as each step gave them."""
    if "study" in before:
        return [_relation(study, rows) for rows in before["study"]]
    if table in {filters.table(row) for row in study.filters}:
        row = next(row for row in study.filters if filters.table(row) == table)
        return [row, *(map(_questions, study.benchmarks) if filters.reads_benchmarks(row) else ())]
    name = str(key)
    match table:
        case "raw_sample" | "raw_sample_rejects":
            return [study.corpus, _documents(study.corpus, move)]
        case "halves":
            return [study.corpus.seed]
        case "completions":
            return [_shape(study.teacher(name))]
        case "control_texts":
            return [_shape(study.control(name))]
        case "content_audit":
            audit = study.audit(name)
            return [replace(audit, cells=()), _shape(study.auditor(audit.auditor)), study.questions]
        case "reference_sets":
            return [study.reference_set(name), reference_sets.fingerprint(study.reference_set(name))]
        case "backbones":
            articles = sorted((DEMO_FILES / "articles").glob("*.txt"))
            texts = digest([path.read_text(encoding="utf-8") for path in articles])
            return [replace(study.backbone(name), example=None), texts]
        case "lora_adapters":
            return [replace(study.adapter(name), machine=ONE_DEVICE)]
        case "merged_models":
            return [replace(study.model(name), weights="keep", server=None, row=None, cells=())]
        case "mt_bench_answers" | "arena_hard_answers" | "ifeval" | "open_llm_leaderboard":
            return _of_answers(study, table, study.model(name))
        case "mt_bench_judgments" | "arena_hard_judgments":
            benchmark = study.benchmark(table.removesuffix("_judgments"))
            judge = _shape(study.judge(str(benchmark.judge)))
            return [replace(benchmark, location=""), judge, files.fingerprint(benchmark)]
        case "benchmark_scores":
            bare = {model.backbone: model.name for model in study.models if model.module == "none"}
            return [{m.name: bare[m.backbone] for m in study.models if m.adapter and m.backbone in bare}]
        case "response_examples":
            return study.examples
        case "hub_datasets" | "hub_adapters" | "hub_models":
            kind = {"hub_datasets": "teacher", "hub_adapters": "adapter", "hub_models": "model"}[table]
            return [next((row for row in study.publications if getattr(row, kind) == key), None), study.warning]
        case "report":
            return [study, report.TEMPLATE.read_text(encoding="utf-8")]
        case _:
            return []


def _shape(model: LanguageModel) -> dict[str, Any]:
    return {name: value for name, value in _as_it_was(model).items() if name not in FREE}


def _documents(corpus: Corpus, move: Callable[[str], str]) -> str:
    """A digest of the names, sizes and times of the corpus's files."""
    local = [] if "://" in corpus.location else locations.files(corpus)
    described = [(move(file), *locations.size_and_mtime(file)) for file in local]
    return hashlib.sha256(repr(described).encode()).hexdigest()


def _of_answers(study: Study, table: str, model: Model) -> list[Any]:
    benchmark = study.benchmark(table.removesuffix("_answers"))
    asked = {"ifeval": "input_data.jsonl", "open_llm_leaderboard": ""}.get(table, "question.jsonl")
    shaping = replace(benchmark, judge=None, baseline=None)
    on_the_hub = benchmark.location == files.HUB
    example = study.backbone(model.backbone).example
    read = example and hashlib.sha256(Path(example).read_bytes()).hexdigest() if Path(example or "").exists() else None
    return [
        *([shaping] if on_the_hub else [replace(shaping, location=""), files.fingerprint(benchmark, asked)]),
        model.server.name if model.server else None,
        *([read] if example is not None else []),
    ]


def _questions(benchmark: Benchmark) -> str:
    return files.fingerprint(benchmark) if Path(benchmark.location).exists() else benchmark.location


def _relation(study: Study, rows: str) -> list[tuple[Any, ...]]:
    """A kind of rows as SQL saw it; ValueError for a column that is no more."""
    frame = sql.study_rows(study, rows)
    columns = BEFORE["columns"].get(rows, frame.columns)
    if missing := set(columns) - set(frame.columns):
        raise ValueError(f"study rows {rows} have no {', '.join(missing)} any more")
    return frame.select(columns).rows()
