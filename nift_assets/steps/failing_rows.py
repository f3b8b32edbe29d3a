"""The rows that fail a test, kept beside the table they are not in or in: what a query selects and a page shows.

They lie at `<study>/.failing/<table>[/<partition>]/<test>.parquet`, a hundred of a test at most. The next run of the
test replaces them, and one that passes removes them. They are no table of the study and nothing is made from them.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from nift_assets import catalogue
from nift_assets.pages.viewer import links
from nift_assets.pages.viewer.files import FAILING
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store

# What a shell leaves as it is between double quotes, but for the quotes of SQL.
_PLAIN = re.compile(r"[^\"$`\\!\n]*")


@dataclass(frozen=True)
class KeptRows:
    """Rows that fail a test, and how a person gets at them."""

    rows: pl.DataFrame
    path: str
    query: str
    page: str


def keep(
    store: Store, partition: Partition, failing: Mapping[str, pl.DataFrame], tests: Collection[str]
) -> dict[str, KeptRows]:
    """Keeps the rows that fail each test, in the place of those of the last time; of `tests` that now have none, those
    of the last time are removed."""
    kept = {}
    for test, rows in failing.items():
        content = io.BytesIO()
        rows.write_parquet(content)
        written = store.write_bytes(content.getvalue(), *_place(partition), f"{test}.parquet")
        kept[test] = KeptRows(rows, str(written), query(str(written)), page(partition, test))
    for test in tests:
        if test not in failing:
            path(store, partition, test).unlink(missing_ok=True)
    _remove_if_empty(store, partition)
    return kept


def path(store: Store, partition: Partition, test: str) -> Path:
    return store.folder(*_place(partition), f"{test}.parquet")


def page(partition: Partition, test: str) -> str:
    """Where `nift ui` shows them: a path, since only the reader knows the host."""
    return links.failing(partition.table, partition.key, test)


def query(file: str) -> str:
    """The command that selects them, as it can be pasted into a shell; where no pattern stands for their file, the one
    that shows them."""
    if "\\" in file and set(file) & catalogue.PATTERN:
        return "nift look"
    name = catalogue.as_pattern(file).replace("'", "''")
    options = ", hive_partitioning = false" if "=" in name else ""
    sql = f"select * from read_parquet('{name}'{options})"
    return f'nift query "{sql}"' if _PLAIN.fullmatch(sql) else f"nift query {shlex.quote(sql)}"


def _place(partition: Partition) -> list[str]:
    return [FAILING, partition.table, *([partition.key] if partition.key else [])]


def _remove_if_empty(store: Store, partition: Partition) -> None:
    if store.is_remote:
        return
    with suppress(OSError):  # there is something in it, or it was never made
        place = store.folder(*_place(partition))
        place.rmdir()
        place.parent.rmdir()
        store.folder(FAILING).rmdir()
