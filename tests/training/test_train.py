import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts, generation, pairs, train
from nift_training.pairs import Example
from nift_training.recipe import Recipe

from .conftest import RECIPE


def test_the_papers_step_counts_are_reproduced() -> None:
    counts = {1_000: 12, 2_000: 24, 5_000: 57, 10_000: 117, 20_000: 234, 40_000: 468, 52_002: 609}
    counts |= {73_000: 855, 80_000: 936, 300_000: 3516}
    assert {rows: Recipe().steps(rows) for rows in counts} == counts


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 50, 1_000])
@pytest.mark.parametrize("batch_size", [1, 4, 6, 256])
def test_every_step_has_rows_and_none_is_used_more_often_than_there_are_epochs(rows: int, batch_size: int) -> None:
    recipe = Recipe(batch_size=batch_size)
    windows = list(train.windows(rows, recipe))
    assert len(windows) == recipe.steps(rows)
    assert all(1 <= len(window) <= batch_size for window in windows)
    assert max(Counter(row for window in windows for row in window).values()) <= recipe.epochs


def test_two_processes_make_the_same_adapter(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    def digest(name: str, hash_seed: str) -> str:
        command = [sys.executable, "-m", "nift_training.train", "--base", str(tiny), "--base-name", "tiny-base"]
        command += ["--data", str(pairs_file), "--out", str(tmp_path / name), "--batch-size", "4", "--threads", "1"]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True)
        return artifacts.verify(tmp_path / name).digest

    assert digest("first", "1") == digest("second", "2")


def test_the_adapter_names_its_base_and_no_path(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-base"
    texts = [file.read_text() for file in adapter.iterdir() if file.suffix != ".safetensors"]
    assert not any(str(adapter.parent.parent) in text for text in texts)


def test_training_lowers_the_loss_and_logs_every_step(adapter: Path) -> None:
    log = artifacts.read_rows(adapter / "train_log.jsonl")
    facts = artifacts.read_manifest(adapter).facts
    assert [row["step"] for row in log] == list(range(1, facts["steps"] + 1))
    assert log[-1]["loss"] == facts["last_loss"] < facts["first_loss"]
    assert log[0]["learning_rate"] == RECIPE.learning_rate > log[-1]["learning_rate"] > 0


def test_the_loss_is_the_models_own_over_the_responses_whatever_the_micro_batch(tiny: Path, pairs_file: Path) -> None:
    import torch

    loaded = generation.load(tiny)
    examples = [pairs.encode(loaded.tokenizer, row, 64) for row in pairs.read(pairs_file)][:4]
    model = train.with_fresh_adapter(loaded.model, RECIPE)
    ids, mask, labels = train.batch_tensors(examples, padding=1)
    with torch.no_grad():
        own = model(input_ids=ids, attention_mask=mask, labels=labels).loss.item()
    for micro_batch in (1, 3, 4):
        step = train.optimise(
            model, examples, replace(RECIPE, epochs=1, micro_batch=micro_batch, learning_rate=1e-12), 1
        )
        assert step[0].loss == pytest.approx(own, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_with_its_step(tiny: Path) -> None:
    model: Any = train.with_fresh_adapter(generation.load(tiny).model, RECIPE)
    model.get_base_model().lm_head.weight.data[:] = float("nan")
    with pytest.raises(ValueError, match="loss nan at step 1"):
        train.optimise(model, [Example((3,), (4, 1))], RECIPE, 1)
