"""What each model answers: a table of each benchmark of the study, or of any of them.

One process loads a model once for all the benchmarks that are asked for: a 70B model is read from disk for minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl

from nift_assets import benchmarks, environment
from nift_assets.assets.merged_models import clean_up, weights
from nift_assets.benchmarks.scoring import files
from nift_assets.rows import Benchmark, Model, Server, digest, without_places
from nift_assets.steps import process
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Partition
from nift_assets.steps.table import Declaration, TableOutput, table
from nift_assets.study import Study
from nift_training import evaluate
from nift_training.artifacts import read_rows, sha256

RunnerRows = Sequence[Mapping[str, Any]]


def steps(study: Study) -> list[Declaration]:
    """The one step that has all benchmarks of the study answered, none where it has no benchmark."""
    return [declare(tuple(row.name for row in study.benchmarks))] if study.benchmarks else []


def declare(names: Sequence[str]) -> Declaration:
    """The step that has some benchmarks answered, or any of them."""
    asked = {benchmarks.answers_table(name): name for name in names}

    @table(
        *asked,
        group="benchmarks",
        kinds={"pytorch", "python"},
        inputs=("merged_models",),
        source=lambda study: {table: files.source(study.benchmark(name)) for table, name in asked.items()},
        by="model",
        rows=lambda study, key, table: (
            *_what_shapes(study.benchmark(asked[table])),
            _served_as(study, key),
            *_example_of(study, key),
        ),
        version=1,
        plugins=lambda study, key, table: (
            benchmarks.load(asked[table]).options,
            benchmarks.load(asked[table]).answers,
        ),
        pool="gpu",
        any_of=True,
        afterwards=_free_when_answered,
    )
    def evaluations(context: Context, wanted: Sequence[str], merged_models: pl.DataFrame) -> dict[str, TableOutput]:
        rows = {table: context.study.benchmark(asked[table]) for table in wanted}
        return answered(context, merged_models.row(0, named=True), rows)

    return evaluations


def answered(context: Context, model: Mapping[str, Any], wanted: Mapping[str, Benchmark]) -> dict[str, TableOutput]:
    """What a model answers on some benchmarks, by their tables, from one process."""
    study = context.study
    server = _server(study.model(model["model"]))
    store, key = context.store, str(model["model"])
    shape = digest(
        model["digest"],
        model["template"],
        server,
        *_example_of(study, key),
        *map(_what_shapes, study.benchmarks),
    )
    with process.unfinished(store, f"evaluations-{key}", shape) as out:
        process.run(
            context,
            evaluate,
            out=out,
            model=_model(context, model, list(wanted.values()), server=server is not None),
            template=model["template"],
            example=study.backbone(model["backbone"]).example,
            threads=study.backbone(model["backbone"]).threads,
            server=server and server.url,
            server_model=server and server.name,
            server_key_variable=server and server.key_variable,
            server_adapter=_adapter(context, model) if server else None,
            **_options(list(wanted.values())),
        )
        written = {table: read_rows(out / _written(row)) for table, row in wanted.items()}
    return {table: _answers(wanted[table], key, rows) for table, rows in written.items()}


def _written(row: Benchmark) -> str:
    """The file that the process writes for a benchmark."""
    runner = benchmarks.load(row.name).RUNNER
    return f"{row.name if runner == 'conversations' else runner}.jsonl"


def _options(rows: Sequence[Benchmark]) -> dict[str, object]:
    """What the process is told for some benchmarks; what may be told several times is put together."""
    options: dict[str, object] = {}
    for row in rows:
        for name, value in benchmarks.load(row.name).options(row).items():
            before = options.get(name)
            options[name] = (*before, *value) if isinstance(before, tuple) and isinstance(value, tuple) else value
    return options


def _answers(row: Benchmark, model: str, rows: RunnerRows) -> TableOutput:
    table = benchmarks.load(row.name).answers(row, model, rows)
    return TableOutput(table.rows, metadata=table.metadata)


def _what_shapes(row: Benchmark) -> tuple[Any, ...]:
    """What the answers depend on besides the model: not who judges them, nor what they are compared with, nor where
    the files lie."""
    asked = without_places(replace(row, judge=None, baseline=None))
    if row.location == files.HUB:
        return (asked,)
    return asked, files.fingerprint(row, benchmarks.load(row.name).ASKED)


def _example_of(study: Study, model: str) -> tuple[str | None, ...]:
    """The digest of the example its template opens with, None without the file; nothing for a template without one."""
    if (example := study.backbone(study.model(model).backbone).example) is None:
        return ()
    return (sha256(Path(example)) if Path(example).exists() else None,)


def _server(model: Model) -> Server | None:
    """Who answers instead of the weights: the server of the model's row, or `NIFT_SERVER` for all models."""
    server = model.server
    if server is None and (url := environment.server()):
        server = Server(url=url, name=model.name, key_variable=environment.server_key_variable())
    if server and "@" in urlsplit(server.url).netloc:
        raise ValueError(
            f"the server of {model.name!r} has a password in its address, which every account of this machine could "
            "read in a list of processes: put it into a variable, and name that as key_variable"
        )
    return server


def _served_as(study: Study, model: str) -> str | None:
    """What a server calls the model, where its row names one; on which machine it stands shapes no answer."""
    server = study.model(model).server
    return server.name if server else None


def _model(context: Context, model: Mapping[str, Any], wanted: Sequence[Benchmark], server: bool) -> Path:
    """The folder to read: of a model that a server holds only the tokenizer, which a merge takes over unchanged.

    lm-eval's tasks need probabilities, and so the weights in any case.
    """
    if server and all(benchmarks.load(row.name).RUNNER != "leaderboard" for row in wanted):
        store = context.store
        return store.folder(store.read("backbones", model["backbone"])["folder"][0])
    return weights(context, model)


def _adapter(context: Context, model: Mapping[str, Any]) -> Path | None:
    """The adapter's own folder, for a server that lays it over the base."""
    if model["adapter"] is None:
        return None
    store = context.store
    return store.folder(store.read("lora_adapters", model["adapter"])["folder"][0])


def _free_when_answered(context: Context, frames: Mapping[str, pl.DataFrame]) -> None:
    """Gives back the disk of merged weights once the table of every benchmark the model is measured on is stored and
    none is older than they are."""
    key = context.key
    asked = [benchmarks.answers_table(name) for name in context.study.measured_on(context.study.model(str(key)))]
    if all(context.graph.is_current(context.store, Partition(table, key)) for table in asked):
        clean_up(context, frames["merged_models"].row(0, named=True))
