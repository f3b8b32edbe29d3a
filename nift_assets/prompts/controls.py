"""Texts whose verdicts are known beforehand: one prompt drawn many times (Random Article, Random Conversation)."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from nift_assets import providers
from nift_assets.protocol import Answer, Request
from nift_assets.rows import Control


def requests(control: Control) -> list[Request]:
    """One request per text; the number of the draw is all that tells them apart."""
    return [providers.request(control, control.prompt, draw=draw) for draw in range(control.documents)]


def rows(control: Control, requests: Sequence[Request], answers: Sequence[Answer]) -> pl.DataFrame:
    """One row per text, whatever became of its request."""
    draws = [request.draw for request in requests]
    return pl.DataFrame(
        {
            "document_id": pl.Series([f"{control.name}-{draw:05}" for draw in draws], dtype=pl.String),
            "control": pl.Series([control.name] * len(draws), dtype=pl.String),
            "draw": pl.Series(draws, dtype=pl.Int64),
            "status": pl.Series([a.status for a in answers], dtype=pl.String),
            "text": pl.Series([a.text for a in answers], dtype=pl.String),
            "finish_reason": pl.Series([a.finish_reason for a in answers], dtype=pl.String),
            "answered_by": pl.Series([a.model for a in answers], dtype=pl.String),
            "temperature": pl.Series([r.parameters.get("temperature") for r in requests], dtype=pl.Float64),
            "input_tokens": pl.Series([a.input_tokens for a in answers], dtype=pl.Int64),
            "output_tokens": pl.Series([a.output_tokens for a in answers], dtype=pl.Int64),
            "request_key": pl.Series([a.key for a in answers], dtype=pl.String),
        }
    )
