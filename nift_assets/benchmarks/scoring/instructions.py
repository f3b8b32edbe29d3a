"""Prompts with instructions that a program can check: which of them were followed, and what that comes to.

The rules are those of IFEval: strict takes a response as it is, loose the best of eight readings of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from nift_assets.benchmarks.scoring import answers as candidates
from nift_assets.benchmarks.scoring import json_lines, resampling, scores
from nift_assets.benchmarks.scoring.interface import BenchmarkTable
from nift_assets.benchmarks.scoring.scores import Measured

Level = Literal["prompt", "instruction"]
Strictness = Literal["strict", "loose"]
# For each row with a `response`: `strict` and `loose`, one verdict per instruction.
Check = Callable[[Sequence[Mapping[str, Any]]], Sequence[Mapping[str, Sequence[bool]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How many instructions of a prompt there are, and how many were followed, strictly and loosely taken."""

    key: str
    instructions: int
    strict: int
    loose: int

    def points(self, level: Level, strictness: Strictness) -> tuple[float, float]:
        """What the prompt adds to an accuracy in percent, and its weight in it."""
        good = self.strict if strictness == "strict" else self.loose
        return (100.0 * (good == self.instructions), 1.0) if level == "prompt" else (100.0 * good, self.instructions)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a benchmark's number is: the mean of the accuracies on these levels, strictly or loosely taken."""

    levels: tuple[Level, ...]
    strictness: Strictness


IFEVAL = Rule(levels=("prompt", "instruction"), strictness="strict")


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


def of_table(model: str, measure: str, checked: pl.DataFrame, rule: Rule = IFEVAL) -> Measured:
    """The score of our own table of checked prompts."""
    columns = ("key", "instructions", "instructions_followed_strict", "instructions_followed_loose")
    followed = [
        Followed(key=json_lines.identity(key), instructions=number, strict=strict, loose=loose)
        for key, number, strict, loose in checked.select(columns).iter_rows()
    ]
    return measured(model, measure, followed, expected=checked.height, rule=rule)


def measured(
    model: str,
    measure: str,
    followed: Sequence[Followed],
    *,
    expected: int,
    counts: Mapping[str, int] | None = None,
    rule: Rule = IFEVAL,
) -> Measured:
    """The number of the rule in percent, and all four accuracies."""
    made = [{response.key: response.points(level, rule.strictness) for response in followed} for level in rule.levels]
    sample = resampling.sample(made)
    return scores.resampled(
        model,
        measure,
        sample,
        published=sample.score(),
        questions=len(followed),
        expected=expected,
        missing=expected - len(followed),
        parts={
            f"{level} {strictness}": _accuracy([response.points(level, strictness) for response in followed])
            for strictness in get_args(Strictness)
            for level in get_args(Level)
        },
        counts={
            "prompts": len(followed),
            "prompts followed": sum(response.points("prompt", rule.strictness)[0] > 0 for response in followed),
            "instructions": sum(response.instructions for response in followed),
            "instructions followed": sum(getattr(response, rule.strictness) for response in followed),
            **(counts or {}),
        },
    )


def _accuracy(points: Sequence[tuple[float, float]]) -> float | None:
    """None where there is nothing to follow."""
    weight = sum(weight for _, weight in points)
    return sum(good for good, _ in points) / weight if weight else None


# -- other tools' files ------------------------------------------------------------------------------------------------


def of_files(
    measure: str,
    responses: Mapping[str, Mapping[str, str]],
    prompts: Sequence[Mapping[str, Any]],
    check: Check,
    rule: Rule = IFEVAL,
) -> list[Measured]:
    """The score of each model over the prompts it has responded to."""
    measurements = []
    for model, texts in responses.items():
        rows = [{**row, "response": texts[row["prompt"]]} for row in prompts if row["prompt"] in texts]
        if not rows:
            raise ValueError(f"{model} has no response to any of these prompts; give the prompts it was asked")
        followed = [
            Followed(
                key=json_lines.identity(row["key"]),
                instructions=len(checks["strict"]),
                strict=sum(checks["strict"]),
                loose=sum(checks["loose"]),
            )
            for row, checks in zip(rows, check(rows), strict=True)
        ]
        counts = {
            **candidates.count_alike(marks := [candidates.mark(text) for text in texts.values()]),
            **candidates.count_thoughts(marks),
            "unknown prompts": len(texts.keys() - {row["prompt"] for row in prompts}),
        }
        measurements.append(measured(model, measure, followed, expected=len(prompts), counts=counts, rule=rule))
    return measurements


def responses(paths: Sequence[Path]) -> dict[str, dict[str, str]]:
    """Each model's response to each prompt, the last if there are several; the model is what its file says,
    of lm-eval's log of samples its folder, else the file's name."""
    texts_by_model: dict[str, dict[str, str]] = {}
    named: dict[str, Path] = {}
    for _, path, number, row in json_lines.lines(paths):
        prompt, response = row.get("prompt"), row.get("response")
        if isinstance(row.get("doc"), dict):  # lm-eval's log of samples
            prompt, response = row["doc"].get("prompt"), row.get("filtered_resps") or row.get("resps")
        while isinstance(response, list) and response:
            response = response[0]
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError(f"{path} line {number} has no prompt with its response; give files of responses")
        named_model = row.get("model_id", row.get("model"))
        model = str(named_model) if named_model else path.parent.name if path.stem.startswith("samples_") else path.stem
        if not named_model and named.setdefault(model, path) != path:
            model = f"{model} {path.stem}"
        texts_by_model.setdefault(model, {})[prompt] = response
    return texts_by_model
