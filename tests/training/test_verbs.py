import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from nift_training.recipe import Recipe
from tests.training.conftest import verb_here

HEAVY = {"torch", "transformers", "peft", "lm_eval", "dagster_pipes"}
VERBS = ["pico", "train", "merge", "fetch", "sentences", "evaluate"]


def run(verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"nift_training.{verb}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_importing_torch(verb: str) -> None:
    code = f"""
import runpy, sys
sys.argv = ["{verb}", "--help"]
try:
    runpy.run_module("nift_training.{verb}", run_name="__main__")
except SystemExit:
    assert not {HEAVY} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"python -m nift_training.{verb}" in done.stdout
    assert "--threads" in done.stdout


def test_the_help_of_training_keeps_its_example_on_a_line_and_names_every_field_of_a_recipe() -> None:
    said = run("train", "--help").stdout
    assert "    python -m nift_training.train --base models/mistral --data pairs.jsonl --out adapter\n" in said
    words = said.replace("--", " ").replace("-", "_").replace(",", " ").split()
    assert {field.name for field in fields(Recipe)} <= set(words)


@pytest.mark.parametrize(
    ("verb", "arguments", "complaint"),
    [
        ("train", ["--base", "b", "--base-name", "b", "--data", "missing.jsonl"], "missing.jsonl"),
        ("merge", ["--base", "b", "--adapter", "no-adapter"], "no-adapter/adapter_config.json is missing"),
        ("pico", ["--articles", "no-articles"], "no-articles holds no *.txt"),
        ("evaluate", ["--model", "m", "--template", "llama-3"], "no benchmark is named"),
        ("evaluate", ["--model", "m", "--template", "llama-4", "--ifeval", "f"], "llama-4"),
        ("evaluate", ["--model", "m", "--template", "llama-3", "--tasks-folder", ".", "--tasks", "arc"], "write arc:5"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tmp_path: Path, verb: str, arguments: list[str], complaint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert verb_here(f"nift_training.{verb}", *arguments, "--out", str(tmp_path / "out")) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert complaint in said
    assert list(tmp_path.iterdir()) == []


def test_a_taken_out_is_refused_in_one_line(tmp_path: Path) -> None:
    done = run("merge", "--base", "b", "--adapter", "a", "--out", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path} already exists: remove it or choose another --out\n",
    )


def test_under_pipes_the_line_is_in_the_event_log(tmp_path: Path) -> None:
    import dagster

    command = [sys.executable, "-m", "nift_training.pico", "--articles", str(tmp_path), "--out", str(tmp_path / "out")]

    @dagster.asset
    def model(context: dagster.AssetExecutionContext) -> dagster.MaterializeResult:
        return dagster.PipesSubprocessClient().run(command=command, context=context).get_materialize_result()

    with dagster.DagsterInstance.ephemeral() as instance:
        result = dagster.materialize([model], instance=instance, raise_on_error=False)
        messages = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert not result.success
    assert any(message == f"{tmp_path} holds no *.txt article: name the folder that does" for message in messages)
