"""Reading what other people's runs of the four benchmarks wrote: answers, judgments and results, as published.

Files are read line by line; what a line cannot be is said with its file and number. Layouts: FastChat's `llm_judge`,
arena-hard-auto before and after 2024-08-31 and as of 2025, IFEval's own and lm-eval's, and lm-eval's results of three
vintages.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

HEADER = re.compile(r"^#{1,6}\s", re.MULTILINE)
LIST_ITEM = re.compile(r"^\s*(?:\d+\.|[-*+])\s", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
CODE = re.compile(r"```[^`]*```")
# In a results file of the leaderboard `harness|arc:challenge|25`, in one of 2023 `hendrycksTest-anatomy`.
LEADERBOARD_KEY = re.compile(r"(?:harness\|)?(?P<task>[^|]+?)(?:\|\d+)?")
OLD_TASKS = {"arc:challenge": "arc_challenge", "truthfulqa:mc": "truthfulqa_mc2", "truthfulqa_mc": "truthfulqa_mc2"}
OLD_METRICS = {"mc2": "acc"}
MMLU = re.compile(r"(?:hendrycksTest-|mmlu_)(?P<subject>[a-z_]+)")
# Groups of subjects, whose scores are weighted by size: they stand beside the 57 in lm-eval's own results.
MMLU_GROUPS = {"humanities", "other", "social_sciences", "stem"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One rating of MT-Bench: `score` is what the file says, -1 for none; each file is one `source`."""

    source: int
    model: str
    question: int | str
    turn: int
    judge: str
    score: float | None
    judgment: str | None
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Game:
    """One game of Arena-Hard: in game 1 the model stands in place B, in game 2 in place A."""

    source: int
    model: str
    question: str
    game: int
    score: str | None
    judgment: str | None
    prompt: str
    baseline: str | None = None


@dataclass(frozen=True, kw_only=True)
class Battle:
    """One line of a file of battles, where a clear verdict stands three times: 1 if the model won, 0.5 if it tied."""

    source: int
    model: str
    question: str
    baseline: str
    points: float


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One model's answer to one question: the texts of its turns, and its style as the file states it or as counted."""

    model: str
    question: int | str
    turns: tuple[str, ...]
    tokens: int | None
    headers: int
    lists: int
    bold: int


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One metric of one task in a results file, by lm-eval's present names."""

    source: str
    model: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None


def lines(paths: Sequence[Path]) -> Iterator[tuple[int, Path, int, dict[str, Any]]]:
    """Every JSON object of the files, with the number of its file, the file and the line; of a folder its `.jsonl`."""
    for source, path in enumerate(files(paths)):
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, text in enumerate(file, start=1):
                if not text.strip():
                    continue
                try:
                    row = json.loads(text)
                except (json.JSONDecodeError, RecursionError) as mistake:
                    raise ValueError(f"{path} line {number} is not JSON ({mistake}); repair or remove it") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{path} line {number} is not a JSON object; write one object per line")
                yield source, path, number, row


def files(paths: Sequence[Path], ending: str = ".jsonl") -> list[Path]:
    """The files themselves, and those of the folders among them, by name."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} does not exist; name a file, or a folder of {ending} files")
        inside = sorted(p for p in path.rglob(f"*{ending}") if p.is_file()) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} has no {ending} file; name the folder that has them")
        found += inside
    return found


def mt_bench_judgments(paths: Sequence[Path]) -> Iterator[Judged]:
    """The ratings in files of FastChat's `gen_judgment.py`, one per line."""
    for source, path, number, row in lines(paths):
        if "g1_winner" in row:
            raise ValueError(f"{path} line {number} compares two models; give a file of single ratings (gpt-4_single)")
        _need(row, ("question_id", "model", "score", "turn"), path, number)
        judge = row.get("judge")
        yield Judged(
            source=source,
            model=str(row["model"]),
            question=row["question_id"],
            turn=int(row["turn"]),
            judge=str(judge[0] if isinstance(judge, list) and judge else judge or "?"),
            score=_number(row["score"]),
            judgment=_text(row.get("judgment")),
            prompt=_text(row.get("user_prompt")) or "",
        )


def arena_hard_judgments(paths: Sequence[Path]) -> Iterator[Game | Battle]:
    """The games in files of arena-hard-auto's `gen_judgment.py` of either vintage, or the battles made of them."""
    for source, path, number, row in lines(paths):
        question = row.get("question_id", row.get("uid"))
        if "winner" in row:
            _need(row, ("question_id", "model_a", "model_b"), path, number)
            points = {"model_a": 0.0, "model_b": 1.0}.get(row["winner"], 0.5 if "tie" in str(row["winner"]) else None)
            if points is None:
                raise ValueError(
                    f"{path} line {number} has the winner {row['winner']!r}; it is model_a, model_b or tie"
                )
            yield Battle(
                source=source,
                model=str(row["model_b"]),
                question=str(question),
                baseline=str(row["model_a"]),
                points=points,
            )
            continue
        _need(row, ("model", "games"), path, number)
        if question is None:
            raise ValueError(f"{path} line {number} lacks question_id (or uid); give a file of judgments")
        for place, game in enumerate(row["games"] or [], start=1):
            played = game if isinstance(game, dict) else {}
            yield Game(
                source=source,
                model=str(row["model"]),
                question=str(question),
                game=place,
                score=_text(played.get("score")),
                judgment=_content(played.get("judgment")),
                prompt=_content(played.get("user_prompt", played.get("prompt"))) or "",
                baseline=row.get("baseline"),
            )


