"""The `nift` command: run a study from end to end, or open Dagster's UI on it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources as package_files
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
from dotenv import load_dotenv

from dagster_project.command_line import plan_table
from dagster_project.settings import existing_book, open_book, warehouse
from nift_assets import studies
from nift_assets.costs import plan as planning
from nift_assets.costs import price_list
from nift_assets.ledger import report as ledger_report
from nift_assets.secrets import keys, redaction
from nift_assets.store import CATALOGUE, Store, replacing

if TYPE_CHECKING:
    from dagster_project.run_study import Outcome, Run
    from nift_assets.benchmarks.file_scores import Scored

PROJECT = Path(__file__).parents[2]
GPU = Path("/dev/nvidia0")
DEMO_BYTES = 250 * 2**20
# How a run ends that was stopped before everything was asked: at a cap, or by the provider (quota, key, model).
EXIT_BUDGET, EXIT_STOPPED = 4, 5


@click.group()
def main() -> None:
    """Non-instructional fine-tuning: articles in, checked data, adapters, merged models and score tables out."""
    load_dotenv(Path(".env"))


def own_documents(command: Callable[..., None]) -> Callable[..., None]:
    """The options that put somebody's own articles in the place of the study's."""
    for option in (
        click.option("--documents", help="How many documents to sample (default: all)."),
        click.option("--text-column", help="The column with the text (default: text)."),
        click.option("--corpus", help="Your own articles: a Parquet or JSON-lines file, a folder, a pattern, hf://…"),
    ):
        command = option(command)
    return command


@main.command()
@own_documents
@click.option("--fresh", is_flag=True, help="Forget the tables of this study and start over; paid answers are kept.")
def demo(corpus: str | None, text_column: str | None, documents: str | None, fresh: bool) -> None:
    """Run the whole line of the active study and print its score table; what is up to date is used again."""
    _set(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        _run_study(fresh=fresh)
    except (ValueError, OSError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        _refuse("stopped; what was complete is kept, the same command goes on from there")


@main.command("run")
@click.argument("tables", nargs=-1)
@click.option("--partition", "chosen", multiple=True, help="Only this one's: a teacher, a model, …; repeatable.")
@click.option("--only", is_flag=True, help="Only these tables, made from what there is.")
@own_documents
def run_(
    tables: tuple[str, ...],
    chosen: tuple[str, ...],
    only: bool,
    corpus: str | None,
    text_column: str | None,
    documents: str | None,
) -> None:
    """Make TABLES and all they are made from, where that is missing or out of date; without TABLES everything.

    \b
    nift run training_sets                          all data
    nift run filtered_completions --partition echo  one teacher's data set
    nift run table_1 --only                         one table, from the scores there are
    """
    _set(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        if (chosen or only) and not tables:
            raise ValueError("--partition and --only are about tables; name them")
        _run_study(fresh=False, tables=tables, chosen=chosen, only=only)
    except (ValueError, OSError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        _refuse("stopped; what was complete is kept, the same command goes on from there")


@main.command()
@own_documents
@click.option("--table", "tables", multiple=True, help="Only this table of the paper (table_1); repeatable.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def coverage(
    corpus: str | None, text_column: str | None, documents: str | None, tables: tuple[str, ...], as_json: bool
) -> None:
    """Every cell of the study's tables: present, stale, missing or impossible, what fills it and what that costs."""
    _set(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        study = studies.active()
        from dagster_project.command_line import coverage_table
        from nift_assets import graph  # noqa: F401  importing it declares all tables
        from nift_assets.steps import coverage as covering

        store = Store(root=warehouse(), study=study.name)
        found = covering.covered(store, existing_book(), datetime.now(UTC).date())
        cells = coverage_table.chosen(found, tables)
    except (ValueError, OSError) as error:
        _refuse(str(error))
    click.echo(_json(coverage_table.as_json(cells)) if as_json else coverage_table.render(cells))


@main.command()
@own_documents
@click.option("--port", type=int, help="The port to listen on (default: the first free one from 3000).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with NIFT_UI_TOKEN set.")
@click.option("--name", "names", multiple=True, help="A host name a reverse proxy passes on; repeatable.")
def ui(
    corpus: str | None,
    text_column: str | None,
    documents: str | None,
    port: int | None,
    host: str,
    names: tuple[str, ...],
) -> None:
    """Open Dagster's UI of the active study, for this machine only unless told otherwise."""
    _set(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        from dagster_project.ui.gate import Address

        address = Address(host=host, port=port, names=names, token=keys.read("NIFT_UI_TOKEN"))
        address.refuse_unsafe()
        home = dagster_home(studies.active().name)
        from dagster_project.ui import launcher

        click.echo(f"Starting Dagster (instance in {home}) …")
        launcher.serve(home, address, lambda url: click.echo(f"Dagster's UI: {url} (stop with Ctrl-C)"))
    except (ValueError, OSError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        _refuse("stopped while starting")


@main.command()
@click.argument("sql")
def query(sql: str) -> None:
    """Ask the tables in SQL: nift query "select teacher, count(*) from demo.completions group by all"."""
    import duckdb

    try:
        with duckdb.connect(Path(warehouse(), CATALOGUE), read_only=True) as catalogue:
            click.echo(str(catalogue.sql(sql)))
    except duckdb.Error as error:
        _refuse(str(error))


@main.command()
@own_documents
@click.option(
    "--out", type=click.Path(dir_okay=False), help="Where the page goes (default: beside the study's tables)."
)
def docs(corpus: str | None, text_column: str | None, documents: str | None, out: str | None) -> None:
    """Every table with its columns, its tests and their last results, as one page that needs no network."""
    _set(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        click.echo(f"Documentation: {_write_docs(out)}")
    except (ValueError, OSError) as error:
        _refuse(str(error))


@main.command()
@own_documents
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option("--check", is_flag=True, help="Exit with 3 if a model has ended, has no price or costs more than a cap.")
def plan(corpus: str | None, text_column: str | None, documents: str | None, as_json: bool, check: bool) -> None:
    """What the active study's teachers, judges and auditors have still to be asked, and its cost; asks nobody."""
    _set(NIFT_CORPUS=corpus, NIFT_TEXT_COLUMN=text_column, NIFT_DOCUMENTS=documents)
    try:
        study = studies.active()
        store = Store(root=warehouse(), study=study.name)
        made = planning.plan(study, store=store, book=existing_book(), today=datetime.now(UTC).date())
    except (ValueError, OSError) as error:
        _refuse(str(error))
    click.echo(_json(plan_table.as_json(made)) if as_json else plan_table.render(made, _columns()))
    if check and made.stopped():
        sys.exit(3)


@main.command()
@click.option("--study", help="Only this study (default: all).")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option(
    "--ask-unknown-again",
    is_flag=True,
    help="Book every unknown attempt as spent, also where its question has been answered since; the next run asks "
    "again what is still without an answer.",
)
@click.option(
    "--not-billed",
    is_flag=True,
    help="With --ask-unknown-again: free the unknown attempts instead of booking them as spent. Only after the "
    "provider's usage page has shown that none of those listed was billed.",
)
@click.option("--who", help="Only this teacher's or judge's, with --ask-unknown-again.")
def ledger(study: str | None, as_json: bool, ask_unknown_again: bool, not_billed: bool, who: str | None) -> None:
    """What has been asked, what became of it, what it cost, and what nobody knows the end of."""
    try:
        if who and not ask_unknown_again:
            raise ValueError("--who chooses whose unknown requests are asked again; give --ask-unknown-again with it")
        if not_billed and not ask_unknown_again:
            raise ValueError("--not-billed says how unknown requests are released; give --ask-unknown-again with it")
        if ask_unknown_again:
            released = ledger_report.ask_unknown_again(open_book(), study=study, who=who, not_billed=not_billed)
            amount = f"${(released.written_off + released.freed) / 1e9:,.4f} of {released.attempts:,} attempts"
            cost = f"{amount} are free again" if not_billed else f"{amount} are booked as spent"
            click.echo(f"{released.questions:,} questions are asked again by the next run; {cost}.", err=as_json)
        book = existing_book()
        found = (
            ledger_report.report(book, study=study)
            if book
            else ledger_report.Report(accounts=(), totals={}, lost=(), batches=())
        )
        caps = _caps([*found.totals, *(account.study for account in found.accounts)])
    except (ValueError, OSError) as error:
        _refuse(str(error))
    click.echo(_json(plan_table.ledger_as_json(found, caps)) if as_json else plan_table.render_ledger(found, caps))


@main.command()
@click.argument("names", nargs=-1)
@click.option("--yes", is_flag=True, help="Push it. Without this nothing is sent, and what would be is shown.")
@click.option(
    "--dry-run", is_flag=True, help="Only show what would go where, which is also what happens without --yes."
)
def publish(names: tuple[str, ...], yes: bool, dry_run: bool) -> None:
    """Publish data, adapters and models of the active study on the Hugging Face Hub: all its rows, or those named."""
    try:
        if yes and dry_run:
            raise ValueError("--yes pushes and --dry-run does not; give one of them")
        if yes:
            keys.require("HF_TOKEN", "publishing")  # said before a minute is spent on folders
        log = dagster_home(studies.active().name) / "publish.log"
        # Imported now: the graph is that of the study the environment names.
        from dagster_project.command_line import publishing

        failed = 0
        for outcome in publishing.publish(publishing.chosen(names), push=yes, log=log):
            if outcome.error:
                failed += 1
                click.secho(f"error: {outcome.publication.name}: {redaction.redact(outcome.error)}", fg="red", err=True)
            else:
                click.echo(publishing.render(outcome))
    except (ValueError, OSError) as error:
        _refuse(str(error))
    sys.exit(1 if failed else 0)


def _write_docs(out: str | None) -> Path:
    """The page of the contracts; without a Dagster instance it has no results, and none is made for it."""
    import dagster as dg

    from dagster_project.check_history import documented
    from nift_assets.pages import docs as pages
    from nift_assets.steps.partitions import STUDY

    store = Store(root=warehouse(), study=STUDY.name)
    home = Path(os.environ.get("DAGSTER_HOME") or Path(".dagster", STUDY.name)).absolute()
    if (home / "dagster.yaml").exists():
        os.environ["DAGSTER_HOME"] = str(home)  # its configuration names the variable
        with dg.DagsterInstance.get() as instance:
            tables = documented(store, instance)
    else:
        tables = documented(store, None)
    content = pages.page(STUDY, tables, made=datetime.now(UTC)).encode()
    if out is None:
        return store.write_bytes(content, "docs.html")
    with replacing(Path(out)) as temporary:
        temporary.write_bytes(content)
    return Path(out)


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
        _refuse(str(error))


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
        _refuse(str(error))
    click.echo(_json(file_score_table.as_json(scored, pairs)) if as_json else file_score_table.render(scored, pairs))


def dagster_home(study: str) -> Path:
    """The folder of the Dagster instance, made with our configuration: `DAGSTER_HOME`, by default `.dagster/<study>`.

    Assets have the same names in every study, so one instance for two would show one's runs under the other.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or Path(".dagster", study)).absolute()
    _make_folder(home, "DAGSTER_HOME")
    if not (home / "dagster.yaml").exists():
        configuration = package_files.files("dagster_project") / "instance" / "dagster.yaml"
        (home / "dagster.yaml").write_bytes(configuration.read_bytes())
        os.environ["DAGSTER_HOME"] = str(home)
        if GPU.exists():
            import dagster as dg

            with dg.DagsterInstance.get() as instance:
                instance.event_log_storage.set_concurrency_slots("gpu", 1)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


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


def _caps(names: list[str]) -> dict[tuple[str, str], float | None]:
    """The caps of the studies of those names that can be found here, and of their rows, in dollars."""
    active = studies.active()
    known = {name: studies.load(name) for name in {*names} & {*studies.names()}} | {active.name: active}
    caps: dict[tuple[str, str], float | None] = {}
    for study in known.values():
        caps[study.name, ""] = price_list.budget(study)
        caps |= {(study.name, row.name): row.budget_usd for row in study.language_models}
    return caps


def _columns() -> int:
    """The width of the terminal; what goes to a file or a pipe is as wide as it likes."""
    return shutil.get_terminal_size(fallback=(200, 24)).columns


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _run_study(*, fresh: bool, tables: tuple[str, ...] = (), chosen: tuple[str, ...] = (), only: bool = False) -> None:
    """Everything of the active study or what it takes to have some tables of it, with a line per run as it starts and
    ends, then the scores."""
    home = dagster_home(studies.active().name)
    # Imported now: the graph is that of the study the environment names.
    import dagster as dg

    from dagster_project import lost_runs, run_study
    from dagster_project.command_line import score_table, spent_table
    from dagster_project.resources import store
    from nift_assets import corpus
    from nift_assets.graph import steps
    from nift_assets.steps.partitions import STUDY
    from nift_assets.steps.table import STEPS

    if "://" in warehouse():
        raise ValueError(f"the warehouse is {warehouse()}, and weights need a local folder; set NIFT_WAREHOUSE to one")
    if by_hand := [name for name in tables if name in STEPS and STEPS[name].by_hand]:
        raise ValueError(f"{by_hand[0]} is made by nift publish")
    next(corpus.read(STUDY.corpus), None)  # what is wrong with a corpus mostly shows in its first row
    folder = store().folder()
    _make_folder(Path(warehouse()), "NIFT_WAREHOUSE")
    _check_disk(Path(warehouse()))
    with _only_one(Path(warehouse()) / f".{STUDY.name}.lock"):
        if fresh and folder.exists():
            shutil.rmtree(folder)
        with dg.DagsterInstance.get() as instance:
            lost_runs.mark_failed(instance, lost_runs.under_way(instance, lost_runs.COMMAND_TAG))
        click.echo(f"{STUDY.title}: {STUDY.corpus.location}")
        log = home / "demo.log"
        planned = run_study.runs(steps())
        if tables:
            planned = run_study.needed(planned, tables, chosen, only=only)
        began, started_at = time.monotonic(), time.time()
        progress = _Progress(len(planned))
        outcomes = run_study.execute(planned, log=log, started=progress.started, ended=progress.ended)
        store().remove_unnamed_folders()
    failed = {name: outcome.error for name, outcome in outcomes.items() if outcome.error}
    if tables and not failed:
        click.echo(f"Done in {time.monotonic() - began:.0f} s. {', '.join(sorted(tables))}: nift query, or make ui")
    elif run_study.SCORES in outcomes and not outcomes[run_study.SCORES].error:
        click.echo()
        click.echo(score_table.render(store()))
        if STUDY.warning:
            click.secho(STUDY.warning, bold=True)
        if os.environ.get("NIFT_SCALE"):
            with dg.DagsterInstance.get() as instance:
                click.echo(f"\n{spent_table.render(instance, STEPS, started_at)}\n")
        took = f"{'Stopped after' if failed else 'Done in'} {time.monotonic() - began:.0f} s"
        click.echo(f"{took}. Report: {folder / 'report.html'}")
        click.echo(f"Every table: nift query 'select * from \"{STUDY.name}\".halves'. Lineage: make ui")
    if failed:
        left = len(planned) - len(outcomes)
        first, why = next(iter(failed.items()))
        stopped_by = outcomes[first].stopped_by
        code = EXIT_BUDGET if stopped_by == "budget" else EXIT_STOPPED if stopped_by else 1
        _refuse(f"{first}: {why}" + (f" ({left} runs that depend on it were not started)" if left else ""), code)


class _Progress:
    def __init__(self, total: int) -> None:
        self._total = total
        self._ended = 0

    def started(self, run: Run) -> None:
        click.echo(f"        … {run.name}: {', '.join(run.tables)}")

    def ended(self, run: Run, outcome: Outcome) -> None:
        self._ended += 1
        count = f"[{self._ended:2}/{self._total}]"
        if outcome.error:
            click.secho(f"{count} ✗ {run.name}: failed after {outcome.seconds:.1f} s", fg="red")
        elif outcome.tables:
            click.echo(f"{count} ✓ {run.name}: {len(outcome.tables)} tables in {outcome.seconds:.1f} s")
        else:
            click.echo(f"{count} = {run.name}: up to date")


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """A lock of the operating system on one study, so that two commands never write the same tables."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another nift command is working on this study ({path}); wait until it ends") from None
        yield


def _make_folder(folder: Path, variable: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = f"set {variable} to a folder you may write to"
        raise ValueError(f"{folder} cannot be made ({error.strerror}); {remedy}") from None


def _check_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < DEMO_BYTES:
        raise OSError(
            f"{folder}: {free / 2**20:,.0f} MB are free and about {DEMO_BYTES / 2**20:,.0f} MB are needed; free some "
            "space or set NIFT_WAREHOUSE to a folder on a larger disk"
        )


def _set(**variables: str | None) -> None:
    os.environ.update({name: value for name, value in variables.items() if value})


def _refuse(message: str, code: int = 1) -> NoReturn:
    click.echo(f"error: {' '.join(redaction.redact(message).split())}", err=True)
    sys.exit(code)
