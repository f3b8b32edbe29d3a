"""The command that has files of answers judged."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.command_line.scores import Readable
from dagster_project.command_line.study import EXIT_BUDGET, EXIT_STOPPED
from dagster_project.command_line.terminal import as_text, main, printable, refuse, table_columns
from dagster_project.settings import existing_book, open_book, warehouse
from nift_assets import studies
from nift_assets.store import Store, replacing

if TYPE_CHECKING:
    from nift_assets.benchmarks.scoring.scores import Measured
    from nift_assets.costs.plan import PlanRow
    from nift_assets.judging import AskedJudge, ToJudge
    from nift_assets.ledger.progress import Counts
    from nift_assets.rows import Benchmark, Judge
    from nift_assets.study import Study

OUT = "judgments"


@main.command()
@click.argument("benchmark", type=Readable())
@click.option("--answers", multiple=True, required=True, help="A file or folder of answers; repeatable.")
@click.option("--judge", "judge_name", required=True, help="A judge of the study, or PROVIDER:MODEL (openai:gpt-4o).")
@click.option("--model", help="Whose answers they are, where the file does not say so.")
@click.option("--files", help="The folder with the benchmark's own files (default: the study's, or NIFT_BENCHMARKS).")
@click.option("--baseline", help="What the model of --baseline-answers is called, where the file does not say so.")
@click.option("--baseline-answers", multiple=True, help="The answers to compare with (default: the published ones).")
@click.option("--base-url", help="Of PROVIDER:MODEL: a server that speaks the provider's protocol.")
@click.option("--key-variable", help="Of PROVIDER:MODEL: the environment variable with that server's key.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of PROVIDER:MODEL: of one judgment (default: 2048).")
@click.option("--budget", type=click.FloatRange(min=0), help="The most this may cost, in US dollars.")
@click.option("--out", default=OUT, show_default=True, help="A folder, or one file that ends with .jsonl.")
@click.option("--yes", is_flag=True, help="Ask without asking you first.")
@click.option("--json", "as_json", is_flag=True, help="The score as JSON.")
def judge(
    benchmark: str,
    answers: tuple[str, ...],
    judge_name: str,
    model: str | None,
    files: str | None,
    baseline: str | None,
    baseline_answers: tuple[str, ...],
    base_url: str | None,
    key_variable: str | None,
    max_tokens: int | None,
    budget: float | None,
    out: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Have a judge read files of answers, and score what it says.

    The files are those of FastChat, of arena-hard-auto, or of `python -m nift_training.evaluate`. What the judge is
    asked is what a study's own step asks it; what is in the ledger already is not asked again. The judgments are
    written as the benchmark's own tool writes them.

    \b
    nift judge mt-bench --answers answers/mt_bench.jsonl --model mine --judge openai:gpt-4o --budget 5
    """
    from nift_assets import benchmarks as registry
    from nift_assets import judging
    from nift_assets.benchmarks.scoring import answer_files

    try:
        name = registry.readable()[benchmark]
        registry.writing(name)
        study = studies.active()
        own = {"base_url": base_url, "key_variable": key_variable, "max_tokens": max_tokens}
        row = judging.judge_row(study, judge_name, **own)
        asked_of = judging.benchmark_row(study, name, Path(files) if files else None)
        runs = answer_files.read([Path(path) for path in answers], judging.questions(asked_of), model)
        with judging.against(asked_of, [Path(path) for path in baseline_answers], baseline) as against:
            asked = judging.to_judge(against, row, runs)
            paths = _paths(out, name, row, asked, [*answers, *baseline_answers])
            row = judging.capped(row, budget, study, existing_book())
            _agree(study, against, row, asked, budget=budget, yes=yes)
            said = judging.ask(open_book(), study, against, row, asked, _told)
            if said.stopped:
                code = EXIT_BUDGET if said.stopped.cause == "budget" else EXIT_STOPPED
                refuse(f"{said.stopped} (what was answered is kept, the same command goes on from there)", code)
            _write(paths, judging.published(against, row, asked, said))
            scored = _scored(against, asked, sorted({*paths}))
    except (ValueError, OSError) as error:
        refuse(str(error))
    except KeyboardInterrupt:
        refuse("stopped; what was answered is kept, the same command goes on from there")
    _show(scored, said, sorted({*paths}), as_json=as_json)


