"""The paper's study (arXiv 2409.00096): every row of its tables and figures, with the numbers of `paper_numbers`.

Most teachers and judges of the paper have been shut down since; asking one is refused, never replaced silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, NamedTuple

from nift_assets.rows import (
    Adapter,
    Audit,
    Auditor,
    Backbone,
    Benchmark,
    Cell,
    Control,
    Corpus,
    Example,
    Filter,
    Judge,
    Model,
    Quoted,
    ReferenceSet,
    Task,
    Teacher,
    TrainingSet,
)
from nift_assets.studies import _appendix_b as appendix_b
from nift_assets.studies.paper import numbers
from nift_assets.studies.paper.numbers import ModuleKind
from nift_assets.study import Study
from nift_training.machine import Machine
from nift_training.recipe import FAITHFUL

CLAUDE_SYSTEM_PROMPT = "Please continue directly from the end of the given sentence without repeating it"
AUDITOR = "gpt-4o-2024-05-13"
ARENA_HARD_LEADERBOARD = "the leaderboard of Arena-Hard, 2024-07-31"
MAGPIE_CARDS = "the cards of MAGPIE's own models"

# Which commits the paper had it does not say. These stood on the Hub when it was written, in the middle of 2024.
BACKBONES = (
    Backbone(
        name="llama-2-7b",
        source="meta-llama/Llama-2-7b-hf",
        revision="01c7f73d771dfac7d292323805ebc428287df4f9",
        template="one_shot",
        # The two messages of FastChat's conversation `one_shot`, in a file beside the benchmark's own.
        example="benchmarks/mt_bench/one_shot.json",
    ),
    Backbone(
        name="llama-2-7b-chat",
        source="meta-llama/Llama-2-7b-chat-hf",
        revision="f5db02db724555f92da89c216ac04704f23d4590",
        template="llama-2",
        instruct_of="llama-2-7b",
    ),
    Backbone(
        name="mistral-7b-v0.1",
        source="mistralai/Mistral-7B-v0.1",
        revision="26bca36bde8333b5d7f72e9ed20ccda6a618af24",
        template="zephyr",
    ),
    Backbone(
        name="mistral-7b-instruct-v0.1",
        source="mistralai/Mistral-7B-Instruct-v0.1",
        revision="9ab9e76e2b09f9f29ea2d56aa5bd139e4445c59e",
        template="mistral",
        instruct_of="mistral-7b-v0.1",
    ),
    # As in the paper; its real foundation, Mistral-7B-v0.2, is none of the paper's models.
    Backbone(
        name="mistral-7b-instruct-v0.2",
        source="mistralai/Mistral-7B-Instruct-v0.2",
        revision="41b61a33a2483885c981aa79e0df6b32407ed873",
        template="mistral",
        instruct_of="mistral-7b-v0.1",
    ),
    Backbone(
        name="llama-3-8b",
        source="meta-llama/Meta-Llama-3-8B",
        revision="62bd457b6fe961a42a631306577e622c83876cb6",
        template="llama-3",
    ),
    Backbone(
        name="llama-3-8b-instruct",
        source="meta-llama/Meta-Llama-3-8B-Instruct",
        revision="e1945c40cd546c78e41f1151f4db032b271faeaa",
        template="llama-3",
        instruct_of="llama-3-8b",
    ),
    Backbone(
        name="llama-3-70b",
        source="meta-llama/Meta-Llama-3-70B",
        revision="b4d08b7db49d488da3ac49adf25a6b9ac01ae338",
        template="llama-3",
    ),
    Backbone(
        name="llama-3-70b-instruct",
        source="meta-llama/Meta-Llama-3-70B-Instruct",
        revision="7129260dd854a80eb10ace5f61c20324b472b31c",
        template="llama-3",
        instruct_of="llama-3-70b",
    ),
)
FOUNDATION = {backbone.name: backbone.instruct_of for backbone in BACKBONES}

# A node of eight V100 with 32 GB each (appendix A), on which 70B models fit in shares only.
V100S, V100S_70B = Machine(devices=8, zero=2), Machine(devices=8, zero=3)
LARGE = ("llama-3-70b", "llama-3-70b-instruct")


class PaperModel(NamedTuple):
    """A model of the paper's tables: a backbone, and what its adapter, or its foundation's, was trained on."""

    backbone: str
    module: ModuleKind
    training_set: str | None

    @property
    def name(self) -> str:
        return self.backbone if self.training_set is None else f"{self.backbone}.{self.training_set}.{self.module}"

    @property
    def trained(self) -> str | None:
        """The backbone its adapter is trained on."""
        if self.training_set is None:
            return None
        return FOUNDATION[self.backbone] if self.module == "lora-base" else self.backbone

    @property
    def adapter(self) -> str | None:
        return None if self.training_set is None else f"{self.trained}.{self.training_set}"


def filled() -> Iterator[tuple[PaperModel, Cell]]:
    """Every cell that a model of ours fills, with that model, table by table."""
    yield from _table_1_and_its_tasks()
    for backbone, module, scores in numbers.TABLE_2:
        for training_set, score in zip(numbers.TABLE_2_SETS, scores, strict=True):
            yield PaperModel(backbone, module, training_set), Cell(table="table_2", benchmark="mt_bench", paper=score)
    for line, (training_set, score) in enumerate(numbers.TABLE_3):
        yield _mistral(training_set), Cell(table="table_3", benchmark="mt_bench", paper=score, line=line)
    yield from _arena_hard()
    for teacher, (before, after) in numbers.TABLE_9.items():
        for training_set, score in ((f"{teacher}-1k", before), (f"{teacher}-1k-audited", after)):
            yield _mistral(training_set), Cell(table="table_9", benchmark="mt_bench", paper=score)
    for size, paper_score in numbers.FIGURE_2.items():
        point = Cell(table="figure_2", benchmark="mt_bench", paper=paper_score)
        yield _mistral(f"gpt-4-0125-preview-{size}k"), point
    without = Cell(table="section_6", benchmark="mt_bench", paper=numbers.SECTION_6_73K)
    yield _mistral("gpt-4-0125-preview-73k"), without


def _mistral(training_set: str) -> PaperModel:
    return PaperModel("mistral-7b-v0.1", "lora", training_set)


def _table_1_and_its_tasks() -> Iterator[tuple[PaperModel, Cell]]:
    for row in numbers.TABLE_1:
        model = PaperModel(row.backbone, row.module, row.training_set)
        yield model, Cell(table="table_1", benchmark="mt_bench", paper=row.mt_bench)
        yield model, Cell(table="table_1", benchmark="open_llm_leaderboard", paper=row.leaderboard)
        for table in ("table_4", "table_15") if row.id in numbers.TABLE_4_IDS else ("table_15",):
            for column, score in zip(numbers.TABLE_15_COLUMNS, numbers.TABLE_15.get(row.id, ()), strict=False):
                yield model, Cell(table=table, benchmark=column, paper=score)


def _arena_hard() -> Iterator[tuple[PaperModel, Cell]]:
    fifth = partial(Cell, table="table_5", benchmark="arena_hard")
    for line, (backbone, win_rate) in enumerate(numbers.TABLE_5_QUOTED):
        yield PaperModel(backbone, "none", None), fifth(paper=win_rate, quoted_from=ARENA_HARD_LEADERBOARD, line=line)
    for line, (backbone, module, win_rate) in enumerate(numbers.TABLE_5, start=len(numbers.TABLE_5_QUOTED)):
        yield PaperModel(backbone, module, "gpt-4-0125-preview-80k"), fifth(paper=win_rate, line=line)
    for training_set, win_rate in numbers.TABLE_6:
        cell = Cell(table="table_6", benchmark="arena_hard", paper=win_rate)
        yield PaperModel("llama-3-8b", "lora", training_set), cell
    training_set, win_rate, accuracy = numbers.TABLE_7_OURS
    model = PaperModel("llama-3-8b", "lora", training_set)
    yield model, Cell(table="table_7", benchmark="arena_hard", paper=win_rate)
    yield model, Cell(table="table_7", benchmark="ifeval", paper=accuracy)
    backbone, win_rate, accuracy = numbers.TABLE_7_INSTRUCT
    instruct, last = (
        PaperModel(backbone, "none", None),
        partial(Cell, table="table_7", line=len(numbers.TABLE_7_QUOTED) + 1),
    )
    yield instruct, last(benchmark="arena_hard", paper=win_rate, quoted_from=ARENA_HARD_LEADERBOARD)
    yield instruct, last(benchmark="ifeval", paper=accuracy)
    magpie = Cell(table="section_5", benchmark="arena_hard", paper=numbers.SECTION_5_MAGPIE)
    yield PaperModel("llama-3-8b", "lora", "magpie"), magpie


QUOTED = (
    *(
        Quoted(
            name=name,
            title=title,
            cells=(
                Cell(table="table_7", benchmark="arena_hard", paper=win_rate, quoted_from=MAGPIE_CARDS, line=line),
                Cell(table="table_7", benchmark="ifeval", paper=accuracy, quoted_from=MAGPIE_CARDS, line=line),
            ),
        )
        for line, (name, title, win_rate, accuracy) in enumerate(numbers.TABLE_7_QUOTED, start=1)
    ),
    Quoted(
        name="llama-3.1-70b-instruct",
        title="Llama-3.1-70B-Instruct",
        cells=(
            Cell(
                table="section_5",
                benchmark="arena_hard",
                paper=numbers.SECTION_5_LLAMA_3_1,
                quoted_from=ARENA_HARD_LEADERBOARD,
            ),
        ),
    ),
)

# The models of Tables 10 to 14 are called LLaMA-3-8B before and after; after training on what is not said.
BEFORE, AFTER = PaperModel("llama-3-8b", "none", None), PaperModel("llama-3-8b", "lora", "gpt-4-0125-preview-80k")


def examples(before: PaperModel, after: PaperModel) -> tuple[Example, ...]:
    """The questions of Tables 10 to 14, answered by these two."""
    return tuple(
        Example(name=table, table=table, question_id=question, before=before.name, after=after.name)
        for table, question in numbers.EXAMPLES
    )


def models(cells: Mapping[PaperModel, Sequence[Cell]], shown: Sequence[PaperModel] = ()) -> tuple[Model, ...]:
    """A row for every model that fills cells, each run on what its cells need; those `shown` answer Arena-Hard, too."""
    ids = {PaperModel(row.backbone, row.module, row.training_set): row.id for row in numbers.TABLE_1}
    return tuple(
        Model(
            name=model.name,
            backbone=model.backbone,
            module=model.module,
            adapter=model.adapter,
            row=ids.get(model),
            cells=tuple(cells_of_model),
            measured_on=_measured_on(cells_of_model, ("arena_hard",) if model in shown else ()),
            weights="keep" if model.adapter is None else "regenerate",
        )
        for model, cells_of_model in cells.items()
    )


def _measured_on(cells: Sequence[Cell], shown: tuple[str, ...]) -> tuple[str, ...]:
    tasks = dict.fromkeys(numbers.TABLE_15_COLUMNS, "open_llm_leaderboard")
    return tuple(sorted({*shown, *(tasks.get(cell.benchmark, cell.benchmark) for cell in cells)}))


def adapters(models: Iterable[PaperModel], machine: Callable[[str], Machine]) -> tuple[Adapter, ...]:
    """A row for every backbone and training set that these models need, by the paper's recipe."""
    trained = dict.fromkeys((model.trained, model.training_set) for model in models)
    return tuple(
        Adapter(
            name=f"{backbone}.{training_set}",
            backbone=backbone,
            training_set=training_set,
            recipe=FAITHFUL,
            machine=machine(backbone),
        )
        for backbone, training_set in trained
        if backbone and training_set
    )


