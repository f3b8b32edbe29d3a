"""The processes of `nift_training` as forks of one that stays: for many small models in a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from multiprocessing.util import Finalize  # runs at the end of a worker of a pool as well, `atexit` does not
from typing import Any

import dagster as dg
from dagster import open_pipes_session
from dagster._core.errors import DagsterPipesExecutionError

from dagster_project.resources import Processes
from nift_assets import keys


@cache
def warm_processes() -> WarmProcesses:
    """The one of this process."""
    return WarmProcesses()


class WarmProcesses(Processes):
    """Starts verbs like `Processes`, each in a process of its own, without importing everything for each anew."""

    def __init__(self) -> None:
        super().__init__()
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, *, context: dg.OpExecutionContext | dg.AssetExecutionContext, **options: Any
    ) -> dg.PipesClientCompletedInvocation:
        _, _, module, *arguments = options["command"]  # python -m module …
        with open_pipes_session(
            context=context, context_injector=self.context_injector, message_reader=self.message_reader
        ) as session:
            environment = {**keys.without_keys(os.environ), **session.get_bootstrap_env_vars()}
            status = self._ask({"module": module, "arguments": arguments, "environment": environment})
            if status:
                raise DagsterPipesExecutionError(f"{module} ended with exit status {status}")
        return dg.PipesClientCompletedInvocation(session)

    def _ask(self, job: dict[str, Any]) -> int:
        if self._server is None or self._server.poll() is not None:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "nift_training.warm"],
                env=keys.without_keys(os.environ),
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
