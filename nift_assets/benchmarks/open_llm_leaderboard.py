"""The Open LLM Leaderboard: the plain mean of six tasks in lm-eval's arithmetic, by probabilities and greedy answers.

A row names its tasks; their data lies in a folder, or is the Hub's (`location="hub"`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from nift_assets.benchmarks.scoring import files, json_lines
from nift_assets.benchmarks.scoring.files import HUB, PublishedFile
from nift_assets.benchmarks.scoring.interface import BenchmarkTable, Measure, Runner, ScoredFiles
from nift_assets.benchmarks.scoring.json_lines import JsonObject
from nift_assets.benchmarks.scoring.scores import Measured
from nift_assets.corpus import locations
from nift_assets.rows import Benchmark, Corpus
from nift_training import json_objects
from nift_training.evaluate import leaderboard
from nift_training.messages import one_line

VERSION = 1
NAME = "open_llm_leaderboard"
TITLE = "Open LLM Leaderboard"
COMMAND = FOLDER = "leaderboard"
MEASURES = (Measure(name=NAME, title=TITLE, column="Leaderboard (%)", unit="mean of the tasks, in percent", limit=100),)
# What its columns are called where its tasks stand beside it.
HEADS = {
    NAME: "Average",
    "arc_challenge": "ARC",
    "hellaswag": "HellaSwag",
    "mmlu": "MMLU",
    "truthfulqa_mc2": "TruthfulQA",
    "winogrande": "Winogrande",
    "gsm8k": "GSM8K",
}
ASKED = ""
RUNNER: Runner = "leaderboard"
PUBLISHED: tuple[PublishedFile, ...] = ()
# Splits whose rows are examples in a prompt, or nothing at all; they are not asked.
SHOWN = ("train", "dev")

# In a results file of the leaderboard `harness|arc:challenge|25`, in one of 2023 `hendrycksTest-anatomy`.
LEADERBOARD_KEY = re.compile(r"(?:harness\|)?(?P<task>[^|]+?)(?:\|(?P<shots>\d+))?")
OLD_TASKS = {"arc:challenge": "arc_challenge", "truthfulqa:mc": "truthfulqa_mc2", "truthfulqa_mc": "truthfulqa_mc2"}
OLD_METRICS = {"mc2": "acc"}
OLD_FILTERS = {"get-answer": "strict-match"}  # GSM8K's in lm-eval 0.4.0 and 0.4.1
MMLU = re.compile(r"(?:hendrycksTest-|mmlu_)(?P<subject>[a-z_]+)")
# Groups of subjects, whose scores are weighted by size: they stand beside the 57 in lm-eval's own results.
MMLU_GROUPS = {"humanities", "other", "social_sciences", "stem"}

NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
# What a results file has of how prompts were made, beside its configuration.
PROMPTING = (
    "chat_template",
    "chat_template_sha",
    "system_instruction",
    "system_instruction_sha",
    "fewshot_as_multiturn",
)
# Arguments of a model that say which it is, or where and how fast it ran, and not what it answers.
NAMING = {"pretrained", "model", "path", "revision", "peft", "delta", "device", "batch_size", "max_batch_size"} | {
    *("parallelize", "trust_remote_code", "cache_dir", "tensor_parallel_size", "gpu_memory_utilization")
}


@dataclass(frozen=True, kw_only=True)
class OnTheHub:
    """What a task of the leaderboard asks: one Parquet file of a dataset on the Hub, at a commit."""

    dataset: str
    revision: str
    file: str


TASKS = {
    "arc_challenge": OnTheHub(
        dataset="allenai/ai2_arc",
        revision="210d026faf9955653af8916fad021475a3f00453",
        file="ARC-Challenge/test-00000-of-00001.parquet",
    ),
    "hellaswag": OnTheHub(
        dataset="Rowan/hellaswag",
        revision="218ec52e09a7e7462a5400043bb9a69a41d06b76",
        file="data/validation-00000-of-00001.parquet",
    ),
    "mmlu": OnTheHub(
        dataset="cais/mmlu",
        revision="c30699e8356da336a370243923dbaf21066bb9fe",
        file="all/test-00000-of-00001.parquet",
    ),
    "truthfulqa_mc2": OnTheHub(
        dataset="truthfulqa/truthful_qa",
        revision="741b8276f2d1982aa3d5b832d3ee81ed3b896490",
        file="multiple_choice/validation-00000-of-00001.parquet",
    ),
    "winogrande": OnTheHub(
        dataset="allenai/winogrande",
        revision="01e74176c63542e6b0bcb004dcdea22d94fb67b5",
        file="winogrande_xl/validation-00000-of-00001.parquet",
    ),
    "gsm8k": OnTheHub(
        dataset="openai/gsm8k",
        revision="740312add88f781978c0658806c59bc2815b9866",
        file="main/test-00000-of-00001.parquet",
    ),
}


def check(row: Benchmark) -> None:
    """ValueError for a row without tasks: a mean of nothing."""
    if not row.tasks:
        raise ValueError(f"benchmark {row.name!r} has no tasks; name those that lm-eval is to run")


def options(row: Benchmark) -> Mapping[str, object]:
    return {
        "tasks_folder": None if row.location == HUB else files.path_of(row),
        "tasks": ",".join(f"{task.name}:{task.shots}" for task in row.tasks),
    }


def questions(row: Benchmark) -> Iterator[tuple[str, str]]:
    """Every text of every row that a task is asked from, with the row's file and number."""
    for name, asked in task_rows(row):
        yield from ((name, text) for text in _texts(asked))


