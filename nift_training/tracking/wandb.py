"""Weights & Biases: a run of a project; with WANDB_MODE=offline in a folder, which `wandb sync` sends later."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from nift_training.tracking.measurements import Measurement, Opening
from nift_training.tracking.trackers import TOGETHER

# What W&B would send besides: how this machine and its work look, what is printed, and its own errors.
KEPT_HERE: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "host": TOGETHER,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


class WandbRun:
    """One run, continued if the project has it."""

    def __init__(self, place: str, opening: Opening) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.run: Any = wandb.init(
            project=place or os.environ.get("WANDB_PROJECT") or TOGETHER,
            name=opening.run,
            id=hashlib.sha256(opening.run.encode()).hexdigest()[:32],
            resume="allow",
            config=dict(opening.settings),
            settings=wandb.Settings(**KEPT_HERE),
        )

    def send(self, measurements: Sequence[Measurement]) -> None:
        for one in measurements:
            # A step that it has had is left out by W&B: a run that goes on makes the same numbers again.
            self.run.log(dict(one.numbers), step=one.step)

    def end(self, *, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


start = WandbRun
