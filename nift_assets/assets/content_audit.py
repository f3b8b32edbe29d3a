"""What an auditor says of the documents of each source: is it instruction data, does it hold a dialogue?"""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from nift_assets import providers
from nift_assets.prompts import audits
from nift_assets.steps import asking
from nift_assets.steps.context import Context
from nift_assets.steps.table import TableOutput, table

# What a source's documents are read from, by its kind.
INPUTS = ("halves", "completions", "control_texts", "reference_sets")


@table(
    group="audits",
    kinds={"python", "polars"},
    inputs=INPUTS,
    by="audit",
    asks=True,
    rows=lambda study, key, table: (
        replace(study.audit(key), cells=()),
        study.auditor(study.audit(key).auditor).shape(),
        study.questions,
    ),
    version=1,
    plugins=lambda study, key, table: (providers.module(study.auditor(study.audit(key).auditor).provider),),
)
def content_audit(context: Context, **frames: pl.DataFrame) -> TableOutput:
    audit = context.study.audit(context.key)
    auditor = context.study.auditor(audit.auditor)
    documents = audits.documents(audit, frames)
    asked = asking.ask(context, auditor, audits.requests(auditor, context.study.questions, documents))
    frame = audits.rows(audit, auditor, context.study.questions, documents, asked.answers)
    verdicts = {f"verdict_{name}": int((frame["verdict"] == name).sum()) for name in ("yes", "no", "invalid")}
    return TableOutput(frame, metadata={**verdicts, **asking.metadata(asked)})
