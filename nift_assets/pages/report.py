"""The study as one HTML page that needs no network and runs no script; whatever is data is shown as plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import jinja2
import polars as pl
from markupsafe import Markup

from expectations.contract import ContractTest
from expectations.results import LastResult, verdict
from nift_assets import DEMO_FILES, benchmarks
from nift_assets.pages import agreement, charts, html_templates, overview, plots, sheets
from nift_assets.pages.overview import Made, StepTime
from nift_assets.pages.viewer import links
from nift_assets.pages.viewer.answers import read_in_words
from nift_assets.protocol import Status
from nift_assets.rows import Example, Teacher
from nift_assets.study import Study

FOLDER = Path(__file__).parent
TEMPLATE = FOLDER / "report.html.j2"

INPUTS = (
    "raw_sample",
    "halves",
    "completions",
    "funnel",
    "training_files",
    "lora_adapters",
    "merged_models",
    "benchmark_scores",
    *sheets.LAYOUTS,
    "table_8",
    "mt_bench_categories",
    "training_costs",
    "response_endings",
    "response_examples",
)
STAGES = ("sampled", "cut", "asked", "answered", "ok")
STATUSES: tuple[Status, ...] = get_args(Status)

# Of a cell of a table, as `nift coverage` says them.
STATES = ("present", "stale", "missing", "impossible")
VERDICTS = ("passed", "warned", "failed", "not run")

SAMPLES = 3
SAMPLE_CHARACTERS = 320
ANSWER_CHARACTERS = 900
LOOP_CHARACTERS = 160
DIGEST_CHARACTERS = 16
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class DataVersion:
    """The version one stored partition of a table has; `digest` is None where nothing is stored yet."""

    table: str
    partition: str | None
    digest: str | None


@dataclass(frozen=True, kw_only=True)
class CheckedTable:
    """How the checks of one table stand, each by its last result on every partition; `kept` are the partitions and the
    tests of which the rows that failed are there to be read."""

    table: str
    tests: Sequence[ContractTest]
    results: Mapping[str, Sequence[LastResult]]
    kept: Collection[tuple[str | None, str]] = ()

    def count(self, verdict: str) -> int:
        return sum(self.verdict(test) == verdict for test in self.tests)

    def verdict(self, test: ContractTest) -> str:
        return verdict(test, self.results.get(test.name, ()))

    @property
    def complaints(self) -> list[tuple[ContractTest, list[LastResult], int]]:
        """The tests that did not pass, each with the results that say so and how many partitions it was run on."""
        return [
            (test, [result for result in results if not result.passed], len(results))
            for test in self.tests
            if (results := self.results.get(test.name, ())) and self.verdict(test) != "passed"
        ]


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one teacher, judge or auditor was asked and what it cost so far; money is in dollars."""

    who: str
    questions: Mapping[str, int]
    sent: int
    input_tokens: int
    output_tokens: int
    usd: float
    reserved: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What keeps cells of the tables empty, or out of date: one command that fills them all, or why none does."""

    name: str
    state: str
    why: str
    command: str | None
    usd: float | None
    cells: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two answers of an example: its beginning, and how it ends."""

    model: str
    text: str | None
    tokens: int | None
    stopped: str | None
    repeated: float | None
    loop: str | None
    loop_times: float | None


@dataclass(frozen=True, kw_only=True)
class AnswerComparison:
    """A question and what two models answer."""

    name: str
    table: str | None
    question: str | None
    address: str | None
    sides: Sequence[Side]


@dataclass(frozen=True, kw_only=True)
class Funnel:
    """How many documents of the sample reached each step for one teacher, and what became of the requests."""

    teacher: str
    steps: Sequence[Mapping[str, Any]]
    statuses: Mapping[str, int]

    @property
    def sampled(self) -> int:
        return self.steps[0]["kept"] if self.steps else 0

    @property
    def stages(self) -> list[tuple[str, int | None]]:
        """The steps that drop something or may, and how many they leave; None for one that was not made yet."""
        left = {step["step"]: step["kept"] for step in self.steps if step["drops"]}
        return [(step, left.get(step)) for step in dict.fromkeys((*STAGES, *left))]

    @property
    def filters(self) -> list[Mapping[str, Any]]:
        return [step for step in self.steps if step["is_filter"]]


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What one teacher made of a document: the beginning of its text, or why there is none to train on."""

    teacher: str
    status: str
    text: str


@dataclass(frozen=True, kw_only=True)
class SampleDocument:
    """A document at its cut: the end of its first half, and how each teacher goes on from there."""

    document_id: str
    first_half: str
    continuations: Sequence[Continuation]


@dataclass(frozen=True, kw_only=True)
class PlainTable:
    """A table of a section that needs no template: the heads of its columns, its rows, and what is to be said of it.

    A column that is named in `numbers` stands to the right. A value of None is a dash.
    """

    caption: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    numbers: Sequence[str] = ()


Frames = Mapping[str, pl.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page. Its template is `sections/<anchor>.html.j2`, unless `table` gives all that stands in it.

    `shown` says of a study and its frames whether there is anything to show; a `table` that is None is not shown.
    """

    anchor: str
    title: str
    shown: Callable[[Study, Frames], bool] = lambda study, frames: True
    table: Callable[[Study, Frames], PlainTable | None] | None = None


