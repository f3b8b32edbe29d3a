"""Prompt/response pairs as the paper's trainer saw them: read, tokenised, masked and cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nift_training import artifacts

COLUMNS = ("prompt", "response")


@dataclass(frozen=True)
class Pair:
    """One training example in text."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Example:
    """One training example in token ids: the prompt gives no loss, every id of the response does."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)


def read(path: Path) -> list[Pair]:
    """The pairs of a .jsonl or .parquet file with the columns `prompt` and `response`, in its order."""
    rows = _read_parquet(path) if path.suffix == ".parquet" else artifacts.read_rows(path)
    if not rows:
        raise ValueError(f"{path} has no rows: nothing to train on")
    for number, row in enumerate(rows, start=1):
        for column in COLUMNS:
            if not isinstance(row.get(column), str):
                raise ValueError(f"{path} row {number} has no text in {column!r}: give {' and '.join(COLUMNS)}")
    return [Pair(row["prompt"], row["response"]) for row in rows]


def encode(tokenizer: Any, pair: Pair, cutoff: int) -> Example:
    """The pair in token ids: prompt ++ response ++ end-of-sequence, and nothing else.

    LLaMA-Factory 0.5.2's `vanilla` template: the two are tokenised apart, with nothing between them and no
    begin-of-text in front.
    """
    prompt = tokenizer(pair.prompt, add_special_tokens=False)["input_ids"]
    response = tokenizer(pair.response, add_special_tokens=False)["input_ids"]
    return cut(prompt, [*response, tokenizer.eos_token_id], cutoff)


def cut(prompt: Sequence[int], response: Sequence[int], cutoff: int) -> Example:
    """The example cut to `cutoff` tokens, each side from its right and in proportion to its length.

    1500 + 900 tokens at 1024 become 640 + 384: the prompt loses the text next to the response, the response its
    end-of-sequence. So LLaMA-Factory 0.5.2 does (`data/utils.py:42-46`); the response keeps at least one token.
    """
    if len(prompt) + len(response) <= cutoff:
        return Example(tuple(prompt), tuple(response))
    kept = max(cutoff * len(response) // (len(prompt) + len(response)), 1)
    return Example(tuple(prompt[: cutoff - kept]), tuple(response[:kept]))


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    if missing := set(COLUMNS) - set(table.column_names):
        raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}: it has {table.column_names}")
    rows: list[dict[str, Any]] = table.select(COLUMNS).to_pylist()
    return rows
