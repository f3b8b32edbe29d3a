"""The paper's study (arXiv 2409.00096): Mistral rows of its Tables 1 and 5, with its numbers.

Most teachers and judges of the paper have been shut down since; asking one is refused, never replaced silently.
"""

from __future__ import annotations

from nift_assets.studies.study import (
    Adapter,
    Backbone,
    Benchmark,
    Corpus,
    Judge,
    Model,
    PaperScore,
    Study,
    Task,
    Teacher,
    TrainingSet,
)
from nift_training.recipe import Recipe

CLAUDE_SYSTEM_PROMPT = "Please continue directly from the end of the given sentence without repeating it"

STUDY = Study(
    name="paper",
    title="Non-instructional fine-tuning, as published",
    corpus=Corpus(
        name="openwebtext",
        location="hf://datasets/Skylion007/openwebtext",
        revision="refs/convert/parquet",
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
    ),
    # The paper drops nothing but empty answers from its main sets, so what was cut off stays.
    training_sets=(
        TrainingSet(name="original-80k", teacher="original", rows=80_000, keep_truncated=True),
        TrainingSet(name="gpt-4-0125-preview-80k", teacher="gpt-4-0125-preview", rows=80_000, keep_truncated=True),
        TrainingSet(name="gpt-4-0125-preview-73k", teacher="gpt-4-0125-preview", filter="uppercase_start"),
        TrainingSet(name="claude-3-haiku-10k", teacher="claude-3-haiku-20240307", rows=10_000, keep_truncated=True),
    ),
    backbones=(
        Backbone(
            name="mistral-7b-v0.1",
            source="mistralai/Mistral-7B-v0.1",
            revision="main",
            template="zephyr",
        ),
    ),
    adapters=(
        Adapter(
            name="mistral-7b-v0.1.original-80k",
            backbone="mistral-7b-v0.1",
            training_set="original-80k",
            recipe=Recipe(),
        ),
        Adapter(
            name="mistral-7b-v0.1.gpt-4-0125-preview-80k",
            backbone="mistral-7b-v0.1",
            training_set="gpt-4-0125-preview-80k",
            recipe=Recipe(),
        ),
    ),
    models=(
        Model(
            name="mistral-7b-v0.1",
            backbone="mistral-7b-v0.1",
            row=11,
            paper=(
                PaperScore(table="table_1", benchmark="mt_bench", score=3.73),
                PaperScore(table="table_1", benchmark="open_llm_leaderboard", score=60.97),
            ),
        ),
        Model(
            name="mistral-7b-v0.1.original-80k.lora",
            backbone="mistral-7b-v0.1",
            module="lora",
            adapter="mistral-7b-v0.1.original-80k",
            row=12,
            paper=(
                PaperScore(table="table_1", benchmark="mt_bench", score=3.57),
                PaperScore(table="table_1", benchmark="open_llm_leaderboard", score=61.01),
            ),
        ),
        Model(
            name="mistral-7b-v0.1.gpt-4-0125-preview-80k.lora",
            backbone="mistral-7b-v0.1",
            module="lora",
            adapter="mistral-7b-v0.1.gpt-4-0125-preview-80k",
            row=13,
            paper=(
                PaperScore(table="table_1", benchmark="mt_bench", score=7.29),
                PaperScore(table="table_1", benchmark="open_llm_leaderboard", score=62.00),
                PaperScore(table="table_5", benchmark="arena_hard", score=10.0),
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
            location="benchmarks/leaderboard",
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
)
