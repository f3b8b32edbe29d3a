"""The command that writes a study of one's own: it asks or is told, looks at everything, and prints the plan."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from dagster_project.command_line import plan_table
from dagster_project.command_line.terminal import columns, main, refuse
from dagster_project.settings import existing_book, warehouse
from nift_assets import benchmarks, environment, providers, studies
from nift_assets.costs import plan as planning
from nift_assets.rows import Judge, Teacher
from nift_assets.secrets import keys
from nift_assets.store import Store
from nift_training import artifacts

if TYPE_CHECKING:
    from nift_assets.new_study.backbone import BackboneLook
    from nift_assets.new_study.corpus import CorpusLook
    from nift_assets.new_study.server import ServerLook
    from nift_assets.new_study.study_file import StudyDraft
    from nift_assets.study import Study

Looked = TypeVar("Looked")

# A first sample of a corpus that is larger than what is looked at: small enough to be read before more is paid for.
FIRST_DOCUMENTS = 1_000
NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What somebody has said of a study, None where nothing was said."""

    name: str
    corpus: str | None
    text_column: str | None
    documents: int | None
    licence: str | None
    provider: str | None
    model: str | None
    base_url: str | None
    key_variable: str | None
    max_tokens: int | None
    backbone: str | None
    revision: str | None
    benchmarks: str | None
    judge: str | None
    budget_usd: float | None

    @property
    def needs_model(self) -> bool:
        """Whether the provider asks a model that a person has to name."""
        return self.provider not in (None, "original", "echo")


@main.command("new")
@click.argument("name")
@click.option("--corpus", help="Your articles: a file, a folder, a pattern, a data set of the Hub (owner/name), s3://…")
@click.option("--text-column", help="The column with the text (default: the one with the longest texts).")
@click.option("--documents", type=click.IntRange(min=1), help="How many documents to sample (default: all, or 1,000).")
@click.option("--licence", help="The licence of the articles (default: what their card on the Hub says, or unknown).")
@click.option("--teacher", help="Who writes second halves, as PROVIDER:MODEL, such as openai:gpt-4o-mini-2024-07-18.")
@click.option("--provider", help="The same in two parts: openai, text_completions, anthropic, local, original, echo.")
@click.option("--model", help="The model as its provider or server calls it.")
@click.option("--base-url", help="Your own server that speaks OpenAI's protocol, such as http://127.0.0.1:8000/v1.")
@click.option("--key-variable", help="The environment variable with that server's key, if it wants one.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens of an answer (default: 1,024).")
@click.option("--backbone", help="The model to train: a Hub id, or a folder of yours.")
@click.option("--revision", help="The backbone's commit, tag or branch (default: the newest commit, which is pinned).")
@click.option("--benchmarks", help="What models are measured on: mt_bench,arena_hard,ifeval,… or none (default).")
@click.option("--judge", help="Who grades MT-Bench and Arena-Hard, as PROVIDER:MODEL.")
@click.option("--budget-usd", type=click.FloatRange(min=0), help="The most that all paid calls together may cost.")
@click.option("--out", type=click.Path(dir_okay=False), help="The file to write (default: NAME.py here).")
@click.option("--force", is_flag=True, help="Write over the file that is there.")
def new(name: str, teacher: str | None, out: str | None, force: bool, **said: str | int | float | None) -> None:
    """Write a study of your own, NAME.py: what is not given as an option is asked for, and everything is looked at.

    \b
    nift new my_study                                   asks
    nift new my_study --corpus articles/ --base-url http://127.0.0.1:8000/v1 --model my-model
    nift new my_study --corpus articles.parquet --teacher openai:gpt-4o-mini-2024-07-18 --budget-usd 5
    """
    try:
        file = Path(out or f"{name.removesuffix('.py')}.py")
        wanted = Wanted(name=name.removesuffix(".py"), **said)  # type: ignore[arg-type]  # click's options are its fields
        _check_file(wanted.name, file, force)
        if wanted.budget_usd is not None and not math.isfinite(wanted.budget_usd):
            raise ValueError(f"--budget-usd is {wanted.budget_usd}; give an amount in US dollars, such as 5 or 0.50")
        if teacher is not None:
            wanted = _with_teacher(wanted, teacher)
        _write(_completed(wanted) if _is_asking() else _all_there(wanted), file)
    except (ValueError, OSError) as error:
        refuse(str(error))
    except (KeyboardInterrupt, click.Abort):
        refuse("stopped; nothing was written")


