"""Interruptions and damage: a run that goes on ends in the same bytes, and nothing damaged is believed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts, verbs
from nift_training.train import checkpoints, loop, run
from tests.counting import Counts
from tests.training.conftest import RECIPE

LONG = replace(RECIPE, epochs=8)  # 24 steps
FILES = [
    "adapter.safetensors",
    "first_moments.safetensors",
    "second_moments.safetensors",
    "state.json",
    "run.json",
    "train_log.jsonl",
    "manifest.json",
]


class Killed(BaseException):
    """Stands for the moment of a SIGKILL: nothing of the training code runs after it."""


def whole(tiny: Path, pairs_file: Path, out: Path, **options: Any) -> artifacts.Manifest:
    verbs.use_threads(1)
    return run.train(tiny, "tiny-base", pairs_file, LONG, out, 1, **options)


@pytest.fixture(scope="module")
def uninterrupted(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return whole(tiny, pairs_file, tmp_path_factory.mktemp("whole") / "adapter").digest


@pytest.fixture
def interrupted(tiny: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder of a run that stopped in its ninth step, with checkpoints after four and eight."""
    stop_after(monkeypatch, 8)
    with pytest.raises(Killed):
        whole(tiny, pairs_file, tmp_path / "adapter", save_steps=4)
    monkeypatch.undo()
    return tmp_path / "adapter.work"


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    say = loop.StepReporter.report

    def stop(clock: loop.StepReporter, step: loop.TrainStep) -> None:
        say(clock, step)
        if step.step > steps:
            raise Killed

    monkeypatch.setattr(loop.StepReporter, "report", stop)


@pytest.mark.fault("M1", runs="2 kills; slow: 10")
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_ends_in_the_same_bytes(
    kills: int, tiny: Path, pairs_file: Path, tmp_path: Path, uninterrupted: str, counts: Counts
) -> None:
    """M1: SIGKILL from outside when a step has been kept, or a moment later, and by turns inside a save, where one of
    its files is about to be flushed."""
    chance = random.Random(kills)
    resumed = 0
    for number in range(kills):
        out = tmp_path / f"adapter-{number}"
        inside, step = number % 2, chance.randint(1, 16)
        # A fork of this process, in which everything is imported; one thread each, so that nothing waits for a pool.
        running = os.fork()
        if not running:
            if inside:
                end_at_flush(step * len(FILES) + chance.randrange(len(FILES)))
            whole(tiny, pairs_file, out, save_steps=1)
            os._exit(0)
        while not inside and max(kept(out), default=0) < step:
            assert os.waitpid(running, os.WNOHANG) == (0, 0), "it ended before it was killed"
            time.sleep(0.002)
        if not inside:
            os.kill(running, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(running, 0)[1]) == -signal.SIGKILL
        assert not out.exists()
        resumed += whole(tiny, pairs_file, out).facts["resumed_from_step"] > 0
        assert artifacts.verify(out).digest == uninterrupted
        assert not out.with_name(f"{out.name}.work").exists()
    assert {path.name for path in tmp_path.iterdir()} == {f"adapter-{number}" for number in range(kills)}
    counts("M1", f"{kills} kills, {resumed} runs went on from a checkpoint, {kills} adapters byte for byte the same")


