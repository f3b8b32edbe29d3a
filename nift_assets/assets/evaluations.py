"""What each model answers and scores: MT-Bench, Arena-Hard, IFEval and the Open LLM Leaderboard, or any of them.

One process loads a model once for all the benchmarks that are asked for: a 70B model is read from disk for minutes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets import environment
from nift_assets.assets.merged_models import clean_up, weights
from nift_assets.benchmarks import files
from nift_assets.rows import Benchmark, Model, Server, digest, without_places
from nift_assets.steps import process
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Partition
from nift_assets.steps.table import Made, table
from nift_assets.study import Study
from nift_training import evaluate
from nift_training.artifacts import read_rows

ASKED = {
    "mt_bench_answers": "mt_bench",
    "arena_hard_answers": "arena_hard",
    "ifeval": "ifeval",
    "open_llm_leaderboard": "open_llm_leaderboard",
}
"""Which benchmark each table answers."""

Rows = list[dict[str, Any]]


def mt_bench_answers(benchmark: Benchmark, model: str, rows: Rows) -> Made:
    """One row per question × run × turn."""
    categories = {q["question_id"]: q["category"] for q in files.rows(benchmark, "question.jsonl")}
    return Made(
        pl.DataFrame(
            {
                "model": model,
                "question_id": row["question_id"],
                "category": categories[row["question_id"]],
                "run": row["run"],
                "turn": turn,
                "answer": text,
                "tokens": tokens,
                "stopped": stopped,
            }
            for row in rows
            for turn, (text, tokens, stopped) in enumerate(
                zip(row["turns"], row["tokens"], row["stopped"], strict=True), start=1
            )
        )
    )


def arena_hard_answers(benchmark: Benchmark, model: str, rows: Rows) -> Made:
    """One row per question."""
    frame = pl.DataFrame(
        {
            "model": model,
            "question_id": row["question_id"],
            "answer": row["turns"][0],
            "tokens": row["tokens"][0],
            "stopped": row["stopped"][0],
        }
        for row in rows
    )
    return Made(frame, metadata={"mean_tokens": frame["tokens"].mean()})


def ifeval(benchmark: Benchmark, model: str, rows: Rows) -> Made:
    """One row per prompt."""
    frame = pl.DataFrame(
        {
            "model": model,
            **row,
            "instructions": len(row["strict"]),
            "instructions_followed_strict": sum(row["strict"]),
            "instructions_followed_loose": sum(row["loose"]),
            "prompt_strict": all(row["strict"]),
            "prompt_loose": all(row["loose"]),
        }
        for row in rows
    )
    return Made(frame, metadata={"prompts_followed": int(frame["prompt_strict"].sum())})


def open_llm_leaderboard(benchmark: Benchmark, model: str, rows: Rows) -> Made:
    """One row per task: the metric that counts. ValueError for a task that lm-eval gave another metric for."""
    for task in benchmark.tasks:
        given = [(row["metric"], row["filter"]) for row in rows if row["task"] == task.name]
        if (task.metric, task.filter) not in given:
            raise ValueError(f"lm-eval gave {given} for {task.name}, not {task.metric}, {task.filter}; mend the row")
    return Made(
        pl.DataFrame(
            {
                "model": model,
                "task": task.name,
                "metric": task.metric,
                "filter": task.filter,
                "shots": task.shots,
                "score": row["value"] * 100,
                "stderr": None if row["stderr"] is None else row["stderr"] * 100,
                "samples": row["samples"],
            }
            for task in benchmark.tasks
            for row in rows
            if (row["task"], row["metric"], row["filter"]) == (task.name, task.metric, task.filter)
        )
    )


OPTIONS: dict[str, Callable[[Benchmark], dict[str, object]]] = {
    "mt_bench_answers": lambda benchmark: {
        "mt_bench": files.path_of(benchmark, "question.jsonl"),
        "mt_bench_runs": benchmark.runs,
        "mt_bench_tokens": benchmark.max_new_tokens,
    },
    "arena_hard_answers": lambda benchmark: {
        "arena_hard": files.path_of(benchmark, "question.jsonl"),
        "arena_hard_tokens": benchmark.max_new_tokens,
    },
    "ifeval": lambda benchmark: {
        "ifeval": files.path_of(benchmark, "input_data.jsonl"),
        "ifeval_tokens": benchmark.max_new_tokens,
    },
    "open_llm_leaderboard": lambda benchmark: {
        "tasks_folder": None if benchmark.location == files.HUB else files.path_of(benchmark),
        "tasks": ",".join(f"{task.name}:{task.shots}" for task in benchmark.tasks),
    },
}
"""What the process is told for each table."""

FILES: dict[str, tuple[str, Callable[[Benchmark, str, Rows], Made]]] = {
    "mt_bench_answers": ("mt_bench.jsonl", mt_bench_answers),
    "arena_hard_answers": ("arena_hard.jsonl", arena_hard_answers),
    "ifeval": ("ifeval.jsonl", ifeval),
    "open_llm_leaderboard": ("leaderboard.jsonl", open_llm_leaderboard),
}
"""What the process writes for each table, and how it becomes one."""


def _what_shapes(study: Study, table: str) -> tuple[Any, ...]:
    """What the answers depend on besides the model: not who judges them, nor what they are compared with, nor where
    the files lie."""
    benchmark = without_places(replace(study.benchmark(ASKED[table]), judge=None, baseline=None))
    if benchmark.location == files.HUB:
        return (benchmark,)
    asked = {"ifeval": "input_data.jsonl", "open_llm_leaderboard": ""}.get(table, "question.jsonl")
    return benchmark, files.fingerprint(study.benchmark(ASKED[table]), asked)


def _example_of(study: Study, model: str) -> tuple[str | None, ...]:
    """The digest of the example its template opens with, None without the file; nothing for a template without one."""
    if (example := study.backbone(study.model(model).backbone).example) is None:
        return ()
    return (hashlib.sha256(Path(example).read_bytes()).hexdigest() if Path(example).exists() else None,)


def _server(model: Model) -> Server | None:
    """Who answers instead of the weights: the server of the model's row, or `NIFT_SERVER` for all models."""
    if model.server is None and (url := environment.server()):
        return Server(url=url, name=model.name, key_variable=environment.server_key_variable())
    return model.server


