"""Scores of a model on lm-eval tasks, one row per task and metric; a task is a YAML file in a folder of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nift_training import progress
from nift_training.generation import Generator

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

# What has to be known to compare a number with one from elsewhere.
NOTES = {
    "gsm8k": "the leaderboard's harness cut answers at every colon, lm-eval does not: compare rows of one harness only",
}


def read_task(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of the task `name`, its data files resolved against the folder it is in.

    A task file is data: one that names code with `!function` is not read.
    """
    import yaml

    tasks = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            task = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as mistake:
            raise ValueError(f"{file} is not plain YAML: {mistake}") from None
        tasks[task["task"]] = task
    if name not in tasks:
        raise ValueError(f"no task in {folder} is called {name!r}: it has {', '.join(tasks) or 'none'}")
    data = tasks[name].get("dataset_kwargs", {}).get("data_files", {})
    for split, file in data.items():
        if not (folder / file).is_file():
            raise ValueError(f"task {name!r} names {folder / file}, which is missing: put it there")
        data[split] = str((folder / file).absolute())
    return dict(tasks[name])


def read_tasks(folder: Path, names: str) -> list[dict[str, Any]]:
    """The tasks named in `name:shots,name:shots`, each with that many examples in its prompts."""
    tasks = []
    for named in names.split(","):
        name, _, shots = named.strip().partition(":")
        if not shots.isdecimal():
            raise ValueError(f"the task {named.strip()!r} does not say how many examples it is shown: write {name}:5")
        tasks.append({**read_task(folder, name), "num_fewshot": int(shots)})
    return tasks


def stay_offline() -> None:
    """A folder of tasks brings its data, so nothing needs the network; set before the packages read it."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def score(
    generator: Generator, tasks: Sequence[Mapping[str, Any]], *, batch_size: int, limit: int | None = None
) -> list[dict[str, Any]]:
    """One row per task and metric, in lm-eval's own arithmetic.

    No request or response cache is kept: lm-eval's response cache does not tell one model from another.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with TemporaryDirectory() as cache:
        prepared = [
            {**task, "dataset_kwargs": {**task.get("dataset_kwargs", {}), "cache_dir": cache}} for task in tasks
        ]
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=generator.model, tokenizer=generator.tokenizer, batch_size=batch_size),
            tasks=prepared,
            limit=limit,
            task_manager=TaskManager(include_defaults=False),
            log_samples=False,
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
