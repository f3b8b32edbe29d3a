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

from nift_training import process_environment, verbs
from nift_training.machine import Machine


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
    started_as = command(module, arguments, machine)
    # torchrun warns where no number of threads is set; each process sets its own later.
    environment = {"OMP_NUM_THREADS": "1", **process_environment.told(started_as, os.environ)}
    with tempfile.TemporaryDirectory(prefix="nift-launch-") as folder:
        if machine.hostfile is not None:
            environment["DS_ENV_FILE"] = _of_nodes(arguments, Path(folder) / "environment")
        started = subprocess.Popen(
            started_as,
            env=environment,
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


def _of_nodes(arguments: Sequence[str], file: Path) -> str:
    """The file by which DeepSpeed's launcher is told what to set on every node. ValueError for what a shell there would
    run: it reads the values, the arguments and the name of this folder."""
    here = Path.cwd()
    process_environment.refuse_for_shell(str(here), "this folder")
    for argument in arguments:
        process_environment.refuse_for_shell(argument, "an argument")
    told = process_environment.of_nodes(os.environ, here)
    file.write_text("".join(f"{name}={value}\n" for name, value in told.items()), encoding="utf-8")
    return str(file)
