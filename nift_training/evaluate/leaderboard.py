"""Scores of a model on lm-eval tasks, one row per task and metric; a task is a YAML file in a folder of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nift_training import progress
from nift_training.evaluate import lm_eval_internals, task_files
from nift_training.evaluate.generation import Generator

_SUBJECTS = """
abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory professional_accounting
professional_law professional_medicine professional_psychology public_relations security_studies sociology
us_foreign_policy virology world_religions
"""
MMLU = "mmlu"
MMLU_TASKS = tuple(f"mmlu_{subject}" for subject in _SUBJECTS.split())

# The leaderboard's six, each with the metric and filter that count, by lm-eval's present names.
SIX = (
    ("arc_challenge", "acc_norm", "none"),
    ("hellaswag", "acc_norm", "none"),
    (MMLU, "acc", "none"),
    ("truthfulqa_mc2", "acc", "none"),
    ("winogrande", "acc", "none"),
    ("gsm8k", "exact_match", "strict-match"),
)
# How many examples the leaderboard showed each of them.
SHOTS = {"arc_challenge": 25, "hellaswag": 10, MMLU: 5, "truthfulqa_mc2": 0, "winogrande": 5, "gsm8k": 5}

# Where lm-eval 0.4.13 defines them, below its tasks.
_FILES = {
    "arc_challenge": "arc/arc_challenge.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "winogrande": "winogrande/default.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
}
_FORMATS = {".jsonl": "json", ".parquet": "parquet"}

# What has to be known to compare a number with one from elsewhere.
NOTES = {
    "gsm8k": "the leaderboard's harness cut answers at every colon, lm-eval does not: compare rows of one harness only",
}


def read_task(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of the task `name`, its data files resolved against the folder it is in.

    A task file is data: one that says more than `task_files` knows to be data is refused. A folder of the task's name
    that holds its splits, `test.jsonl` or `validation.parquet` with the columns of the published data set, is the
    leaderboard's task of that name as lm-eval defines it, on these files.
    """
    import yaml

    tasks = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            task = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as mistake:
            raise ValueError(f"{file} is not plain YAML: {mistake}") from None
        if not isinstance(task, dict) or not isinstance(task.get("task"), str):
            raise ValueError(f"{file} names no task: write `task: name` into it, or move it elsewhere")
        tasks[task["task"]] = task, file
    if name not in tasks and (folder / name).is_dir():
        return _on_files(own_task(name), folder / name)
    if name not in tasks:
        raise ValueError(f"no task in {folder} is called {name!r}: it has {', '.join(tasks) or 'none'}")
    task, file = tasks[name]
    task_files.check(task, file)
    data = (task.get("dataset_kwargs") or {}).get("data_files", {})
    for split, data_file in data.items():
        if not (folder / data_file).is_file():
            raise ValueError(f"task {name!r} names {folder / data_file}, which is missing: put it there")
        data[split] = str((folder / data_file).absolute())
    return dict(task)


def own_task(name: str) -> dict[str, Any]:
    """lm-eval's own definition of one of the leaderboard's tasks, whose data it reads from the Hub."""
    file = _FILES.get(name) or (f"mmlu/default/{name}.yaml" if name in MMLU_TASKS else None)
    if file is None:
        raise ValueError(f"{name!r} is none of the leaderboard's tasks: it has {', '.join(task for task, *_ in SIX)}")
    task = lm_eval_internals.definition(file)
    return {key: value for key, value in task.items() if key not in ("tag", "include")}


def _on_files(task: dict[str, Any], folder: Path) -> dict[str, Any]:
    files = {file.stem: str(file.absolute()) for file in sorted(folder.iterdir()) if file.suffix in _FORMATS}
    formats = {_FORMATS[Path(file).suffix] for file in files.values()}
    if len(formats) != 1:
        raise ValueError(f"{folder} has no splits of one format: put test.jsonl, validation.jsonl, … there")
    wanted = {task.get(split) for split in ("test_split", "validation_split", "training_split", "fewshot_split")}
    return {
        **{k: v for k, v in task.items() if not k.endswith("_split") or v in files},
        "dataset_path": formats.pop(),
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: file for split, file in files.items() if split in wanted}},
    }


