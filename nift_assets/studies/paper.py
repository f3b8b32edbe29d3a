"""The paper's study (arXiv 2409.00096): Mistral rows of its Tables 1 and 5, with its numbers.

Most teachers and judges of the paper have been shut down since; asking one is refused, never replaced silently.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from nift_assets import appendix_b
from nift_assets.studies.study import (
    Adapter,
    Audit,
    Auditor,
    Backbone,
    Benchmark,
    Cell,
    Control,
    Corpus,
    Filter,
    Judge,
    Model,
    ReferenceSet,
    Study,
    Task,
    Teacher,
    TrainingSet,
)
from nift_training.recipe import FAITHFUL

CLAUDE_SYSTEM_PROMPT = "Please continue directly from the end of the given sentence without repeating it"
AUDITOR = "gpt-4o-2024-05-13"

# Table 8 (section 6): percent of 2,000 documents that are instruction data, and that hold a dialogue.
TABLE_8 = {
    "original": (0.45, 13.4),
    "gpt-4-0125-preview": (0.7, 8.3),
    "claude-3-haiku-20240307": (0.9, 8.75),
    "claude-3-sonnet-20240229": (1.1, 7.45),
    "claude-3-opus-20240229": (0.95, 8.9),
    "alpaca": (99.3, 1.4),
    "random_article": (0.5, 0.0),
    "random_dialogue": (0.3, 100.0),
}

# Table 9 (section 6): MT-Bench of Mistral-7B-v0.1 on 1,000 pairs of a teacher, and on those without what was flagged.
TABLE_9 = {
    "original": (3.83, 3.74),
    "gpt-4-0125-preview": (6.28, 6.26),
    "claude-3-haiku-20240307": (6.12, 6.20),
    "claude-3-sonnet-20240229": (6.30, 6.26),
    "claude-3-opus-20240229": (6.22, 6.27),
}


def audit(name: str, kind: Literal["teacher", "control", "reference"], auditor: str = AUDITOR) -> Audit:
    """The audit of a source of Table 8, with the paper's percentages where it has them."""
    numbers = zip(("instruction", "dialogue"), TABLE_8[name], strict=False)
    cells = tuple(Cell(table="table_8", benchmark=question, paper=score) for question, score in numbers)
    return Audit(name=name, kind=kind, auditor=auditor, cells=cells)


def before_and_after(teacher: str) -> tuple[TrainingSet, TrainingSet]:
    """The two sets of a teacher in Table 9: its first 1,000 pairs, and the same without those the auditor flagged."""
    whole = TrainingSet(name=f"{teacher}-1k", teacher=teacher, rows=1_000, keep_truncated=True)
    audited = dataclasses.replace(whole, name=f"{teacher}-1k-audited", filters=("audited",), refill=False)
    return whole, audited


# Figure 2: the first so many documents of the one sample, so each size holds the smaller ones; 1k is in Table 9, too.
SIZES = (2, 5, 10, 20, 40, 80)