def task_rows(row: Benchmark) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row the tasks of a leaderboard are asked from, with its file and number: those of its folder and the
    folders in it, without the rows that are only shown; or those of its tasks on the Hub.

    ValueError for a task whose rows cannot be had.
    """
    if row.location == HUB:
        asked = [(task.name, hub_file(task.name)) for task in row.tasks]
    else:
        folder = files.path_of(row)
        below = sorted(p for p in folder.rglob("*") if p.suffix in (".jsonl", ".parquet") and p.stem not in SHOWN)
        asked = [(p.stem if p.parent == folder else p.parent.name, str(p)) for p in below]
    for name, file in asked:
        yield from ((f"{name} {number}", record) for number, record in enumerate(_rows_of(file), start=1))


def hub_file(task: str) -> str:
    """The address of the file a task of the leaderboard is asked from; ValueError if the Hub cannot be reached."""
    if task not in TASKS:
        raise ValueError(f"where the Hub keeps the task {task!r} is not known; it is of {', '.join(TASKS)}")
    asked = TASKS[task]
    location = f"hf://datasets/{asked.dataset}/{asked.file}"
    return locations.files(Corpus(name=task, location=location, revision=asked.revision, licence="its own"))[0]


def _rows_of(file: str) -> Iterator[dict[str, Any]]:
    try:
        with locations.opened(file) as opened:
            if file.endswith(".jsonl"):
                yield from (row for _, row in json_objects.read(opened.read().split(b"\n"), file))
            else:
                yield from pl.read_parquet(opened).iter_rows(named=True)
    except Exception as error:
        raise ValueError(f"{file}: cannot be read ({one_line(error)}); check the file or the network") from None


def _texts(value: Any) -> Iterator[str]:
    """Every text of a row: of its columns, and of the lists and structs in them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | Sequence):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(part)


def answers(row: Benchmark, model: str, rows: Sequence[Mapping[str, Any]]) -> BenchmarkTable:
    """One row per task: the metric that counts. ValueError for a task that lm-eval gave another metric for."""
    for task in row.tasks:
        reported = [(result["metric"], result["filter"]) for result in rows if result["task"] == task.name]
        if (task.metric, task.filter) not in reported:
            raise ValueError(f"lm-eval gave {reported} for {task.name}, not {task.metric}, {task.filter}; mend the row")
    return BenchmarkTable(
        pl.DataFrame(
            {
                "model": model,
                "task": task.name,
                "metric": task.metric,
                "filter": task.filter,
                "shots": task.shots,
                "score": result["value"] * 100,
                "stderr": None if result["stderr"] is None else result["stderr"] * 100,
                "samples": result["samples"],
            }
            for task in row.tasks
            for result in rows
            if (result["task"], result["metric"], result["filter"]) == (task.name, task.metric, task.filter)
        )
    )


def score(model: str, results: pl.DataFrame) -> list[Measured]:
    """The plain mean of the tasks' scores in percent."""
    tasks = results.select("task", "score", "stderr").rows()
    return [
        _measured(
            model,
            {task: value for task, value, _ in tasks},
            [error for _, _, error in tasks],
            questions=int(results["samples"].sum()),
        )
    ]


def _measured(
    model: str,
    tasks: Mapping[str, float | None],
    errors: Sequence[float | None],
    *,
    questions: int,
    counts: Mapping[str, int] | None = None,
    notes: Sequence[str] = (),
) -> Measured:
    """The plain mean of the tasks if all are there, with an interval from their standard errors if all have one, as far
    as it lies on the scale."""
    values = [value for value in tasks.values() if value is not None]
    score = sum(values) / len(tasks) if len(values) == len(tasks) else None
    known_errors = [error for error in errors if error is not None]
    sure = score is not None and len(known_errors) == len(tasks)
    error = sum(e**2 for e in known_errors) ** 0.5 / len(tasks) if sure else None
    return Measured(
        model=model,
        measure=NAME,
        score=score,
        published=score,
        low=None if score is None or error is None else max(0.0, score - 1.96 * error),
        high=None if score is None or error is None else min(100.0, score + 1.96 * error),
        questions=questions,
        expected=len(tasks),
        missing=len(tasks) - len(values),
        parts=tasks,
        counts=counts or {},
        notes=tuple(notes),
        error=error,
    )


