"""A study's tables small enough to say of each row what became of it, as a run stores them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from expectations import contract
from nift_assets.store import Store
from nift_assets.table_files import version_of

TEACHER = "echo"
SET = "echo-filtered"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document, what the teacher wrote of it, and what the filter `short` says of that."""

    id: str
    answer: str = "and so it went on."
    status: str = "ok"
    first_half: str = "Once upon a time"
    found: str | None = None
    temperature: float | None = None
    is_asked: bool = True


@dataclass(frozen=True, kw_only=True)
class SmallStudy:
    """The documents of a sample in order; whether the filter drops; which prompts each model follows."""

    documents: Sequence[Document]
    drops: bool = True
    most: int | None = None
    followed: Mapping[str, Sequence[bool]] = field(default_factory=dict)


class WithoutCatalogue(Store):
    """A store of many tables that are written at once: the catalogue is made when all of them are there."""

    def refresh_catalogue(self) -> None:
        pass


def store(root: Path, study: SmallStudy, name: str = "small") -> Store:
    """Stores every table of it under a root."""
    to = WithoutCatalogue(root=str(root), study=name)
    ranked = [(rank, row) for rank, row in enumerate(study.documents)]
    asked = [(rank, row) for rank, row in ranked if row.is_asked]
    kept = [(rank, row) for rank, row in asked if row.status == "ok" and not (study.drops and row.found)]
    write(
        to, "raw_sample", None, [{"document_id": row.id, "sample_rank": rank, "text": row.id} for rank, row in ranked]
    )
    halves = [
        {"document_id": row.id, "sample_rank": rank, "first_half": row.first_half, "second_half": ""}
        for rank, row in ranked
    ]
    write(to, "halves", None, halves)
    completions = [
        {
            **_row(rank, row),
            "status": row.status,
            "completion": row.answer,
            "temperature": row.temperature,
            "request_key": f"{row.id} {row.answer}",
        }
        for rank, row in asked
    ]
    write(to, "completions", TEACHER, completions)
    found = [
        {**_row(rank, row), "filter": "short", "reason": row.found, "completion": row.answer}
        for rank, row in asked
        if row.found
    ]
    write(to, "short_removals", TEACHER, found)
    write(to, "filtered_completions", TEACHER, [{**_row(rank, row), "completion": row.answer} for rank, row in kept])
    pairs = [
        {**_row(rank, row), "training_set": SET, "prompt": row.first_half, "response": row.answer}
        for rank, row in kept[: study.most]
    ]
    write(to, "training_sets", SET, pairs)
    funnel = [
        {"teacher": TEACHER, "place": 1, "step": "asked", "is_filter": False, "drops": True, "kept": len(asked)},
        {
            "teacher": TEACHER,
            "place": 2,
            "step": "short",
            "is_filter": True,
            "drops": study.drops,
            "flagged": len(found),
            "kept": len(kept),
        },
    ]
    write(to, "funnel", None, funnel)
    for model, followed in study.followed.items():
        write(to, "ifeval", model, [_prompt(model, key, value) for key, value in enumerate(followed)])
    stored = Store(root=str(root), study=name)
    stored.refresh_catalogue()
    return stored


def write(
    to: Store,
    table: str,
    partition: str | None,
    rows: Sequence[Mapping[str, Any]],
    without: Collection[str] = (),
) -> None:
    """Stores rows with all columns of the table's contract but some; what is not said of a row is null."""
    columns = contract.load(table).columns
    schema = {column.name: column.dtype for column in columns if column.name not in without}
    frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema, orient="row")
    to.write(table, partition, frame, version_of(frame, inputs="made here"))


def _row(rank: int, row: Document) -> dict[str, Any]:
    return {"document_id": row.id, "teacher": TEACHER, "sample_rank": rank}


def _prompt(model: str, key: int, followed: bool) -> dict[str, Any]:
    number = int(followed)
    counts = {"instructions_followed_strict": number, "instructions_followed_loose": number}
    return {"key": key, "model": model, "instructions": 1, **counts}