def by_model(filled: Iterable[tuple[PaperModel, Cell]]) -> dict[PaperModel, list[Cell]]:
    """The cells of each model, in the order of the tables."""
    cells: dict[PaperModel, list[Cell]] = {}
    for model, cell in filled:
        cells.setdefault(model, []).append(cell)
    return cells


def audit(name: str, kind: Literal["teacher", "control", "reference"]) -> Audit:
    """The audit of a source of Table 8, with the paper's percentages."""
    shares = zip(("instruction", "dialogue"), numbers.TABLE_8[name], strict=True)
    cells = tuple(Cell(table="table_8", benchmark=question, paper=share) for question, share in shares)
    return Audit(name=name, kind=kind, auditor=AUDITOR, cells=cells)


def pairs_of(teacher: str, thousands: int, name: str | None = None) -> TrainingSet:
    """The first so many thousand pairs of a teacher. The paper drops nothing but empty answers from its main sets, so
    what was cut off stays."""
    rows = thousands * 1_000
    return TrainingSet(name=f"{name or teacher}-{thousands}k", teacher=teacher, rows=rows, keep_truncated=True)


def before_and_after(teacher: str) -> tuple[TrainingSet, TrainingSet]:
    """The two sets of a teacher in Table 9: its first 1,000 pairs, and the same without those the auditor flagged."""
    training_set = pairs_of(teacher, 1)
    return training_set, replace(training_set, name=f"{training_set.name}-audited", filters=("audited",), refill=False)