def mean_of_subjects(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with those of MMLU's 57 subjects replaced by their plain mean, as the leaderboard takes it; lm-eval's
    own group weights subjects by size. ValueError if only some of the 57 are there."""
    subjects = [row for row in rows if row["task"] in MMLU_TASKS]
    others = [dict(row) for row in rows if row["task"] not in MMLU_TASKS]
    if not subjects:
        return others
    if missing := [task for task in MMLU_TASKS if task not in {row["task"] for row in subjects}]:
        raise ValueError(
            f"MMLU is the mean of 57 subjects, and {len(missing)} are missing: {', '.join(missing[:3])}, …"
        )
    means = []
    for metric, filter_name in dict.fromkeys((row["metric"], row["filter"]) for row in subjects):
        its = [row for row in subjects if (row["metric"], row["filter"]) == (metric, filter_name)]
        errors = [row["stderr"] for row in its]
        means.append(
            {
                "task": MMLU,
                "metric": metric,
                "filter": filter_name,
                "value": sum(row["value"] for row in its) / len(its),
                "stderr": None if None in errors else sum(error**2 for error in errors) ** 0.5 / len(its),
                "samples": sum(row["samples"] for row in its),
                "shots": its[0]["shots"],
            }
        )
    return [*others, *means]


def read_tasks(folder: Path | None, names: str) -> list[dict[str, Any]]:
    """The tasks named in `name:shots,name:shots`, each with that many examples in its prompts; `mmlu` is its
    57 unless the folder has one task of that name.

    Without a folder they are lm-eval's own, whose data comes from the Hub.
    """
    tasks = []
    for named in names.split(","):
        name, _, shots = named.strip().partition(":")
        if not shots.isdecimal():
            raise ValueError(f"the task {named.strip()!r} does not say how many examples it is shown: write {name}:5")
        here = folder is not None and name == MMLU and (folder / MMLU).is_dir()
        is_one_task = name != MMLU or (folder is not None and (folder / f"{MMLU}.yaml").is_file())
        for task_name in (name,) if is_one_task else MMLU_TASKS:
            read = own_task(task_name) if folder is None else read_task(folder / MMLU if here else folder, task_name)
            tasks.append({**read, "num_fewshot": int(shots)})
    return tasks


def stay_offline() -> None:
    """A folder of tasks brings its data, so nothing needs the network; set before the packages read it."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def score(
    generator: Generator,
    tasks: Sequence[Mapping[str, Any]],
    *,
    batch_size: int,
    limit: int | None = None,
    cache: Path | None = None,
) -> list[dict[str, Any]]:
    """One row per task and metric, in lm-eval's own arithmetic.

    `cache` is where lm-eval keeps each response, so that a stopped run asks only for the rest. Its keys do not tell one
    model from another, so the file is named after the digest of the weights, and a model without one gets none; before
    responses were JSON it had another name.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm_eval_internals.run_nothing_from_data()
    lm_eval_internals.describe_no_machine()
    use_cache = str(cache / f"responses-json-{generator.digest[:16]}") if cache and generator.digest else None

    with TemporaryDirectory() as data:
        prepared = [
            {**task, "dataset_kwargs": {**(task.get("dataset_kwargs") or {}), "cache_dir": data}} for task in tasks
        ]
        results = lm_eval.simple_evaluate(
            model=HFLM(
                pretrained=generator.model,
                tokenizer=generator.tokenizer,
                batch_size=batch_size if generator.in_batches else 1,
            ),
            tasks=prepared,
            limit=limit,
            task_manager=TaskManager(include_defaults=False),
            log_samples=False,
            use_cache=use_cache,
        )
    rows = [row for task in tasks for row in _rows(results, task["task"])]
    progress.say(f"leaderboard: {len(rows)} scores of {len(tasks)} tasks")
    return rows


def _rows(results: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    scores = results["results"][task]
    rows = []
    for key, value in scores.items():
        metric, comma, filter_name = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = scores.get(f"{metric}_stderr,{filter_name}")
        rows.append(
            {
                "task": task,
                "metric": metric,
                "filter": filter_name,
                "value": value,
                "stderr": stderr if isinstance(stderr, float) else None,  # "N/A" where lm-eval has no formula
                "samples": results["n-samples"][task]["effective"],
                "shots": results["n-shot"][task],
            }
        )
    return rows
