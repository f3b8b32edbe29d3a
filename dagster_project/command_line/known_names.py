"""The names that a shell completes: those of the studies, and of the tables and partitions of the active one.

They are looked up at every press of a key, so they are kept in a file once they have been worked out, which takes
seconds, under a name that changes with the study.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dotenv import load_dotenv

import nift_assets
from nift_assets import environment

if TYPE_CHECKING:
    import click

Names = Mapping[str, list[str]]
Completed = Callable[["click.Context", "click.Parameter", str], list[str]]
# What is no table's name.
PUBLICATIONS, PAPER_TABLES = "(publications)", "(tables of the paper)"
PACKAGE = Path(nift_assets.__file__).parent


def studies() -> list[str]:
    """The names of the studies that come with the package, without loading any."""
    files = (path.stem if path.suffix == ".py" else path.name for path in (PACKAGE / "studies").iterdir())
    return sorted(name for name in files if name[0] not in "_." and name not in ("study", "__pycache__"))


def of_study() -> Names:
    """The partitions of each table of the active study, its publications, and the paper's tables it has cells of."""
    load_dotenv(Path(".env"))  # completion begins no command, which would
    kept = _folder() / f"{_digest()}.json"
    with suppress(OSError, ValueError):
        found = json.loads(kept.read_text())
        if isinstance(found, dict):
            return found
    names = _worked_out()
    with suppress(OSError):  # then they are worked out again the next time
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(names))
        draft.replace(kept)
    return names


def complete_study(
    context: click.Context, parameter: click.Parameter, begun: str
) -> list[click.shell_completion.CompletionItem]:
    """The studies' names, and the Python files at hand."""
    from click.shell_completion import CompletionItem

    named = [CompletionItem(name) for name in studies() if name.startswith(begun)]
    return named or [CompletionItem(begun, type="file")]


def complete_table(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    return _beginning(begun, (name for name in of_study() if name[0] != "("))


def complete_partition(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """The partitions of the tables that have been typed; of all tables before one has."""
    names = of_study()
    # While it completes, click keeps in `args` what has been typed of the tables.
    typed = [word for word in (*context.args, *(context.params.get("tables") or ())) if word in names]
    chosen = typed or [name for name in names if name[0] != "("]
    return _beginning(begun, (key for table in chosen for key in names[table]))


def complete_publication(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    return _beginning(begun, of_study()[PUBLICATIONS])


def complete_paper_table(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    return _beginning(begun, of_study()[PAPER_TABLES])


def _beginning(begun: str, names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name.startswith(begun)})


def _worked_out() -> dict[str, list[str]]:
    from nift_assets import graph, sql, studies

    study = studies.active()
    built = graph.build(study)
    names = {
        table: [key for key in built.keys(table) if key and built.partitions.is_wanted(table, key)]
        for table in built.tables
    }
    paper = sql.cells(study)["table"].unique(maintain_order=True).to_list()
    return {**names, PUBLICATIONS: [row.name for row in study.publications], PAPER_TABLES: paper}


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nift"


def _digest() -> str:
    """What the names hang on: the variables that pick the study, its own file, and the code."""
    chosen, files = environment.of_the_study(), [*PACKAGE.glob("*.py"), *PACKAGE.glob("studies/**/*.py")]
    files += [Path(environment.study())] if environment.study().endswith(".py") else []
    seen = [(str(file), file.stat().st_mtime_ns) for file in sorted(files) if file.exists()]
    return hashlib.sha256(json.dumps([chosen, seen, os.getcwd()]).encode()).hexdigest()[:16]
