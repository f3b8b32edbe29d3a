"""The code location `nift`: the graph of a study, its jobs and resources; of the study that the environment names."""

from __future__ import annotations

import warnings

import dagster as dg

from dagster_project.batch_jobs import batched_completions, batches_sensor, submit_batches
from dagster_project.failures import failures_sensor
from dagster_project.jobs import intent_jobs
from dagster_project.plans import plans_sensor
from dagster_project.resources import resources
from nift_assets import studies
from nift_assets.graph import asset_definitions, build, following
from nift_assets.secrets import redaction
from nift_assets.steps import tracking
from nift_assets.steps.lineage import Graph

# Dagster itself passes on an argument that it calls a beta, once per sensor and process: nothing a person can mend.
warnings.filterwarnings(
    "ignore", message=r"Parameter `owners` of initializer `\w*SensorDefinition", category=dg.BetaWarning
)

# Every process that runs an asset loads this file: no key reaches its log, whichever library writes there.
redaction.install()


def definitions(graph: Graph) -> dg.Definitions:
    """Everything that Dagster knows of a study."""
    submit = submit_batches(graph)
    return dg.Definitions(
        assets=asset_definitions(graph),
        jobs=[*intent_jobs(graph), submit, batched_completions],
        sensors=[batches_sensor(graph.study, submit), failures_sensor, plans_sensor(graph), tables_follow(graph)],
        resources=resources(graph.study),
        # One process per run: a step of its own would import everything again. Training starts its own process anyway.
        executor=dg.in_process_executor,
    )


def tables_follow(graph: Graph) -> dg.AutomationConditionSensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        "tables_follow",
        target=dg.AssetSelection.assets(*following(graph)),
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Makes tables, score tables and the report by themselves when what they are made from is new. "
        "Nothing that asks a model, trains, evaluates or fetches is ever started by it.",
    )


ACTIVE = build(studies.active())
tracking.setting()  # a misspelt one is refused before anything is asked or trained
defs = definitions(ACTIVE)
