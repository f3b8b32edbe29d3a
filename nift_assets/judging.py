"""A judge asked about files of answers: what a study's own step asks of them, through the same ledger, under its caps.

A question is the same request whoever asks it, so what a step has paid for is not asked again here, nor the other way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import polars as pl

from nift_assets import benchmarks, environment, providers
from nift_assets.benchmarks.scoring import answer_files, files
from nift_assets.benchmarks.scoring.answer_files import AskedQuestion, ModelRun
from nift_assets.ledger import report
from nift_assets.protocol import Answer, Request
from nift_assets.rows import Benchmark, Judge
from nift_assets.steps import asking
from nift_assets.steps.lineage import Partition
from nift_assets.study import Study
from nift_training import json_objects

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book
    from nift_assets.ledger.door import AskResult
    from nift_assets.ledger.progress import Counts, Stop

# The rows without which there is no study.
NEEDED = ("teachers", "training_sets", "backbones", "adapters", "models", "benchmarks")
FOLDER = "benchmarks"  # where `nift benchmarks` puts the files unless told otherwise


@dataclass(frozen=True, kw_only=True)
class ToJudge:
    """The answers of one run of a model, as the table of answers has them, and what the judge is asked about them."""

    run: ModelRun
    answers: pl.DataFrame
    requests: Sequence[Request]


@dataclass(frozen=True, kw_only=True)
class AskedJudge:
    """What a judge said: for each run one answer per request and, by its place, of what was asked once more; `stopped`
    if not all could be asked, which keeps what was answered for the next time."""

    judged: Sequence[Sequence[Answer]]
    retried: Sequence[Mapping[int, Answer]]
    spent: int
    sent: int
    stopped: Stop | None


def benchmark_row(study: Study, name: str, folder: Path | None = None) -> Benchmark:
    """The study's row of a benchmark, else one with the published settings; on the files of a folder if it is named."""
    row = next((row for row in study.benchmarks if row.name == name), None)
    file: Any = benchmarks.load(name)
    if row is None:
        place = Path(environment.benchmarks() or FOLDER, getattr(file, "FOLDER", name))
        row = Benchmark(name=name, location=str(place), baseline=getattr(file, "BASELINE", None))
    if folder is not None:
        row = replace(row, location=str(folder.absolute()), judge_config="judge_config.yaml")
        if row.baseline and not Path(folder, "model_answer", f"{row.baseline}.jsonl").exists():
            row = replace(row, baseline=getattr(file, "BASELINE", None))
    return row


def judge_row(study: Study, name: str, **own: Any) -> Judge:
    """The study's judge of that name, or one made of `PROVIDER:MODEL` with what else its row is to have."""
    known = [row.name for row in study.judges]
    if name in known:
        if given := [field for field, value in own.items() if value is not None]:
            raise ValueError(f"{name} is a row of the study {study.name}, which says its {given[0]}; leave that out")
        return study.judge(name)
    provider, colon, model = name.partition(":")
    if not colon or not model or not json_objects.is_text(model):
        raise ValueError(
            f"the study {study.name} has no judge {name!r}; name {' or '.join([*known, 'PROVIDER:MODEL'])}, of one of "
            f"the providers {', '.join(providers.names())}"
        )
    if providers.load(provider).ANSWERS_FROM is not None:
        raise ValueError(f"the provider {provider} answers from what a study has made; name a judge that is asked")
    slug = re.sub("[^a-z0-9._-]+", "-", model.lower()).strip("-.") or "judge"
    fields = {field: value for field, value in own.items() if value is not None}
    row = Judge(name=slug[:96], provider=provider, model=model, **fields)
    # A study is checked when it is put together, and so is whoever is asked for it.
    nothing: dict[str, Any] = dict.fromkeys((*NEEDED, "judges"), ())
    alone = Study(name=study.name, title=study.title, corpus=study.corpus, **{**nothing, "judges": (row,)})
    return alone.judge(row.name)


def capped(judge: Judge, budget: float | None, study: Study, book: Book | None) -> Judge:
    """The judge under a further cap: what it has cost the study already, and so many dollars more."""
    if budget is None:
        return judge
    taken = report.spent_and_reserved(book, study.name).get(judge.name, 0) if book else 0
    most = taken / 1e9 + budget
    return replace(judge, budget_usd=most if judge.budget_usd is None else min(most, judge.budget_usd))


def questions(row: Benchmark) -> dict[str, AskedQuestion]:
    """The questions of the row's files by their ids; ValueError where they are not there."""
    return answer_files.asked(files.path_of(row, benchmarks.load(row.name).ASKED))


