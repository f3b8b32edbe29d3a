"""Articles and dialogues made to order, whose verdicts are known beforehand: the controls of the content audit."""

from __future__ import annotations

from nift_assets import providers
from nift_assets.prompts import controls
from nift_assets.steps import asking
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table


@table(
    group="audits",
    kinds={"python", "polars"},
    by="control",
    asks=True,
    rows=lambda study, key, table: (study.control(key).shape(),),
    version=1,
    plugins=lambda study, key, table: (providers.module(study.control(key).provider),),
)
def control_texts(context: Context) -> TableOutput:
    control = context.study.control(context.key)
    requests = controls.requests(control)
    asked = asking.ask(context, control, requests)
    return TableOutput(controls.rows(control, requests, asked.answers), metadata=asking.metadata(asked))
