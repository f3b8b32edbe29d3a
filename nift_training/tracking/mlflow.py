"""MLflow: a run of an experiment, at a server, in a database or in a folder.

The low-level client is used: it adds no user, no command line and no commit to what it is given.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from nift_training.tracking.measurements import Measurement, Opening
from nift_training.tracking.trackers import TOGETHER

# MLflow itself asks a server that is down for minutes, and tells its makers of each use.
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
AT_ONCE = 1000  # metrics that its server takes in one request


class MlflowRun:
    """One run, found by its name and continued if there is one."""

    def __init__(self, place: str, opening: Opening) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=place or None)
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or TOGETHER)
        found = self.client.search_runs([experiment], f"attributes.run_name = '{opening.run}'", max_results=1)
        if found:
            self.id = found[0].info.run_id
            self.client.update_run(self.id, status="RUNNING")
        else:
            self.id = self.client.create_run(experiment, run_name=opening.run).info.run_id
            self.client.log_batch(self.id, params=[Param(name, str(value)) for name, value in opening.settings.items()])

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self.client.create_experiment(name))
            except MlflowException:
                found = self.client.get_experiment_by_name(name)  # another process was quicker
                if found is None:
                    raise
        return str(found.experiment_id)

    def send(self, measurements: Sequence[Measurement]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, number, round(one.seconds * 1000), one.step)
            for one in measurements
            for name, number in one.numbers.items()
        ]
        for first in range(0, len(metrics), AT_ONCE):
            self.client.log_batch(self.id, metrics=metrics[first : first + AT_ONCE])

    def end(self, *, finished: bool) -> None:
        self.client.set_terminated(self.id, "FINISHED" if finished else "FAILED")


start = MlflowRun
