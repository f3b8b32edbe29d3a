"""Several processes: the same adapter as one, through DeepSpeed on a CPU; configurations, launchers, loss scale."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts
from nift_training.machine import Machine
from nift_training.recipe import FAITHFUL, MODERN, Recipe
from nift_training.train import engines, launch, run
from nift_training.train.engines import Scale
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.training.conftest import RECIPE


def started(tiny: Path, data: Path, out: Path, recipe: Recipe, *options: str) -> subprocess.Popen[str]:
    """One run by the command line, with two micro-batches or more in a step."""
    kept = out.with_name("recipe.json")
    kept.write_text(json.dumps({name: getattr(recipe, name) for name in recipe.__dataclass_fields__}))
    command = [sys.executable, "-m", "nift_training.train", "--base", str(tiny), "--base-name", "tiny-base"]
    command += ["--data", str(data), "--out", str(out), "--recipe", str(kept), "--threads", "2", "--device", "cpu"]
    return subprocess.Popen(
        [*command, "--tokens-at-once", "100", *options], stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def trained(tiny: Path, data: Path, out: Path, *options: str) -> tuple[int, str]:
    """The exit code of a run in the tests' recipe, and what it said."""
    running = started(tiny, data, out, RECIPE, *options)
    _, said = running.communicate()
    return running.returncode, said


def difference(one: Path, other: Path) -> float:
    """The largest difference between the weights of two adapters."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["2", "3"])
def test_two_processes_train_the_adapter_that_one_does(
    zero: str, tiny: Path, pairs_file: Path, adapter: Path, tmp_path: Path, counts: Counts
) -> None:
    out = tmp_path / "adapter"
    code, said = trained(tiny, pairs_file, out, "--devices", "2", "--zero", zero)
    assert code == 0, said
    facts = artifacts.verify(out).facts
    assert (facts["devices"], facts["zero"]) == (2, int(zero))
    # Each step changes a weight by up to 1e-2; what is left is the order of sums.
    apart = difference(out, adapter)
    assert apart < 1e-4
    ours, theirs = (artifacts.read_rows(folder / "train_log.jsonl") for folder in (out, adapter))
    assert [row["loss"] for row in ours] == pytest.approx([row["loss"] for row in theirs], rel=1e-5)
    counts("M1", f"two processes with ZeRO-{zero}: largest difference of a weight from one process {apart:.1e}")


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("2", None), (None, "2"), ("3", None)])
def test_a_run_goes_on_with_other_devices(
    first: str | None, then: str | None, tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """A checkpoint holds whole tensors: two processes go on from one's, and one from two's."""
    longer = replace(RECIPE, epochs=16)
    whole = run.train(tiny, "tiny-base", pairs_file, longer, tmp_path / "whole", 1)
    out, work = tmp_path / "adapter", tmp_path / "adapter.work"
    begun = started(tiny, pairs_file, out, longer, *devices(first), "--save-steps", "1")
    while not list(work.glob("checkpoint-*")):
        assert begun.poll() is None
        time.sleep(0.005)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert not out.exists()
    finished = started(tiny, pairs_file, out, longer, *devices(then))
    _, said = finished.communicate()
    assert finished.returncode == 0, said
    assert "going on from checkpoint-" in said
    assert artifacts.verify(out).facts["steps"] == whole.facts["steps"]
    assert difference(out, tmp_path / "whole") < 1e-3


def devices(zero: str | None) -> tuple[str, ...]:
    return ("--devices", "2", "--zero", zero) if zero else ()


@pytest.mark.slow
def test_a_mistake_in_several_processes_is_one_line(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    code, said = trained(tiny, pairs_file, tmp_path / "adapter", "--devices", "3")
    assert code == 2
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "3 devices cannot" in errors[0]
    assert said.rstrip().endswith(errors[0])
    assert not (tmp_path / "adapter").exists()


def test_the_faithful_configuration_is_llama_factorys_template() -> None:
    """Of its README at 0.5.2; the lower minimum is set behind it, since DeepSpeed takes a whole number here."""
    found = engines.configuration(FAITHFUL, Machine(devices=8, zero=2), 8, "float16")
    assert found["fp16"] == {
        "enabled": True,
        "loss_scale": 0,
        "initial_scale_power": 16,
        "loss_scale_window": 1000,
        "hysteresis": 2,
        "min_loss_scale": 1,
    }
    assert found["zero_optimization"]["stage"] == 2
    assert found["gradient_clipping"] == 1.0
    assert found["train_batch_size"] == 256
    assert found["train_micro_batch_size_per_gpu"] * found["gradient_accumulation_steps"] * 8 == 256


def test_seventy_billion_weights_are_shared_and_modern_is_in_bfloat16() -> None:
    found = engines.configuration(MODERN, Machine(devices=8, zero=3), 16, "bfloat16")
    assert found["zero_optimization"]["stage"] == 3
    assert found["bf16"] == {"enabled": True}
    assert "fp16" not in found


@pytest.mark.parametrize("devices", [3, 5, 6, 7, 12, 512])
def test_devices_that_cannot_reach_256_rows_are_refused(devices: int) -> None:
    with pytest.raises(ValueError, match=f"{devices} devices cannot reach a batch of 256"):
        engines.configuration(FAITHFUL, Machine(devices=devices), devices, "float16")


def test_deepspeed_itself_takes_the_configurations() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    for machine, recipe, precision in (
        (Machine(zero=2), FAITHFUL, "float16"),
        (Machine(zero=3), MODERN, "bfloat16"),
        (Machine(zero=2), replace(FAITHFUL, precision="float32"), "float32"),
    ):
        found = engines.configuration(recipe, machine, 1, precision)
        read: Any = DeepSpeedConfig(found)
        assert read.zero_optimization_stage == machine.zero
        assert read.gradient_clipping == 1.0
        assert read.float16_config.enabled == (precision == "float16")


def test_one_node_is_torchrun_and_several_are_deepspeeds_launcher(tmp_path: Path) -> None:
    one = launch.command("nift_training.train", ["--zero", "3"], Machine(devices=8, zero=3))
    assert one[1:7] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8", "--module"]
    several = launch.command("nift_training.train", ["--zero", "3"], Machine(devices=8, zero=3, hostfile="hosts"))
    assert several[2:7] == ["deepspeed.launcher.runner", "--hostfile", "hosts", "--num_gpus", "8"]
    assert several[7:] == ["--module", "nift_training.train", "--zero", "3"]


@pytest.mark.slow
@pytest.mark.fault("X15")
def test_deepspeeds_launcher_shows_no_secret_and_runs_nothing_on_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own command line, as `pdsh` is handed it for a shell on every node."""
    tools, seen, ran = tmp_path / "tools", tmp_path / "seen", tmp_path / "ran"
    tools.mkdir()
    # What a node's shell makes of the line, without a node: its exports alone are run.
    record = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys
