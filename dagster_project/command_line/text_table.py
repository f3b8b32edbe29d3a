"""Tables as text for a terminal: columns of one width each, two spaces apart."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "  "


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under their header and a rule; every column begins at one place."""
    widths = _widths([header, *rows])
    named, *lines = (line.rstrip() for line in aligned([header, *rows]))
    return "\n".join([named, GAP.join("-" * width for width in widths), *lines])


def aligned(rows: Sequence[Sequence[str]], *, left: int | None = None) -> list[str]:
    """One line per row, each as wide as the table: the first columns begin at one place, those after `left` end at
    one."""
    widths = _widths(rows)
    beginning = len(widths) if left is None else left
    return [
        GAP.join(
            cell.ljust(width) if place < beginning else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in rows
    ]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
