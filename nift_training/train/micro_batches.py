"""Which rows an optimiser step sees, what each weighs, and how they are laid out for a device.

What a step sees is the reference's order to the row; how it is cut into micro-batches is ours, since it changes the
order of a sum and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from typing import TYPE_CHECKING, Literal

from nift_training.recipe import Recipe
from nift_training.train.pairs import TrainingExample

if TYPE_CHECKING:
    import torch

Layout = Literal["packed", "padded"]


@dataclass(frozen=True)
class WeightedExample:
    """An example of a step, and what each of its response tokens weighs in the step's loss."""

    example: TrainingExample
    weight: float

    def __len__(self) -> int:
        return len(self.example)


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What a device computes at once.

    `ids` and `positions` are [rows, tokens]; a packed batch is one row of examples end to end, whose `lengths` keep
    them apart, a padded one has a row per example and a `mask`. `places` are the flat places of the hidden states
    that predict something, `targets` what they should predict and `weights` what each of them counts.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    lengths: tuple[int, ...]
    mask: torch.Tensor | None
    places: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def windows(rows: int, recipe: Recipe, done: int = 0) -> Iterator[list[list[int]]]:
    """The rows of each optimiser step from the `done`-th on, in groups whose losses are averaged first.

    Every epoch is shuffled anew with the seed plus its number, as transformers' Trainer does through accelerate; which
    order the paper's own run drew is not on record. The last round of an epoch is filled up with the epoch's first rows
    (accelerate's `even_batches`). Rounds left over at an epoch's end open the next step, as the accumulation counter of
    transformers 4.37 does.
    """
    per_epoch = recipe.rounds_per_epoch(rows)
    taken = min(recipe.rounds, per_epoch)
    for step in range(done, recipe.steps(rows)):
        window: list[int] = []
        for number in range(step * taken, (step + 1) * taken):
            epoch, place = divmod(number, per_epoch)
            order = _order(rows, recipe.round, recipe.seed + epoch)
            window += order[place * recipe.round : (place + 1) * recipe.round]
        size = recipe.mean_rows or len(window)
        yield [window[start : start + size] for start in range(0, len(window), size)]


@lru_cache(maxsize=2)
def _order(rows: int, multiple: int, seed: int) -> list[int]:
    import torch

    order: list[int] = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).tolist()
    return order + list(islice(cycle(order[:multiple]), -rows % multiple))


def weigh(examples: Sequence[TrainingExample], window: Sequence[Sequence[int]]) -> list[WeightedExample]:
    """The examples of a step with their weights, which sum to one over all its response tokens."""
    weighed = []
    for group in window:
        members = [examples[row] for row in group]
        tokens = sum(targets(member) for member in members)
        weighed += [WeightedExample(member, 1 / (len(window) * max(tokens, 1))) for member in members]
    return weighed


def targets(example: TrainingExample) -> int:
    """The tokens of an example that are predicted: the first of a sequence has nothing before it."""
    return int(example.trained[1:].sum())


def split_over_processes(
    rows: Sequence[WeightedExample], world: int, at_once: int, layout: Layout
) -> list[list[list[WeightedExample]]]:
    """The micro-batches of each device: sorted by length, equally many on each, at most `at_once` tokens where it can.

    Neighbours by length go to different devices, so that no device waits long for another.
    """
    if len(rows) % world:
        raise ValueError(
            f"{world} devices cannot share a step of {len(rows)} rows: use a number of devices that divides it"
        )
    ordered = sorted(rows, key=len)
    shares = [_pack(ordered[rank::world], at_once, layout) for rank in range(world)]
    most = max(map(len, shares))
    return [_split(part, most) for part in shares]


def _pack(rows: Sequence[WeightedExample], at_once: int, layout: Layout) -> list[list[WeightedExample]]:
    """Neighbours together as long as they fit; in the order of length the widest is the last."""
    batches: list[list[WeightedExample]] = []
    for row in rows:
        batch = batches[-1] if batches else []
        tokens = len(row) * (len(batch) + 1) if layout == "padded" else sum(map(len, batch)) + len(row)
        if batch and tokens <= at_once:
            batch.append(row)
        else:
            batches.append([row])
    return batches


def _split(batches: list[list[WeightedExample]], wanted: int) -> list[list[WeightedExample]]:
    """As many batches as wanted: collective operations need the same number on every device."""
    while len(batches) < wanted:
        largest = max(range(len(batches)), key=lambda place: len(batches[place]))
        rows = batches[largest]
        batches[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return batches


def lay_out(rows: Sequence[WeightedExample], layout: Layout, device: torch.device) -> MicroBatch:
    """The micro-batch as tensors on the device, copied without waiting for it."""
    import numpy as np
    import torch

    lengths = [len(row) for row in rows]
    width = max(lengths) if layout == "padded" else sum(lengths)
    starts = [number * width for number in range(len(rows))] if layout == "padded" else np.cumsum([0, *lengths[:-1]])
    flat = np.zeros(width * (len(rows) if layout == "padded" else 1), dtype=np.int64)
    positions, mask = flat.copy(), flat.copy()
    places, wanted, weights = [], [], []
    for row, start in zip(rows, starts, strict=True):
        inside = slice(start, start + len(row))
        flat[inside], positions[inside], mask[inside] = row.example.ids, np.arange(len(row)), 1
        predicted = np.flatnonzero(row.example.trained[1:])
        places.append(start + predicted)
        wanted.append(row.example.ids[predicted + 1])
        weights.append(np.full(len(predicted), row.weight, dtype=np.float32))

    def tensor(values: np.ndarray, *shape: int) -> torch.Tensor:
        tensor = torch.from_numpy(values).reshape(shape or (-1,))
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

    return MicroBatch(
        ids=tensor(flat, -1, width),
        positions=tensor(positions, -1, width),
        lengths=tuple(lengths),
        mask=tensor(mask, -1, width) if layout == "padded" else None,
        places=tensor(np.concatenate(places)),
        targets=tensor(np.concatenate(wanted).astype(np.int64)),
        weights=tensor(np.concatenate(weights)),
    )
