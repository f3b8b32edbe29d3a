"""A task file is data: nothing that it says is run, whichever of lm-eval's keys says it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from nift_training.evaluate import generation, leaderboard, lm_eval_internals, task_files

# What the bombs write, so that it can be seen that one went off.
WITNESS = "went-off"
TASK: dict[str, Any] = {
    "task": "sums",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "sums.jsonl"}},
    "output_type": "multiple_choice",
    "test_split": "test",
    "fewshot_split": "test",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
GENERATED: dict[str, Any] = {"output_type": "generate_until", "doc_to_choice": None, "doc_to_target": "{{answer}}"}


class Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.witness,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of tasks with every kind of file that a key could name: code, a pickle, a metric, a loader."""
    rows = [{"question": f"{a} + 1 =", "choices": [str(a), str(a + 1)], "answer": 1} for a in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = f"open({str(tmp_path / WITNESS)!r}, 'w')\n"
    for name in ("metric", "loader", "custom_generate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text(code)
    (tmp_path / "custom_generate" / "generate.py").write_text(code)
    (tmp_path / "own.py").write_text(code)
    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / WITNESS)))
    (tmp_path / "prompts.yaml.txt").write_text(f"!!python/object/apply:os.system ['touch {tmp_path / WITNESS}']")
    return tmp_path


def template(folder: Path) -> str:
    return "{{ cycler.__init__.__globals__.os.popen('touch " + str(folder / WITNESS) + "').read() }}1"


