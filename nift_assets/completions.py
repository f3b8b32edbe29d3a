"""Asking a teacher for second halves: the requests exactly as the paper sends them, and the answers as rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import polars as pl

from nift_assets.ledger import Answer, Message, Request
from nift_assets.studies.study import Teacher


def requests(teacher: Teacher, halves: pl.DataFrame, *, local_model: str | None = None) -> list[Request]:
    """One request per document: the first half as the only user message, behind the system prompt if there is one.

    Section 3 of the paper sends no instruction ("without any explicit prompts") at temperature 0; Claude alone gets a
    system prompt. `local_model` is the digest of the weights where the teacher is a model on this machine.
    """
    return [
        Request(
            provider=teacher.provider,
            model=f"{teacher.model}@{local_model}" if local_model else teacher.model,
            messages=_messages(teacher, first_half),
            parameters=_parameters(teacher, document_id, second_half),
        )
        for document_id, first_half, second_half in halves.select(
            "document_id", "first_half", "second_half"
        ).iter_rows()
    ]


def rows(teacher: Teacher, halves: pl.DataFrame, answers: Sequence[Answer]) -> pl.DataFrame:
    """One row per document, whatever became of its request."""
    return halves.select("document_id", "sample_rank").with_columns(
        pl.lit(teacher.name).alias("teacher"),
        pl.Series("status", [a.status for a in answers], dtype=pl.String),
        pl.Series("completion", [a.text for a in answers], dtype=pl.String),
        pl.Series("finish_reason", [a.finish_reason for a in answers], dtype=pl.String),
        pl.Series("answered_by", [a.model for a in answers], dtype=pl.String),
        pl.Series("input_tokens", [a.input_tokens for a in answers], dtype=pl.Int64),
        pl.Series("output_tokens", [a.output_tokens for a in answers], dtype=pl.Int64),
        pl.Series("request_key", [a.key for a in answers], dtype=pl.String),
    )


def _messages(teacher: Teacher, first_half: str) -> tuple[Message, ...]:
    system = (Message(role="system", content=teacher.system_prompt),) if teacher.system_prompt else ()
    return (*system, Message(role="user", content=first_half))


def _parameters(teacher: Teacher, document_id: str, second_half: str) -> dict[str, Any]:
    if teacher.provider == "original":
        return {"document": document_id, "second_half": hashlib.sha256(second_half.encode()).hexdigest()}
    parameters = {"temperature": teacher.temperature, "max_tokens": teacher.max_tokens}
    return {name: value for name, value in parameters.items() if value is not None}
