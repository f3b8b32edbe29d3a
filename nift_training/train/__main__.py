"""Trains a LoRA adapter on prompt/response pairs and writes it with its log, recipe, card and manifest.

    python -m nift_training.train --base models/mistral --data pairs.jsonl --out adapter

The recipe is the paper's unless another is named. The data is .json, .jsonl or .parquet with prompt and response,
with Alpaca's instruction, input and output, or with messages. A run that was interrupted goes on from its last
checkpoint when the same command is given again. `--devices 8` runs on eight GPUs through DeepSpeed.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from nift_training import recipe, verbs
from nift_training.machine import Machine
from nift_training.process_environment import TRACKER_OPTION
from nift_training.recipe import Recipe
from nift_training.train import launch, loop
from nift_training.train.run import TrainingRun, carry_out, work_beside


def parser() -> argparse.ArgumentParser:
    """The command line: what is trained on what, how, and on which machine."""
    command_line = verbs.parser("train", __doc__, "adapter folder to write")
    add = command_line.add_argument
    add("--base", type=Path, required=True, help="folder of the model to train on; nift_training.fetch brings one")
    add("--base-name", help="the base's name, recorded in the adapter; the folder's name if not given")
    add("--data", type=Path, required=True, help=".json, .jsonl or .parquet: pairs, Alpaca rows or messages")
    add("--data-version", help="what the card calls the data; its sha256 if not given")
    changes = command_line.add_argument_group("recipe", "what is learnt; each option changes one number of --recipe")
    without = ", ".join(sorted({field.name for field in fields(Recipe)} - {_field(option) for option, *_ in _CHANGES}))
    changes.add_argument(
        "--recipe",
        default="faithful",
        help=f"faithful (the paper's), modern, or a recipe.json, which can set {without} too",
    )
    for option, kind, what in _CHANGES:
        changes.add_argument(f"--{option}", type=kind, help=what)
    where = command_line.add_argument_group("machine", "where and how fast; none of it changes what is learnt")
    add = where.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="kind of device")
    add("--devices", type=verbs.positive, default=1, help="devices per node; more than one run through DeepSpeed")
    add("--zero", type=int, choices=(0, 2, 3), default=0, help="what devices share: 2 gradients, 3 weights too")
    add("--hostfile", help="nodes of a run over several, `host slots=8` per line")
    add("--tokens-at-once", type=verbs.positive, help="tokens a device computes at a time; by default by its kind")
    add("--kernels", choices=("torch", "liger"), default="torch", help="liger's are faster, on a GPU, if installed")
    add("--gradient-checkpointing", choices=("auto", "on", "off"), default="auto", help="recompute to save memory")
    add("--work", type=Path, help="folder for checkpoints; OUT.work if not given")
    add("--cache", type=Path, help="folder for token ids, kept from run to run; in the work folder if not given")
    add("--save-steps", type=verbs.positive, default=loop.SAVE_EVERY_STEPS, help="steps between checkpoints")
    add("--start-over", action="store_true", help="remove the checkpoints there are and begin anew")
    told = command_line.add_argument_group("tracker", "who is told of each step; none of it changes what is learnt")
    add = told.add_argument
    add(TRACKER_OPTION, help="mlflow[:ADDRESS], tensorboard[:FOLDER] or wandb[:PROJECT]; nobody if not given")
    add(
        "--tracked-as",
        help="what the run is called there; by default OUT's name with a digest of base, data and recipe",
    )
    return command_line


def _field(option: str) -> str:
    return option.replace("-", "_")


def _or_none(text: str) -> int:
    return 0 if text == "none" else verbs.positive(text)


_CHANGES: tuple[tuple[str, Any, str], ...] = (
    ("epochs", verbs.positive, "passes over the data"),
    ("batch-size", verbs.positive, "rows per optimiser step; other than the recipe's it is one round with one mean"),
    ("rounds", verbs.positive, "rounds a step is accumulated of"),
    ("mean-rows", _or_none, "rows whose loss is averaged first, or none for one mean over the step"),
    ("learning-rate", float, "at the first step"),
    ("cutoff", int, "tokens kept of a pair"),
    ("rank", verbs.positive, "rank of the LoRA matrices"),
    ("alpha", verbs.positive, "LoRA scale, applied as alpha/rank"),
    ("seed", int, "seed of the LoRA matrices and the shuffling"),
    ("precision", str, "float16, bfloat16 or float32"),
)


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """The named recipe with the changes that were asked for."""
    named = recipe.named(options.recipe)
    names = {field.name for field in fields(Recipe)}
    changes = {name: value for name, value in vars(options).items() if name in names and value is not None}
    if changes.get("batch_size", named.batch_size) != named.batch_size:
        # The paper's rounds are those of its 256 rows.
        changes = {"rounds": 1, "mean_rows": None} | changes
    if changes.get("mean_rows") == 0:
        changes["mean_rows"] = None
    return replace(named, **changes)


def chosen_machine(options: argparse.Namespace) -> Machine:
    """The devices that were asked for."""
    return Machine(**{field.name: getattr(options, field.name) for field in fields(Machine)})


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes the adapter folder."""
    options = parser().parse_args(argv)
    how = chosen_recipe(options)
    # A thread that waits for another by spinning takes the core from whoever could use it: on two busy cores the same
    # step took 2.5 times the CPU.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    warnings.simplefilter("ignore", FutureWarning)  # what libraries will call their functions is no news to a person
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    verbs.use_threads(max(1, options.threads // local))
    work = options.work or work_beside(options.out)
    run = TrainingRun(
        base=options.base,
        base_name=options.base_name or options.base.resolve().name,
        data=options.data,
        out=options.out,
        work=work,
        cache=options.cache or work,
        threads=options.threads,
        data_version=options.data_version,
        device=options.device,
        save_steps=options.save_steps,
        start_over=options.start_over,
        tracker=options.tracker,
        tracked_as=options.tracked_as,
    )
    carry_out(run, how, chosen_machine(options))


def start(argv: Sequence[str]) -> None:
    """Runs the command here, or once per device where there are several."""
    if launch.launched() or not {"--devices", "--zero", "--hostfile"} & {
        argument.partition("=")[0] for argument in argv
    }:
        verbs.run(main, argv)
        return
    try:
        wanted = chosen_machine(parser().parse_args(argv))
        if wanted.distributed:
            sys.exit(launch.run("nift_training.train", argv, wanted))
        verbs.run(main, argv)
    except ValueError as mistake:
        verbs.run(partial(_refuse, mistake), argv)


def _refuse(mistake: ValueError, _: Sequence[str]) -> None:
    raise mistake


if __name__ == "__main__":
    start(sys.argv[1:])
