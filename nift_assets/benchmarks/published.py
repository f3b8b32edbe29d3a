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
LEADERBOARD_KEY = re.compile(r"(?:harness\|)?(?P<task>[^|]+?)(?:\|(?P<shots>\d+))?")
OLD_TASKS = {"arc:challenge": "arc_challenge", "truthfulqa:mc": "truthfulqa_mc2", "truthfulqa_mc": "truthfulqa_mc2"}
OLD_METRICS = {"mc2": "acc"}
OLD_FILTERS = {"get-answer": "strict-match"}  # GSM8K's in lm-eval 0.4.0 and 0.4.1
MMLU = re.compile(r"(?:hendrycksTest-|mmlu_)(?P<subject>[a-z_]+)")
JUDGE = re.compile(r"""[(\[]["']([^"']+)["']""")
LFS = b"version https://git-lfs"
# Groups of subjects, whose scores are weighted by size: they stand beside the 57 in lm-eval's own results.
MMLU_GROUPS = {"humanities", "other", "social_sciences", "stem"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One rating of MT-Bench: `score` is what the file says, -1 for none; each file is one `source`."""

    source: int
    model: str
    question: str
    turn: int
    judge: str
    score: float | None
    judgment: str | None
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Game:
    """One game of Arena-Hard: in game 1 the model stands in place B, in game 2 in place A.

    The tool of 2025, whose files have a `uid`, reads the judge's last label, and takes no game whose other is missing.
    """

    source: int
    model: str
    question: str
    game: int
    judge: str
    score: str | None
    judgment: str | None
    prompt: str
    baseline: str | None = None
    of_2025: bool = False
    alone: bool = False  # the other game of its line has no verdict


@dataclass(frozen=True, kw_only=True)
class Battle:
    """One line of a file of battles, where a clear verdict stands three times: 1 if the model won, 0.5 if it tied."""

    source: int
    model: str
    question: str
    baseline: str
    points: float
    judge: str = ""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One model's answer to one question: the texts of its turns, and its style as the file states it or as counted."""

    model: str
    question: str
    turns: tuple[str, ...]
    tokens: int | None
    headers: int
    lists: int
    bold: int


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One metric of one task in a results file, by lm-eval's present names: `shots` and how many of its samples were
    asked, where the file says so."""

    source: str
    model: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    shots: int | None = None
    asked: tuple[int, int] | None = None


def lines(paths: Sequence[Path]) -> Iterator[tuple[int, Path, int, dict[str, Any]]]:
    """Every JSON object of the files, with the number of its file, the file and the line; of a folder its `.jsonl`.

    Lines are read one at a time. A file that is one JSON array of objects is read as well, at once.
    """
    for source, path in enumerate(files(paths)):
        for number, row in _array(path) if _begins(path).startswith(b"[") else _objects(path):
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number} is not a JSON object; write one object per line")
            yield source, path, number, row


def files(paths: Sequence[Path], ending: str = ".jsonl") -> list[Path]:
    """The files themselves, and those of the folders among them, by name; what is hidden in a folder is left out."""
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} does not exist; name a file, or a folder of {ending} files")
        below = path.rglob(f"*{ending}") if path.is_dir() else ()
        inside = sorted(p for p in below if p.is_file() and not _hidden(p, path)) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"{path} has no {ending} file; name the folder that has them")
        found += inside
    return found


def identity(value: Any) -> str:
    """A question's id as one text, whether a file has it as 81, "81" or, after pandas, 81.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def mt_bench_judgments(paths: Sequence[Path]) -> Iterator[Judged]:
    """The ratings in files of FastChat's `gen_judgment.py`, one per line; of a folder without its `_pair.jsonl`."""
    for source, path, number, row in lines(_singles(paths)):
        if "g1_winner" in row:
            raise ValueError(f"{path} line {number} compares two models; give a file of single ratings (gpt-4_single)")
        _need(row, ("question_id", "model", "score", "turn"), path, number)
        if (turn := _whole(row["turn"])) not in (1, 2):
            raise ValueError(f"{path} line {number} has the turn {row['turn']!r}; it is 1 or 2")
        yield Judged(
            source=source,
            model=str(row["model"]),
            question=identity(row["question_id"]),
            turn=turn,
            judge=_judge(row.get("judge")),
            score=_number(row["score"]),
            judgment=_text(row.get("judgment")),
            prompt=_text(row.get("user_prompt")) or "",
        )


def arena_hard_judgments(paths: Sequence[Path]) -> Iterator[Game | Battle]:
    """The games in files of arena-hard-auto's `gen_judgment.py` of either vintage, or the battles made of them."""
    for source, path, number, row in lines(paths):
        if "winner" in row:
            yield _battle(source, path, number, row)
            continue
        _need(row, ("model", "games"), path, number)
        question = row.get("question_id", row.get("uid"))
        if question is None:
            raise ValueError(f"{path} line {number} lacks question_id (or uid); give a file of judgments")
        if not isinstance(games := row["games"] or [], list):
            raise ValueError(f"{path} line {number} has games that are no list; give a file of judgments")
        both = [game if isinstance(game, dict) else {} for game in games]
        alone = len(both) < 2 or any(_text(game.get("score")) is None for game in both)
        for place, played in enumerate(both, start=1):
            yield Game(
                source=source,
                model=str(row["model"]),
                question=identity(question),
                game=place,
                judge=_judge(row.get("judge")),
                score=_text(played.get("score")),
                judgment=_content(played.get("judgment")),
                prompt=_content(played.get("user_prompt", played.get("prompt"))) or "",
                baseline=_text(row.get("baseline")),
                of_2025="uid" in row,
                alone=alone,
            )


def _battle(source: int, path: Path, number: int, row: Row) -> Battle:
    _need(row, ("question_id", "model_a", "model_b"), path, number)
    points = {"model_a": 0.0, "model_b": 1.0}.get(str(row["winner"]), 0.5 if "tie" in str(row["winner"]) else None)
    if points is None:
        raise ValueError(f"{path} line {number} has the winner {row['winner']!r}; it is model_a, model_b or tie")
    return Battle(
        source=source,
        model=str(row["model_b"]),
        question=identity(row["question_id"]),
        baseline=str(row["model_a"]),
        points=points,
        judge=_judge(row.get("judge"), otherwise=""),
    )


def answers(paths: Sequence[Path]) -> Iterator[Answered]:
    """The answers in files of FastChat or arena-hard-auto: turns of text, of `content`, or a list of messages."""
    for _, path, number, row in lines(paths):
        question = row.get("question_id", row.get("uid"))
        model = row.get("model_id", row.get("model"))
        if question is None or model is None:
            raise ValueError(f"{path} line {number} is no answer: it lacks question_id or model_id")
        turns = _turns(row)
        if turns is None:
            raise ValueError(
                f"{path} line {number} has neither choices with turns nor messages; give a file of answers"
            )
        texts = tuple(_content(turn) or "" for turn in turns)
        style = next((s for name in ("conv_metadata", "metadata") if isinstance(s := row.get(name), dict)), {})
        first = turns[0] if turns and isinstance(turns[0], dict) else {}
        counted = style_of("\n".join(texts))
        yield Answered(
            model=str(model),
            question=identity(question),
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
    """IFEval: each model's response to each prompt, the last if there are several; the model is what its file says,
    of lm-eval's log of samples its folder, else the file's name."""
    found: dict[str, dict[str, str]] = {}
    named: dict[str, Path] = {}
    for _, path, number, row in lines(paths):
        prompt, response = row.get("prompt"), row.get("response")
        if isinstance(row.get("doc"), dict):  # lm-eval's log of samples
            prompt, response = row["doc"].get("prompt"), row.get("filtered_resps") or row.get("resps")
        while isinstance(response, list) and response:
            response = response[0]
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise ValueError(f"{path} line {number} has no prompt with its response; give IFEval responses")
        told = row.get("model_id", row.get("model"))
        model = str(told) if told else path.parent.name if path.stem.startswith("samples_") else path.stem
        if not told and named.setdefault(model, path) != path:
            model = f"{model} {path.stem}"
        found.setdefault(model, {})[prompt] = response
    return found


def results(paths: Sequence[Path]) -> Iterator[TaskScore]:
    """The scores in results files of lm-eval, whose keys were `acc` until 2023 and are `acc,none` since."""
    for path in files(paths, ".json"):
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as mistake:
            raise ValueError(f"{path} is not JSON ({mistake}){_pointer(path)}; repair it or leave it out") from None
        if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
            raise ValueError(f"{path} has no `results` of tasks; give a results file of lm-eval")
        model = _model_of(content) or path.stem
        for key, metrics in content["results"].items():
            if isinstance(metrics, dict) and (task := _task(key)):
                about: dict[str, Any] = {"source": str(path), "model": model, "task": task}
                about |= {"shots": _shots(content, key), "asked": _asked(content, key)}
                yield from _metrics(metrics, about)


def _metrics(metrics: Row, about: Mapping[str, Any]) -> Iterator[TaskScore]:
    for key, value in metrics.items():
        metric, _, filter_name = key.partition(",")
        number = _number(value)
        if metric.endswith("_stderr") or number is None:
            continue
        stderr = _number(metrics.get(f"{metric}_stderr" + (f",{filter_name}" if filter_name else "")))
        old = OLD_METRICS.get(metric) if about["task"] == "truthfulqa_mc2" else None
        if about["task"] == "gsm8k" and metric == "acc":  # what v1 called the one metric it had
            old, filter_name = "exact_match", filter_name or "strict-match"
        if about["task"] == "gsm8k":
            filter_name = OLD_FILTERS.get(filter_name, filter_name)
        yield TaskScore(
            metric=old or metric,
            filter=filter_name or "none",
            value=number if math.isfinite(number) else math.nan,
            stderr=None if stderr is None or not math.isfinite(stderr) else stderr,
            **about,
        )


def _task(key: str) -> str | None:
    """lm-eval's present name of a task; None for a group whose members stand beside it."""
    match = LEADERBOARD_KEY.fullmatch(key)
    name = match["task"] if match else key
    if subject := MMLU.fullmatch(name):
        return None if subject["subject"] in MMLU_GROUPS else f"mmlu_{subject['subject']}"
    return None if name in ("all", "mmlu") else OLD_TASKS.get(name, name)


def _shots(content: Row, key: str) -> int | None:
    """How many examples a task was shown: in its key, in a table of its own or, until 2023, the same for all tasks."""
    match = LEADERBOARD_KEY.fullmatch(key)
    said = [match["shots"] and int(match["shots"])] if match else []
    said += [_mapping(content, "n-shot").get(key), _mapping(content, "configs", key).get("num_fewshot")]
    said += [_mapping(content, "config").get("num_fewshot")]
    return next((number for each in said if (number := _whole(each)) is not None), None)


def _asked(content: Row, key: str) -> tuple[int, int] | None:
    """How many samples of a task were asked, and how many there are."""
    samples = _mapping(content, "n-samples", key)
    effective, original = _whole(samples.get("effective")), _whole(samples.get("original"))
    return None if effective is None or original is None else (effective, original)


def _model_of(content: Row) -> str | None:
    """The model as a file names it, with the adapter and the revision it was loaded with: they are another model."""
    told = _mapping(content, "config_general").get("model_name") or _mapping(content, "config").get("model_args")
    if isinstance(told, str):
        told = dict(part.partition("=")[::2] for part in told.split(",")) if "=" in told else {"pretrained": told}
    if isinstance(told, dict):
        name = told.get("pretrained") or told.get("model") or told.get("path")
        more = [f"@{told['revision']}"] if told.get("revision") not in (None, "", "main") else []
        more += [f"+{told[part]}" for part in ("peft", "delta") if told.get(part)]
        if name:
            return f"{name}{''.join(more)}"
    named = content.get("model_name")
    return named if isinstance(named, str) and named else None


def _mapping(content: Row, *names: str) -> Row:
    found: Any = content
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _objects(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as mistake:
                    raise ValueError(
                        f"{path} line {number} is not JSON ({mistake}){_pointer(path)}; repair or remove it"
                    ) from None


def _array(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from enumerate(json.loads(path.read_bytes()), start=1)
    except (ValueError, RecursionError) as mistake:
        raise ValueError(f"{path} is not JSON ({mistake}); repair it or leave it out") from None


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()


def _pointer(path: Path) -> str:
    """What a clone without its large files has in their places."""
    return ": it is a pointer, get the file with `git lfs pull`" if _begins(path).startswith(LFS) else ""


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _singles(paths: Sequence[Path]) -> list[Path]:
    """The files of MT-Bench's single ratings: a folder of judgments may also have those that compare two models."""
    single: list[Path] = []
    for path in paths:
        inside = files([path])
        single += [p for p in inside if not p.stem.endswith("_pair")] or inside if path.is_dir() else inside
    return single


def _judge(said: Any, otherwise: str = "?") -> str:
    """The judge's name: a text, or FastChat's pair of it and the name of the prompt, also where that became a text."""
    if isinstance(said, str) and (pair := JUDGE.match(said)):
        return pair[1]
    return str((said[0] if isinstance(said, list) and said else said) or otherwise)


def _turns(row: Row) -> list[Any] | None:
    """The turns of an answer: of its first choice, or what the assistant says in its messages."""
    choices = row.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        turns = choices[0].get("turns")
        return turns if isinstance(turns, list) else None
    if isinstance(messages := row.get("messages"), list):
        return [m.get("content") for m in messages if isinstance(m, dict) and m.get("role") == "assistant"]
    return None


def _need(row: Row, names: Iterable[str], path: Path, number: int) -> None:
    if missing := [name for name in names if row.get(name) is None and not (name == "score" and name in row)]:
        raise ValueError(f"{path} line {number} lacks {', '.join(missing)}; give a file in the published layout")


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    """A whole number, also where it is written as 5.0 or "5"."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0 else None


def _total(value: Any, counted: int) -> int:
    """A count as arena-hard-auto states it, which is a number or one number per kind."""
    if isinstance(value, Mapping):
        return sum(number for number in value.values() if isinstance(number, int))
    return counted if (number := _whole(value)) is None else number


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _content(value: Any) -> str | None:
    """The text of a turn or a judgment: plain, or under `content` or `answer`, or a list of messages."""
    if isinstance(value, list):
        return "\n".join(text for part in value if (text := _content(part)) is not None)
    if isinstance(value, dict):
        return next((text for name in ("answer", "content", "text") if (text := _content(value.get(name)))), None)
    return _text(value)