def _check_file(name: str, file: Path, force: bool) -> None:
    from nift_assets.new_study import study_file

    study_file.check_name(name)
    if name in studies.names():
        raise ValueError(f"there is a study {name!r} already; give yours another name, such as 'my_{name}'")
    if file.suffix != ".py":
        raise ValueError(f"a study is a Python file, and {file} ends otherwise; give --out {file.with_suffix('.py')}")
    if os.path.lexists(file) and not force:
        raise ValueError(f"{file} is there already; give another name, or --force to write over it")
    if not file.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}; make it, or give another --out")


def _is_asking() -> bool:
    """Whether there is somebody at a terminal to be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _with_teacher(wanted: Wanted, teacher: str) -> Wanted:
    """What was said with a teacher as PROVIDER:MODEL; of a server of one's own the model alone will do."""
    if wanted.provider or wanted.model:
        raise ValueError("--teacher says the same as --provider and --model; give one or the other")
    provider, model = _provider_and_model(teacher, "--teacher", "openai" if wanted.base_url else None)
    return replace(wanted, provider=provider, model=model)


def _provider_and_model(said: str, option: str, usual: str | None = None) -> tuple[str, str | None]:
    provider, _, model = said.partition(":")
    if provider in providers.names():
        return provider, model or None
    if usual is None:
        raise ValueError(
            f"{option} is {said!r}; give PROVIDER:MODEL with one of the providers {', '.join(providers.names())}"
        )
    return usual, said


def _all_there(wanted: Wanted) -> Wanted:
    """What was said, if that is enough; ValueError that names all that is missing."""
    if wanted.provider is None and wanted.base_url is not None:
        wanted = replace(wanted, provider="openai")
    missing = [
        *(["--corpus"] if wanted.corpus is None else []),
        *(["--teacher PROVIDER:MODEL, or --base-url of your server"] if wanted.provider is None else []),
    ]
    needs = wanted.needs_model and wanted.model is None and wanted.base_url is None
    if needs and wanted.provider != "local":  # which runs the backbone
        missing.append("--model")
    if missing:
        raise ValueError(f"nobody can be asked here; give {' and '.join(missing)}")
    return wanted


def _completed(wanted: Wanted) -> Wanted:
    """What was said, and for the rest what a person answers at the terminal."""
    if wanted.corpus is None:
        wanted = replace(wanted, corpus=click.prompt("Your articles (a file, a folder, or owner/name on the Hub)"))
    if wanted.provider is None and wanted.base_url is None:
        url = click.prompt("Address of your own model server, or none to ask a provider", default=NONE)
        wanted = replace(wanted, base_url=None if url == NONE else url)
    if wanted.provider is None:
        known = click.Choice(providers.names())
        usual = "openai"
        provider = usual if wanted.base_url else click.prompt("Who answers", type=known, default=usual)
        wanted = replace(wanted, provider=provider)
    if wanted.needs_model and wanted.model is None and wanted.base_url is None and wanted.provider != "local":
        wanted = replace(wanted, model=click.prompt("Its model"))
    if wanted.backbone is None:
        said = click.prompt("A model to train (Hub id or folder), or none for data alone", default=NONE)
        wanted = replace(wanted, backbone=said)
    if wanted.benchmarks is None and wanted.backbone != NONE:
        said = click.prompt("Benchmarks, separated by commas, or none", default=NONE)
        wanted = replace(wanted, benchmarks=said)
    if wanted.judge is None and _judged(_names(wanted.benchmarks)):
        wanted = replace(wanted, judge=click.prompt("Who grades the answers, as PROVIDER:MODEL"))
    return wanted


