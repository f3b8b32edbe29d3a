"""The study as one HTML page that needs no network and runs no script; whatever is data is shown as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jinja2
import polars as pl
from markupsafe import Markup

from nift_assets import DEMO_FILES, plots
from nift_assets.ledger import Status
from nift_assets.studies.study import Study, Teacher

TEMPLATE = Path(__file__).with_name("report.html.j2")

INPUTS = (
    "raw_sample",
    "halves",
    "completions",
    "funnel",
    "training_sets",
    "lora_adapters",
    "merged_models",
    "benchmark_scores",
    "table_1",
    "table_8",
    "table_9",
)
STAGES = ("sampled", "cut", "asked", "answered", "ok")
STATUSES: tuple[Status, ...] = get_args(Status)

SAMPLES = 3
SAMPLE_CHARACTERS = 320
DIGEST_CHARACTERS = 16
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a benchmark is called, what its score is, and the highest there can be."""

    title: str
    unit: str
    limit: float


MEASURES = {
    "mt_bench": Measure(title="MT-Bench", unit="mean rating, 1 to 10", limit=10),
    "arena_hard": Measure(title="Arena-Hard", unit="win rate against the baseline, in percent", limit=100),
    "ifeval": Measure(
        title="IFEval", unit="mean of prompt-level and instruction-level strict accuracy, in percent", limit=100
    ),
    "open_llm_leaderboard": Measure(title="Open LLM Leaderboard", unit="mean of the tasks, in percent", limit=100),
}


@dataclass(frozen=True, kw_only=True)
class DataVersion:
    """The version one stored partition of a table has; `digest` is None where nothing is stored yet."""

    table: str
    partition: str | None
    digest: str | None


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
class Sample:
    """A document at its cut: the end of its first half, and how each teacher goes on from there."""

    document_id: str
    first_half: str
    continuations: Sequence[Continuation]


def page(study: Study, frames: Mapping[str, pl.DataFrame], versions: Sequence[DataVersion] = ()) -> str:
    """The page of a study over the frames of `INPUTS`, of which any may be empty."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(name=_name, count=_count, number=_number, signed=_signed, size=_size, shown=_shown)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        study=study,
        location=_location(study.corpus.location),
        sampled=frames["raw_sample"].height,
        statuses=STATUSES,
        funnels=[funnel(teacher, frames) for teacher in study.teachers],
        pairs=_counts(frames["training_sets"], "training_set"),
        trained=_by_name(frames["lora_adapters"], "adapter"),
        merged=_by_name(frames["merged_models"], "model"),
        table_1=frames["table_1"].to_dicts(),
        table_8=frames["table_8"].to_dicts(),
        table_9=frames["table_9"].to_dicts(),
        scores=_scores(frames["benchmark_scores"]),
        measures=MEASURES,
        samples=samples(study.teachers, frames["halves"], frames["completions"]),
        versions=versions,
        digest_characters=DIGEST_CHARACTERS,
        # These draw numbers only, so their markup is ours.
        bar=lambda value, limit: Markup(plots.bar(value, limit)),
        interval_bar=lambda value, low, high, limit: Markup(plots.interval_bar(value, low, high, limit)),
    )


def funnel(teacher: Teacher, frames: Mapping[str, pl.DataFrame]) -> Funnel:
    """The steps of one teacher, and the statuses of its requests."""
    mine = pl.col("teacher") == teacher.name
    return Funnel(
        teacher=teacher.name,
        steps=frames["funnel"].filter(mine).sort("place").to_dicts(),
        statuses=_counts(frames["completions"].filter(mine), "status"),
    )


def samples(teachers: Iterable[Teacher], halves: pl.DataFrame, completions: pl.DataFrame) -> list[Sample]:
    """The first documents of the sample that have an answer, so that the same ones show for every teacher."""
    shown = halves.join(completions, on="document_id", how="semi").sort("sample_rank").head(SAMPLES)
    found = completions.join(shown, on="document_id", how="semi")
    answers = {(row["document_id"], row["teacher"]): row for row in found.iter_rows(named=True)}
    return [
        Sample(
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


def _scores(benchmark_scores: pl.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["benchmark"]): row for row in benchmark_scores.iter_rows(named=True)}


def _by_name(frame: pl.DataFrame, column: str) -> dict[str, dict[str, Any]]:
    return {row[column]: row for row in frame.iter_rows(named=True)}


def _counts(frame: pl.DataFrame, column: str) -> dict[str, int]:
    return dict(frame.group_by(column).len().iter_rows())


def _location(location: str) -> str:
    """Where the corpus lies; the bundled one without the folder this package happens to be installed in."""
    return location.removeprefix(f"{DEMO_FILES.parent.parent}/")


def _beginning(text: str) -> str:
    """The first words of a text; of one endless word its first characters."""
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    return re.sub(r"(?<=\S)\s+\S*\Z", "", text[:SAMPLE_CHARACTERS]) + " …"


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