def _agree(
    study: Study, benchmark: Benchmark, judge: Judge, asked: Sequence[ToJudge], *, budget: float | None, yes: bool
) -> None:
    """Says what is about to be asked and what it costs, and has a person agree to what costs something."""
    from nift_assets import benchmarks as registry
    from nift_assets.costs import plan, price_list

    requests = [request for part in asked for request in part.requests]
    line = plan.plan_requests(
        study,
        judge,
        registry.judged(benchmark.name).SIZE,
        requests,
        store=Store(root=warehouse(), study=study.name),
        book=existing_book(),
        today=datetime.now(UTC).date(),
    )
    click.echo(_offer(benchmark, judge, asked, line), err=True)
    if line.state in ("done", "free") or not line.missing:
        return
    if line.state != "ready":
        remedy = "; raise --budget" if line.state == "over the cap" and budget is not None else ""
        raise ValueError(f"{judge.name}: {line.status}{remedy}")
    costs = line.online is None or line.online.high > 0
    if costs and budget is None and judge.budget_usd is None and price_list.budget(study) is None:
        raise ValueError(f"{judge.name} costs money and nothing caps it; give --budget with US dollars")
    if costs and not yes:
        if not sys.stdin.isatty():
            raise ValueError("nobody is there to agree to the price; give --yes")
        if not click.confirm("Ask?", err=True):
            raise ValueError("nothing was asked")


def _offer(benchmark: Benchmark, judge: Judge, asked: Sequence[ToJudge], line: PlanRow) -> str:
    from nift_assets import benchmarks as registry

    models = ", ".join(dict.fromkeys(part.run.model for part in asked))
    title, wanted, answered = registry.load(benchmark.name).TITLE, line.requests or 0, line.answered
    cost = line.online
    price = (
        "nothing to pay"
        if line.state == "free"
        else "all answered already, nothing to pay"
        if not line.missing
        else "at a price that is not known"
        if cost is None
        else f"about ${cost.expected / 1e9:,.2f} [{cost.low / 1e9:,.2f}-{cost.high / 1e9:,.2f}]"
    )
    return f"{title}, {models}: {wanted:,} questions to {judge.name}, {wanted - answered:,} still to ask: {price}"


def _told(counts: Counts) -> None:
    if counts.news:
        click.echo(printable(counts.news), err=True)
    click.echo(f"{counts.settled:,} of {counts.wanted:,} answered, ${counts.spent / 1e9:,.2f} spent", err=True)


def _paths(out: str, benchmark: str, judge: Judge, asked: Sequence[ToJudge], read: Sequence[str]) -> list[Path]:
    """Where the judgments of each run go, runs of one model into files of their own; never onto what was read."""
    from nift_assets.judging import file_name

    if out.endswith(".jsonl"):
        if any(part.run.run for part in asked):
            raise ValueError(f"{out} is one file, and a model answers several times, each a file; name a folder")
        paths = [Path(out)] * len(asked)
    else:
        runs = [f".run-{part.run.run + 1}" if part.run.run else "" for part in asked]
        paths = [
            Path(out, benchmark, judge.name, f"{file_name(part.run.model)}{run}.jsonl")
            for part, run in zip(asked, runs, strict=True)
        ]
    for path in paths:
        if any(path.exists() and Path(given).exists() and path.samefile(given) for given in read):
            raise ValueError(f"{path} is what is judged; name another --out")
    return paths


def _write(paths: Sequence[Path], contents: Sequence[str]) -> None:
    together: dict[Path, str] = {}
    for path, content in zip(paths, contents, strict=True):
        together[path] = together.get(path, "") + content
    for path, content in together.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def _scored(benchmark: Benchmark, asked: Sequence[ToJudge], paths: Sequence[Path]) -> list[Measured]:
    """The scores of the files as `nift score` reads them."""
    from nift_assets import benchmarks as registry
    from nift_assets import judging
    from nift_assets.benchmarks.scoring.interface import ScoredFiles

    file = registry.load(benchmark.name)
    with tempfile.TemporaryDirectory(prefix="nift-") as folder:
        answers = Path(folder, "answers.jsonl")
        answers.write_text(judging.published_answers(benchmark, asked), encoding="utf-8")
        several = any(part.run.run for part in asked)  # a file of answers has one run
        return registry.read(
            benchmark.name,
            ScoredFiles(
                answers=[] if several else [answers],
                judgments=[*paths],
                questions=Path(benchmark.location, file.ASKED),
                baseline=benchmark.baseline,
            ),
        )


def _show(scored: Sequence[Measured], said: AskedJudge, paths: Sequence[Path], *, as_json: bool) -> None:
    from dagster_project.command_line import file_score_table
    from nift_assets.benchmarks.scoring import scores

    pairs = scores.compare(scored)
    click.echo(
        as_text(file_score_table.as_json(scored, pairs))
        if as_json
        else file_score_table.render(scored, pairs, table_columns())
    )
    asked = f"{said.sent:,} questions asked now, ${said.spent / 1e9:,.2f} spent" if said.sent else "nothing asked anew"
    click.echo(f"{asked}. Judgments: {', '.join(map(str, paths))}", err=True)
