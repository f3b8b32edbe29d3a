"""The training recipe as a value, each number with the place it is from."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an adapter is trained; the defaults are the paper's (appendix A and LLaMA-Factory 0.5.2).

    - `epochs` 3, `learning_rate` 5e-5, cosine to zero: the paper's command line.
    - `batch_size` 256: its 8 rows × 4 accumulated micro-batches × 8 GPUs.
    - `micro_batch` is how many rows fit in memory at once; it does not change what is learned.
    - `cutoff` 1024 tokens: `hparams/data_args.py:27-34`.
    - `rank` 8, `alpha` = 2 × rank, no dropout, no bias: `hparams/finetuning_args.py:41-76`.
    - `seed` 42, AdamW with betas 0.9 and 0.999, epsilon 1e-8, no weight decay, no warm-up, gradients clipped to
      norm 1: transformers 4.37.2 `training_args.py`.
    """

    epochs: int = 3
    batch_size: int = 256
    micro_batch: int = 8
    learning_rate: float = 5e-5
    cutoff: int = 1024
    rank: int = 8
    alpha: int = 16
    seed: int = 42
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what no run can be made of."""
        for name in ("epochs", "batch_size", "micro_batch", "learning_rate", "rank", "alpha"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give a positive number")
        if self.cutoff < 2:
            raise ValueError(f"cutoff is {self.cutoff}: give at least 2, a prompt token and a response token")

    def window(self, rows: int) -> int:
        """The rows of one optimiser step: a batch, or the whole epoch when it is smaller."""
        return min(self.batch_size, rows)

    def steps(self, rows: int) -> int:
        """The optimiser steps of the whole run: 12 for 1,000 rows, 855 for the paper's 73,000.

        LLaMA-Factory counts ⌈rows/64⌉ micro-batches over its 8 GPUs and one step for every 4 of them, rounded
        down; a quarter of the batch plays the part of the 64 here, whatever fits in this machine's memory.
        """
        return self.epochs * max(1, (rows + self.batch_size // 4 - 1) // self.batch_size)
