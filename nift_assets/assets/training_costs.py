"""What the pairs of each trained model cost beside what it scores; of the completions it reads how long they are."""

from __future__ import annotations

import dagster as dg

from nift_assets import sql
from nift_assets.assets import sql_models
from nift_assets.pages import plots
from nift_assets.sql import TRAINING_COSTS
from nift_assets.steps.context import Context, gathered
from nift_assets.steps.table import TableOutput, table
from nift_assets.study import Study

MODEL = sql.compile(TRAINING_COSTS)
# What the model reads of a table that has texts.
COUNTED = {"completions": ("teacher", "input_tokens", "output_tokens")}


def _inputs(study: Study) -> list[str]:
    lacking = sql_models.absent(study)
    return [name for name in MODEL.refs if name not in lacking]


@table(
    TRAINING_COSTS,
    kinds={"sql", "duckdb"},
    inputs=_inputs,
    streams=True,
    **sql_models.own_step(MODEL),
)
def training_costs(context: Context) -> TableOutput:
    study = context.study
    given = {name: gathered(context, name, *COUNTED.get(name, ())) for name in _inputs(study)}
    rows = sql.run(MODEL, {**given, **sql_models.absent(study), **sql.relations(study, MODEL)}, None)
    picture = plots.as_markdown(plots.cost_against_score(rows), MODEL.config["plot"])
    return TableOutput(rows, metadata={MODEL.config["plot"]: dg.MetadataValue.md(picture)})
