"""Files of answers that are to be judged: those of FastChat, of arena-hard-auto, and those this project writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nift_assets.benchmarks.scoring import json_lines
from nift_assets.benchmarks.scoring.json_lines import JsonObject


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """A question of a benchmark: its id as its own file has it, and the number of its turns."""

    id: Any
    turns: int


@dataclass(frozen=True, kw_only=True)
class ModelRun:
    """One run of one model: rows as `nift_training.evaluate` writes them, one per question."""

    model: str
    run: int
    rows: Sequence[Mapping[str, Any]]


def asked(path: Path) -> dict[str, AskedQuestion]:
    """The questions of a benchmark's file by their ids as texts."""
    found = {}
    for _, _, number, row in json_lines.lines([path]):
        own = row.get("question_id", row.get("uid", row.get("key")))
        if own is None:
            raise ValueError(f"{path} line {number} has no question_id (or uid); give a file of questions")
        turns = row.get("turns")
        found[json_lines.identity(own)] = AskedQuestion(id=own, turns=len(turns) if isinstance(turns, list) else 1)
    return found


def read(paths: Sequence[Path], questions: Mapping[str, AskedQuestion], model: str | None = None) -> list[ModelRun]:
    """The answers in some files, by model and run, in the order they stand there.

    `model` names whose answers they are where a line does not say so. ValueError names the line of an answer to no
    question of the benchmark, to one that is answered already, or with more turns than were asked.
    """
    runs: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for _, path, number, row in json_lines.lines(paths):
        where = f"{path} line {number}"
        question = row.get("question_id", row.get("uid"))
        if question is None:
            raise ValueError(f"{where} is no answer: it lacks question_id (or uid)")
        key = json_lines.identity(question)
        if key not in questions:
            raise ValueError(
                f"{where} answers the question {key!r:.60}, which is not among the {len(questions)} of the benchmark's "
                "files; name the folder with the files that were asked with --files"
            )
        name = row.get("model_id", row.get("model", model))
        if not isinstance(name, str) or not name:
            raise ValueError(f"{where} does not say whose answer it is; give --model NAME")
        for run, turns, tokens, stopped in _runs(row, where):
            if len(turns) > questions[key].turns:
                raise ValueError(f"{where} has {len(turns)} turns, and {questions[key].turns} were asked; mend it")
            of_run = runs.setdefault((name, run), {})
            if key in of_run:
                raise ValueError(f"{where} answers the question {key} for {name} again; leave one of the two out")
            of_run[key] = {
                "question_id": questions[key].id,
                "run": run,
                "turns": turns,
                "tokens": tokens,
                "stopped": stopped,
            }
    if not runs:
        raise ValueError(f"there is no answer in {', '.join(map(str, paths))}; name a file of answers")
    return [ModelRun(model=name, run=run, rows=[*rows.values()]) for (name, run), rows in runs.items()]


def _runs(row: JsonObject, where: str) -> Iterator[tuple[int, list[str], list[int | None], list[str | None]]]:
    """Each run of a line: its number and, by turn, the text and, where the file says so, its tokens and its ending."""
    choices, messages = row.get("choices"), row.get("messages")
    if isinstance(row.get("turns"), list):
        run = json_lines.integer_of(row.get("run", 0))
        if run is None:
            raise ValueError(f"{where} has the run {row['run']!r:.60}; it is a whole number")
        given: list[tuple[int, Any]] = [(run, row["turns"])]
    elif isinstance(choices, list):
        given = [
            (place, choice.get("turns") if isinstance(choice, dict) else None) for place, choice in enumerate(choices)
        ]
    elif isinstance(messages, list):
        said = [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "assistant"]
        given = [(0, said)]
    else:
        given = []
    style = next((s for name in ("conv_metadata", "metadata") if isinstance(s := row.get(name), dict)), {})
    for run, turns in given or [(0, None)]:
        texts = [json_lines.content_of(turn) for turn in turns] if isinstance(turns, list) else []
        if not texts or any(text is None for text in texts):
            raise ValueError(f"{where} has neither turns nor choices with turns nor messages; give a file of answers")
        stated = [turn.get("token_len") if isinstance(turn, dict) else None for turn in turns]
        if len(texts) == 1 and stated == [None]:
            stated = [style.get("token_len")]
        tokens = [json_lines.integer_of(number) for number in _as_long(row.get("tokens"), texts) or stated]
        stopped = [json_lines.text_of(why) for why in _as_long(row.get("stopped"), texts) or [None] * len(texts)]
        yield run, [str(text) for text in texts], tokens, stopped


def _as_long(values: Any, texts: Sequence[Any]) -> list[Any] | None:
    return values if isinstance(values, list) and len(values) == len(texts) else None
