"""What may be dropped: one file per filter, SQL or Python, whose rows are the completions it would drop and why.

A row `Filter(name="<file>")` of the study switches it on. What it would drop of each teacher is then kept as the table
`<name>_removals`, and it drops where a teacher or a training set names it.

A SQL file selects the columns of `expectations/removals.yml`. A Python file has a function `removals(candidates, *, …)`
which gives `document_id` and `reason`, or these and what there is to say of it (`Removals`). Its keyword arguments are
the options a row can set; one called `benchmarks` is given the study's, and one called `reviews` people's verdicts on
the teacher's pairs. Candidates are the completions that may enter training (`ok` and `truncated`), in sample order.

One whose function takes `portions` in the place of candidates is handed these a portion of the documents at a time, one
after the other, and yields what it drops of each before it takes the next.

A Python file that says `ROW_BY_ROW = True` judges each completion alone, whatever the others are: its function is
called once per portion of the documents, so that they need not fit into memory. Numbers that it tells of them and that
are to be added up over the portions are named in `ADDS_UP`.

A study in a file of its own may have filters of its own in a folder `filters` beside that file.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nift_assets.rows import OwnFilter

if TYPE_CHECKING:
    import polars as pl

    from nift_assets.rows import Benchmark, Filter

FOLDER = Path(__file__).parent
TABLE_SUFFIX = "_removals"
BENCHMARKS = "benchmarks"
REVIEWS = "reviews"
PORTIONS = "portions"
# How the module of a file begins that lies beside a study's own (see `own_files`).
OWN = "own_"
CANDIDATE_STATUSES = ("ok", "truncated")


@dataclass(frozen=True)
class Removals:
    """One row per completion that a filter drops, with the reason, and what there is to say of how it was found."""

    rows: pl.DataFrame
    metadata: Mapping[str, Any] = field(default_factory=dict)


def names() -> list[str]:
    """The names of all filters, one per file of this folder."""
    return sorted(path.stem for path in FOLDER.iterdir() if path.suffix in (".py", ".sql") and path.stem != "__init__")


def sql_file(table: str) -> Path:
    """Where the SQL of a filter's table lies, if it is written in SQL."""
    return FOLDER / f"{table.removesuffix(TABLE_SUFFIX)}.sql"


def table(row: Filter) -> str:
    return f"{row.name}{TABLE_SUFFIX}"


def is_sql(row: Filter) -> bool:
    return sql_file(row.file).exists()


def check(row: Filter) -> None:
    """Raises ValueError for a row without a file, with an option its file does not take or not so, or that cannot be a
    table."""
    if not re.fullmatch("[a-z0-9_]+", row.name):
        raise ValueError(f"filter {row.name!r} names a table; use the characters a-z 0-9 _")
    if row.file not in names() and not isinstance(row, OwnFilter):
        raise ValueError(
            f"filter {row.name!r} has no file {row.file!r}; use one of {', '.join(names())}, or put {row.file}.py into "
            "a folder filters beside the study's file"
        )
    if is_sql(row) and (row.rule or row.options):
        raise ValueError(f"filter {row.name!r} is written in SQL, which takes no options and has the name of its file")
    for name, value in row.options.items():
        if name not in (options := _options(row)):
            raise ValueError(f"filter {row.name!r} has no option {name!r}; it takes {', '.join(options) or 'none'}")
        if not _is_like(options[name], value):
            raise ValueError(f"filter {row.name!r} has {name}={value!r:.60}; give something like {options[name]!r}")


def module(row: Filter) -> ModuleType:
    """The Python file of a filter; what is heavy in it is imported when it runs."""
    return importlib.import_module(f"{__name__}.{row.file}")


def reads_benchmarks(row: Filter) -> bool:
    return not is_sql(row) and BENCHMARKS in inspect.signature(module(row).removals).parameters


def reads_reviews(row: Filter) -> bool:
    return not is_sql(row) and REVIEWS in inspect.signature(module(row).removals).parameters


