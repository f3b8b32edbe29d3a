"""The paper's question with a teacher and a judge that still answer: the same prompts, the same split, small enough
for one person's budget."""

from __future__ import annotations

import dataclasses

from nift_assets.studies import paper
from nift_assets.studies.study import Adapter, Audit, Auditor, Judge, Model, Teacher, TrainingSet
from nift_training.recipe import FAITHFUL

TEACHER = "gpt-4o-mini-2024-07-18"
CLAUDE = "claude-haiku-4-5-20251001"
# In the place of gpt-4o-2024-05-13. Only the first word of its answer is read.
AUDITOR_MODEL = "gpt-4o-2024-08-06"
AUDITOR = f"{AUDITOR_MODEL}-auditor"
AUDITOR_TOKENS = 64
AUDITED = 500
ADAPTER = f"mistral-7b-v0.1.{TEACHER}-10k"

STUDY = dataclasses.replace(
    paper.STUDY,
    name="today",
    title="Non-instructional fine-tuning, with what answers today",
    # A little above the most that `nift plan` expects of it.
    budget_usd=140,
    corpus=dataclasses.replace(paper.STUDY.corpus, documents=10_000),
    teachers=(
        Teacher(name="original", provider="original", model="original"),
        # The paper's teacher of Tables 6 and 7; this snapshot is served until 2027-01-14.
        Teacher(name=TEACHER, provider="openai", model=TEACHER),
        # In the place of Claude 3 Haiku, asked as the paper asked that one; it still accepts a temperature.
        Teacher(
            name=CLAUDE,
            provider="anthropic",
            model=CLAUDE,
            system_prompt=paper.CLAUDE_SYSTEM_PROMPT,
            max_tokens=4096,
            documents=10_000,
        ),
    ),
    # As in the paper's main sets, what was cut off stays.
    training_sets=(
        TrainingSet(name="original-10k", teacher="original", rows=10_000, keep_truncated=True),
        TrainingSet(name=f"{TEACHER}-10k", teacher=TEACHER, rows=10_000, keep_truncated=True),
        TrainingSet(name=f"{CLAUDE}-10k", teacher=CLAUDE, rows=10_000, keep_truncated=True),
        TrainingSet(name="alpaca-10k", reference="alpaca", rows=10_000),
    ),
    reference_sets=(paper.STUDY.reference_set("alpaca"),),
    backbones=(paper.STUDY.backbone("mistral-7b-v0.1"),),
    adapters=(Adapter(name=ADAPTER, backbone="mistral-7b-v0.1", training_set=f"{TEACHER}-10k", recipe=FAITHFUL),),
    models=(
        Model(name="mistral-7b-v0.1", backbone="mistral-7b-v0.1"),
        Model(name=f"{ADAPTER}.lora", backbone="mistral-7b-v0.1", module="lora", adapter=ADAPTER),
    ),
    judges=(Judge(name="gpt-4o-2024-08-06", provider="openai", model="gpt-4o-2024-08-06"),),
    benchmarks=tuple(
        dataclasses.replace(benchmark, judge="gpt-4o-2024-08-06") if benchmark.judge else benchmark
        for benchmark in paper.STUDY.benchmarks
    ),
    auditors=(Auditor(name=AUDITOR, provider="openai", model=AUDITOR_MODEL, max_tokens=AUDITOR_TOKENS),),
    controls=tuple(
        dataclasses.replace(control, model=AUDITOR_MODEL, documents=AUDITED) for control in paper.STUDY.controls
    ),
    audits=(
        *(Audit(name=teacher, kind="teacher", auditor=AUDITOR, documents=AUDITED) for teacher in (TEACHER, CLAUDE)),
        *(
            dataclasses.replace(audit, auditor=AUDITOR, documents=min(audit.documents, AUDITED))
            for audit in paper.STUDY.audits
            if audit.kind in ("control", "planted") or audit.name == "original"
        ),
    ),
)
