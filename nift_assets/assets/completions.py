"""What each teacher wrote for each document, asked through the ledger so that nothing is paid for twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from nift_assets import providers
from nift_assets.prompts import completions as asking_teachers
from nift_assets.protocol import Answer
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
    streams=True,
)
def completions(context: Context) -> TableOutput:
    teacher = context.study.teacher(context.key)
    backbone = context.inputs.frame("backbones").row(0, named=True) if providers.runs_backbone(teacher) else None
    metadata: dict[str, Any] = {}
    return TableOutput(_completions(context, teacher, backbone, metadata), metadata)


def _completions(
    context: Context, teacher: Teacher, backbone: dict[str, Any] | None, metadata: dict[str, Any]
) -> Iterator[pl.DataFrame]:
    """Asks about all documents, then reads the answers a portion at a time."""
    local_model = backbone["digest"] if backbone else None
    with context.inputs.rows("halves") as halves:
        asked = asking_teachers.Requests(teacher, halves, local_model=local_model)
        inputs = ProviderInputs(
            second_half=asked.second_half,
            weights=lambda: context.store.folder(backbone["folder"] if backbone else ""),
            threads=context.study.backbone(teacher.model).threads if backbone else None,
        )

        def read(number: int) -> tuple[list[Answer], pl.DataFrame]:
            requests = asked[number]
            answers = asking.answers(context, requests)
            return answers, asking_teachers.rows(teacher, asked.documents(number), requests, answers)

        outcome = asking.bring_in(context, teacher, asked, inputs, shared=True, rows=lambda number: read(number)[1])
        totals = asking.totals()
        for number in range(len(asked)):
            answers, rows = read(number)
            totals.add(answers)
            yield rows
        metadata.update(asking.summary(outcome, totals))
