"""Tables as text for a terminal: columns of one width each, two spaces apart, and no wider than the terminal.

What gives way first is prose, which ends with an ellipsis; then cells go on in the next line, between words; where that
is too wide still, each row is a paragraph. A word is never cut, since names are there to be copied.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import wcwidth

GAP = "  "
LEAST_PROSE = 16

_wrap = partial(wcwidth.wrap, break_long_words=False, break_on_hyphens=False)


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None = None,
    *,
    left: int | None = None,
    prose: Collection[str] = (),
) -> str:
    """The rows under their header and a rule: the first columns begin at one place, those after `left` end at one.
    `prose` are the columns that may be shortened to make it as narrow as `width`."""
    shortened = [place for place, name in enumerate(header) if name in prose]
    widths = _fitting([header, *rows], width, shortened)
    if widths is None:
        return "\n\n".join(_paragraph(header, row, width) for row in rows) if rows else "\n".join(header)
    beginning = len(widths) if left is None else left
    named, *lines = (_row(cells, widths, shortened, beginning) for cells in [header, *rows])
    return "\n".join([named, GAP.join("-" * width for width in widths), *lines])


def aligned(rows: Sequence[Sequence[str]], width: int | None = None, *, left: int | None = None) -> list[str]:
    """One text per row, which is one line where they fit: the first columns begin at one place, those after `left` end
    at one."""
    widths = _fitting(rows, width, ()) or _widths(rows)
    return [_row(cells, widths, (), len(widths) if left is None else left) for cells in rows]


def shorten(text: str, width: int) -> str:
    """A text on one line, with an ellipsis where it is longer than so many columns."""
    return text if wcwidth.width(text) <= width else f"{wcwidth.clip(text, 0, width - 1).rstrip()}…"


def _fitting(rows: Sequence[Sequence[str]], width: int | None, prose: Collection[int]) -> list[int] | None:
    """How wide each column is so that all of them fit, None where they cannot."""
    widths = _widths(rows)
    if width is None:
        return widths
    words = [[word for cell in column for word in cell.split(" ")] for column in zip(*rows, strict=True)]
    least = [
        min(wide, LEAST_PROSE) if place in prose else max(map(wcwidth.width, words[place]))
        for place, wide in enumerate(widths)
    ]
    for may_give in (prose, range(len(widths))):
        while sum(widths) + len(GAP) * (len(widths) - 1) > width:
            giving = [place for place in may_give if widths[place] > least[place]]
            if not giving:
                break
            widths[max(giving, key=widths.__getitem__)] -= 1
        else:
            return widths
    return None


def _row(cells: Sequence[str], widths: Sequence[int], prose: Collection[int], left: int) -> str:
    """A row on as many lines as its longest cell takes."""
    parts = [
        [shorten(cell, width)] if place in prose else _lines(cell, width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    height = max(map(len, parts))
    return "\n".join(
        GAP.join(
            (wcwidth.ljust if place < left else wcwidth.rjust)(part[line] if line < len(part) else "", width)
            for place, (part, width) in enumerate(zip(parts, widths, strict=True))
        ).rstrip()
        for line in range(height)
    )


def _lines(cell: str, width: int) -> list[str]:
    return [cell] if wcwidth.width(cell) <= width else _wrap(cell, width) or [""]


def _paragraph(header: Sequence[str], row: Sequence[str], width: int | None) -> str:
    """A row with a line per column, for a terminal that is too narrow to have them beside each other."""
    names = max(map(wcwidth.width, header))
    room = max(LEAST_PROSE, (width or 0) - names - len(GAP))
    return "\n".join(
        _row([name, cell], [names, room], (), 2)
        for name, cell in zip(header, row, strict=True)
        if cell not in ("", "-")
    )


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(wcwidth.width, column)) for column in zip(*rows, strict=True)]