# In the order of the page. A study without benchmarks begins with `DATA`.
SCORES = Section(anchor="scores", title="Scores", shown=lambda study, frames: bool(study.benchmarks))
DATA = (
    Section(anchor="funnel", title="From article to pair"),
    Section(anchor="samples", title="Examples of pairs"),
)
SECTIONS = (
    SCORES,
    *DATA,
    Section(anchor="cost", title="What it cost"),
    Section(anchor="missing", title="What is missing", shown=lambda study, frames: bool(study.models)),
    Section(anchor="training", title="Training", shown=lambda study, frames: bool(study.adapters)),
    Section(anchor="tables", title="The paper’s tables", shown=lambda study, frames: _has_cells(study, frames)),
    Section(
        anchor="categories",
        title="MT-Bench by category",
        shown=lambda study, frames: not frames["mt_bench_categories"].is_empty(),
    ),
    Section(
        anchor="answers",
        title="Answers",
        shown=lambda study, frames: (
            not (frames["response_endings"].is_empty() and frames["response_examples"].is_empty())
        ),
    ),
    Section(
        anchor="agreement",
        title="What people say",
        table=lambda study, frames: _agreement(frames.get("review_agreement")),
    ),
    Section(anchor="run", title="What was run"),
    Section(anchor="checks", title="Checks"),
    Section(
        anchor="inconsistencies",
        title="Where the published numbers disagree",
        shown=lambda study, frames: bool(study.inconsistencies),
    ),
    Section(anchor="versions", title="Data versions"),
)


def page(
    study: Study,
    frames: Frames,
    versions: Sequence[DataVersion] = (),
    *,
    made: Made | None = None,
    spent: Sequence[Spent] = (),
    times: Sequence[StepTime] = (),
    checked: Sequence[CheckedTable] = (),
    losses: Mapping[str, Sequence[tuple[int, float]]] = MappingProxyType({}),
    coverage: pl.DataFrame | None = None,
    samples: Sequence[SampleDocument] = (),
) -> str:
    """The page of a study over the frames of `INPUTS`, of which any may be empty, with what the ledger, the record of
    runs, the checks, the training logs and the coverage of the tables tell, and the pairs to show.

    Of `halves` nothing is read, of `raw_sample` how many rows it has, and of `completions` `teacher` and `status`.
    """
    measures = benchmarks.measures(study.benchmarks)
    return _template().render(
        study=study,
        made=made,
        sections=[(section, section.table and section.table(study, frames)) for section in shown(study, frames)],
        location=_location(study.corpus.location),
        sampled=frames["raw_sample"].height,
        kept=_kept(frames["funnel"]),
        statuses=STATUSES,
        states=STATES,
        funnels=[funnel(teacher, frames) for teacher in study.teachers],
        pairs=dict(frames["training_files"].select("training_set", "rows").iter_rows()),
        trained=_by_name(frames["lora_adapters"], "adapter"),
        merged=_by_name(frames["merged_models"], "model"),
        sheets=sheets.sheets(frames, _answers_at(study)),
        table_8=frames["table_8"].to_dicts(),
        scores=overview.score_table(study, measures, frames["benchmark_scores"]),
        titles={measure.name: measure.title for measure in measures},
        measures_of={row.name: benchmarks.measures([row]) for row in study.benchmarks},
        categories=categories(frames["mt_bench_categories"]),
        costs=frames["training_costs"].to_dicts(),
        endings=frames["response_endings"].to_dicts(),
        answers=answers(frames["response_examples"]),
        samples=samples,
        versions=versions,
        spent=spent,
        times=times,
        time_by_group=_by_group(times),
        checked=checked,
        verdicts={verdict: sum(table.count(verdict) for table in checked) for verdict in VERDICTS},
        covered=None if coverage is None else _states(coverage),
        cells=None if coverage is None else dict(coverage.group_by("state").len().iter_rows()),
        gaps=[] if coverage is None else gaps(coverage),
        digest_characters=DIGEST_CHARACTERS,
        links=links,
        readable={row.name for row in read_in_words(study)},
        # These escape what they are given, so their markup is ours.
        figure_2=plots.figure_2(frames["figure_2"]),
        cost_against_score=plots.cost_against_score(frames["training_costs"]),
        loss_curves=plots.loss_curves(losses),
        chart_style=Markup(charts.STYLE),
        bar=lambda value, limit: Markup(plots.bar(value, limit)),
        dot=lambda value, least, limit, **more: Markup(plots.dot(value, least, limit, **more)),
        scale=lambda least, limit: Markup(plots.scale(least, limit)),
    )


