"""The page of a repository: made from what really happened, with whatever is data shown as plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

FOLDER = Path(__file__).parent
ARXIV = "arxiv:2409.00096"
SHOWN_CHARACTERS = 600
PUNCTUATION = re.compile(r"([\\`*_\[\]#|~<>&])")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# As the Hub groups data sets by their number of rows.
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def card(template: str, head: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """A README.md: the head that the Hub reads, and a template of this folder with the facts in it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML: what is data goes through `plain` or `fenced`
    )
    environment.filters |= {"plain": plain, "fenced": fenced}
    fields = {name: value for name, value in head.items() if value is not None}
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    body = environment.get_template(template).render(facts)
    return f"---\n{front}---\n\n{re.sub(chr(10) + '{3,}', chr(10) * 2, body).strip()}\n"


def plain(value: object) -> str:
    """A text in running Markdown or in a cell of a table that stays the text it is, on one line."""
    text = " ".join(CONTROLS.sub("�", str(value)).split())
    # Without it an address would become a link of its own.
    return PUNCTUATION.sub(r"\\\1", text).replace("://", "\\://").replace("www.", "www\\.").replace("@", "\\@")


def fenced(text: str) -> str:
    """The beginning of a text as a block that nothing in the text can end."""
    shown = CONTROLS.sub("�", text)
    shown = shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + " […]"
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def size(rows: int) -> str:
    """The Hub's name for so many rows."""
    return next((name for most, name in SIZES if rows < most), "n>10M")


def configurations(data_configurations: Sequence[Any]) -> list[dict[str, Any]]:
    """The head's list of configurations, the first of which is the default."""
    return [
        {
            "config_name": configuration.name,
            "data_files": [{"split": "train", "path": list(configuration.files)}],
            **({"default": True} if place == 0 else {}),
        }
        for place, configuration in enumerate(data_configurations)
    ]
