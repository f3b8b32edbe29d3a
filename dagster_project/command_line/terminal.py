"""What every command of `nift` shares: the group it belongs to, its options, and how it refuses."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click
from dotenv import load_dotenv

from dagster_project.command_line import known_names, standard_output

# The commands by the module that has them, so that one command does not wait for what another imports.
MODULES = {
    "ask": ("ask",),
    "chat": ("chat",),
    "checks": ("check",),
    "diff": ("diff",),
    "judge": ("judge",),
    "look": ("look",),
    "listings": ("studies", "tables", "teachers"),
    "money": ("ledger", "plan"),
    "new_study": ("new",),
    "preview": ("preview",),
    "publications": ("publish",),
    "query": ("query",),
    "reviews": ("reviews",),
    "scores": ("benchmarks", "score"),
    "study": ("coverage", "demo", "docs", "run"),
    "ui": ("ui",),
}


class Commands(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.commands, *(name for names in MODULES.values() for name in names)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, names in MODULES.items():
            if cmd_name in names and cmd_name not in self.commands:
                import_module(f"{__package__}.{module}")
        return super().get_command(ctx, cmd_name)

    def main(self, *arguments: Any, **options: Any) -> Any:
        with standard_output.checked():
            return super().main(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """What a command gives; a ledger that cannot be reached is one line, whoever asks it."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if damaged := _damaged_history(error):
                from dagster_project.check_history import damaged_history

                refuse(damaged_history(damaged))
            if not _ledger_is_away(error):
                raise
            said = str(getattr(error, "orig", None) or error).partition("\n")[0]
            refuse(
                f"the ledger cannot be reached ({said}); see that its server runs, and that NIFT_LEDGER_URL is right"
            )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args[0][:1] != "-" and self.get_command(ctx, args[0]) is None:
            raise click.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)


def _ledger_is_away(error: Exception) -> bool:
    """Whether the ledger's database is not there or does not let us in. Without SQLAlchemy nothing of it was asked."""
    errors = sys.modules.get("sqlalchemy.exc")
    return errors is not None and isinstance(error, errors.OperationalError)


def _damaged_history(error: Exception) -> Path | None:
    """The file of Dagster's that an error is about; None where it is about something else."""
    errors = sys.modules.get("sqlalchemy.exc")
    home = os.environ.get("DAGSTER_HOME")
    if errors is None or not home or not isinstance(error, errors.DatabaseError | sqlite3.DatabaseError):
        return None
    return next((file for file in sorted(Path(home).rglob("*.db")) if _is_damaged(file)), None)


def _is_damaged(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            return bool(opened.execute("pragma quick_check").fetchone() != ("ok",))
    except sqlite3.OperationalError:
        return False
    except sqlite3.DatabaseError:
        return True


def study_option(command: Callable[..., None]) -> Callable[..., None]:
    """The option that names the study, as the variable does."""
    return click.option(
        "--study",
        metavar="NAME",
        expose_value=False,
        is_eager=True,  # what is completed after it is this study's
        callback=lambda _context, _option, name: set_variables(NIFT_STUDY=name),
        shell_complete=known_names.complete_study,
        help="The study by name, or its file: study.py (default: NIFT_STUDY, else demo).",
    )(command)


@click.group(cls=Commands)
@click.version_option(package_name="nift", message="nift %(version)s")
@study_option
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
    return study_option(command)


def set_variables(**variables: str | None) -> None:
    os.environ.update({name: value for name, value in variables.items() if value})


def refuse(message: str, code: int = 1) -> NoReturn:
    from nift_assets.secrets import redaction

    click.echo(f"error: {printable(' '.join(redaction.redact(message).split()))}", err=True)
    sys.exit(code)


def printable(text: str) -> str:
    """A text as it is, without what a terminal would obey: names and words may be from files of anybody's."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def as_text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def columns() -> int:
    """The width that sentences and pictures are made for; what goes to a file or a pipe has a wide one."""
    return shutil.get_terminal_size(fallback=(200, 24)).columns


def table_columns() -> int | None:
    """The width that a table is fitted to on a terminal. In a file or a pipe, where programs read it, it stays whole,
    whatever COLUMNS says."""
    return columns() if sys.stdout.isatty() else None