def end_at_flush(number: int) -> None:
    """Has this process killed when it has flushed so many files and folders and is to flush another."""
    fsync, before = os.fsync, iter(range(number))

    def flush(file: int) -> None:
        if next(before, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    os.fsync = flush


def kept(out: Path) -> list[int]:
    return [int(path.name[-6:]) for path in out.with_name(f"{out.name}.work").glob("checkpoint-*")]


def test_a_resumed_run_says_so_and_ends_in_the_same_bytes(
    interrupted: Path, tiny: Path, pairs_file: Path, uninterrupted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = interrupted.with_name("adapter")
    manifest = whole(tiny, pairs_file, out)
    assert manifest.digest == uninterrupted
    assert manifest.facts["resumed_from_step"] == 8
    assert "going on from checkpoint-000008" in capsys.readouterr().err
    assert not interrupted.exists()


def injure(file: Path, injury: str) -> None:
    if injury == "missing":
        file.unlink()
    elif injury == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        file.write_bytes(bytes(file.stat().st_size))


@pytest.fixture(scope="module")
def identity_and_folder(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with two checkpoints of one run, and what the run is."""
    folder = tmp_path_factory.mktemp("kept")
    monkeypatch = pytest.MonkeyPatch()
    stop_after(monkeypatch, 8)
    with pytest.raises(Killed):
        whole(tiny, pairs_file, folder / "adapter", save_steps=4)
    monkeypatch.undo()
    work = folder / "adapter.work"
    return json.loads((work / "checkpoint-000008" / "run.json").read_text()), work


@pytest.fixture(scope="module")
def refused(counts: Counts) -> Iterator[list[tuple[str, str]]]:
    """The file and the injury of each checkpoint that was refused, counted when all have been tried."""
    seen: list[tuple[str, str]] = []
    yield seen
    files, injuries = ({one[place] for one in seen} for place in (0, 1))
    counts("M2", f"{len(seen)} checkpoints, {len(files)} files × {len(injuries)} injuries: refused by name")


@pytest.mark.fault("M2", runs="each file × 3")
@pytest.mark.parametrize("injury", ["missing", "truncated", "zeroed"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    name: str,
    injury: str,
    identity_and_folder: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refused: list[tuple[str, str]],
) -> None:
    """M2: each file missing, truncated or zeroed; with both checkpoints damaged only a flag begins anew."""
    identity, kept_folder = identity_and_folder
    work = tmp_path / "work"
    shutil.copytree(kept_folder, work)
    assert sorted(path.name for path in (work / "checkpoint-000008").iterdir()) == sorted(FILES)
    injure(work / "checkpoint-000008" / name, injury)
    found = checkpoints.latest(work, identity, start_over=False)
    assert found is not None
    assert found.done == len(found.log) == 4
    said = capsys.readouterr().err
    assert "checkpoint-000008 is not used" in said
    assert name in said
    injure(work / "checkpoint-000004" / name, injury)
    with pytest.raises(ValueError, match=r"none of the checkpoints in .* is whole .*--start-over"):
        checkpoints.latest(work, identity, start_over=False)
    assert checkpoints.latest(work, identity, start_over=True) is None
    assert not list(work.glob("checkpoint-*"))
    refused.append((name, injury))


@pytest.mark.fault("M3")
def test_a_draft_without_a_manifest_is_no_checkpoint(identity_and_folder: Any, tmp_path: Path) -> None:
    """M3: what a kill inside a save leaves behind is removed, and the checkpoint before it stands."""
    identity, kept_folder = identity_and_folder
    work = tmp_path / "work"
    shutil.copytree(kept_folder, work)
    shutil.copytree(work / "checkpoint-000008", work / ".checkpoint-000012.partial-99")
    (work / "checkpoint-000016").mkdir()
    found = checkpoints.latest(work, identity, start_over=False)
    assert found is not None
    assert found.done == 8
    assert not (work / ".checkpoint-000012.partial-99").exists()


@pytest.mark.fault("M3")
def test_the_last_good_checkpoint_stays_until_a_newer_one_holds(
    identity_and_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity, kept_folder = identity_and_folder
    work = tmp_path / "work"
    shutil.copytree(kept_folder, work)
    found = checkpoints.latest(work, identity, start_over=False)
    assert found is not None

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(work, 12, found.state, found.log, identity)
    monkeypatch.undo()
    assert sorted(path.name for path in work.iterdir() if path.name != ".lock" and "tokens" not in path.name) == [
        "checkpoint-000004",
        "checkpoint-000008",
    ]
    checkpoints.write(work, 12, found.state, found.log, identity)
    assert sorted(path.name for path in work.glob("checkpoint-*")) == ["checkpoint-000008", "checkpoint-000012"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rank": 4}, "recipe was"),
        ({"seed": 1}, "recipe was"),
        ({"learning_rate": 1.0}, "recipe was"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(
    change: dict[str, Any], complaint: str, interrupted: Path, tiny: Path, pairs_file: Path
) -> None:
    out = interrupted.with_name("adapter")
    with pytest.raises(ValueError, match=f"checkpoint-000008 is of another run .*{complaint}"):
        run.train(tiny, "tiny-base", pairs_file, replace(LONG, **change), out, 1)
    assert not out.exists()


def test_a_checkpoint_of_another_base_or_other_data_is_refused(
    interrupted: Path, tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    from tests.training.conftest import write_tiny_model

    out = interrupted.with_name("adapter")
    other = write_tiny_model(tmp_path / "other", seed=1, hidden=32)
    with pytest.raises(ValueError, match=r"another run \(base was"):
        whole(other, pairs_file, out)
    more = tmp_path / "more.jsonl"
    more.write_text(pairs_file.read_text() + pairs_file.read_text().splitlines()[0] + "\n")
    with pytest.raises(ValueError, match=r"another run \(data was .*rows was 12 and is 13"):
        whole(tiny, more, out)
    assert not out.exists()


def test_two_runs_do_not_work_in_one_folder(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    with (
        run._alone(tmp_path / "adapter.work"),
        pytest.raises(ValueError, match="another run works in"),
    ):
        whole(tiny, pairs_file, tmp_path / "adapter")


@pytest.mark.fault("X5")
def test_planted_pickles_are_never_opened(interrupted: Path, tiny: Path, pairs_file: Path, uninterrupted: str) -> None:
    """X4, X5: a bomb under each name that other trainers load, and in place of each file of ours."""
    trace = interrupted.with_name("ran")
    bomb = b"cos\nsystem\n(S'touch " + os.fsencode(trace) + b"'\ntR."
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "adapter_model.bin"):
        (interrupted / "checkpoint-000004" / name).write_bytes(bomb)
    for file in (interrupted / "checkpoint-000008").iterdir():
        file.write_bytes(bomb)
    assert whole(tiny, pairs_file, interrupted.with_name("adapter")).digest == uninterrupted
    assert not trace.exists()
