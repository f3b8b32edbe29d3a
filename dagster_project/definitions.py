"""The code location `nift`: the graph of the active study, its jobs and resources."""

from __future__ import annotations

import warnings

import dagster as dg

from dagster_project.batch_jobs import batched_completions, batches_sensor, submit_batches
from dagster_project.failures import failures_sensor
from dagster_project.jobs import intent_jobs
from dagster_project.resources import resources
from nift_assets.graph import asset_definitions, following
from nift_assets.secrets import redaction

# Dagster itself passes on an argument that it calls a beta, once per sensor and process: nothing a person can mend.
warnings.filterwarnings(
    "ignore", message=r"Parameter `owners` of initializer `\w*SensorDefinition", category=dg.BetaWarning
)

# Every process that runs an asset loads this file: no key reaches its log, whichever library writes there.
redaction.install()

tables_follow = dg.AutomationConditionSensorDefinition(
    "tables_follow",
    target=dg.AssetSelection.assets(*following()),
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Makes tables, score tables and the report by themselves when what they are made from is new. Nothing "
    "that asks a model, trains, evaluates or fetches is ever started by it.",
)

defs = dg.Definitions(
    assets=asset_definitions(),
    jobs=[*intent_jobs(), submit_batches, batched_completions],
    sensors=[batches_sensor, failures_sensor, tables_follow],
    resources=resources(),
    # One process per run: a step of its own would import everything again. Training starts its own process anyway.
    executor=dg.in_process_executor,
)
