"""Asking a teacher for second halves: the requests exactly as the paper sends them, and the answers as rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import overload

import polars as pl

from expectations.frames import Rows
from nift_assets import environment, providers
from nift_assets.protocol import Answer, Request
from nift_assets.rows import Teacher
from nift_training import templates

# What is asked and read together, unless NIFT_PORTION says otherwise: of articles some 25 MB.
DOCUMENTS_AT_ONCE = 5_000
# So many characters in a row, taken over word for word, are no accident.
ECHO = 60


def requests(teacher: Teacher, halves: pl.DataFrame, *, local_model: str | None = None) -> list[Request]:
    """One request per document: the first half as the only user message, behind the system prompt if there is one.

    Section 3 of the paper sends no instruction ("without any explicit prompts") at temperature 0; Claude alone gets a
    system prompt, and a local chat model its template. `local_model` is the digest of the weights where the teacher is
    a model on this machine.
    """
    asked = f"{teacher.model}@{local_model}" if local_model else None
    documents = halves.head(teacher.documents or halves.height)
    names_document = providers.load(teacher.provider).ANSWERS_FROM == "document"
    return [
        providers.request(
            teacher,
            templates.render(teacher.template, [first_half]) if teacher.template else first_half,
            asked=asked,
            parameters=_document(document_id, second_half) if names_document else None,
        )
        for document_id, first_half, second_half in documents.select(
            "document_id", "first_half", "second_half"
        ).iter_rows()
    ]


class Requests(Sequence[Sequence[Request]]):
    """The requests about a table of halves by portions of documents, each made when it is asked for."""

    def __init__(self, teacher: Teacher, halves: Rows, *, local_model: str | None = None) -> None:
        self._teacher, self._halves, self._local_model = teacher, halves, local_model
        self._count = min(teacher.documents or halves.height, halves.height)
        self._size = environment.portion() or DOCUMENTS_AT_ONCE
        self._last: tuple[int, pl.DataFrame] | None = None
        self._second_halves: tuple[int, dict[str, str]] | None = None

    @property
    def total(self) -> int:
        """How many requests all portions have together."""
        return self._count

    def __len__(self) -> int:
        """There is one, though it may be empty."""
        return max(1, math.ceil(self._count / self._size))

    @overload
    def __getitem__(self, number: int) -> Sequence[Request]: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Sequence[Request]]: ...
    def __getitem__(self, number: int | slice) -> Sequence[Request] | Sequence[Sequence[Request]]:
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        return requests(self._teacher, self.documents(number), local_model=self._local_model)

    def documents(self, number: int) -> pl.DataFrame:
        """The documents of a portion."""
        if self._last is None or self._last[0] != number:
            start = number * self._size
            self._last = number, self._halves.between(start, min(start + self._size, self._count))
        return self._last[1]

    def second_half(self, document_id: str) -> str:
        """The author's own continuation of a document of the portion whose requests were made last."""
        assert self._last is not None, "no request was made"
        number, documents = self._last
        if self._second_halves is None or self._second_halves[0] != number:
            self._second_halves = number, dict(documents.select("document_id", "second_half").iter_rows())
        return self._second_halves[1][document_id]


def rows(
    teacher: Teacher, halves: pl.DataFrame, requests: Sequence[Request], answers: Sequence[Answer]
) -> pl.DataFrame:
    """One row per document, whatever became of its request, with what was really sent."""
    documents = halves.head(teacher.documents or halves.height)
    return documents.select("document_id", "sample_rank").with_columns(
        pl.lit(teacher.name).alias("teacher"),
        pl.Series("status", [a.status for a in answers], dtype=pl.String),
        pl.Series("completion", [a.text for a in answers], dtype=pl.String),
        pl.Series("thoughts", [a.thoughts for a in answers], dtype=pl.String),
        pl.Series("finish_reason", [a.finish_reason for a in answers], dtype=pl.String),
        pl.Series("answered_by", [a.model for a in answers], dtype=pl.String),
        pl.Series("fingerprint", [a.fingerprint for a in answers], dtype=pl.String),
        pl.Series("detail", [a.detail for a in answers], dtype=pl.String),
        pl.Series("echoes_prompt", _echoes(documents["first_half"], answers), dtype=pl.Boolean),
        pl.Series("system_prompt", [_system_prompt(r) for r in requests], dtype=pl.String),
        pl.Series("temperature", [r.parameters.get("temperature") for r in requests], dtype=pl.Float64),
        pl.Series("max_tokens", [r.parameters.get(teacher.max_tokens_name) for r in requests], dtype=pl.Int64),
        pl.Series("api_version", [r.api_version for r in requests], dtype=pl.String),
        pl.Series("input_tokens", [a.input_tokens for a in answers], dtype=pl.Int64),
        pl.Series("output_tokens", [a.output_tokens for a in answers], dtype=pl.Int64),
        pl.Series("request_key", [a.key for a in answers], dtype=pl.String),
    )


def _echoes(first_halves: Iterable[str], answers: Sequence[Answer]) -> list[bool]:
    """Whether each answer begins with a stretch of what was sent, white space aside."""
    return [
        len(start := " ".join(answer.text[: 3 * ECHO].split())[:ECHO]) == ECHO and start in " ".join(half.split())
        for half, answer in zip(first_halves, answers, strict=True)
    ]


def _system_prompt(request: Request) -> str | None:
    return next((message.content for message in request.messages if message.role == "system"), None)


def _document(document_id: str, second_half: str) -> dict[str, str]:
    return {"document": document_id, "second_half": hashlib.sha256(second_half.encode()).hexdigest()}
