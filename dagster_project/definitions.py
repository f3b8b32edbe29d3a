"""The code location `nift`: the graph of the active study, its jobs and resources."""

from __future__ import annotations

import dagster as dg

from dagster_project.resources import resources
from nift_assets.assets.graph import asset_definitions

defs = dg.Definitions(
    assets=asset_definitions(),
    resources=resources(),
    # One process per run: a step of its own would import everything again. Training starts its own process anyway.
    executor=dg.in_process_executor,
)
