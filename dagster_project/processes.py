"""How the processes of `nift_training` are started: each by itself, or as forks of one that stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from multiprocessing.util import Finalize  # runs at the end of a worker of a pool as well, `atexit` does not
from typing import Any

import dagster as dg
from dagster import open_pipes_session

from nift_assets.steps.dagster_internals import DagsterPipesExecutionError
from nift_training import gpus, process_environment

# The verbs that take a GPU where there is one.
COMPUTING = ("nift_training.train", "nift_training.evaluate")


class Processes(dg.PipesSubprocessClient):
    """Starts the processes of `nift_training`, each told by name what it needs of this one's environment."""

    def run(
        self, *, context: dg.OpExecutionContext | dg.AssetExecutionContext, **options: Any
    ) -> dg.PipesClientCompletedInvocation:
        command: list[str] = options["command"]
        with open_pipes_session(
            context=context, context_injector=self.context_injector, message_reader=self.message_reader
        ) as session:
            environment = {**process_environment.told(command, os.environ), **session.get_bootstrap_env_vars()}
            with gpus.taken(computing_on(command)) as own:
                if own:
                    environment[gpus.VISIBLE] = ",".join(own)
                status = self._status(command, environment)
            if status:
                raise DagsterPipesExecutionError(f"{command[2]} ended with exit status {status}")
        return dg.PipesClientCompletedInvocation(session)

    def _status(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        process = subprocess.Popen(command, env=environment)
        try:
            return process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)  # so that it removes what it has half written
            process.wait(self.termination_timeout_seconds)
            raise


def computing_on(command: Sequence[str]) -> int:
    """How many GPUs a verb computes on: as many as it is told, one unless it is; none if it is none that computes, if a
    server computes for it, or if its launcher deals out those of several machines."""
    options = dict(pairwise(command))
    elsewhere = "--hostfile" in options or "--server" in options or options.get("--device") == "cpu"
    if options.get("-m") not in COMPUTING or elsewhere:
        return 0
    return int(options.get("--devices", 1))


class WarmProcesses(Processes):
    """Starts verbs like `Processes`, each in a process of its own, without importing everything for each anew."""

    def __init__(self) -> None:
        super().__init__()
        self._server: subprocess.Popen[str] | None = None

    def _status(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        _, _, module, *arguments = command  # python -m module …
        return self._ask({"module": module, "arguments": arguments, "environment": environment})

    def _ask(self, job: dict[str, Any]) -> int:
        if self._server is None or self._server.poll() is not None:
            command = [sys.executable, "-m", "nift_training.warm"]
            self._server = subprocess.Popen(
                command,
                env=process_environment.told(command, os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            Finalize(self, subprocess.Popen.communicate, args=(self._server,), exitpriority=0)
        assert self._server.stdin
        assert self._server.stdout
        try:
            print(json.dumps(job), file=self._server.stdin, flush=True)
            answered = self._server.stdout.readline()
        except BaseException:
            # Ctrl-C reaches the verb as well, which then removes what it has half written.
            self._server.stdin.close()
            try:
                self._server.wait(self.termination_timeout_seconds)
            finally:
                self._server.kill()  # and with it the verb
            raise
        return int(answered) if answered else self._server.wait() or 1


@cache
def warm_processes() -> WarmProcesses:
    """The one of this process."""
    return WarmProcesses()


_launch: Callable[[], Processes] = Processes


def start_warm() -> None:
    """From now on the runs of this process start verbs as forks of one that stays."""
    global _launch
    _launch = warm_processes


def processes() -> Processes:
    """What starts the verbs of this process."""
    return _launch()