STUDY = Study(
    name="paper",
    title="Non-instructional fine-tuning, as published",
    corpus=Corpus(
        name="openwebtext",
        location="hf://datasets/Skylion007/openwebtext",
        # 80 Parquet files with 8,013,769 articles; the Hub's own branch of Parquet copies has no commit that stays.
        revision="79d93d786212f7344586290adb811d4ae6a1762c",
        # 80,000 of them are the sample of nearly every table; gpt-4o-mini alone was asked for more (Table 6). A smaller
        # sample is the beginning of a larger one.
        documents=300_000,
        tokens_per_document=1_100,
        licence="CC0-1.0 for the packaging; the articles keep their publishers' copyright",
    ),
    teachers=(
        Teacher(name="original", provider="original", model="original", documents=80_000),
        Teacher(name="gpt-3.5-turbo-0125", provider="openai", model="gpt-3.5-turbo-0125", documents=80_000),
        Teacher(name="gpt-4-0125-preview", provider="openai", model="gpt-4-0125-preview", documents=80_000),
        Teacher(name="gpt-4o-mini-2024-07-18", provider="openai", model="gpt-4o-mini-2024-07-18", documents=300_000),
        *(
            Teacher(
                name=model,
                provider="anthropic",
                model=model,
                system_prompt=CLAUDE_SYSTEM_PROMPT,
                max_tokens=4096,
                documents=10_000,
            )
            for model in ("claude-3-haiku-20240307", "claude-3-sonnet-20240229", "claude-3-opus-20240229")
        ),
        # How it was asked is not stated: the template of its MT-Bench row, no system prompt, and half of its context
        # for the completion; a first half that leaves no room is rejected and counted.
        Teacher(
            name="llama-2-7b-chat",
            provider="local",
            model="llama-2-7b-chat",
            template="llama-2",
            max_tokens=2048,
            documents=80_000,
        ),
    ),
    # Of each file the commit is known, and of Alpaca's what is in it. Which of the two sets of 300,000 MAGPIE rows the
    # paper took, and how many of them, it does not say.
    reference_sets=(
        ReferenceSet(
            name="alpaca",
            location="hf://datasets/tatsu-lab/alpaca",
            revision="dce01c9b08f87459cf36a430d809084718273017",
            file="data/train-00000-of-00001-a09b74b3ef9c3b56.parquet",
            layout="alpaca",
            rows=52_002,
            sha256="06391b656a06fd3fb9d213160ef2398796c3b7f3dc75ef1e3ced30d461517073",
            licence="CC-BY-NC-4.0",
        ),
        ReferenceSet(
            name="gpt-4-alpaca",
            location="hf://datasets/llamafactory/alpaca_gpt4_en",
            revision="c30575b0da5a7d927aac86fcbc8ea7a03cef5442",
            file="alpaca_gpt4_data_en.json",
            layout="alpaca",
            licence="Apache-2.0, as its card says; the original of GPT-4-LLM is CC-BY-NC-4.0",
        ),
        ReferenceSet(
            name="magpie",
            location="hf://datasets/Magpie-Align/Magpie-Pro-300K-Filtered",
            revision="b82dff315a8a85318ee80e116b4df200f88127df",
            file="data/train-*.parquet",
            layout="conversations",
            rows=300_000,
            licence="Llama 3 community licence",
        ),
    ),
    # The paper drops nothing but empty answers from its main sets, so what was cut off stays.
    training_sets=(
        TrainingSet(name="original-80k", teacher="original", rows=80_000, keep_truncated=True),
        TrainingSet(name="gpt-3.5-turbo-0125-80k", teacher="gpt-3.5-turbo-0125", rows=80_000, keep_truncated=True),
        *(
            TrainingSet(
                name=f"gpt-4-0125-preview-{size}k",
                teacher="gpt-4-0125-preview",
                rows=size * 1_000,
                keep_truncated=True,
            )
            for size in SIZES
        ),
        TrainingSet(
            name="gpt-4-0125-preview-73k",
            teacher="gpt-4-0125-preview",
            filters=("uppercase_start",),
            keep_truncated=True,
        ),
        *(
            TrainingSet(
                name=f"gpt-4o-mini-2024-07-18-{size}k",
                teacher="gpt-4o-mini-2024-07-18",
                rows=size * 1_000,
                keep_truncated=True,
            )
            for size in (80, 300)
        ),
        TrainingSet(name="claude-3-haiku-10k", teacher="claude-3-haiku-20240307", rows=10_000, keep_truncated=True),
        TrainingSet(name="claude-3-sonnet-10k", teacher="claude-3-sonnet-20240229", rows=10_000, keep_truncated=True),
        TrainingSet(name="claude-3-opus-10k", teacher="claude-3-opus-20240229", rows=10_000, keep_truncated=True),
        TrainingSet(name="llama-2-7b-chat-80k", teacher="llama-2-7b-chat", rows=80_000, keep_truncated=True),
        TrainingSet(name="alpaca", reference="alpaca"),
        TrainingSet(name="gpt-4-alpaca", reference="gpt-4-alpaca"),
        TrainingSet(name="magpie", reference="magpie"),
        *(training_set for teacher in TABLE_9 for training_set in before_and_after(teacher)),
    ),
    filters=(Filter(name="uppercase_start"), Filter(name="prompt_echo"), Filter(name="audited")),
    backbones=(
        Backbone(
            name="mistral-7b-v0.1",
            source="mistralai/Mistral-7B-v0.1",
            revision="main",
            template="zephyr",
        ),
        # A teacher; the paper fine-tunes the model this one was made from.
        Backbone(
            name="llama-2-7b-chat",
            source="meta-llama/Llama-2-7b-chat-hf",
            revision="f5db02db724555f92da89c216ac04704f23d4590",
            template="llama-2",
        ),
    ),
    adapters=(
        Adapter(
            name="mistral-7b-v0.1.original-80k",
            backbone="mistral-7b-v0.1",
            training_set="original-80k",
            recipe=FAITHFUL,
        ),
        Adapter(
            name="mistral-7b-v0.1.gpt-4-0125-preview-80k",
            backbone="mistral-7b-v0.1",
            training_set="gpt-4-0125-preview-80k",
            recipe=FAITHFUL,
        ),
    ),
    models=(
        Model(
            name="mistral-7b-v0.1",
            backbone="mistral-7b-v0.1",
            row=11,
            cells=(
                Cell(table="table_1", benchmark="mt_bench", paper=3.73),
                Cell(table="table_1", benchmark="open_llm_leaderboard", paper=60.97),
            ),
        ),
        Model(
            name="mistral-7b-v0.1.original-80k.lora",
            backbone="mistral-7b-v0.1",
            module="lora",
            adapter="mistral-7b-v0.1.original-80k",
            row=12,
            cells=(
                Cell(table="table_1", benchmark="mt_bench", paper=3.57),
                Cell(table="table_1", benchmark="open_llm_leaderboard", paper=61.01),
            ),
        ),
        Model(
            name="mistral-7b-v0.1.gpt-4-0125-preview-80k.lora",
            backbone="mistral-7b-v0.1",
            module="lora",
            adapter="mistral-7b-v0.1.gpt-4-0125-preview-80k",
            row=13,
            cells=(
                Cell(table="table_1", benchmark="mt_bench", paper=7.29),
                Cell(table="table_1", benchmark="open_llm_leaderboard", paper=62.00),
                Cell(table="table_5", benchmark="arena_hard", paper=10.0),
            ),
        ),
    ),
    judges=(
        Judge(name="gpt-4-0613", provider="openai", model="gpt-4-0613"),
        Judge(name="gpt-4-1106-preview", provider="openai", model="gpt-4-1106-preview", max_tokens=4096),
    ),
    benchmarks=(
        Benchmark(name="mt_bench", location="benchmarks/mt_bench", runs=3, judge="gpt-4-0613"),
        Benchmark(
            name="arena_hard",
            location="benchmarks/arena_hard",
            max_new_tokens=4096,
            judge="gpt-4-1106-preview",
            baseline="gpt-4-0314",
        ),
        Benchmark(name="ifeval", location="benchmarks/ifeval", max_new_tokens=1280),
        Benchmark(
            name="open_llm_leaderboard",
            location="hub",  # the tasks as lm-eval defines them, on the Hub's data
            tasks=(
                Task(name="arc_challenge", metric="acc_norm", shots=25),
                Task(name="hellaswag", metric="acc_norm", shots=10),
                Task(name="mmlu", metric="acc", shots=5),
                Task(name="truthfulqa_mc2", metric="acc", shots=0),
                Task(name="winogrande", metric="acc", shots=5),
                Task(name="gsm8k", metric="exact_match", filter="strict-match", shots=5),
            ),
        ),
    ),
    auditors=(Auditor(name=AUDITOR, provider="openai", model=AUDITOR),),
    controls=(
        Control(
            name="random_article",
            provider="openai",
            model=AUDITOR,
            prompt="Randomly generate an article.",
            documents=2_000,
        ),
        Control(
            name="random_dialogue",
            provider="openai",
            model=AUDITOR,
            prompt="Randomly generate a dialog.",
            documents=2_000,
        ),
    ),
    questions=appendix_b.QUESTIONS,
    audits=(
        audit("original", "teacher"),
        audit("gpt-4-0125-preview", "teacher"),
        audit("claude-3-haiku-20240307", "teacher"),
        audit("claude-3-sonnet-20240229", "teacher"),
        audit("claude-3-opus-20240229", "teacher"),
        audit("alpaca", "reference"),
        audit("random_article", "control"),
        audit("random_dialogue", "control"),
        Audit(name="planted", kind="planted", of="original", auditor=AUDITOR, documents=30),
    ),
)
