"""Starts a verb on several devices: torchrun on one node, DeepSpeed's launcher over the nodes of a hostfile.

The command a person or an asset types is the same as for one device; with more it starts itself again on each.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nift_training import verbs
from nift_training.machine import Machine

# What the processes on other nodes are to know of this one's environment, by how its name begins.
HANDED_ON = ("DAGSTER_PIPES_", "HF_", "NIFT_", "NCCL_", "OMP_", "CUDA_", "PYTHONPATH")


def launched() -> bool:
    """Whether a launcher has started this process."""
    return "RANK" in os.environ


def command(module: str, arguments: Sequence[str], machine: Machine) -> list[str]:
    """The command line that runs a module once per device."""
    if machine.hostfile is not None:
        launcher = ["deepspeed.launcher.runner", "--hostfile", machine.hostfile, "--num_gpus", str(machine.devices)]
        return [sys.executable, "-m", *launcher, "--module", module, *arguments]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(machine.devices)]
    return [sys.executable, "-m", *launcher, "--module", module, *arguments]


def run(module: str, arguments: Sequence[str], machine: Machine) -> int:
    """Runs it to its end; returns its exit code, which is 2 for a mistake that a person can put right.

    Of a failing process the launchers print a page about every other one; after the line that says what to do
    nothing more is let through.
    """
    if machine.hostfile is not None and not Path(machine.hostfile).is_file():
        raise ValueError(f"{machine.hostfile} is not there: write one `host slots=8` per line into it")
    with tempfile.TemporaryDirectory(prefix="nift-launch-") as folder:
        handed = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(HANDED_ON)]
        (Path(folder) / "environment").write_text("\n".join(handed), encoding="utf-8")
        started = subprocess.Popen(
            command(module, arguments, machine),
            # torchrun warns where no number of threads is set; each process sets its own later.
            env={"OMP_NUM_THREADS": "1", **os.environ, "DS_ENV_FILE": str(Path(folder) / "environment")},
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=verbs.end_with_parent,
        )
        assert started.stderr is not None, "it was asked for"
        refused = False
        for line in started.stderr:
            if not refused:
                sys.stderr.write(line)
                sys.stderr.flush()
            refused = refused or line.startswith("error: ")
        code = started.wait()
    return 2 if refused else code
