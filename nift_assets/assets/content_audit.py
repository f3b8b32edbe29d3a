"""What an auditor says of the documents of each source: is it instruction data, does it hold a dialogue?"""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import polars as pl

from nift_assets import providers
from nift_assets.prompts import audits
from nift_assets.steps import asking
from nift_assets.steps.partitions import STUDY
from nift_assets.steps.table import Made, table

# What a source's documents are read from, by its kind.
INPUTS = ("halves", "completions", "control_texts", "reference_sets")


@table(
    group="audits",
    kinds={"python", "polars"},
    inputs=INPUTS,
    by="audit",
    asks=True,
    rows=lambda key, table: (
        replace(STUDY.audit(str(key)), cells=()),
        STUDY.auditor(STUDY.audit(str(key)).auditor).shape(),
        STUDY.questions,
    ),
    version=1,
    plugins=lambda key, table: (providers.module(STUDY.auditor(STUDY.audit(str(key)).auditor).provider),),
)
def content_audit(context: dg.AssetExecutionContext, **frames: pl.DataFrame) -> Made:
    audit = STUDY.audit(context.partition_key)
    auditor = STUDY.auditor(audit.auditor)
    documents = audits.documents(audit, frames)
    asked = asking.ask(context, auditor, audits.requests(auditor, STUDY.questions, documents))
    frame = audits.rows(audit, auditor, STUDY.questions, documents, asked.answers)
    verdicts = {f"verdict_{name}": int((frame["verdict"] == name).sum()) for name in ("yes", "no", "invalid")}
    return Made(frame, metadata={**verdicts, **asking.metadata(asked)})