def _names(benchmarks: str | None) -> list[str]:
    from nift_assets.new_study import study_file

    names = [name.strip() for name in (benchmarks or NONE).split(",") if name.strip() not in ("", NONE)]
    if unknown := [name for name in names if name not in study_file.PAPERS]:
        raise ValueError(f"--benchmarks names {unknown[0]!r}; give some of {', '.join(study_file.PAPERS)}, or none")
    return list(dict.fromkeys(names))


def _judged(names: Sequence[str]) -> list[str]:
    from nift_assets.new_study import study_file

    return [name for name in names if name in study_file.JUDGED]


def _write(wanted: Wanted, file: Path) -> None:
    from nift_assets.new_study import study_file

    found = _found(wanted)
    content = study_file.text(found, datetime.now(UTC).date())
    with tempfile.TemporaryDirectory(prefix="nift-new-") as folder:
        draft = Path(folder, file.name)
        draft.write_text(content, encoding="utf-8")
        study = studies.load(str(draft))
    with artifacts.replacing(file) as temporary:
        temporary.write_text(content, encoding="utf-8")
    store = Store(root=warehouse(), study=study.name)
    plan = planning.plan(study, store=store, book=existing_book(), today=datetime.now(UTC).date())
    click.echo(f"\nWrote {file}. What is to be asked:\n")
    click.echo(plan_table.render(plan, columns()))
    nift = _called()
    chosen = f"{environment.STUDY}={file} {nift}"
    click.echo(f"\nThree pairs to read first:  {chosen} preview {found.teacher.name}")
    click.echo(f"All pairs:                  {chosen} run filtered_completions")
    if missing := _without_files(study):
        click.echo(f"The benchmarks' files:      {nift} benchmarks {' '.join(f'--only {name}' for name in missing)}")
    if found.backbone:
        step, table = ("Train and measure:", "benchmark_scores") if found.benchmarks else ("Train:", "merged_models")
        click.echo(f"{step:28}{chosen} run {table}")


def _called() -> str:
    """What a person types to call this command: the path it was called by where `nift` alone would not be found."""
    is_script = Path(sys.argv[0]).name == "nift"
    return sys.argv[0] if is_script and shutil.which("nift") is None else "nift"


def _without_files(study: Study) -> list[str]:
    """The benchmarks that lack a published file: said before a model is trained, which may take hours."""
    folder = environment.benchmarks()
    placed = studies.on_benchmark_files(study, folder) if folder else study
    return [
        row.name
        for row in placed.benchmarks
        if not all(Path(row.location, file.path).exists() for file in benchmarks.load(row.name).PUBLISHED)
    ]


def _found(wanted: Wanted) -> StudyDraft:
    """Everything looked at, with a line on the terminal for each thing that was found."""
    from nift_assets.new_study import backbone, corpus, study_file

    assert wanted.corpus is not None, "what is missing was asked for, or refused"
    benchmarks = _names(wanted.benchmarks)
    wants_backbone = wanted.backbone not in (None, NONE)
    if benchmarks and not wants_backbone:
        raise ValueError("--benchmarks measures models, and there is none to measure; name one with --backbone")
    if wanted.provider == "local" and not wants_backbone:
        raise ValueError("the provider 'local' runs a model of the study; name it with --backbone")
    judge = _judge(wanted, benchmarks)
    articles = _say(
        "corpus",
        corpus.look(
            wanted.corpus,
            name=f"{wanted.name.replace('.', '_')}_articles"[:96],
            text_column=wanted.text_column,
            licence=wanted.licence,
        ),
        corpus.lines,
    )
    model = backbone.look(str(wanted.backbone), wanted.revision) if wants_backbone else None
    if model:
        _say("backbone", model, backbone.lines)
    teacher, lines = _teacher(wanted, model)
    for line in lines:
        click.echo(f"teacher: {line}")
    return study_file.StudyDraft(
        name=wanted.name,
        corpus=articles,
        corpus_lines=corpus.lines(articles),
        documents=_documents(wanted, articles),
        teacher=teacher,
        teacher_lines=lines,
        backbone=model,
        backbone_lines=backbone.lines(model) if model else (),
        benchmarks=benchmarks,
        judge=judge,
        budget_usd=wanted.budget_usd,
    )


