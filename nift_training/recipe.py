"""The training recipes as values, each number with the place it is from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from nift_training import json_objects

# No number of a recipe is larger, and NaN is none.
LARGEST = 10**9
Precision = Literal["float16", "bfloat16", "float32"]


def _is_like(usual: object, value: object) -> bool:
    """Whether a value from a file is of the kind of the usual one."""
    if isinstance(usual, tuple):
        return isinstance(value, tuple) and len(value) == len(usual) and all(map(_is_like, usual, value))
    if isinstance(usual, float):
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    return type(value) is type(usual)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an adapter is trained; the defaults are the paper's (appendix A and LLaMA-Factory 0.5.2).

    - `epochs` 3, `learning_rate` 5e-5, half a cosine down to zero, no warm-up: the paper's command line.
    - `batch_size` 256 in `rounds` 4 of `mean_rows` 8: its 8 GPUs × 8 rows × 4 accumulated micro-batches. The loss is
      the mean over micro-batches of 8 rows of each one's mean over response tokens, as transformers took it before
      4.46; `mean_rows` None takes the mean over all response tokens of the step instead.
    - `cutoff` 1024 tokens, each side cut in proportion: `hparams/data_args.py:27-34`, `data/utils.py:42-46`.
    - `add_bos` no, `separator` none, `add_eos` yes: the template `vanilla`. `keep_eos` adds the end of sequence after
      the cut, so that a pair that was too long has one as well; the paper's have none.
    - `rank` 8, `alpha` = 2 × rank, no dropout, no bias: `hparams/finetuning_args.py:41-76`.
    - `seed` 42, AdamW with `betas` 0.9 and 0.999, `epsilon` 1e-8, `weight_decay` 0, gradients clipped to norm 1:
      transformers 4.37.2 `training_args.py`.
    - `precision` float16: `--fp16` on V100s, which have no bfloat16. The adapter itself is float32 always.
    - The loss scale begins at 2**16, doubles after 1000 steps that fit and tolerates one overflow: the template of
      LLaMA-Factory's `README.md:464-491`. `min_loss_scale` below its 1 is what a file called `ds_config_min_scale`
      is for; 1e-10 is the value others chose for the same error.

    How many devices there are and how much of a step each holds at a time changes none of this: see `Machine`.
    """

    epochs: int = 3
    batch_size: int = 256
    rounds: int = 4
    mean_rows: int | None = 8
    learning_rate: float = 5e-5
    cutoff: int = 1024
    add_bos: bool = False
    add_eos: bool = True
    keep_eos: bool = False
    separator: str = ""
    rank: int = 8
    alpha: int = 16
    seed: int = 42
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    precision: Precision = "float16"
    min_loss_scale: float = 1e-10

    def __post_init__(self) -> None:
        """Refuses what no run can be made of."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not _is_like(field.default, value) and not (field.name == "mean_rows" and value is None):
                raise ValueError(f"a recipe's {field.name} is {field.default!r} or its like, and not {value!r:.60}")
        for name in ("epochs", "batch_size", "rounds", "learning_rate", "rank", "alpha", "min_loss_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a positive number")
        if self.cutoff < 2 + self.keep_eos:
            raise ValueError(f"cutoff is {self.cutoff}: give at least {2 + self.keep_eos}, a token for each part")
        if self.keep_eos and not self.add_eos:
            raise ValueError("keep_eos without add_eos: there is no end of sequence to keep")
        if self.precision not in ("float16", "bfloat16", "float32"):
            raise ValueError(f"precision is {self.precision!r}: give float16, bfloat16 or float32")
        if self.batch_size % self.rounds:
            raise ValueError(f"batch_size {self.batch_size} is not made of {self.rounds} equal rounds: change one")
        if self.mean_rows is not None and (self.mean_rows < 1 or self.round % self.mean_rows):
            raise ValueError(
                f"a round of {self.round} rows is not made of groups of mean_rows {self.mean_rows}: give a divisor, "
                "or none for one mean over the step"
            )

    @property
    def round(self) -> int:
        """The rows of one round, after which accumulation may stop: 64, a micro-batch on each of the 8 GPUs."""
        return self.batch_size // self.rounds

    def rounds_per_epoch(self, rows: int) -> int:
        """The rounds of one epoch; the last is filled up from the epoch's beginning."""
        return -(-rows // self.round)

    def steps(self, rows: int) -> int:
        """The optimiser steps of the whole run: 12 for 1,000 rows, 855 for the paper's 73,000.

        One step for every `rounds` rounds, rounded down (transformers 4.37.2 `trainer.py:1580-1596`).
        """
        return self.epochs * max(1, self.rounds_per_epoch(rows) // self.rounds)


FAITHFUL = Recipe()
"""The paper's recipe to the token."""

MODERN = Recipe(keep_eos=True, mean_rows=None, precision="bfloat16")
"""What one would do today with the same numbers: every pair keeps its end, every response token weighs the same."""

RECIPES = {"faithful": FAITHFUL, "modern": MODERN}


def named(recipe: str) -> Recipe:
    """The recipe of that name, or of a JSON file such as the `recipe.json` beside an adapter."""
    if recipe in RECIPES:
        return RECIPES[recipe]
    if not Path(recipe).is_file():
        raise ValueError(f"there is no recipe {recipe!r}: name {', '.join(RECIPES)} or a recipe.json")
    return from_json(json_objects.of_file(Path(recipe)))


def from_json(values: dict[str, Any]) -> Recipe:
    """The recipe of a JSON object; a field that no recipe has is refused, not ignored."""
    names = {field.name for field in fields(Recipe)}
    if strange := sorted(values.keys() - names):
        raise ValueError(f"a recipe has no {', '.join(strange)}: it has {', '.join(sorted(names))}")
    betas = values.get("betas", Recipe.betas)
    return Recipe(**values | {"betas": tuple(betas) if isinstance(betas, list) else betas})


def name_of(recipe: Recipe) -> str:
    """`faithful` or `modern`, or which of the two it is closest to and what differs."""
    distance = {name: _differences(recipe, named_recipe) for name, named_recipe in RECIPES.items()}
    nearest = min(distance, key=lambda name: len(distance[name]))
    return ", ".join([nearest, *(f"{field} {value}" for field, value in distance[nearest].items())])


def _differences(recipe: Recipe, named_recipe: Recipe) -> dict[str, Any]:
    values, others = asdict(recipe), asdict(named_recipe)
    return {name: value for name, value in values.items() if value != others[name]}