CELLS = by_model(filled())

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
    # Of each file the commit is known, and of Alpaca's what is in it.
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
            location="hf://datasets/Magpie-Align/Magpie-Pro-MT-300K-v0.1",
            revision="a9c2ff109046eb71deb06501c3f49ada307333f4",
            file="data/train-*.parquet",
            layout="conversations",
            rows=300_000,
            licence="Llama 3 community licence",
        ),
    ),
    training_sets=(
        pairs_of("original", 80),
        pairs_of("gpt-3.5-turbo-0125", 80),
        # Figure 2: each size holds the smaller ones; that of 1,000 is in Table 9, too.
        *(pairs_of("gpt-4-0125-preview", size) for size in numbers.FIGURE_2 if size > 1),
        TrainingSet(
            name="gpt-4-0125-preview-73k",
            teacher="gpt-4-0125-preview",
            filters=("uppercase_start",),
            keep_truncated=True,
        ),
        *(pairs_of("gpt-4o-mini-2024-07-18", size) for size in (80, 300)),
        pairs_of("claude-3-haiku-20240307", 10, "claude-3-haiku"),
        pairs_of("claude-3-sonnet-20240229", 10, "claude-3-sonnet"),
        pairs_of("claude-3-opus-20240229", 10, "claude-3-opus"),
        pairs_of("llama-2-7b-chat", 80),
        TrainingSet(name="alpaca", reference="alpaca"),
        TrainingSet(name="gpt-4-alpaca", reference="gpt-4-alpaca"),
        TrainingSet(name="magpie", reference="magpie"),
        *(training_set for teacher in numbers.TABLE_9 for training_set in before_and_after(teacher)),
    ),
    filters=(Filter(name="uppercase_start"), Filter(name="prompt_echo"), Filter(name="audited")),
    backbones=BACKBONES,
    adapters=adapters(CELLS, lambda backbone: V100S_70B if backbone in LARGE else V100S),
    models=models(CELLS, shown=(BEFORE, AFTER)),
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
    quoted=QUOTED,
    examples=examples(BEFORE, AFTER),
    inconsistencies=numbers.INCONSISTENCIES,
)