def answers(paths: Sequence[Path]) -> Iterator[Answered]:
    """The answers in files of FastChat or arena-hard-auto: turns of text, of `content`, or a list of messages."""
    for _, path, number, row in lines(paths):
        question = row.get("question_id", row.get("uid"))
        model = row.get("model_id", row.get("model"))
        if question is None or model is None:
            raise ValueError(f"{path} line {number} is no answer: it lacks question_id or model_id")
        if row.get("choices"):
            turns = row["choices"][0].get("turns") or []
        else:
            turns = [m.get("content") for m in row.get("messages") or [] if m.get("role") == "assistant"]
        texts = tuple(_content(turn) or "" for turn in turns)
        style = row.get("conv_metadata") or row.get("metadata") or {}
        first = turns[0] if turns and isinstance(turns[0], dict) else {}
        counted = style_of("\n".join(texts))
        yield Answered(
            model=str(model),
            question=question,
            turns=texts,
            tokens=_whole(style.get("token_len", first.get("token_len"))),
            headers=_total(style.get("header_count"), counted[0]),
            lists=_total(style.get("list_count"), counted[1]),
            bold=_total(style.get("bold_count"), counted[2]),
        )


def style_of(text: str) -> tuple[int, int, int]:
    """How many headers, list items and bold passages a text in Markdown has, outside its blocks of code."""
    prose = CODE.sub("", text)
    return len(HEADER.findall(prose)), len(LIST_ITEM.findall(prose)), len(BOLD.findall(prose))


def responses(paths: Sequence[Path]) -> dict[str, dict[str, str]]:
    """IFEval: each model's response to each prompt; the model is what its file says, or the file's name."""
    found: dict[str, dict[str, str]] = {}
    for _, path, number, row in lines(paths):
        prompt, response = row.get("prompt"), row.get("response")
        if isinstance(row.get("doc"), dict):  # lm-eval's log of samples
            prompt = row["doc"].get("prompt")
            said = row.get("filtered_resps") or row.get("resps")
            while isinstance(said, list) and said:
                said = said[0]
            response = said
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError(f"{path} line {number} has no prompt with its response; give IFEval responses")
        found.setdefault(str(row.get("model_id", row.get("model", path.stem))), {})[prompt] = response
    return found


def results(paths: Sequence[Path]) -> Iterator[TaskScore]:
    """The scores in results files of lm-eval, whose keys were `acc` until 2023 and are `acc,none` since."""
    for path in files(paths, ".json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as mistake:
            raise ValueError(f"{path} is not JSON ({mistake}); repair it or leave it out") from None
        if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
            raise ValueError(f"{path} has no `results` of tasks; give a results file of lm-eval")
        model = _model_of(content) or path.stem
        for key, metrics in content["results"].items():
            if isinstance(metrics, dict) and (task := _task(key)):
                yield from _metrics(str(path), model, task, metrics)


def _metrics(path: str, model: str, task: str, metrics: Row) -> Iterator[TaskScore]:
    for key, value in metrics.items():
        metric, _, filter_name = key.partition(",")
        number = _number(value)
        if metric.endswith("_stderr") or isinstance(value, bool) or number is None or math.isnan(number):
            continue
        stderr = _number(metrics.get(f"{metric}_stderr" + (f",{filter_name}" if filter_name else "")))
        old = OLD_METRICS.get(metric) if task == "truthfulqa_mc2" else None
        if task == "gsm8k" and metric == "acc":  # what v1 called the one metric it had
            old, filter_name = "exact_match", filter_name or "strict-match"
        yield TaskScore(
            source=path,
            model=model,
            task=task,
            metric=old or metric,
            filter=filter_name or "none",
            value=number,
            stderr=None if stderr is None or math.isnan(stderr) else stderr,
        )


def _task(key: str) -> str | None:
    """lm-eval's present name of a task; None for a group whose members stand beside it."""
    match = LEADERBOARD_KEY.fullmatch(key)
    name = match["task"] if match else key
    if subject := MMLU.fullmatch(name):
        return None if subject["subject"] in MMLU_GROUPS else f"mmlu_{subject['subject']}"
    return None if name in ("all", "mmlu") else OLD_TASKS.get(name, name)


def _model_of(content: Row) -> str | None:
    for place, name in (("config_general", "model_name"), ("config", "model_args")):
        said = (content.get(place) or {}).get(name)
        if isinstance(said, dict):
            said = said.get("pretrained")
        if isinstance(said, str) and said:
            return said.partition("pretrained=")[2].partition(",")[0] or said
    named = content.get("model_name")
    return named if isinstance(named, str) and named else None


def _need(row: Row, names: Iterable[str], path: Path, number: int) -> None:
    if missing := [name for name in names if name not in row]:
        raise ValueError(f"{path} line {number} lacks {', '.join(missing)}; give a file in the published layout")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _total(value: Any, counted: int) -> int:
    """A count as arena-hard-auto states it, which is a number or one number per kind."""
    if isinstance(value, Mapping):
        return sum(number for number in value.values() if isinstance(number, int))
    return value if isinstance(value, int) else counted


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _content(value: Any) -> str | None:
    """The text of a turn or a judgment: plain, or under `content` or `answer`, or a list of messages."""
    if isinstance(value, list):
        return "\n".join(text for part in value if (text := _content(part)) is not None)
    if isinstance(value, dict):
        return next((text for name in ("answer", "content", "text") if (text := _content(value.get(name)))), None)
    return _text(value)