def shown(study: Study, frames: Frames) -> list[Section]:
    """The sections of a study in their order: the scores first or, where nothing is scored, the data."""
    return [
        section
        for section in SECTIONS
        if section.shown(study, frames) and (section.table is None or section.table(study, frames) is not None)
    ]


def served(page: bytes) -> bytes:
    """The page for who reads it on a server that has the viewer's pages too: with the links that lead there.

    In a file that is opened from the disk they would lead nowhere, and stand hidden.
    """
    return page.replace(b'<body data-served="no">', b'<body data-served="yes">', 1)


def templates() -> list[str]:
    """The texts the page is made of."""
    return [file.read_text(encoding="utf-8") for file in (TEMPLATE, *sorted((FOLDER / "sections").glob("*.j2")))]


def _agreement(rows: pl.DataFrame | None) -> PlainTable | None:
    """How far people agree with one another and with who judges without them, where anybody has reviewed anything."""
    if rows is None or rows.is_empty():
        return None
    return PlainTable(
        caption=agreement.CAPTION,
        about=agreement.ABOUT,
        columns=agreement.COLUMNS,
        rows=agreement.rows(rows),
        numbers=agreement.NUMBERS,
    )


def _answers_at(study: Study) -> sheets.AnswersAt:
    models, readable = {row.name for row in study.models}, {row.name for row in read_in_words(study)}
    return lambda model, benchmark: (
        links.answers(benchmark, model) if model in models and benchmark in readable else None
    )


def _has_cells(study: Study, frames: Frames) -> bool:
    has_cells = any(row.cells for row in study.models) or any(row.cells for row in study.quoted)
    return has_cells or not frames["table_8"].is_empty()


def _kept(funnel: pl.DataFrame) -> int | None:
    """How many pairs all teachers together have come to."""
    last = funnel.filter(pl.col("step") == "kept")
    return int(last["kept"].sum()) if last.height else None


def _by_group(times: Sequence[StepTime]) -> dict[str, float]:
    """The seconds of each group of tables, the longest first."""
    seconds: dict[str, float] = {}
    for time in times:
        seconds[time.group] = seconds.get(time.group, 0.0) + time.seconds
    return dict(sorted(seconds.items(), key=lambda group: -group[1]))


@cache
def _template() -> jinja2.Template:
    environment = html_templates.environment(
        FOLDER,
        name=_name,
        count=_count,
        number=_number,
        signed=_signed,
        size=_size,
        shown=_shown,
        usd=_usd,
        p=_p,
        duration=_duration,
    )
    return environment.get_template(TEMPLATE.name)


def gaps(coverage: pl.DataFrame) -> list[Gap]:
    """What is not there, each with the cells that wait for it, told by their tables, in the study's order."""
    what = ("name", "state", "why", "command", "usd")
    waiting = coverage.filter(pl.col("state") != "present")
    tables = waiting.group_by(*what, "table", maintain_order=True).agg(pl.col("benchmark").unique(maintain_order=True))
    cells = pl.concat_str(pl.col("table").str.replace_all("_", " "), pl.lit(": "), pl.col("benchmark").list.join(", "))
    return [Gap(**row) for row in tables.group_by(*what, maintain_order=True).agg(cells=cells).to_dicts()]


def _states(coverage: pl.DataFrame) -> dict[str, dict[str, int]]:
    """How many cells of each table are in which state."""
    counts: dict[str, dict[str, int]] = {}
    for table, state in coverage.select("table", "state").iter_rows():
        of_table = counts.setdefault(table, dict.fromkeys(STATES, 0))
        of_table[state] += 1
    return counts


def categories(rows: pl.DataFrame) -> tuple[list[str], dict[str, dict[str, float | None]]]:
    """The categories of MT-Bench in their order, and each model's mean rating in them."""
    ratings: dict[str, dict[str, float | None]] = {}
    for model, category, rating in rows.select("model", "category", "rating").iter_rows():
        ratings.setdefault(model, {})[category] = rating
    return list(dict.fromkeys(rows["category"])), ratings


