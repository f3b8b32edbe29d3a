"""Scores of a model on lm-eval tasks, one row per task and metric; a task is a YAML file in a folder of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nift_training import artifacts, progress, verbs


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


def score(
    model: Path, tasks: Sequence[Mapping[str, Any]], *, shots: int | None, batch_size: int, limit: int | None
) -> list[dict[str, Any]]:
    """One row per task and metric, in lm-eval's own arithmetic; `shots` of None is each task's own number.

    No request or response cache is kept: lm-eval's response cache does not tell one model from another.
    """
    # Set before the packages read them: a folder of tasks brings its data, so nothing needs the network.
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    device = "cuda" if torch.cuda.is_available() else "cpu"  # lm-eval asks for a GPU unless told
    with TemporaryDirectory() as cache:
        prepared = [
            {**task, "dataset_kwargs": {**task.get("dataset_kwargs", {}), "cache_dir": cache}} for task in tasks
        ]
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(model), batch_size=batch_size, device=device),
            tasks=prepared,
            num_fewshot=shots,
            limit=limit,
            task_manager=TaskManager(include_defaults=False),
            log_samples=False,
        )
    return [row for task in tasks for row in _rows(results, task["task"])]


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


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes the scores."""
    parser = verbs.parser("leaderboard", __doc__, "file to write, one JSON object per task and metric")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--tasks-folder", type=Path, required=True, help="folder of lm-eval task YAML files")
    parser.add_argument("--tasks", required=True, help="names of tasks, separated by commas")
    parser.add_argument("--shots", type=int, help="examples in the prompt; without it each task's own number")
    parser.add_argument("--batch-size", type=verbs.positive, default=8, help="requests per forward pass")
    parser.add_argument("--limit", type=verbs.positive, help="only the first so many samples, for trying out")
    options = parser.parse_args(argv)

    artifacts.check_free(options.out)
    tasks = [read_task(options.tasks_folder, name.strip()) for name in options.tasks.split(",")]
    artifacts.verified_digest(options.model)
    verbs.use_threads(options.threads)
    rows = score(options.model, tasks, shots=options.shots, batch_size=options.batch_size, limit=options.limit)
    progress.say(f"leaderboard: {len(rows)} scores of {len(tasks)} tasks")
    artifacts.write_rows(options.out, rows)


if __name__ == "__main__":
    verbs.run(main)