def run_in_order(
    row: Filter, portions: Iterable[Mapping[str, pl.DataFrame]], benchmarks: Sequence[Benchmark]
) -> Iterator[pl.DataFrame]:
    """As `run`, of a filter that takes its candidates by portions; `portions` have `completions` and `halves`."""
    extra: dict[str, Any] = {BENCHMARKS: benchmarks} if reads_benchmarks(row) else {}
    taken: list[pl.DataFrame] = []

    def by_portions() -> Iterator[pl.DataFrame]:
        for frames in portions:
            taken.append(frames["completions"])
            yield candidates(frames["completions"], frames["halves"])

    handed = by_portions()
    for removed in module(row).removals(handed, **row.options, **extra):
        if len(taken) == 1:
            yield _with_completions(row, taken.pop(), removed)
        else:
            break
    if taken or next(handed, None) is not None:
        raise ValueError(f"the filter {row.file} takes portions without a yield for each; mend it")


def remembers(row: Filter) -> bool:
    """Whether a filter written in Python is handed its candidates by portions, and remembers what it has seen."""
    return next(iter(inspect.signature(module(row).removals).parameters)) == PORTIONS


def judges_alone(row: Filter) -> bool:
    """Whether a filter written in Python judges each completion whatever the others are."""
    return bool(getattr(module(row), "ROW_BY_ROW", False))


def adds_up(row: Filter) -> Sequence[str]:
    """The numbers of its metadata that are added up over portions."""
    return tuple(getattr(module(row), "ADDS_UP", ()))


def run(row: Filter, completions: pl.DataFrame, halves: pl.DataFrame, benchmarks: Sequence[Benchmark]) -> Removals:
    """One row per completion that a filter written in Python drops, in sample order, with the reason."""
    if remembers(row):
        (rows,) = run_in_order(row, [{"completions": completions, "halves": halves}], benchmarks)
        return Removals(rows)
    extra: dict[str, Any] = {BENCHMARKS: benchmarks} if reads_benchmarks(row) else {}
    result = module(row).removals(candidates(completions, halves), **row.options, **extra)
    removed = result if isinstance(result, Removals) else Removals(result)
    return Removals(_with_completions(row, completions, removed.rows), removed.metadata)


def _with_completions(row: Filter, completions: pl.DataFrame, removed: pl.DataFrame) -> pl.DataFrame:
    import polars as pl  # whoever reads a study need not

    dropped = removed.select("document_id", "reason").cast(pl.String)
    return (
        completions.join(dropped, on="document_id")
        .sort("sample_rank")
        .select(
            "document_id",
            "teacher",
            "sample_rank",
            pl.lit(row.name).alias("filter"),
            "reason",
            "completion",
        )
    )


def candidates(completions: pl.DataFrame, halves: pl.DataFrame) -> pl.DataFrame:
    """One row per completion that may enter training: `document_id`, `sample_rank`, `first_half`, `completion`."""
    import polars as pl

    return (
        completions.filter(pl.col("status").is_in(CANDIDATE_STATUSES))
        .join(halves.select("document_id", "first_half"), on="document_id")
        .sort("sample_rank")
        .select("document_id", "sample_rank", "first_half", "completion")
    )


def _options(row: Filter) -> dict[str, Any]:
    """The options that a filter takes, each with what it is where the row says nothing."""
    parameters = inspect.signature(module(row).removals).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in (BENCHMARKS, REVIEWS)}


def _is_like(usual: object, value: object) -> bool:
    """Whether a row's value can stand for the usual one: numbers above 0, and of texts a tuple or list, never one."""
    if usual is None or usual is inspect.Parameter.empty:  # its file alone knows what it takes
        return True
    if isinstance(usual, tuple):
        return isinstance(value, tuple | list) and len(value) > 0 and all(_is_like(usual[0], each) for each in value)
    if type(usual) in (int, float):
        return type(value) in {int, type(usual)} and 0 < value < math.inf  # type: ignore[operator]
    return type(value) is type(usual)
