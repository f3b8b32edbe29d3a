"""The commands about benchmarks: fetching their files, and scoring what other tools produced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.command_line.terminal import as_text, main, refuse

if TYPE_CHECKING:
    from nift_assets.benchmarks.file_scores import Scored


@main.command()
@click.argument("folder", default="benchmarks")
def benchmarks(folder: str) -> None:
    """Fetch the benchmarks' files from their published homes into a folder, each held against its sha256."""
    from nift_assets.benchmarks import files as benchmark_files

    try:
        for name in benchmark_files.PUBLISHED:
            for path in benchmark_files.fetch(name, Path(folder, name)):
                click.echo(str(path))
    except (ValueError, OSError) as error:
        refuse(str(error))


@main.command()
@click.argument("benchmark", type=click.Choice(["mt-bench", "arena-hard", "ifeval", "leaderboard"]))
@click.option("--answers", multiple=True, help="A file or folder of answers or, of IFEval, responses; repeatable.")
@click.option("--judgments", multiple=True, help="A file or folder of judgments, or of Arena-Hard battles; repeatable.")
@click.option("--results", multiple=True, help="A file or folder of lm-eval's results, of the leaderboard; repeatable.")
@click.option("--questions", help="The benchmark's questions or prompts (default: those in NIFT_BENCHMARKS).")
@click.option("--baseline", default="gpt-4-0314", show_default=True, help="Whose answers Arena-Hard compares with.")
@click.option("--style-control", is_flag=True, help="Arena-Hard: also with the effect of style taken out.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def score(
    benchmark: str,
    answers: tuple[str, ...],
    judgments: tuple[str, ...],
    results: tuple[str, ...],
    questions: str | None,
    baseline: str,
    style_control: bool,
    as_json: bool,
) -> None:
    """Score what other tools produced: files in the benchmarks' published layouts, of either vintage."""
    from dagster_project.command_line import file_score_table
    from nift_assets.benchmarks import file_scores

    try:
        scored = _scored(benchmark, answers, judgments, results, questions, baseline, style_control)
        if not scored:
            raise ValueError("there is nothing to score in these files: they have no row of this benchmark")
        pairs = file_scores.compare(scored)
    except (ValueError, OSError) as error:
        refuse(str(error))
    click.echo(as_text(file_score_table.as_json(scored, pairs)) if as_json else file_score_table.render(scored, pairs))


def _scored(
    benchmark: str,
    answers: tuple[str, ...],
    judgments: tuple[str, ...],
    results: tuple[str, ...],
    questions: str | None,
    baseline: str,
    style: bool,
) -> list[Scored]:
    from nift_assets.benchmarks import file_scores, published
    from nift_assets.benchmarks import files as benchmark_files

    said, judged = ([Path(name) for name in names] for names in (answers, judgments))
    asked = Path(questions) if questions else benchmark_files.own_file(benchmark)
    if benchmark == "leaderboard":
        if not (files := [Path(name) for name in (*results, *answers, *judgments)]):
            raise ValueError("nothing to score is named; give --results, lm-eval's results.json")
        return file_scores.open_llm_leaderboard(published.results(files))
    if benchmark == "ifeval":
        if not said or asked is None:
            raise ValueError(
                "IFEval is scored from --answers and --questions, the published input_data.jsonl; or set "
                "NIFT_BENCHMARKS to the folder that has ifeval/input_data.jsonl"
            )
        from nift_training.evaluate import ifeval

        return file_scores.ifeval(published.responses(said), ifeval.read_prompts(asked))
    if not judged:
        raise ValueError(f"no judgments are named; give --judgments, a file or folder of {benchmark} judgments")
    known = file_scores.questions_of(asked) if asked else None
    if benchmark == "mt-bench":
        return file_scores.mt_bench(published.mt_bench_judgments(judged), published.answers(said), known)
    return file_scores.arena_hard(
        published.arena_hard_judgments(judged), published.answers(said), known, baseline=baseline, style=style
    )
