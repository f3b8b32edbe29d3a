"""The loop: a step for every window of rows, with its loss, its learning rate and a line of progress now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nift_training import progress
from nift_training.machine import ProcessRank
from nift_training.memory import peak_rss_mb
from nift_training.recipe import Recipe
from nift_training.train import devices, micro_batches
from nift_training.train.engines import Engine
from nift_training.train.micro_batches import Layout
from nift_training.train.pairs import Examples

if TYPE_CHECKING:
    import torch

SAY_EVERY_SECONDS = 5.0
SAVE_EVERY_STEPS = 25
SINGLE_PROCESS = ProcessRank(0, 1, 0)


@dataclass(frozen=True, kw_only=True)
class TrainStep:
    """One optimiser step: its loss, its learning rate, the norm of its gradient, and the tokens it read.

    A step whose gradient overflowed float16 has no norm and changed nothing but the loss scale.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    gradient_norm: float | None
    tokens: int


def optimise(
    engine: Engine,
    examples: Examples,
    recipe: Recipe,
    *,
    layout: Layout,
    at_once: int,
    device: torch.device,
    process: ProcessRank = SINGLE_PROCESS,
    log: Sequence[TrainStep] = (),
    save: Callable[[int, Sequence[TrainStep]], None] | None = None,
    save_steps: int = SAVE_EVERY_STEPS,
    tell: Callable[[TrainStep], None] | None = None,
) -> list[TrainStep]:
    """Trains the adapter in place from the steps in `log` on; one row per optimiser step is returned, and told when it
    is made."""
    total = recipe.steps(len(examples))
    steps = list(log)
    reporter = StepReporter(total, device)
    for number, window in enumerate(micro_batches.windows(len(examples), recipe, len(steps)), start=len(steps) + 1):
        rows = micro_batches.weigh(examples, window)
        mine = micro_batches.split_over_processes(rows, process.world, at_once, layout)[process.rank]
        rate = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (number - 1) / total))
        step_loss: Any = 0.0
        for last, micro in enumerate(mine, start=1 - len(mine)):
            part = engine.loss(micro_batches.lay_out(micro, layout, device))
            engine.backward(part, last=last == 0)
            step_loss = step_loss + part.detach()
        value = engine.sum_over_processes(step_loss)
        if not math.isfinite(value):
            raise ValueError(_diverged(f"loss {value}", number))
        norm = engine.step(rate)
        if math.isnan(norm) or (math.isinf(norm) and not engine.scaled):
            raise ValueError(_diverged(f"gradient norm {norm}", number))
        steps.append(
            TrainStep(
                step=number,
                epoch=round(number * recipe.epochs / total, 4),
                loss=value,
                learning_rate=rate,
                gradient_norm=norm if math.isfinite(norm) else None,
                tokens=sum(map(len, rows)),
            )
        )
        reporter.report(steps[-1])
        if tell is not None:
            tell(steps[-1])
        if save is not None and number % save_steps == 0 and number < total:
            save(number, steps)
    return steps


class StepReporter:
    """Says how far the run is: at its first and last step and every few seconds between."""

    def __init__(self, total: int, device: torch.device) -> None:
        self.total, self.device = total, device
        self.began = self.said = time.monotonic()
        self.first: int | None = None
        self.tokens = 0

    def report(self, step: TrainStep) -> None:
        now = time.monotonic()
        begins = self.first is None
        self.first = self.first or step.step
        self.tokens += step.tokens
        if not begins and step.step != self.total and now - self.said < SAY_EVERY_SECONDS:
            return
        self.said = now
        seconds = now - self.began
        left = seconds / (step.step - self.first + 1) * (self.total - step.step)
        memory = (devices.peak_mb(self.device) or peak_rss_mb()) / 1024
        progress.say(
            f"train: step {step.step}/{self.total}, loss {step.loss:.4f}, {self.tokens / seconds:,.0f} tokens/s, "
            f"{duration(left)} left, {memory:.1f} GB"
        )


def _diverged(what: str, step: int) -> str:
    return (
        f"{what} at step {step}: lower --learning-rate, or look for a broken base or row; the last checkpoint is kept"
    )


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 3:12, 1:02:45."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
