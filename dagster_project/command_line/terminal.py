"""What every command of `nift` shares: the group it belongs to, its options, and how it refuses."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click
from dotenv import load_dotenv

from nift_assets.secrets import redaction


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


def set_variables(**variables: str | None) -> None:
    os.environ.update({name: value for name, value in variables.items() if value})


def refuse(message: str, code: int = 1) -> NoReturn:
    click.echo(f"error: {' '.join(redaction.redact(message).split())}", err=True)
    sys.exit(code)


def as_text(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def columns() -> int:
    """The width of the terminal; what goes to a file or a pipe is as wide as it likes."""
    return shutil.get_terminal_size(fallback=(200, 24)).columns
