"""Checkpoints of a run: whole or not there, believed only when every file is what its manifest says.

A checkpoint holds the adapter's masters, Adam's moments, the log so far, the recipe, and what the run is. Its files
are safetensors and JSON: reading one runs nothing, whoever wrote it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nift_training import artifacts, progress
from nift_training.train.engines import Scale, TrainingState

KEPT = 2
PREFIX = "checkpoint-"
MASTERS, FIRST, SECOND = "adapter.safetensors", "first_moments.safetensors", "second_moments.safetensors"
STATE, LOG, IDENTITY = "state.json", "train_log.jsonl", "run.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run stood: the steps done, their log, and all that they had changed."""

    done: int
    log: list[dict[str, Any]]
    state: TrainingState


def write(
    folder: Path, done: int, state: TrainingState, log: Sequence[dict[str, Any]], identity: dict[str, Any]
) -> Path:
    """The checkpoint after so many steps; older ones than the last two go once it stands and holds."""
    from safetensors.torch import save_file

    out = folder / f"{PREFIX}{done:06d}"
    if out.exists():
        shutil.rmtree(out)  # it was refused, or the run went back behind it
    with artifacts.folder(out, "checkpoint") as draft:
        for name, tensors in (
            (MASTERS, state.masters),
            (FIRST, state.first_moments),
            (SECOND, state.second_moments),
        ):
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, draft.path / name)
        stood = {"done": done, "updates": state.updates, "scale": asdict(state.scale)}
        (draft.path / STATE).write_text(json.dumps(stood), encoding="utf-8")
        (draft.path / IDENTITY).write_text(json.dumps(identity, indent=2), encoding="utf-8")
        (draft.path / LOG).write_text("".join(map(artifacts.line, log)), encoding="utf-8")
    artifacts.verify(out)
    for old in _all(folder)[KEPT:]:
        shutil.rmtree(old)
    return out


def latest(folder: Path, identity: dict[str, Any], *, start_over: bool) -> Checkpoint | None:
    """The last checkpoint that is whole and of this very run; none if there are none, or if told to start over.

    One that is damaged is named and the one before it taken. ValueError if none is left, or if they are of another run.
    """
    for abandoned in folder.glob(f".{PREFIX}*.partial-*"):
        shutil.rmtree(abandoned)
    checkpoints = _all(folder)
    if start_over:
        for checkpoint in checkpoints:
            shutil.rmtree(checkpoint)
        return None
    for checkpoint in checkpoints:
        try:
            artifacts.verify(checkpoint)
        except (ValueError, OSError) as damage:
            progress.say(f"train: {checkpoint.name} is not used: {damage}")
            continue
        _check_same(checkpoint, identity)
        progress.say(f"train: going on from {checkpoint.name}")
        return _read(checkpoint)
    if checkpoints:
        names = ", ".join(checkpoint.name for checkpoint in checkpoints)
        raise ValueError(
            f"none of the checkpoints in {folder} is whole ({names}): restore one, or start over with --start-over"
        )
    return None


def _all(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the last first."""
    return sorted((path for path in folder.glob(f"{PREFIX}*") if path.is_dir()), reverse=True)


def _check_same(checkpoint: Path, identity: dict[str, Any]) -> None:
    """A resumed run must be the run that was interrupted: same base, data and recipe."""
    theirs = json.loads((checkpoint / IDENTITY).read_text(encoding="utf-8"))
    ours = json.loads(json.dumps(identity))
    different = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
    if different:
        what = "; ".join(f"{name} was {theirs.get(name)} and is {ours.get(name)}" for name in different)
        raise ValueError(f"{checkpoint} is of another run ({what}): name another --work, or start over")


def _read(checkpoint: Path) -> Checkpoint:
    from safetensors.torch import load_file

    stood = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    state = TrainingState(
        masters=load_file(checkpoint / MASTERS),
        first_moments=load_file(checkpoint / FIRST),
        second_moments=load_file(checkpoint / SECOND),
        updates=stood["updates"],
        scale=Scale(**stood["scale"]),
    )
    return Checkpoint(stood["done"], artifacts.read_rows(checkpoint / LOG), state)
