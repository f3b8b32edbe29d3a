"""Texts as markup that a browser shows letter by letter: escaped, with what was searched marked, and on demand with
white space and signs that nobody sees."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup, escape

EXCERPT = 280
BEFORE_MATCH = 90
DIGEST = re.compile(r"[0-9a-f]{32,}")
# Whatever a page shows of them, they are nothing that a browser takes for an order: NUL it would drop.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Signs without a picture, some of which turn the direction of what follows.
NAMED = {
    "\xa0": "NBSP", "\xad": "SHY", "\u034f": "CGJ", "\u061c": "ALM", "\u180e": "MVS", "\u200b": "ZWSP",
    "\u200c": "ZWNJ", "\u200d": "ZWJ", "\u200e": "LRM", "\u200f": "RLM", "\u2028": "LS", "\u2029": "PS",
    "\u202a": "LRE", "\u202b": "RLE", "\u202c": "PDF", "\u202d": "LRO", "\u202e": "RLO", "\u2060": "WJ",
    "\u2066": "LRI", "\u2067": "RLI", "\u2068": "FSI", "\u2069": "PDI", "\u202f": "NNBSP", "\u3000": "IDSP",
    "\ufeff": "BOM",
}  # fmt: skip
SIGNS = {" ": "·", "\t": "→", "\n": "↵"}
WHITE = re.compile("|".join(map(re.escape, [*SIGNS, *NAMED])))


def shown(text: str, pattern: re.Pattern[str] | None = None, *, space: bool = False) -> Markup:
    """A text as markup, with what the pattern finds marked."""
    return Markup("").join(
        Markup("<mark>{}</mark>").format(_plain(part, space)) if found else _plain(part, space)
        for part, found in _parts(text, pattern)
    )


def excerpt(text: str, pattern: re.Pattern[str] | None = None, *, most: int = EXCERPT) -> str:
    """The beginning of a text, or what stands around the first place that the pattern finds."""
    found = pattern.search(text) if pattern else None
    start = found.start() - BEFORE_MATCH if found and found.end() > most else 0
    start = max(start, 0)
    return ("… " if start else "") + text[start : start + most] + (" …" if start + most < len(text) else "")


def ending(text: str, most: int = EXCERPT) -> str:
    """The end of a text."""
    return text if len(text) <= most else "… " + text[-most:]


def as_text(value: Any) -> str:
    """A value of any type as a person reads it; lists and what else has parts as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | dict | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def is_digest(value: Any) -> bool:
    return isinstance(value, str) and DIGEST.fullmatch(value) is not None


def usd(value: float) -> str:
    """Dollars of one request: as many digits as there are to see."""
    return "$0" if not value else f"${value:.2g}" if value < 0.01 else f"${value:,.2f}"


def number(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".").replace("-", "−")


def _parts(text: str, pattern: re.Pattern[str] | None) -> Iterator[tuple[str, bool]]:
    at = 0
    for found in pattern.finditer(text) if pattern else ():
        if found.end() > found.start():
            yield text[at : found.start()], False
            yield found[0], True
            at = found.end()
    yield text[at:], False


def _plain(text: str, space: bool) -> Markup:
    text = text.replace("\r\n", "\n") if not space else text
    pieces: list[Markup] = []
    at = 0
    wanted = re.compile(f"{CONTROLS.pattern}|{WHITE.pattern}") if space else CONTROLS
    for found in wanted.finditer(text):
        pieces += [escape(text[at : found.start()]), _sign(found[0])]
        at = found.end()
    return Markup("").join([*pieces, escape(text[at:])])


def _sign(sign: str) -> Markup:
    if sign in SIGNS:
        return Markup('<span class="ws" data-sign="{}">{}</span>').format(SIGNS[sign], sign)
    if sign in NAMED:
        return Markup('<span class="sign" title="U+{}">{}</span>').format(f"{ord(sign):04X}", NAMED[sign])
    picture = chr(0x2400 + ord(sign)) if ord(sign) < 0x20 else "␡" if sign == "\x7f" else f"U+{ord(sign):04X}"
    return Markup('<span class="sign" title="U+{}">{}</span>').format(f"{ord(sign):04X}", picture)
