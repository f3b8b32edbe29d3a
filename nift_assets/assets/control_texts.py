"""Articles and dialogues made to order, whose verdicts are known beforehand: the controls of the content audit."""

from __future__ import annotations

import dagster as dg

from nift_assets import providers
from nift_assets.prompts import controls
from nift_assets.steps import asking
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import Made, table


@table(
    group="audits",
    kinds={"python", "polars"},
    by="control",
    asks=True,
    rows=lambda key, table: (STUDY.control(str(key)).shape(),),
    version=1,
    plugins=lambda key, table: (providers.module(STUDY.control(str(key)).provider),),
)
def control_texts(context: dg.AssetExecutionContext) -> Made:
    control = STUDY.control(context.partition_key)
    requests = controls.requests(control)
    asked = asking.ask(context, control, requests)
    return Made(controls.rows(control, requests, asked.answers), metadata=asking.metadata(asked))
