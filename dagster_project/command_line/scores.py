"""The commands about benchmarks: fetching their files, and scoring what other tools produced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.command_line.terminal import as_text, main, refuse, table_columns
from nift_training.messages import one_line

if TYPE_CHECKING:
    from nift_assets.benchmarks.scoring.files import PublishedFile


class Readable(click.ParamType[str]):
    """A benchmark of which other tools' files can be scored; the benchmarks are loaded when one is named."""

    name = "benchmark"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return f"{{{'|'.join(self._names())}}}"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return click.Choice(self._names()).convert(value, param, ctx)

    def _names(self) -> list[str]:
        from nift_assets import benchmarks as registry

        return list(registry.readable())


@main.command()
@click.argument("folder", default="benchmarks")
@click.option("--only", multiple=True, metavar="BENCHMARK", help="Fetch this one alone, such as ifeval; repeatable.")
def benchmarks(folder: str, only: tuple[str, ...]) -> None:
    """Fetch the benchmarks' files from their published homes into a folder, each held against its sha256."""
    from nift_assets import benchmarks as registry

    try:
        files = [
            (Path(folder, name), file) for name in only or registry.names() for file in registry.load(name).PUBLISHED
        ]
        for place, file in files:
            click.echo(str(_fetched(place, file)))
    except (ValueError, OSError) as error:
        refuse(str(error))


def _fetched(folder: Path, file: PublishedFile) -> Path:
    """The path of one file of a benchmark, fetched unless it is there; OSError with its address and the remedy."""
    from nift_assets.benchmarks.scoring import files

    try:
        (path,) = files.fetch(folder, [file])
    except OSError as error:
        raise OSError(
            f"{file.url} could not be fetched ({one_line(getattr(error, 'reason', error))}); repeat the command where "
            f"there is a network, or put that file at {folder / file.path} yourself"
        ) from None
    return path


@main.command()
@click.argument("benchmark", type=Readable())
@click.option("--answers", multiple=True, help="A file or folder of answers or, of IFEval, responses; repeatable.")
@click.option("--judgments", multiple=True, help="A file or folder of judgments, or of Arena-Hard battles; repeatable.")
@click.option("--results", multiple=True, help="A file or folder of lm-eval's results, of the leaderboard; repeatable.")
@click.option("--questions", help="The benchmark's questions or prompts (default: those in NIFT_BENCHMARKS).")
@click.option("--baseline", help="Whose answers Arena-Hard compares with (default: the published baseline's).")
@click.option("--style-control", is_flag=True, help="Arena-Hard: also with the effect of style taken out.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def score(
    benchmark: str,
    answers: tuple[str, ...],
    judgments: tuple[str, ...],
    results: tuple[str, ...],
    questions: str | None,
    baseline: str | None,
    style_control: bool,
    as_json: bool,
) -> None:
    """Score what other tools produced: files in the benchmarks' published layouts, of either vintage."""
    from dagster_project.command_line import file_score_table
    from nift_assets import benchmarks as registry
    from nift_assets.benchmarks.scoring import files, scores
    from nift_assets.benchmarks.scoring.interface import ScoredFiles

    try:
        name = registry.readable()[benchmark]
        file = registry.load(name)
        inputs = ScoredFiles(
            answers=[Path(path) for path in answers],
            judgments=[Path(path) for path in judgments],
            results=[Path(path) for path in results],
            questions=Path(questions) if questions else files.own_file(name, file.ASKED),
            baseline=baseline,
            style=style_control,
        )
        scored = registry.read(name, inputs)
        if not scored:
            raise ValueError("there is nothing to score in these files: they have no row of this benchmark")
        pairs = scores.compare(scored)
    except (ValueError, OSError) as error:
        refuse(str(error))
    click.echo(
        as_text(file_score_table.as_json(scored, pairs))
        if as_json
        else file_score_table.render(scored, pairs, table_columns())
    )
