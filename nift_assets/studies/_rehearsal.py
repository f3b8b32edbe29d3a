"""A study scaled down until a machine without a GPU runs it in minutes: its graph with nobody paid and tiny models.

Everything that shapes the graph stays: the rows, their names and what they need, the tables and their cells.
What costs is replaced by the demo's own: teachers and judges that answer by rule, models of two million parameters made
on the spot, articles and benchmark files that come with the project.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from nift_assets import DEMO_FILES
from nift_assets.rows import (
    Adapter,
    Audit,
    Auditor,
    Backbone,
    Benchmark,
    Control,
    Example,
    Model,
    ReferenceSet,
    Task,
    Teacher,
    TrainingSet,
)
from nift_assets.studies import demo
from nift_assets.study import Study
from nift_training.machine import ONE_DEVICE

# However far it is scaled down, something is left to cut, to train on and to judge.
LEAST = 8
WARNING = "A rehearsal's scores mean nothing: the models have two million parameters and the judge is a hash function."
# One pass over few rows; what is answered is short, for most of the time goes into answers.
RECIPE = replace(demo.RECIPE, epochs=1)
TOKENS = 16
TASKS = DEMO_FILES / "benchmarks" / "rehearsal"
# Of no other benchmark questions come with the project, so no other is rehearsed.
OURS = {row.name for row in demo.STUDY.benchmarks}

Asked = TypeVar("Asked", Teacher, Auditor, Control)


def rehearsed(study: Study, scale: int) -> Study:
    """The same study with all sizes divided by `scale`, on the demo's files, models and answers; it costs nothing."""
    assert scale > 0, "sizes are divided by it"
    return replace(
        study,
        name=f"{study.name}-rehearsal",
        title=f"{study.title}: a rehearsal at 1/{scale:,}",
        warning=WARNING,
        budget_usd=None,
        corpus=replace(demo.STUDY.corpus, documents=_scaled(study.corpus.documents, scale)),
        teachers=tuple(_teacher(row, scale) for row in study.teachers),
        training_sets=tuple(_training_set(row, scale) for row in study.training_sets),
        reference_sets=tuple(_reference_set(row) for row in study.reference_sets),
        backbones=tuple(_backbone(row) for row in study.backbones),
        adapters=tuple(_adapter(row) for row in study.adapters),
        models=tuple(_model(study, row) for row in study.models),
        judges=demo.STUDY.judges,
        benchmarks=tuple(_benchmark(row) for row in study.benchmarks if row.name in OURS),
        auditors=tuple(_echoed(row, "audit") for row in study.auditors),
        controls=tuple(
            replace(_echoed(row, "continue"), documents=_scaled(row.documents, scale) or LEAST)
            for row in study.controls
        ),
        audits=tuple(_audit(row, scale) for row in study.audits),
        examples=_examples(study.examples),
        publications=(),  # nothing made up goes where the real thing belongs
    )


def _scaled(size: int | None, scale: int) -> int | None:
    return None if size is None else max(LEAST, size // scale)


def _echoed(row: Asked, model: str) -> Asked:
    """The same row, answered by rule. Everything that only some server needs is left out."""
    return replace(
        row,
        provider="echo",
        model=model,
        max_tokens=120,
        base_url=None,
        key_variable=None,
        api_version=None,
        price=None,
        budget_usd=None,
    )


def _teacher(row: Teacher, scale: int) -> Teacher:
    documents = _scaled(row.documents, scale)
    if row.provider == "original":
        return replace(row, documents=documents)
    return replace(_echoed(row, "continue"), documents=documents, template=None)


def _training_set(row: TrainingSet, scale: int) -> TrainingSet:
    return replace(row, rows=_scaled(row.rows, scale))


def _reference_set(row: ReferenceSet) -> ReferenceSet:
    return replace(demo.STUDY.reference_sets[0], name=row.name)


def _backbone(row: Backbone) -> Backbone:
    example = str(TASKS / "one_shot.json") if row.example else None
    return replace(row, source="pico", revision=None, example=example, threads=1)


def _adapter(row: Adapter) -> Adapter:
    return replace(row, recipe=RECIPE, machine=ONE_DEVICE)


def _model(study: Study, row: Model) -> Model:
    """The same row without its server, on the benchmarks that are rehearsed."""
    measured = None if row.measured_on is None else tuple(name for name in row.measured_on if name in OURS)
    cells = tuple(cell for cell in row.cells if study.benchmark_of(cell.benchmark) in OURS)
    return replace(row, server=None, measured_on=measured, cells=cells)


def _benchmark(row: Benchmark) -> Benchmark:
    """The demo's benchmark of that name, with the study's own tasks on a few questions of ours."""
    ours = demo.STUDY.benchmark(row.name)
    if not row.tasks:
        return replace(ours, max_new_tokens=TOKENS)
    tasks = tuple(Task(name=task.name, metric=task.metric, filter=task.filter, shots=0) for task in row.tasks)
    return replace(ours, location=str(TASKS), tasks=tasks)


def _audit(row: Audit, scale: int) -> Audit:
    return replace(row, documents=_scaled(row.documents, scale) or LEAST)


def _examples(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The same examples, each of another question that there is."""
    file = Path(demo.STUDY.benchmark(Example.BENCHMARK).location, "question.jsonl")
    question_ids = [json.loads(line)["question_id"] for line in file.read_text(encoding="utf-8").splitlines()]
    return tuple(
        replace(example, question_id=question) for example, question in zip(examples, question_ids, strict=False)
    )
