"""What each teacher wrote for each document, asked through the ledger so that nothing is paid for twice."""

from __future__ import annotations

import polars as pl

from nift_assets import providers
from nift_assets.prompts import completions as asking_teachers
from nift_assets.providers import ProviderInputs
from nift_assets.rows import Teacher
from nift_assets.steps import asking
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table


@table(
    group="completions",
    kinds={"python", "polars"},
    inputs=("halves", "backbones"),
    by="teacher",
    asks=True,
    rows=lambda study, key, table: (study.teacher(key).shape(),),
    version=1,
    plugins=lambda study, key, table: (providers.module(study.teacher(key).provider),),
)
def completions(context: Context, halves: pl.DataFrame, backbones: pl.DataFrame) -> TableOutput:
    teacher = context.study.teacher(context.key)
    local_model = backbones["digest"][0] if providers.runs_backbone(teacher) else None
    requests = asking_teachers.requests(teacher, halves, local_model=local_model)
    asked = asking.ask(context, teacher, requests, _provider_inputs(context, teacher, halves, backbones))
    frame = asking_teachers.rows(teacher, halves, requests, asked.answers)
    return TableOutput(frame, metadata=asking.metadata(asked))


def _provider_inputs(
    context: Context, teacher: Teacher, halves: pl.DataFrame, backbones: pl.DataFrame
) -> ProviderInputs:
    return ProviderInputs(
        second_halves=lambda: dict(halves.select("document_id", "second_half").iter_rows()),
        weights=lambda: context.store.folder(backbones["folder"][0]),
        threads=context.study.backbone(teacher.model).threads if providers.runs_backbone(teacher) else None,
    )