def _served_as(study: Study, model: str) -> str | None:
    """What a server calls the model, where its row names one; on which machine it stands shapes no answer."""
    server = study.model(model).server
    return server.name if server else None


def _model(context: Context, model: Mapping[str, Any], wanted: Sequence[str], server: bool) -> Path:
    """The folder to read: of a model that a server holds only the tokenizer, which a merge takes over unchanged.

    The leaderboard needs probabilities, and so the weights in any case.
    """
    if server and "open_llm_leaderboard" not in wanted:
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
    wanted = [table for table in FILES if context.graph.partitions.is_wanted(table, key)]
    if all(context.graph.is_current(context.store, Partition(table, key)) for table in wanted):
        clean_up(context, frames["merged_models"].row(0, named=True))


@table(
    *FILES,
    group="benchmarks",
    kinds={"pytorch", "python"},
    inputs=("merged_models",),
    source=lambda study: {table: files.source(study.benchmark(name)) for table, name in ASKED.items()},
    by="model",
    rows=lambda study, key, table: (
        *_what_shapes(study, table),
        _served_as(study, key),
        *_example_of(study, key),
    ),
    version=1,
    pool="gpu",
    any_of=True,
    afterwards=_free_when_answered,
)
def evaluations(context: Context, wanted: Sequence[str], merged_models: pl.DataFrame) -> dict[str, Made]:
    model = merged_models.row(0, named=True)
    study = context.study
    server = _server(study.model(model["model"]))
    options = {name: value for table in wanted for name, value in OPTIONS[table](study.benchmark(ASKED[table])).items()}
    store, key = context.store, str(model["model"])
    shape = digest(
        model["digest"],
        model["template"],
        server,
        *_example_of(study, key),
        *(_what_shapes(study, table) for table in FILES),
    )
    with process.unfinished(store, f"evaluations-{key}", shape) as out:
        process.run(
            context,
            evaluate,
            out=out,
            model=_model(context, model, wanted, server=server is not None),
            template=model["template"],
            example=study.backbone(model["backbone"]).example,
            threads=study.backbone(model["backbone"]).threads,
            server=server and server.url,
            server_model=server and server.name,
            server_key_variable=server and server.key_variable,
            server_adapter=_adapter(context, model) if server else None,
            **options,
        )
        written = {table: read_rows(out / FILES[table][0]) for table in wanted}
    return {
        table: FILES[table][1](study.benchmark(ASKED[table]), model["model"], rows) for table, rows in written.items()
    }