# -- other tools' files ------------------------------------------------------------------------------------------------


# How the tasks of the leaderboard's second version begin.
LATER = "leaderboard_"


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """One metric of one task in a results file, by lm-eval's present names: `shots` and how many of its samples were
    asked, where the file says so, and how the model was run."""

    source: str
    model: str
    task: str
    metric: str
    filter: str
    value: float
    stderr: float | None
    shots: int | None = None
    asked: tuple[int, int] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def read(inputs: ScoredFiles) -> list[Measured]:
    """The scores of results files of lm-eval."""
    if not (paths := [*inputs.results, *inputs.answers, *inputs.judgments]):
        raise ValueError("nothing to score is named; give --results, lm-eval's results.json")
    return of_files(results_in(paths))


def of_files(rows: Iterable[TaskScore]) -> list[Measured]:
    """The six tasks of each model and their plain mean; MMLU only where all 57 subjects are there. A task that was run
    twice counts as in the last file, by name."""
    by_model: dict[str, dict[tuple[str, str, str], list[TaskScore]]] = {}
    for row in rows:
        by_model.setdefault(row.model, {}).setdefault((row.task, row.metric, row.filter), []).append(row)
    return [_averaged(model, tasks) for model, tasks in by_model.items()]


def results_in(paths: Sequence[Path]) -> Iterator[TaskScore]:
    """The scores in results files of lm-eval, whose keys were `acc` until 2023 and are `acc,none` since."""
    for path in json_lines.files(paths, ".json"):
        content = json_objects.of_file(path)
        if not isinstance(content.get("results"), dict):
            raise ValueError(f"{path} has no `results` of tasks; give a results file of lm-eval")
        later = sorted(key for key in content["results"] if str(key).startswith(LATER))
        if later and len(later) == len(content["results"]):
            raise ValueError(
                f"{path} has the tasks of the Open LLM Leaderboard's second version ({later[0]}); the first's six are "
                "scored here, so give a results file with those"
            )
        model, settings = _model_of(content) or path.stem, _settings(content)
        for key, metrics in content["results"].items():
            if isinstance(metrics, dict) and (task := _task(key)):
                about: dict[str, Any] = {"source": str(path), "model": model, "task": task, "settings": settings}
                about |= {"shots": _shots(content, key), "asked": _asked(content, key)}
                yield from _metrics(metrics, about)


def _metrics(metrics: JsonObject, about: Mapping[str, Any]) -> Iterator[TaskScore]:
    for key, value in metrics.items():
        metric, _, filter_name = key.partition(",")
        number = json_lines.number_of(value)
        if isinstance(value, str) and not metric.endswith("_stderr") and NUMBER.fullmatch(value):
            raise ValueError(f"{about['source']} has {key} {value!r} of {about['task']}, a text; write it as a number")
        if metric.endswith("_stderr") or number is None:
            continue
        stderr = json_lines.number_of(metrics.get(f"{metric}_stderr" + (f",{filter_name}" if filter_name else "")))
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


def _shots(content: JsonObject, key: str) -> int | None:
    """How many examples a task was shown: in its key, in a table of its own or, until 2023, the same for all tasks."""
    match = LEADERBOARD_KEY.fullmatch(key)
    shots = [match["shots"] and int(match["shots"])] if match else []
    shots += [
        json_lines.mapping_of(content, "n-shot").get(key),
        json_lines.mapping_of(content, "configs", key).get("num_fewshot"),
    ]
    shots += [json_lines.mapping_of(content, "config").get("num_fewshot")]
    return next((number for value in shots if (number := json_lines.integer_of(value)) is not None), None)


def _asked(content: JsonObject, key: str) -> tuple[int, int] | None:
    """How many samples of a task were asked, and how many there are."""
    samples = json_lines.mapping_of(content, "n-samples", key)
    effective, original = (
        json_lines.integer_of(samples.get("effective")),
        json_lines.integer_of(samples.get("original")),
    )
    return None if effective is None or original is None else (effective, original)


def _settings(content: JsonObject) -> dict[str, str]:
    """How a model was run, as far as answers depend on it: two runs that differ in this are not of one leaderboard."""
    config = json_lines.mapping_of(content, "config")
    told = {**_arguments(config.get("model_args")), **{name: config.get(name) for name in ("limit", "gen_kwargs")}}
    told |= {name: content.get(name) for name in PROMPTING}
    return {name: str(value) for name, value in told.items() if value not in (None, "", False) and name not in NAMING}