def _say(what: str, found: Looked, lines: Callable[[Looked], Sequence[str]]) -> Looked:
    for line in lines(found):
        click.echo(f"{what}: {line}")
    return found


def _documents(wanted: Wanted, articles: CorpusLook) -> int:
    """How many documents are sampled: all different ones of a corpus that was read to its end, else a first sample."""
    if not articles.complete:
        return wanted.documents or FIRST_DOCUMENTS
    there = articles.documents - articles.without_text - articles.twice
    return min(wanted.documents or there, there)


def _judge(wanted: Wanted, benchmarks: Sequence[str]) -> Judge | None:
    from nift_assets.new_study import study_file

    judged = _judged(benchmarks)
    if judged and wanted.judge is None:
        raise ValueError(f"somebody has to grade {judged[0]}; name them with --judge PROVIDER:MODEL")
    if not judged or wanted.judge is None:
        return None
    provider, model = _provider_and_model(wanted.judge, "--judge")
    if model is None:
        raise ValueError(f"--judge is {wanted.judge!r}; give PROVIDER:MODEL")
    row: Judge = study_file.asked(Judge, provider, model, name=f"{study_file.row_name(model)}-judge"[:96])
    return row


def _teacher(wanted: Wanted, model: BackboneLook | None) -> tuple[Teacher, list[str]]:
    """The teacher's row and what was found of who answers for it."""
    from nift_assets.new_study import server, study_file
    from nift_assets.protocol import engines

    assert wanted.provider is not None, "what is missing was asked for, or refused"
    lines: list[str] = []
    name, url, engine = wanted.model, wanted.base_url, None
    if wanted.provider == "local":
        assert model is not None, "a local teacher without a backbone is refused"
        name = study_file.row_name(model.source)
    elif not wanted.needs_model:
        name = {"original": "original", "echo": "continue"}[wanted.provider]
    elif url is not None:
        found = server.look(url, _key(wanted))
        name, url = name or _listed(found), found.url
        lines = server.lines(found, name)
        if engine := engines.said(url, name, _key(wanted)):
            lines.append(f"{engine} answers: answers are known by that, so the server may move to another address")
    assert name is not None, "what is missing was asked for, or refused"
    own = "original" if wanted.provider == "original" else "echo" if wanted.provider == "echo" else None
    row: Teacher = study_file.asked(
        Teacher,
        wanted.provider,
        name,
        name=own or (f"{name}-teacher"[:96] if wanted.provider == "local" else None),
        base_url=url,
        engine=engine,
        key_variable=wanted.key_variable,
        max_tokens=wanted.max_tokens,
    )
    return row, lines


def _key(wanted: Wanted) -> str | None:
    """The key of a server, if there is one and it does not travel in clear to another machine."""
    if wanted.key_variable is None or wanted.base_url is None:
        return None
    is_safe = wanted.base_url.startswith("https://") or providers.endpoint(wanted.base_url) == "local"
    return keys.read(wanted.key_variable) if is_safe else None


def _listed(found: ServerLook) -> str:
    """The one model that a server lists; of several a person at the terminal chooses."""
    if found.problem:
        raise ValueError(f"{found.url}: {found.problem}; start the server, or name its model with --model")
    if len(found.models) == 1:
        return next(iter(found.models))
    if _is_asking() and found.models:
        return str(click.prompt("Which model", type=click.Choice(list(found.models))))
    raise ValueError(f"{found.url} lists {', '.join(found.models) or 'no model'}; name one with --model")
