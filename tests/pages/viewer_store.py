"""A small study as it lies on the disk, with texts that try to be more than text, for the tests of the viewer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from starlette.applications import Starlette

from dagster_project.ui.gate import Gate
from dagster_project.ui.look import Look
from expectations import contract
from expectations.frames import schema
from nift_assets import benchmarks, studies, table_files
from nift_assets.store import Store, place, replacing
from nift_assets.table_files import version_of
from tests.page_reader import PAYLOADS

DEMO = studies.load("demo")
MODELS = ("pico", "pico-instruct")
ARABIC, CHINESE = "مرحبا بالعالم. هذا نص طويل", "今天天气很好，我们去公园散步。"
DOCUMENTS = 60
DEFAULTS: Mapping[Any, Any] = {pl.String: "", pl.Int64: 1, pl.Float64: 1.0, pl.Boolean: True}


def texts(number: int) -> tuple[str, str, str]:
    """Of a document its two halves and what a teacher wrote."""
    written = [*PAYLOADS, ARABIC, CHINESE, "plain  text\twith\nlines", "Élan ÉCOLE straße"]
    return tuple(f"{written[(number + step) % len(written)]} {step}-{number}" for step in range(3))  # type: ignore[return-value]


def document(number: int) -> str:
    return f"{number:032x}"


def frame(table: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """A table of the columns of its contract; what a row does not say is any value of the type."""
    columns = schema(contract.load(table))
    default = {name: DEFAULTS.get(kind, []) for name, kind in columns.items()}
    return pl.DataFrame([default | row for row in rows], schema=columns)


def write(store: Store, table: str, partition: str | None, rows: pl.DataFrame) -> Path:
    """A table as the store writes it, without the catalogue, which nobody reads here."""
    path = store.path(table, partition)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        table_files.write_frame(file, rows, version_of(rows, "made from this"), place(table, partition))
    return path


def filled(root: str, documents: int = DOCUMENTS) -> Store:
    """A store in which every view has something to show."""
    store = Store(root=root, study=DEMO.name)
    numbers = range(documents)
    halves = [
        {
            "document_id": document(n), "sample_rank": n, "words": 10 + n, "cut": 5,
            "first_half": texts(n)[0], "second_half": texts(n)[1],
        }
        for n in numbers
    ]  # fmt: skip
    write(store, "halves", None, frame("halves", halves))
    for teacher in ("original", "echo"):
        rows = [
            {
                "document_id": document(n), "sample_rank": n, "teacher": teacher,
                "status": "ok" if n % 5 else "refused", "completion": texts(n)[2] if n % 5 else "",
                "finish_reason": "stop", "thoughts": None, "detail": None, "input_tokens": 10, "output_tokens": n,
                "request_key": f"{n:064x}",
            }
            for n in numbers
        ]  # fmt: skip
        write(store, "completions", teacher, frame("completions", rows))
    removed = [
        {
            "document_id": document(n), "teacher": "echo", "sample_rank": n, "filter": "uppercase_start",
            "reason": "begins a new thought", "completion": texts(n)[2],
        }
        for n in (1, 2, 3)
    ]  # fmt: skip
    write(store, "uppercase_start_removals", "echo", frame("uppercase_start_removals", removed))
    kept = [
        {"document_id": document(n), "teacher": "echo", "sample_rank": n, "completion": texts(n)[2]} for n in (4, 6)
    ]
    write(store, "filtered_completions", "echo", frame("filtered_completions", kept))
    rejected = [
        {"document_id": document(n), "teacher": "echo", "sample_rank": n, "reason": "refused", "completion": ""}
        for n in numbers
        if not n % 5
    ]
    write(store, "completion_rejects", "echo", frame("completion_rejects", rejected))
    audited = [
        {
            "document_id": document(n), "attack": None, "question": question, "source": "original", "kind": "teacher",
            "auditor": "an-auditor", "status": "ok", "verdict": verdict, "answer": f"{verdict}, because {PAYLOADS[0]}",
        }
        for n in (1, 2)
        for question, verdict in (("instruction", "no"), ("dialogue", "yes" if n == 1 else "no"))
    ]  # fmt: skip
    write(store, "content_audit", "original", frame("content_audit", audited))
    for row in DEMO.benchmarks:
        if benchmarks.is_judged(row.name):
            _answer(store, row.name)
    refused = frame("completions", [{"document_id": document(7), "teacher": "echo", "completion": PAYLOADS[1]}])
    failing = store.folder(".failing", "completions", "echo", "few_are_refused.parquet")
    failing.parent.mkdir(parents=True)
    with failing.open("wb") as file:
        refused.write_parquet(file)
    return store


def _answer(store: Store, benchmark: str) -> None:
    asked = dict(benchmarks.load(benchmark).questions(DEMO.benchmark(benchmark)))
    for model in MODELS:
        table = benchmarks.answers_table(benchmark)
        kind = schema(contract.load(table))["question_id"]
        names = [int(name) if kind == pl.Int64 else name for name in list(asked)[:3]]
        rows = [{"question_id": n, "model": model, "answer": f"{model} says {PAYLOADS[1]}", "run": 0} for n in names]
        given = schema(contract.load(table))
        rows = [{key: value for key, value in row.items() if key in given} for row in rows]
        write(store, table, model, frame(table, rows))
        table = benchmarks.results_table(benchmark)
        given = schema(contract.load(table))
        rows = [{"question_id": n, "model": model, "judgment": f"judged {PAYLOADS[2]}", "run": 0} for n in names]
        rows = [{key: value for key, value in row.items() if key in given} for row in rows]
        write(store, table, model, frame(table, rows))


def application(store: Store, token: str | None = None) -> Gate:
    """The viewer behind the gate, as `nift look` serves it."""
    return Gate(Starlette(routes=Look(lambda: DEMO, store.root).routes()), names=("testserver",), token=token)
