"""Training sets as files that other trainers read as they are; `make readers` tries three of them.

`alpaca.jsonl` is what the paper trained on: instruction and output, no input. `messages.jsonl` holds the same pairs as
chats of two messages. `dataset_info.json` tells LLaMA-Factory of both (`--dataset_dir` is the folder), the head of
`README.md` tells `datasets.load_dataset`, with which TRL and axolotl read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from expectations.frames import Rows, Table

ALPACA, MESSAGES = "alpaca.jsonl", "messages.jsonl"
ROWS_AT_A_TIME = 5_000


def write(folder: Path, name: str, pairs: Table) -> int:
    """The files of one training set into an empty folder, a line per row of `pairs` (`prompt`, `response`), which need
    not fit into memory; how many rows there are."""
    with Rows(pairs) as rows:
        _write(folder, name, rows)
        return rows.height


def _write(folder: Path, name: str, pairs: Rows) -> None:
    _write_lines(
        folder / ALPACA,
        pairs,
        {"instruction": pl.col("prompt"), "input": pl.lit(""), "output": pl.col("response")},
    )
    _write_lines(
        folder / MESSAGES,
        pairs,
        {"messages": pl.concat_list(_message("user", "prompt"), _message("assistant", "response"))},
    )
    (folder / "dataset_info.json").write_text(json.dumps(dataset_info(name), indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(name, pairs.height), encoding="utf-8")


def dataset_info(name: str) -> dict[str, object]:
    """The two entries of LLaMA-Factory's list of data sets: `<name>` for Alpaca rows, `<name>-messages` for chats."""
    return {
        name: {
            "file_name": ALPACA,
            "formatting": "alpaca",
            "columns": {"prompt": "instruction", "query": "input", "response": "output"},
        },
        f"{name}-messages": {
            "file_name": MESSAGES,
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        },
    }


def _message(role: str, column: str) -> pl.Expr:
    return pl.struct(pl.lit(role).alias("role"), pl.col(column).alias("content"))


def _write_lines(path: Path, pairs: Rows, columns: Mapping[str, pl.Expr]) -> None:
    with path.open("wb") as file:
        for start in range(0, pairs.height, ROWS_AT_A_TIME):
            pairs.between(start, start + ROWS_AT_A_TIME).select(**columns).write_ndjson(file)


def _card(name: str, rows: int) -> str:
    return f"""---
configs:
- config_name: alpaca
  data_files: {ALPACA}
- config_name: messages
  data_files: {MESSAGES}
---
The training set {name}: {rows:,} prompt/response pairs, once as Alpaca rows and once as chats.
"""
