"""The templates of pages: what is data is escaped, and what a template names has to be there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2


def environment(folder: Path, **filters: Callable[..., Any]) -> jinja2.Environment:
    """The templates of a folder, which may use these filters."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(filters)
    return made
