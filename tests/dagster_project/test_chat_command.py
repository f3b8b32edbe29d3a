"""`nift chat`: a model of the study is asked in its row's template, and one that cannot be asked is a line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nift_assets.store import Store
from tests.conftest import Demo, nift_here
from tests.demo import STUDY


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    return ours | {"NIFT_WAREHOUSE": str(tmp_path / "warehouse")}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pico"], "pico has not been made: nift run merged_models --partition pico"),
        (["pico.local.lora"], "nift run merged_models --partition pico.local.lora"),
        (["pico", "--server", "http://127.0.0.1:9"], "pico has not been made: nift run backbones --partition pico"),
        (["pcio"], "the study has no model 'pcio', and there is no such folder; did you mean 'pico'?"),
        (["{folder}"], "how is {folder} asked? Give --template, one of one_shot, zephyr"),
        (["pico", "--template", "zephyr"], "pico is a row of the study demo, which says how it is asked"),
        ([], "name one model, or two to see side by side: pico, pico-instruct"),
        (["pico", "pico", "pico"], "name one model, or two"),
        (["{folder}", "--template", "zepyr", "--once", "Hi"], "no template is called 'zepyr'"),
        (["{folder}", "--template", "zephyr", "--once", "Hi"], "{folder} is not a model folder"),
        (["owner/model", "--template", "zephyr", "--once", "Hi"], "owner/model cannot be looked up at the Hub"),
        (["pico", "--temperature", "nan"], "'nan' is no temperature"),
    ],
)
def test_a_model_that_cannot_be_asked_is_one_line(
    arguments: list[str], says: str, environment: dict[str, str], tmp_path: Path
) -> None:
    refused = nift_here("chat", *(text.format(folder=tmp_path) for text in arguments), environment=environment)
    assert refused.returncode == 1
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: ")
    assert says.format(folder=tmp_path) in line


def test_a_model_of_the_study_answers_as_it_was_evaluated(demo: Demo) -> None:
    store = Store(root=str(demo.warehouse), study=STUDY.name)
    answer = store.read("arena_hard_answers", "pico").row(0, named=True)
    question = next(text for name, text in _questions() if name == answer["question_id"])
    how = ["--temperature", "0", "--max-new-tokens", str(STUDY.benchmark("arena_hard").max_new_tokens)]
    environment = {**os.environ, "NIFT_WAREHOUSE": str(demo.warehouse)}
    asked = nift_here("chat", "pico", "--once", question, *how, environment=environment)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout == answer["answer"] + "\n"


def _questions() -> list[tuple[str, str]]:
    from nift_assets.benchmarks import arena_hard

    return [*arena_hard.questions(STUDY.benchmark("arena_hard"))]
