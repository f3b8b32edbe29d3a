"""Which rows a step sees and how it is cut up: the reference's own data loader as witness."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nift_training.recipe import FAITHFUL, MODERN, Recipe
from nift_training.train import micro_batches
from nift_training.train.micro_batches import WeightedExample
from nift_training.train.pairs import TrainingExample


def flat(window: list[list[int]]) -> list[int]:
    return [row for group in window for row in group]


def example(length: int, prompt: int = 1) -> TrainingExample:
    return TrainingExample(np.arange(length, dtype=np.int32), np.arange(length) >= prompt)


@pytest.mark.parametrize("rows", [50, 64, 100, 300, 1000])
def test_a_step_sees_the_rows_the_papers_eight_gpus_saw(rows: int) -> None:
    """The reference's order: accelerate's sampler and its batches of 8 rows, dealt to 8 processes, 4 of each a step."""
    from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
    from torch.utils.data import BatchSampler

    sampler: Any = SeedableRandomSampler(range(rows), data_seed=42)
    micro: list[list[int]] = []
    for epoch in range(FAITHFUL.epochs):
        sampler.set_epoch(epoch)
        order = list(sampler)
        shards = [BatchSamplerShard(BatchSampler(order, 8, drop_last=False), 8, rank) for rank in range(8)]
        for together in zip(*shards, strict=True):
            micro += together
    taken = 8 * min(4, -(-rows // 64))
    steps = [micro[start : start + taken] for start in range(0, FAITHFUL.steps(rows) * taken, taken)]
    assert list(micro_batches.windows(rows, FAITHFUL)) == steps


def test_the_first_epochs_order_is_the_trainers_with_seed_42(tmp_path: Any) -> None:
    """A real transformers Trainer on one device, asked for its data loader."""
    import torch
    from transformers import Trainer, TrainingArguments, set_seed

    set_seed(42)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=8, seed=42, use_cpu=True, report_to=[]
    )
    trainer = Trainer(
        model=torch.nn.Linear(1, 1), args=arguments, train_dataset=list(range(96)), data_collator=lambda rows: rows
    )
    loaded = [list(batch) for batch in trainer.get_train_dataloader()]
    ours = [group for window in micro_batches.windows(96, replace(FAITHFUL, epochs=1, rounds=1)) for group in window]
    assert ours[: len(loaded)] == loaded


@pytest.mark.parametrize("rows", [1, 3, 50, 1_000])
@pytest.mark.parametrize("recipe", [FAITHFUL, MODERN, Recipe(batch_size=4, rounds=1, mean_rows=None)])
def test_every_step_is_a_whole_number_of_rounds(rows: int, recipe: Recipe) -> None:
    windows = list(micro_batches.windows(rows, recipe))
    assert len(windows) == recipe.steps(rows)
    assert {len(flat(window)) for window in windows} == {recipe.round * min(recipe.rounds, -(-rows // recipe.round))}
    if rows >= recipe.round:
        # A row can be taken once more by each epoch's last round.
        assert max(Counter(row for window in windows for row in flat(window)).values()) <= 2 * recipe.epochs


def test_a_run_that_goes_on_sees_the_rest_of_the_same_steps() -> None:
    recipe = replace(FAITHFUL, batch_size=16, mean_rows=2)
    assert list(micro_batches.windows(75, recipe, done=5)) == list(micro_batches.windows(75, recipe))[5:]


def test_weights_are_means_of_means_or_one_mean() -> None:
    examples: Any = [example(3), example(9), example(5), example(2)]
    groups = micro_batches.weigh(examples, [[0, 1], [2, 3]])
    assert [row.weight for row in groups] == [1 / 20, 1 / 20, 1 / 10, 1 / 10]
    whole = micro_batches.weigh(examples, [[0, 1, 2, 3]])
    assert {row.weight for row in whole} == {1 / 15}


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_devices_share_a_step_evenly_and_nothing_is_lost(world: int, layout: Any) -> None:
    lengths = np.random.default_rng(0).integers(2, 300, 64)
    rows = [WeightedExample(example(int(length)), float(place)) for place, length in enumerate(lengths)]
    shares = micro_batches.split_over_processes(rows, world, 600, layout)
    assert len({len(part) for part in shares}) == 1
    assert sorted(row.weight for part in shares for micro in part for row in micro) == list(range(64))
    assert {sum(map(len, part)) for part in shares} == {64 // world}
    for micro in (micro for part in shares for micro in part):
        held = sum(map(len, micro)) if layout == "packed" else len(micro) * max(map(len, micro))
        assert held <= 600


def test_a_number_of_devices_that_cannot_reach_the_batch_is_refused() -> None:
    rows = [WeightedExample(example(4), 1.0)] * 256
    with pytest.raises(ValueError, match="3 devices cannot share a step of 256 rows"):
        micro_batches.split_over_processes(rows, 3, 100, "packed")


def test_labels_hide_prompt_and_padding() -> None:
    import torch

    rows = [
        WeightedExample(
            TrainingExample(np.array([5, 6, 7, 1], dtype=np.int32), np.array([False, False, True, True])), 0.5
        ),
        WeightedExample(TrainingExample(np.array([8, 1], dtype=np.int32), np.array([False, True])), 0.25),
    ]
    padded = micro_batches.lay_out(rows, "padded", torch.device("cpu"))
    assert padded.ids.tolist() == [[5, 6, 7, 1], [8, 1, 0, 0]]
    assert padded.mask is not None
    assert padded.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    packed = micro_batches.lay_out(rows, "packed", torch.device("cpu"))
    assert packed.ids.tolist() == [[5, 6, 7, 1, 8, 1]]
    assert packed.positions.tolist() == [[0, 1, 2, 3, 0, 1]]
    for batch, places in ((padded, [1, 2, 4]), (packed, [1, 2, 4])):
        assert batch.places.tolist() == places
        assert batch.targets.tolist() == [7, 1, 1]
        assert batch.weights.tolist() == [0.5, 0.5, 0.25]
