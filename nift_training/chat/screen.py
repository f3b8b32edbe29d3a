"""What a terminal shows of texts that others wrote: nothing in them is obeyed, and two stand side by side."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# What a terminal obeys, but line breaks and tabs; and what turns the direction of all that follows.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
LEAST_WIDTH = 80  # of a terminal that shows two answers side by side
_BETWEEN = " │ "


def safe(text: str) -> str:
    """The text with all that a terminal would obey made visible: `␛` for an escape, `\\u202e` for turning round."""
    return _OBEYED.sub(_visible, text.replace("\r\n", "\n"))


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class Columns:
    """Rows of as many columns as there are texts, each row as soon as all texts are past it."""

    def __init__(self, names: Sequence[str], width: int) -> None:
        self._names = names
        self._width = (width - len(_BETWEEN) * (len(names) - 1)) // len(names)
        self._columns = [_Column(self._width) for _ in names]
        self._shown = 0

    def head(self) -> list[str]:
        """The names above the columns, and a rule."""
        import wcwidth

        names = [wcwidth.clip(safe(name), 0, self._width) for name in self._names]
        return [self._row(names), "─┼─".join("─" * self._width for _ in names)]

    def grow(self, place: int, text: str) -> Iterator[str]:
        """The rows that are settled once a column has gone on with this text."""
        self._columns[place].write(safe(text).expandtabs(4))
        yield from self._settled()

    def end(self, place: int) -> Iterator[str]:
        """The rows that are settled once a column has ended."""
        self._columns[place].end()
        yield from self._settled()

    def _settled(self) -> Iterator[str]:
        lines = [column.lines for column in self._columns]
        longest = max(map(len, lines))
        settled = min(longest if column.ended else len(column.lines) for column in self._columns)
        while self._shown < settled:
            yield self._row([own[self._shown] if self._shown < len(own) else "" for own in lines])
            self._shown += 1

    def _row(self, cells: Sequence[str]) -> str:
        import wcwidth

        return _BETWEEN.join(wcwidth.ljust(cell, self._width) for cell in cells).rstrip()


class _Column:
    """Lines of a width that text is written into bit by bit: a line that is full is never changed again."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.lines: list[str] = []
        self.ended = False
        self._line, self._line_width = "", 0

    def write(self, text: str) -> None:
        import wcwidth

        for letter in wcwidth.iter_graphemes(text):
            if letter == "\n":
                self._break("")
            elif self._line_width + wcwidth.width(letter) > self._width:
                self._wrap(letter)
            else:
                self._line += letter
                self._line_width += wcwidth.width(letter)

    def end(self) -> None:
        if self._line:
            self._break("")
        self.ended = True

    def _wrap(self, letter: str) -> None:
        """The line ends before its last word where it has several, and within it where it has one."""
        before, _, word = self._line.rpartition(" ")
        if letter == " ":
            self._break("")
        elif before.strip():
            self._line = before
            self._break(word + letter)
        else:
            self._break(letter)

    def _break(self, rest: str) -> None:
        import wcwidth

        self.lines.append(self._line)
        self._line, self._line_width = rest, wcwidth.width(rest)
