"""The code location `nift`: the graph of the active study, its jobs and resources."""

from __future__ import annotations

import dagster as dg

from dagster_project.batches import batched_completions, batches_sensor, submit_batches
from dagster_project.resources import resources
from nift_assets import redaction
from nift_assets.assets.graph import asset_definitions

# Every process that runs an asset loads this file: no key reaches its log, whichever library writes there.
redaction.install()

defs = dg.Definitions(
    assets=asset_definitions(),
    jobs=[submit_batches, batched_completions],
    sensors=[batches_sensor],
    resources=resources(),
    # One process per run: a step of its own would import everything again. Training starts its own process anyway.
    executor=dg.in_process_executor,
)