def answers(examples: pl.DataFrame) -> list[AnswerComparison]:
    """The examples, each answer cut to its beginning and each loop to one round."""
    return [
        AnswerComparison(
            name=row["name"],
            table=row["table"],
            address=_address(row),
            question=row["question"] and _beginning(row["question"], ANSWER_CHARACTERS),
            sides=[_side(row, side) for side in ("before", "after")],
        )
        for row in examples.iter_rows(named=True)
    ]


def _address(example: Mapping[str, Any]) -> str | None:
    """Where the viewer shows the question with both answers whole."""
    question = example["question_id"]
    return links.question(Example.BENCHMARK, question, example["before"], example["after"]) if question else None


def _side(row: Mapping[str, Any], side: str) -> Side:
    text, loop = row[f"{side}_answer"], row[f"{side}_loop"]
    return Side(
        model=row[side],
        text=text if text is None else _beginning(text, ANSWER_CHARACTERS),
        loop=loop and _beginning(loop, LOOP_CHARACTERS),
        **{name: row[f"{side}_{name}"] for name in ("tokens", "stopped", "repeated", "loop_times")},
    )


def funnel(teacher: Teacher, frames: Mapping[str, pl.DataFrame]) -> Funnel:
    """The steps of one teacher, and the statuses of its requests."""
    mine = pl.col("teacher") == teacher.name
    return Funnel(
        teacher=teacher.name,
        steps=frames["funnel"].filter(mine).sort("place").to_dicts(),
        statuses=_counts(frames["completions"].filter(mine), "status"),
    )


def samples(teachers: Iterable[Teacher], halves: pl.DataFrame, completions: pl.DataFrame) -> list[SampleDocument]:
    """The first documents of the sample that have an answer, so that the same ones show for every teacher."""
    shown = halves.join(completions, on="document_id", how="semi").sort("sample_rank").head(SAMPLES)
    rows = completions.join(shown, on="document_id", how="semi")
    answers = {(row["document_id"], row["teacher"]): row for row in rows.iter_rows(named=True)}
    return [
        SampleDocument(
            document_id=document_id,
            first_half=_end(first_half),
            continuations=[
                Continuation(teacher=teacher.name, status=answer["status"], text=_beginning(answer["completion"]))
                for teacher in teachers
                if (answer := answers.get((document_id, teacher.name)))
            ],
        )
        for document_id, first_half in shown.select("document_id", "first_half").iter_rows()
    ]


def _by_name(frame: pl.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    return {row[column]: row for row in frame.iter_rows(named=True)}


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(frame.group_by(column).len().iter_rows())


def _location(location: str) -> str:
    """Where the corpus lies; the bundled one without the folder this package happens to be installed in."""
    return location.removeprefix(f"{DEMO_FILES.parent.parent}/")


def _beginning(text: str, most: int = SAMPLE_CHARACTERS) -> str:
    """The first words of a text; of one endless word its first characters."""
    if len(text) <= most:
        return text
    return re.sub(r"(?<=\S)\s+\S*\Z", "", text[:most]) + " …"


def _end(text: str) -> str:
    """The last words of a text; of one endless word its last characters."""
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    return "… " + re.sub(r"\A\S*\s+(?=\S)", "", text[-SAMPLE_CHARACTERS:])


def _name(value: str | None) -> str:
    """A row's name that may break behind a dot; `Markup` escapes what it joins."""
    return MISSING if value is None else Markup(".<wbr>").join(value.split("."))


def _shown(value: object) -> object:
    return MISSING if value is None else value


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _number(value: float | None, digits: int = 2) -> str:
    return MISSING if value is None else f"{value:,.{digits}f}".replace("-", "−")


def _signed(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.2f}".replace("-", "−")


def _usd(value: float | None) -> str:
    """Dollars: whole ones of large amounts, and of small ones as many digits as there are to see."""
    if value is None:
        return MISSING
    return f"${value:,.0f}" if value >= 100 else f"${value:,.2f}" if value >= 0.01 or not value else f"${value:.2g}"


def _p(value: float | None) -> str:
    """A p-value as it is printed; none is below what a permutation test can tell."""
    if value is None:
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _duration(seconds: float) -> str:
    """Seconds as people say them, in the two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _size(value: int | None) -> str:
    """Bytes in the unit in which they have one to three digits before the point."""
    if value is None:
        return MISSING
    amount = float(value)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1_000:
            return f"{amount:.3g} {unit}"
        amount /= 1_000
    return f"{amount:,.1f} TB"