line = " ".join(sys.argv[sys.argv.index("-w") + 2:])
exports = line[:line.rindex(" cd ")]
own = {{"PATH": os.environ["PATH"]}}
shell = subprocess.run(["sh", "-c", exports + " env -0"], capture_output=True, text=True, env=own)
pathlib.Path({str(seen)!r}).write_text(json.dumps([sys.argv, dict(os.environ), shell.stdout]))
"""
    for name, text in {"pdsh": record, "ssh": "#!/bin/sh\necho 127.0.0.1\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (tmp_path / "hosts").write_text("one slots=1\ntwo slots=1\n")
    secrets = {"HF_TOKEN": "hf_canary", "NIFT_LEDGER_URL": "postgresql://nift:canary@db", "PGPASSWORD": "canary"}
    for name, value in {**secrets, "MLFLOW_TRACKING_TOKEN": "canary", "NCCL_TOKEN": "canary"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HF_HOME", f"/data; touch {ran}")
    monkeypatch.chdir(PROJECT)
    machine = Machine(devices=1, hostfile=str(tmp_path / "hosts"))
    assert launch.run("nift_training.train", ["--out", str(tmp_path / "out")], machine) == 0
    arguments, environment, exported = json.loads(seen.read_text())
    assert f"HF_HOME=/data; touch {ran}" in exported.split("\0"), "quoted, and so only a value"
    assert "canary" not in json.dumps([arguments, environment, exported])
    assert not ran.exists()
    with pytest.raises(ValueError, match=r"an argument is .* a shell on every node of the hostfile would run"):
        launch.run("nift_training.train", ["--out", f"/data;touch {ran}"], machine)


def test_the_loss_scale_halves_at_the_second_overflow_and_doubles_after_a_thousand_steps() -> None:
    scale = Scale()
    assert scale.value == 65536
    scale = scale.after(True, 1e-10)
    assert scale.value == 65536
    scale = scale.after(True, 1e-10)
    assert scale.value == 32768
    for _ in range(1000):
        scale = scale.after(False, 1e-10)
    assert scale.value == 32768
    assert scale.after(False, 1e-10).value == 65536


def test_the_loss_scale_can_fall_far_below_one_and_then_says_so() -> None:
    scale = Scale()
    for _ in range(50):
        scale = scale.after(True, 1e-10)
    assert 1e-10 <= scale.value < 1e-9
    with pytest.raises(ValueError, match="even at the smallest loss scale 1e-10"):
        fallen(scale, 1e-10)
    with pytest.raises(ValueError, match=r"smallest loss scale 1\.0"):
        fallen(Scale(), 1.0)


def fallen(scale: Scale, minimum: float) -> Scale:
    for _ in range(50):
        scale = scale.after(True, minimum)
    return scale


def test_the_scale_is_deepspeeds_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same history through DeepSpeed's scaler and ours: a checkpoint carries it from one to the other."""
    import random

    import deepspeed
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

    monkeypatch.setattr(deepspeed.comm, "get_rank", lambda: 1)
    theirs: Any = DynamicLossScaler(2.0**16, 1000, 1, 2, False)
    engines.lower_minimum(theirs, FAITHFUL)
    chance, ours = random.Random(3), Scale()
    for step in range(6000):
        overflowed = chance.random() < 0.002 or 4000 < step < 4030
        theirs.update_scale(overflowed)
        ours = ours.after(overflowed, FAITHFUL.min_loss_scale)
        assert (ours.value, ours.tolerated) == (theirs.cur_scale, theirs.cur_hysteresis)
    assert ours.value < 1