def _arguments(told: Any) -> dict[str, Any]:
    """lm-eval's `model_args`, which are a table or a text of `name=value`."""
    if isinstance(told, str):
        return dict(part.partition("=")[::2] for part in told.split(",")) if "=" in told else {"pretrained": told}
    return told if isinstance(told, dict) else {}


def _model_of(content: JsonObject) -> str | None:
    """The model as a file names it, with the adapter and the revision it was loaded with: they are another model."""
    model = _arguments(
        json_lines.mapping_of(content, "config_general").get("model_name")
        or json_lines.mapping_of(content, "config").get("model_args")
    )
    if model:
        name = model.get("pretrained") or model.get("model") or model.get("path")
        more = [f"@{model['revision']}"] if model.get("revision") not in (None, "", "main") else []
        more += [f"+{model[part]}" for part in ("peft", "delta") if model.get(part)]
        if name:
            return f"{name}{''.join(more)}"
    named = content.get("model_name")
    return named if isinstance(named, str) and named else None


def _averaged(model: str, tasks: Mapping[tuple[str, str, str], Sequence[TaskScore]]) -> Measured:
    parts: dict[str, float | None] = {}
    errors: list[float | None] = []
    notes: list[str] = []
    counted: list[TaskScore] = []
    twice = 0
    for name, metric, filter_name in leaderboard.SIX:
        wanted = leaderboard.MMLU_TASKS if name == leaderboard.MMLU else (name,)
        runs = [tasks[key] for task in wanted if (key := (task, metric, filter_name)) in tasks]
        rows = [_counting(each, leaderboard.SHOTS[name]) for each in runs]
        counted += rows
        twice += sum(len(each) > 1 for each in runs)
        missing = {*wanted} - {row.task for row in rows if 0 <= row.value <= 1}
        notes += [f"{name}: {note}" for note in _about(runs, rows, leaderboard.SHOTS[name])]
        if missing:
            parts[name] = None
            gone = ", ".join(sorted(missing)[:3])
            notes.append(f"{name}: {len(wanted) - len(missing)} of {len(wanted)} are there, {gone} missing")
            continue
        parts[name] = 100 * math.fsum(row.value for row in rows) / len(rows)
        errors_of_rows = [row.stderr for row in rows if row.stderr is not None]
        errors.append(
            sum(e**2 for e in errors_of_rows) ** 0.5 / len(rows) * 100 if len(errors_of_rows) == len(rows) else None
        )
        if note := leaderboard.NOTES.get(name):
            notes.append(f"{name}: {note}")
    if unlike := _unlike([row.settings for row in counted]):
        notes.append(f"put together from runs of different settings ({', '.join(unlike)}): compare runs of one alone")
    there = sum(value is not None for value in parts.values())
    return _measured(model, parts, errors, questions=there, counts={"run twice": twice}, notes=notes)


def _counting(runs: Sequence[TaskScore], shots: int) -> TaskScore:
    """The run of a task that counts: the last by name of those with the leaderboard's examples, else the last."""
    return next((row for row in reversed(runs) if row.shots in (shots, None)), runs[-1])


def _about(runs: Sequence[Sequence[TaskScore]], rows: Sequence[TaskScore], shots: int) -> Iterator[str]:
    """What must be known of the runs that count: which they are, what they were shown, how much they were asked."""
    if unlike := {
        row.source
        for task_scores, row in zip(runs, rows, strict=True)
        if len({score.value for score in task_scores}) > 1
    }:
        yield f"run more than once with different results, counted is {', '.join(sorted(unlike)[:3])}"
    if others := sorted({row.shots for row in rows if row.shots not in (shots, None)}):
        yield f"{', '.join(map(str, others))} examples in its prompts, not the leaderboard's {shots}"
    if part := [row.asked for row in rows if row.asked and row.asked[0] < row.asked[1]]:
        yield f"only {sum(asked for asked, _ in part)} of {sum(there for _, there in part)} samples were asked"
    if not part and (limits := sorted({row.settings["limit"] for row in rows if "limit" in row.settings})):
        yield f"run with a limit of {', '.join(limits)} samples"
    if nan := [row.task for row in rows if math.isnan(row.value)]:
        yield f"{', '.join(nan[:3])} is NaN"
    if odd := [f"{row.task} {row.value:g}" for row in rows if not (0 <= row.value <= 1 or math.isnan(row.value))]:
        yield f"{', '.join(odd[:3])} is no share from 0 to 1, and does not count"


def _unlike(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The names of settings that are not the same in all runs."""
    names = sorted({name for each in settings for name in each})
    return [name for name in names if len({each.get(name) for each in settings}) > 1]
