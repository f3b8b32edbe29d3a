"""What each teacher wrote for each document, asked through the ledger so that nothing is paid for twice."""

from __future__ import annotations

import dagster as dg
import polars as pl

from nift_assets import completions as asking
from nift_assets import ledger
from nift_assets.assets.partitions import STUDY
from nift_assets.assets.table import Made, table
from nift_assets.ledger import Provider
from nift_assets.providers import echo, local, original
from nift_assets.studies.study import Teacher


@table(
    group="completions",
    kinds={"python", "polars"},
    inputs=("halves", "backbones"),
    by="teacher",
    rows=lambda key, table: (STUDY.teacher(str(key)),),
    code=(asking, ledger, echo, local, original),
)
def completions(context: dg.AssetExecutionContext, halves: pl.DataFrame, backbones: pl.DataFrame) -> Made:
    teacher = STUDY.teacher(context.partition_key)
    documents = halves.head(teacher.documents or halves.height)
    local_model = backbones["digest"][0] if teacher.provider == "local" else None
    requests = asking.requests(teacher, documents, local_model=local_model)
    answers = context.resources.ledger.ask(requests, _provider(context, teacher, documents, backbones))
    frame = asking.rows(teacher, documents, answers)
    counts = dict(frame.group_by("status").len().iter_rows())
    return Made(
        frame,
        metadata={
            **{f"status_{status}": count for status, count in sorted(counts.items())},
            "input_tokens": int(frame["input_tokens"].sum()),
            "output_tokens": int(frame["output_tokens"].sum()),
        },
    )


def _provider(
    context: dg.AssetExecutionContext, teacher: Teacher, documents: pl.DataFrame, backbones: pl.DataFrame
) -> Provider:
    match teacher.provider:
        case "original":
            return original.Original(dict(documents.select("document_id", "second_half").iter_rows()))
        case "echo":
            return echo.Echo()
        case "local":
            folder = context.resources.store.folder(backbones["folder"][0])
            return local.Local(str(folder), STUDY.backbone(teacher.model).threads)
        case _:
            raise ValueError(
                f"teacher {teacher.name!r}: the provider {teacher.provider!r} cannot be asked yet; "
                "use one of original, echo, local"
            )
