"""The demo study: our own articles, tiny models made on the spot, no key, no network, about a minute on two cores."""

from __future__ import annotations

from nift_assets import DEMO_FILES
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
    Publication,
    ReferenceSet,
    Task,
    Teacher,
    TrainingSet,
)
from nift_assets.studies import _appendix_b as appendix_b
from nift_assets.study import Study
from nift_training.recipe import Recipe

# The paper's recipe on a few dozen rows would be one step per epoch: smaller batches and a higher rate let a model of
# two million parameters move at all.
RECIPE = Recipe(epochs=3, batch_size=8, mean_rows=None, learning_rate=1e-2, cutoff=128, precision="float32")
# Somebody's own articles may be many; a tiny model has seen enough after so many.
MOST_ROWS = 200
AUDITED = 12
BENCHMARKS = DEMO_FILES / "benchmarks"

LEADERBOARD = ("demo_facts", "open_llm_leaderboard")


def cells(**tables: tuple[str, ...]) -> tuple[Cell, ...]:
    """The cells of the paper's tables that a row fills. Of models this small the paper prints no number."""
    return tuple(Cell(table=table, benchmark=name) for table, names in tables.items() for name in names)


STUDY = Study(
    name="demo",
    title="Demo study",
    warning="Demo scores mean nothing: the models have two million parameters and the judge is a hash function.",
    corpus=Corpus(
        name="bundled_articles",
        location=str(DEMO_FILES / "articles" / "*.txt"),
        licence="CC0-1.0",
    ),
    teachers=(
        Teacher(name="original", provider="original", model="original"),
        Teacher(name="local", provider="local", model="pico", max_tokens=32, documents=MOST_ROWS),
        Teacher(
            name="echo", provider="echo", model="continue", max_tokens=120, filters=("prompt_echo", "uppercase_start")
        ),
    ),
    # Contamination is named by nobody, so it only reports; what was audited, by one training set.
    filters=(
        Filter(name="uppercase_start"),
        Filter(name="prompt_echo"),
        Filter(name="contamination"),
        Filter(name="audited"),
    ),
    reference_sets=(
        ReferenceSet(
            name="instructions",
            location=str(DEMO_FILES / "reference_sets"),
            file="instructions.json",
            layout="alpaca",
            rows=24,
            licence="CC0-1.0",
        ),
    ),
    training_sets=(
        TrainingSet(name="original", teacher="original", rows=MOST_ROWS),
        # A model this small hardly ever finds an end by itself.
        TrainingSet(name="local", teacher="local", keep_truncated=True),
        TrainingSet(name="echo-filtered", teacher="echo", filters=("uppercase_start",), rows=MOST_ROWS),
        # What others do, to look at beside ours: no adapter is trained on it here.
        TrainingSet(name="instructions", reference="instructions"),
        # Without what the auditor flagged, and so a little smaller: after and before of Table 9.
        TrainingSet(name="original-audited", teacher="original", filters=("audited",), refill=False, rows=MOST_ROWS),
    ),
    backbones=(
        Backbone(name="pico", source="pico", template="llama-3", threads=1),
        Backbone(name="pico-instruct", source="pico", template="llama-3", threads=1, instruct_of="pico"),
    ),
    adapters=(
        Adapter(name="pico.original", backbone="pico", training_set="original", recipe=RECIPE),
        Adapter(name="pico.local", backbone="pico", training_set="local", recipe=RECIPE),
        Adapter(name="pico.echo-filtered", backbone="pico", training_set="echo-filtered", recipe=RECIPE),
        Adapter(name="pico.original-audited", backbone="pico", training_set="original-audited", recipe=RECIPE),
    ),
    models=(
        Model(
            name="pico",
            backbone="pico",
            cells=cells(table_1=("mt_bench", "open_llm_leaderboard"), table_4=LEADERBOARD, table_15=LEADERBOARD),
        ),
        Model(
            name="pico-instruct",
            backbone="pico-instruct",
            cells=cells(
                table_1=("mt_bench", "open_llm_leaderboard"),
                table_5=("arena_hard",),
                table_7=("arena_hard", "ifeval"),
                table_15=LEADERBOARD,
            ),
        ),
        Model(
            name="pico.original.lora",
            backbone="pico",
            module="lora",
            adapter="pico.original",
            cells=cells(
                table_1=("mt_bench", "open_llm_leaderboard"),
                table_3=("mt_bench",),
                table_4=LEADERBOARD,
                table_9=("mt_bench",),
                table_15=LEADERBOARD,
                figure_2=("mt_bench",),
            ),
        ),
        Model(
            name="pico.local.lora",
            backbone="pico",
            module="lora",
            adapter="pico.local",
            cells=cells(table_2=("mt_bench",), table_6=("arena_hard",)),
        ),
        Model(
            name="pico.echo-filtered.lora",
            backbone="pico",
            module="lora",
            adapter="pico.echo-filtered",
            cells=cells(
                table_2=("mt_bench",),
                table_3=("mt_bench",),
                table_5=("arena_hard",),
                table_6=("arena_hard",),
                table_7=("arena_hard", "ifeval"),
                section_6=("mt_bench",),
            ),
        ),
        Model(
            name="pico-instruct.echo-filtered.lora-base",
            backbone="pico-instruct",
            module="lora-base",
            adapter="pico.echo-filtered",
            cells=cells(
                table_1=("mt_bench", "open_llm_leaderboard"),
                table_2=("mt_bench",),
                table_5=("arena_hard",),
                table_15=LEADERBOARD,
            ),
        ),
        Model(
            name="pico.original-audited.lora",
            backbone="pico",
            module="lora",
            adapter="pico.original-audited",
            cells=cells(table_9=("mt_bench",), figure_2=("mt_bench",)),
            measured_on=("mt_bench",),
        ),
    ),
    judges=(
        Judge(name="echo-rater", provider="echo", model="rate"),
        Judge(name="echo-comparer", provider="echo", model="compare"),
    ),
    benchmarks=(
        Benchmark(
            name="mt_bench",
            location=str(BENCHMARKS / "mt_bench"),
            max_new_tokens=48,
            runs=2,
            judge="echo-rater",
        ),
        Benchmark(
            name="arena_hard",
            location=str(BENCHMARKS / "arena_hard"),
            max_new_tokens=64,
            judge="echo-comparer",
            baseline="demo-baseline",
            judge_config=str(BENCHMARKS / "arena_hard" / "judge_config.yaml"),
        ),
        Benchmark(name="ifeval", location=str(BENCHMARKS / "ifeval"), max_new_tokens=64),
        Benchmark(
            name="open_llm_leaderboard",
            location=str(BENCHMARKS / "leaderboard"),
            tasks=(Task(name="demo_facts", metric="acc_norm", shots=0),),
        ),
    ),
    auditors=(Auditor(name="echo-auditor", provider="echo", model="audit"),),
    controls=(
        Control(
            name="random_dialogue",
            provider="echo",
            model="continue",
            prompt="Randomly generate a dialog.",
            documents=AUDITED,
        ),
    ),
    questions=appendix_b.QUESTIONS,
    audits=(
        Audit(
            name="original",
            kind="teacher",
            auditor="echo-auditor",
            documents=AUDITED,
            cells=cells(table_8=("instruction", "dialogue")),
        ),
        Audit(
            name="random_dialogue",
            kind="control",
            auditor="echo-auditor",
            documents=AUDITED,
            cells=cells(table_8=("instruction", "dialogue")),
        ),
        Audit(name="planted", kind="planted", of="original", auditor="echo-auditor", documents=AUDITED),
    ),  # To a repository of whoever's token it is, and only by `nift publish`.
    publications=(
        Publication(name="echo", repository="nift-demo-echo", teacher="echo", licence="cc0-1.0"),
        Publication(
            name="adapter", repository="nift-demo-echo-lora", adapter="pico.echo-filtered", licence="apache-2.0"
        ),
        Publication(
            name="model", repository="nift-demo-echo-merged", model="pico.echo-filtered.lora", licence="apache-2.0"
        ),
    ),
    examples=(
        Example(
            name="lent-books",
            question_id="ee43e0eabe626cd603fc68fad61b3620",
            before="pico",
            after="pico.echo-filtered.lora",
        ),
        Example(
            name="file-names",
            question_id="ae2c4ba1631aac16372511f9a5458ac6",
            before="pico",
            after="pico.original.lora",
        ),
    ),
)