def bombs(key: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Tasks whose `key` is everything that lm-eval was ever seen to run, and a text and a template for any key."""
    metric, pickled = str(folder / "metric"), {"data_files": {"test": "bomb.pkl"}}
    yield {key: template(folder)}
    yield {key: [template(folder)]}
    yield {key: str(folder / "own.py")}
    yield from {
        "metric_list": [
            {key: [{"metric": metric, "hf_evaluate": True}]},
            {key: [{"metric": metric}], **GENERATED},
            {key: [{"metric": "exact_match", "hf_evaluate": True}], **GENERATED},
            {key: [{"metric": "acc", "aggregation": metric}]},
        ],
        "dataset_path": [
            {key: "pandas", "dataset_kwargs": pickled},
            {key: str(folder / "loader"), "dataset_kwargs": {"trust_remote_code": True}},
        ],
        "dataset_kwargs": [{key: {**TASK["dataset_kwargs"], "trust_remote_code": True}}],
        "generation_kwargs": [
            {key: {"custom_generate": str(folder), "trust_remote_code": True, "until": ["."]}, **GENERATED},
        ],
        "filter_list": [
            {key: [{"name": "own", "filter": [{"function": "custom", "filter_fn": "os.system"}]}]},
            {key: [{"name": "own", "filter": [{"function": "decontaminate", "path": str(folder)}]}]},
        ],
        "use_prompt": [{key: f"{folder / 'prompts.yaml.txt'}:own"}, {key: "promptsource:own"}],
        "fewshot_config": [
            {key: {"sampler": "default", name: template(folder)}} for name in ("doc_to_text", "doc_to_target", "split")
        ],
    }.get(key, ())


def schema() -> list[str]:
    from lm_eval.config.task import TaskConfig

    return [field.name for field in fields(TaskConfig)]


def prepared(folder: Path, task: dict[str, Any]) -> object:
    """What lm-eval makes of a task up to the point where a model is asked, and of the answers after it."""
    from lm_eval.api.task import ConfigurableTask

    (folder / "sums.yaml").write_text(json.dumps(task))
    (config,) = leaderboard.read_tasks(folder, "sums:1")
    lm_eval_internals.run_nothing_from_data()
    made = ConfigurableTask(
        config={**config, "dataset_kwargs": {**config["dataset_kwargs"], "cache_dir": str(folder / "c")}}
    )
    made.set_fewshot_seed(0)
    doc = made.eval_docs[0]
    made.construct_requests(doc, made.fewshot_context(doc, 1), metadata=("sums", 0, 1))
    generated = made.OUTPUT_TYPE == "generate_until"
    made.doc_to_decontamination_query(doc)
    return made.process_results(doc, ["1"] if generated else [(-1.0, True), (-2.0, False)])


def test_a_harmless_task_is_read_and_prepared(folder: Path) -> None:
    assert prepared(folder, TASK) == {"acc": 0.0}
    answered = GENERATED | {"metric_list": [{"metric": "exact_match", "ignore_case": True, "hf_evaluate": False}]}
    assert prepared(folder, TASK | answered | {"unsafe_code": False, "process_docs": None}) == {"exact_match": 1.0}


@pytest.mark.fault("X14", runs="34 keys")
@pytest.mark.parametrize("key", schema())
def test_no_key_of_lm_evals_schema_runs_anything(key: str, folder: Path) -> None:
    tried = 0
    for bomb in bombs(key, folder):
        tried += 1
        with suppress(Exception):  # the sandbox's refusal, ours, or lm-eval's of what makes no sense
            prepared(folder, TASK | bomb)
        assert not (folder / WITNESS).exists(), bomb
    assert tried >= 3


@pytest.mark.parametrize("said", ["!function own.process", "!!python/object/apply:os.system ['true']"])
def test_a_tag_of_yaml_that_names_code_is_refused(said: str, folder: Path) -> None:
    (folder / "sums.yaml").write_text(f"task: sums\nprocess_docs: {said}\n")
    with pytest.raises(ValueError, match=r"sums\.yaml is not plain YAML"):
        leaderboard.read_tasks(folder, "sums:0")


@pytest.mark.fault("X14")
def test_a_template_that_reaches_for_more_stops_the_real_run(tiny: Path, folder: Path) -> None:
    from jinja2.exceptions import SecurityError

    (folder / "sums.yaml").write_text(json.dumps(TASK | {"doc_to_text": template(folder)}))
    tasks = leaderboard.read_tasks(folder, "sums:0")
    with pytest.raises(SecurityError):
        leaderboard.score(generation.load(tiny), tasks, batch_size=4)
    assert not (folder / WITNESS).exists()


def test_a_poisoned_cache_of_responses_runs_nothing(tiny: Path, folder: Path) -> None:
    import sqlite3

    (folder / "sums.yaml").write_text(json.dumps(TASK))
    tasks = leaderboard.read_tasks(folder, "sums:0")
    loaded = generation.load(tiny)
    generator = generation.Generator(loaded.model, loaded.tokenizer, "a" * 64)
    first = leaderboard.score(generator, tasks, batch_size=4, cache=folder / "cache")
    assert leaderboard.score(generator, tasks, batch_size=4, cache=folder / "cache") == first
    (cache,) = (folder / "cache").iterdir()
    with sqlite3.connect(cache) as database:
        assert database.execute("select count(*) from unnamed").fetchone() == (8,)
        database.execute("update unnamed set value = ?", (pickle.dumps(Bomb(folder / WITNESS)),))
    with pytest.raises(ValueError):  # noqa: PT011  it is no JSON
        leaderboard.score(generator, tasks, batch_size=4, cache=folder / "cache")
    assert not (folder / WITNESS).exists()


@pytest.mark.fault("X14")
def test_every_key_metric_filter_and_sampler_of_lm_eval_was_decided_on() -> None:
    """Whoever upgrades lm-eval decides on what it has learnt: is it data, or does it run something?"""
    import lm_eval.api.metrics
    import lm_eval.filters
    from lm_eval.api import registry, samplers
    from lm_eval.config.task import FewshotConfig

    refused = {
        "custom_dataset",
        "doc_to_audio",
        "doc_to_image",
        "process_docs",
        "process_results",
        "unsafe_code",
        "use_prompt",
    }
    assert set(schema()) == {*task_files.PLAIN, *task_files._CHECKS, *refused}
    assert {field.name for field in fields(FewshotConfig)} == {*task_files.FEWSHOT_KEYS, "process_docs"}
    assert set(registry.METRIC_REGISTRY) == {*task_files.METRICS}
    assert set(registry.AGGREGATION_REGISTRY) == {*task_files.AGGREGATIONS}
    assert set(registry.FILTER_REGISTRY) == {*task_files.FILTERS, "custom"}
    assert set(samplers.SAMPLER_REGISTRY) == {*task_files.SAMPLERS}
    assert lm_eval.filters
    assert lm_eval.api.metrics
