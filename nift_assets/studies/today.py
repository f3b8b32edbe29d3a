"""The paper's questions with teachers, a judge and backbones that can still be had: the same prompts and split, an
eighth of the documents, and models of 7 billion parameters that one GPU trains.

Its cells are those of the paper's tables that it answers anew. The paper's numbers stand in none: another judge's
ratings are no continuation of them.
"""

from __future__ import annotations

from dataclasses import replace

from nift_assets.rows import Audit, Auditor, Cell, Judge, Teacher, TrainingSet
from nift_assets.studies import paper
from nift_assets.studies.paper import PaperModel, numbers
from nift_training.machine import Machine

TEACHER = "gpt-4o-mini-2024-07-18"
CLAUDE = "claude-haiku-4-5-20251001"
# In the place of gpt-4o-2024-05-13. Only the first word of its answer is read.
AUDITOR_MODEL = "gpt-4o-2024-08-06"
AUDITOR = f"{AUDITOR_MODEL}-auditor"
AUDITOR_TOKENS = 64
AUDITED = 500
# All that Table 9 trains on, so that what is flagged of it can be left out.
AUDITED_TEACHER = 1_000
JUDGE = "gpt-4o-2024-08-06"

# Mistral's models need no one's permission, and the paper has them all. Whatever zero is, one GPU computes the same.
BACKBONES = ("mistral-7b-v0.1", "mistral-7b-instruct-v0.1")
BASE, INSTRUCT = BACKBONES
ONE_GPU = Machine()

# Figure 2, and the 1,000 of Table 9.
SIZES = (1, 2, 5, 10)


def cells(*places: tuple[str, str]) -> tuple[Cell, ...]:
    return tuple(Cell(table=table, benchmark=benchmark) for table, benchmark in places)


TABLE_1 = (("table_1", "mt_bench"), ("table_1", "open_llm_leaderboard"))
LEADERBOARD = tuple(("table_15", column) for column in numbers.TABLE_15_COLUMNS)
TABLE_8 = cells(("table_8", "instruction"), ("table_8", "dialogue"))
MAIN = f"{TEACHER}-10k"
MODELS: dict[PaperModel, tuple[Cell, ...]] = {
    PaperModel(BASE, "none", None): cells(*TABLE_1, *LEADERBOARD, ("table_5", "arena_hard"), ("table_7", "ifeval")),
    PaperModel(INSTRUCT, "none", None): cells(*TABLE_1, *LEADERBOARD, ("table_5", "arena_hard"), ("table_7", "ifeval")),
    PaperModel(BASE, "lora", "original-10k"): cells(*TABLE_1, *LEADERBOARD),
    PaperModel(BASE, "lora", MAIN): cells(
        *TABLE_1,
        *LEADERBOARD,
        ("table_3", "mt_bench"),
        ("table_5", "arena_hard"),
        ("table_7", "ifeval"),
        ("figure_2", "mt_bench"),
    ),
    PaperModel(INSTRUCT, "lora", MAIN): cells(*TABLE_1, *LEADERBOARD),
    PaperModel(INSTRUCT, "lora-base", MAIN): cells(*TABLE_1, *LEADERBOARD, ("table_5", "arena_hard")),
    PaperModel(BASE, "lora", f"{CLAUDE}-10k"): cells(("table_2", "mt_bench"), ("table_3", "mt_bench")),
    PaperModel(INSTRUCT, "lora-base", f"{CLAUDE}-10k"): cells(("table_2", "mt_bench")),
    PaperModel(BASE, "lora", "alpaca-10k"): cells(("table_3", "mt_bench")),
    PaperModel(BASE, "lora", f"{TEACHER}-1k"): cells(("figure_2", "mt_bench"), ("table_9", "mt_bench")),
    PaperModel(BASE, "lora", f"{TEACHER}-1k-audited"): cells(("table_9", "mt_bench")),
    PaperModel(BASE, "lora", f"{TEACHER}-2k"): cells(("figure_2", "mt_bench")),
    PaperModel(BASE, "lora", f"{TEACHER}-5k"): cells(("figure_2", "mt_bench")),
}


STUDY = replace(
    paper.STUDY,
    name="today",
    title="Non-instructional fine-tuning, with what answers today",
    # A little above the most that `nift plan` expects of it.
    budget_usd=210,
    corpus=replace(paper.STUDY.corpus, documents=10_000),
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
    training_sets=(
        paper.pairs_of("original", 10),
        *(paper.pairs_of(TEACHER, size) for size in SIZES[1:]),
        paper.pairs_of(CLAUDE, 10),
        TrainingSet(name="alpaca-10k", reference="alpaca", rows=10_000),
        *paper.before_and_after(TEACHER),
    ),
    reference_sets=(paper.STUDY.reference_set("alpaca"),),
    backbones=tuple(paper.STUDY.backbone(name) for name in BACKBONES),
    adapters=paper.adapters(MODELS, lambda backbone: ONE_GPU),
    models=paper.models(MODELS),
    judges=(Judge(name=JUDGE, provider="openai", model=JUDGE),),
    benchmarks=tuple(
        replace(benchmark, judge=JUDGE) if benchmark.judge else benchmark for benchmark in paper.STUDY.benchmarks
    ),
    auditors=(Auditor(name=AUDITOR, provider="openai", model=AUDITOR_MODEL, max_tokens=AUDITOR_TOKENS),),
    controls=tuple(replace(control, model=AUDITOR_MODEL, documents=AUDITED) for control in paper.STUDY.controls),
    audits=(
        *(
            Audit(name=teacher, kind="teacher", auditor=AUDITOR, documents=documents, cells=TABLE_8)
            for teacher, documents in ((TEACHER, AUDITED_TEACHER), (CLAUDE, AUDITED))
        ),
        *(
            replace(
                audit, auditor=AUDITOR, documents=min(audit.documents, AUDITED), cells=TABLE_8 if audit.cells else ()
            )
            for audit in paper.STUDY.audits
            if audit.kind in ("control", "planted") or audit.name == "original"
        ),
    ),
    quoted=(),
    examples=paper.examples(PaperModel(BASE, "none", None), PaperModel(BASE, "lora", MAIN)),
    inconsistencies=(),
)
