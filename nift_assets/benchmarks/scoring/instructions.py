"""Prompts with instructions that a program can check: which of them were followed, and what that comes to.

The rules are those of IFEval: strict takes a response as it is, loose the best of eight readings of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets.benchmarks.scoring import answers as candidates
from nift_assets.benchmarks.scoring import json_lines, resampling, scores
from nift_assets.benchmarks.scoring.interface import BenchmarkTable
from nift_assets.benchmarks.scoring.scores import Measured

# For each row with a `response`: `strict` and `loose`, one verdict per instruction.
Check = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Sequence[bool]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How many instructions of a prompt there are, and how many were followed, strictly and loosely taken."""

    key: str
    instructions: int
    strict: int
    loose: int


def table(model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
    """One row per prompt with its verdicts and how many of them are good."""
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
    return BenchmarkTable(frame, {"prompts_followed": int(frame["prompt_strict"].sum())})


def of_table(model: str, measure: str, checked: pl.DataFrame) -> Measured:
    """The score of our own table of checked prompts."""
    columns = ("key", "instructions", "instructions_followed_strict", "instructions_followed_loose")
    followed = [
        Followed(key=json_lines.identity(key), instructions=number, strict=strict, loose=loose)
        for key, number, strict, loose in checked.select(columns).iter_rows()
    ]
    return measured(model, measure, followed, expected=checked.height)


def measured(
    model: str, measure: str, followed: Sequence[Followed], *, expected: int, counts: Mapping[str, int] | None = None
) -> Measured:
    """The mean of prompt-level and instruction-level strict accuracy in percent, and all four accuracies."""
    prompts, instructions = len(followed), sum(one.instructions for one in followed)
    parts: dict[str, float | None] = {}
    for kind in ("strict", "loose"):
        good = [getattr(one, kind) for one in followed]
        whole = sum(number == one.instructions for number, one in zip(good, followed, strict=True))
        parts[f"prompt {kind}"] = 100 * whole / prompts
        parts[f"instruction {kind}"] = 100 * sum(good) / instructions
    sample = resampling.sample(
        [
            {one.key: (100.0 * (one.strict == one.instructions), 1.0) for one in followed},
            {one.key: (100.0 * one.strict, float(one.instructions)) for one in followed},
        ]
    )
    return scores.resampled(
        model,
        measure,
        sample,
        published=sample.score(),
        questions=prompts,
        expected=expected,
        missing=expected - prompts,
        parts=parts,
        counts={
            "prompts": prompts,
            "prompts followed": sum(one.strict == one.instructions for one in followed),
            "instructions": instructions,
            "instructions followed": sum(one.strict for one in followed),
            **(counts or {}),
        },
    )


# -- other tools' files ------------------------------------------------------------------------------------------------


def of_files(
    measure: str, responses: Mapping[str, Mapping[str, str]], prompts: Sequence[Mapping[str, Any]], check: Check
) -> list[Measured]:
    """The score of each model over the prompts it has responded to."""
    found = []
    for model, said in responses.items():
        rows = [{**row, "response": said[row["prompt"]]} for row in prompts if row["prompt"] in said]
        if not rows:
            raise ValueError(f"{model} has no response to any of these prompts; give the prompts it was asked")
        followed = [
            Followed(
                key=json_lines.identity(row["key"]),
                instructions=len(one["strict"]),
                strict=sum(one["strict"]),
                loose=sum(one["loose"]),
            )
            for row, one in zip(rows, check(rows), strict=True)
        ]
        counts = {
            **candidates.count_alike([candidates.mark(text) for text in said.values()]),
            "unknown prompts": len(said.keys() - {row["prompt"] for row in prompts}),
        }
        found.append(measured(model, measure, followed, expected=len(prompts), counts=counts))
    return found


def responses(paths: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Each model's response to each prompt, the last if there are several; the model is what its file says,
    of lm-eval's log of samples its folder, else the file's name."""
    found: dict[str, dict[str, str]] = {}
    named: dict[str, Path] = {}
    for _, path, number, row in json_lines.lines(paths):
        prompt, response = row.get("prompt"), row.get("response")
        if isinstance(row.get("doc"), dict):  # lm-eval's log of samples
            prompt, response = row["doc"].get("prompt"), row.get("filtered_resps") or row.get("resps")
        while isinstance(response, list) and response:
            response = response[0]
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError(f"{path} line {number} has no prompt with its response; give files of responses")
        told = row.get("model_id", row.get("model"))
        model = str(told) if told else path.parent.name if path.stem.startswith("samples_") else path.stem
        if not told and named.setdefault(model, path) != path:
            model = f"{model} {path.stem}"
        found.setdefault(model, {})[prompt] = response
    return found
