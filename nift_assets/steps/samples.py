"""Rows as a person reads them in Dagster's UI: whole texts as cards, short values as a table, and no digests.

The texts are from the web. A card has them in fenced blocks, whose content Markdown does not read; the cells of a table
are shown as they are.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from expectations.frames import Table, portions
from nift_assets.pages.viewer import links
from nift_assets.pages.viewer.keys import key_of
from nift_assets.steps.lineage import Partition

ROWS = 5
CELL_CHARACTERS = 200
# A value is a text, and goes on a card, beyond this; of a text as much is shown as a page of an article.
SHORT, CARD_CHARACTERS = 100, 3_000
COLUMNS = 8
LINE_CHARACTERS = 110
DIGEST = re.compile(r"[0-9a-f]{32,128}")


def of(table: Table, partition: Partition | None = None) -> dg.MetadataValue:
    """The first rows of a table: cards where there are texts, a table where all values are short. A card of a partition
    leads to the page of its row."""
    first = next(portions(table)).head(ROWS)
    rows = _without_digests(first)
    if any(len(_text(value)) > SHORT for row in rows.iter_rows() for value in row):
        pages = [_page(partition, row) if partition else None for row in first.iter_rows(named=True)]
        cards = [_card(row, page) for row, page in zip(rows.iter_rows(named=True), pages, strict=True)]
        return dg.MetadataValue.md("\n\n---\n\n".join(cards))
    return _table(rows)


def _page(partition: Partition, row: dict[str, Any]) -> str | None:
    """Where `nift ui` shows a row whole; None where its table's contract names no row."""
    key = key_of(partition.table, row, row)
    return links.row(partition.table, partition.key, key) if key else None


def failing(rows: pl.DataFrame, read: Sequence[str]) -> dg.TableMetadataValue:
    """The first of the rows that fail a test: which they are, and the values that the test reads, then others."""
    first = rows.columns[:1]
    others = [name for name in _without_digests(rows.head(ROWS)).columns if name not in (*first, *read)]
    return _table(rows.select(list(dict.fromkeys([*first, *read, *others]))[:COLUMNS]).head(ROWS))


def _table(rows: pl.DataFrame) -> dg.TableMetadataValue:
    columns = [dg.TableColumn(name, "string") for name in rows.columns]
    records = [
        dg.TableRecord({name: _cut(_text(value), CELL_CHARACTERS) for name, value in row.items()})
        for row in rows.iter_rows(named=True)
    ]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


def _card(row: dict[str, Any], page: str | None) -> str:
    """One row: its short values in a line, then its texts below each other, then where it stands whole."""
    values = {name: _text(value) for name, value in row.items()}
    texts = {name: value for name, value in values.items() if len(value) > SHORT}
    short = [f"{name} {_inline(value)}" for name, value in values.items() if name not in texts and value.strip()]
    facts = [" · ".join(short)] if short else []
    whole = [f"[the whole row]({page})"] if page else []
    return "\n\n".join([*facts, *(f"**{name}**\n\n{_block(text)}" for name, text in texts.items()), *whole])


def _block(text: str) -> str:
    """A text in a fence that is longer than any in it, its lines folded: the page does not."""
    shown = "\n".join(map(_folded, _cut(text, CARD_CHARACTERS).splitlines()))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"


def _folded(line: str) -> str:
    is_wide = any(unicodedata.east_asian_width(char) in "WF" for char in line)
    width = LINE_CHARACTERS // 2 if is_wide else LINE_CHARACTERS
    pieces = textwrap.wrap(line, width, replace_whitespace=False, drop_whitespace=False, break_on_hyphens=False)
    return "\n".join(pieces)


def _inline(value: str) -> str:
    """A short value as code, on one line."""
    line = " ".join(value.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def _without_digests(rows: pl.DataFrame) -> pl.DataFrame:
    """The columns that say something, texts first: no digests, and none without a value."""
    said = {name: [_text(value) for value in rows[name] if value is not None] for name in rows.columns}
    kept = [name for name, values in said.items() if values and not all(map(DIGEST.fullmatch, values))]
    texts = [name for name in kept if any(len(text) > SHORT for text in said[name])]
    return rows.select(*texts, *(name for name in kept if name not in texts))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " …"
