"""The recipes: the paper's numbers, step counts, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from nift_training import recipe
from nift_training.recipe import FAITHFUL, MODERN, Recipe


def test_the_papers_step_counts_are_reproduced() -> None:
    counts = {1_000: 12, 2_000: 24, 5_000: 57, 10_000: 117, 20_000: 234, 40_000: 468, 52_002: 609}
    counts |= {73_000: 855, 80_000: 936, 300_000: 3516}
    assert {rows: FAITHFUL.steps(rows) for rows in counts} == counts


def test_the_papers_numbers() -> None:
    assert (FAITHFUL.rank, FAITHFUL.alpha, FAITHFUL.cutoff, FAITHFUL.seed, FAITHFUL.epochs) == (8, 16, 1024, 42, 3)
    assert (FAITHFUL.learning_rate, FAITHFUL.betas, FAITHFUL.epsilon) == (5e-5, (0.9, 0.999), 1e-8)
    assert (FAITHFUL.weight_decay, FAITHFUL.max_gradient_norm, FAITHFUL.precision) == (0.0, 1.0, "float16")
    assert (FAITHFUL.batch_size, FAITHFUL.rounds, FAITHFUL.round, FAITHFUL.mean_rows) == (256, 4, 64, 8)
    assert (FAITHFUL.add_bos, FAITHFUL.add_eos, FAITHFUL.keep_eos, FAITHFUL.separator) == (False, True, False, "")


def test_modern_differs_in_three_things() -> None:
    assert replace(MODERN, keep_eos=False, mean_rows=8, precision="float16") == FAITHFUL


@pytest.mark.parametrize("kept", [FAITHFUL, MODERN, replace(FAITHFUL, rank=4, mean_rows=2)])
def test_a_recipe_comes_back_from_its_file(kept: Recipe, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(kept)))
    assert recipe.named(str(tmp_path / "recipe.json")) == kept


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"batch_size": 250}, "not made of 4 equal rounds"),
        ({"mean_rows": 7}, "not made of groups of mean_rows 7"),
        ({"precision": "int8"}, "give float16, bfloat16 or float32"),
        ({"keep_eos": True, "add_eos": False}, "no end of sequence to keep"),
        ({"cutoff": 1}, "give at least 2"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        recipe.from_json(asdict(FAITHFUL) | change)


def test_a_field_no_recipe_has_is_refused() -> None:
    with pytest.raises(ValueError, match="has no warmup"):
        recipe.from_json({"warmup": 10})


def test_a_recipe_is_named_by_what_it_changes() -> None:
    assert recipe.name_of(FAITHFUL) == "faithful"
    assert recipe.name_of(replace(MODERN, rank=16)) == "modern, rank 16"