@contextmanager
def against(row: Benchmark, answers: Sequence[Path], name: str | None) -> Iterator[Benchmark]:
    """The row of a benchmark whose answers are compared with those of a file instead, in a folder that is removed."""
    if not answers:
        yield row
        return
    file: Any = benchmarks.writing(row.name)
    allowed = set(getattr(file, "BASELINES", {}).values())
    if not hasattr(file, "BASELINE") and not allowed:
        raise ValueError(f"{file.TITLE} compares with nobody's answers; leave --baseline-answers out")
    runs = answer_files.read(answers, questions(row), name or "baseline")
    if strangers := sorted({run.model for run in runs} - allowed) if allowed else []:
        raise ValueError(f"{file.TITLE} compares with {' and '.join(sorted(allowed))}, not with {strangers[0]}")
    if not allowed and len(runs) > 1:
        raise ValueError(f"the baseline's answers are those of {len(runs)} runs or models; name the file of one")
    with TemporaryDirectory(prefix="nift-") as temporary:
        for part in Path(row.location).absolute().iterdir():
            if part.name != "model_answer":
                os.symlink(part, Path(temporary, part.name))
        place = Path(temporary, "model_answer")
        place.mkdir()
        for part in Path(row.location, "model_answer").glob("*.jsonl"):
            os.symlink(part.absolute(), place / part.name)
        for run in runs:
            path = place / f"{file_name(run.model)}.jsonl"
            path.unlink(missing_ok=True)
            lines = (
                file.published_answer(run.model, answer["question_id"], answer["turns"], answer["tokens"])
                for answer in run.rows
            )
            path.write_text(json_objects.lines(lines), encoding="utf-8")
        yield replace(row, location=temporary, baseline=None if allowed else file_name(runs[0].model))


def to_judge(row: Benchmark, judge: Judge, runs: Sequence[ModelRun]) -> list[ToJudge]:
    """What the judge is asked about each run; ValueError for what cannot be judged."""
    row = replace(row, judge=judge.name, runs=max(run.run for run in runs) + 1)
    benchmarks.check(row)
    file = benchmarks.writing(row.name)
    prepared = []
    for run in runs:
        answers = file.answers(row, run.model, run.rows).rows
        if run.run and "run" not in answers.columns:
            raise ValueError(f"{run.model} answers several times, and {file.TITLE} is answered once; name one run")
        prepared.append(ToJudge(run=run, answers=answers, requests=file.requests(row, judge, answers)))
    return prepared


def ask(
    book: Book, study: Study, row: Benchmark, judge: Judge, asked: Sequence[ToJudge], tell: Callable[[Counts], None]
) -> AskedJudge:
    """What the judge says of all runs, and what it is asked once more where it gave no verdict."""
    file = benchmarks.writing(row.name)
    first = _ask(book, study, row, judge, [request for part in asked for request in part.requests], tell)
    judged = _split(first.answers, [len(part.requests) for part in asked])
    if first.stopped:
        return AskedJudge(judged=judged, retried=[], spent=first.spent, sent=first.sent, stopped=first.stopped)
    again = [file.retries(part.requests, said) for part, said in zip(asked, judged, strict=True)]
    second = _ask(book, study, row, judge, [request for more in again for request in more.values()], tell)
    return AskedJudge(
        judged=judged,
        retried=[
            dict(zip(more, said, strict=True))
            for more, said in zip(again, _split(second.answers, [len(more) for more in again]), strict=True)
        ],
        spent=first.spent + second.spent,
        sent=first.sent + second.sent,
        stopped=second.stopped,
    )


def published(row: Benchmark, judge: Judge, asked: Sequence[ToJudge], said: AskedJudge) -> list[str]:
    """The judgments of each run as a file of the benchmark's own tool."""
    file = benchmarks.writing(row.name)
    return [
        json_objects.lines(file.published_judgments(row, judge, part.answers, part.requests, judged, retried))
        for part, judged, retried in zip(asked, said.judged, said.retried, strict=True)
    ]


def published_answers(row: Benchmark, asked: Sequence[ToJudge]) -> str:
    """The answers that were judged as a file of the benchmark's own tool."""
    file = benchmarks.writing(row.name)
    return json_objects.lines(
        file.published_answer(part.run.model, answer["question_id"], answer["turns"], answer["tokens"])
        for part in asked
        for answer in part.run.rows
    )


def _ask(
    book: Book,
    study: Study,
    row: Benchmark,
    judge: Judge,
    requests: Sequence[Request],
    tell: Callable[[Counts], None],
) -> AskResult:
    # Imported here, as for a step: the database library takes its time.
    from nift_assets.ledger import door

    return door.ask(
        book,
        asking.asker(study, judge, Partition(f"{row.name} by hand", judge.name)),
        requests,
        lambda: providers.load(judge.provider).connect(judge, None),
        limits=judge.limits,
        price=lambda: asking.price(study, judge),
        report=tell,
    )


def _split(answers: Sequence[Answer], lengths: Sequence[int]) -> list[Sequence[Answer]]:
    parts, start = [], 0
    for length in lengths:
        parts.append(answers[start : start + length])
        start += length
    return parts


def file_name(model: str) -> str:
    """A model's name as that of a file."""
    return re.sub(r"[^\w.-]+", "-", model).strip(".") or "model"
