"""Which groups of rows of a file may hold a text, so that a search unpacks no others.

Of each group there is a bitmap with a bit for every hashed sequence of five bytes in its texts. A text all of whose
sequences have their bits may be in the group, and the group is read; of one of them that has none it is in no row. So
nothing is missed, whatever the bitmaps hold. What is too short for a sequence of five bytes is looked up by those of
three, of two or of one, which have bits of their own. Letters count in any case as DuckDB's regular expressions count
them: those of one or two bytes (Latin, Greek, Cyrillic, Armenian) stand in the bitmaps as one of their cases.
"""

from __future__ import annotations

import os
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from nift_assets.pages.viewer.conditions import forms
from nift_assets.pages.viewer.files import TableFile

# By the length of sequences how many bits they have (a power of two). A group of 2,048 articles has 400,000 of five
# bytes, a fifth of their bits, and 15,000 of three, a sixteenth of theirs; those of two and of one have a bit each.
BITS = {5: 21, 3: 18, 2: 16, 1: 8}
# Where those of a length begin in a bitmap, which has 303 kB.
_STARTS = dict(zip(BITS, accumulate([0, *(1 << bits for bits in BITS.values())]), strict=False))
_ALL_BITS = sum(1 << bits for bits in BITS.values())
BYTES_HASHED_AT_ONCE = 1_000_000
# 148 MB of bitmaps: of articles of 5 kB those of a million rows.
MOST_GROUPS = 148_000_000 * 8 // _ALL_BITS
_ODD = np.uint64(0x9E3779B97F4A7C15)
_LOWER = np.arange(256, dtype=np.uint8)
_LOWER[ord("A") : ord("Z") + 1] += 32
# The letters that are one of fewer bytes in another case. A group that has one is read for every search.
STRANGERS = (
    *("ſ", "\N{KELVIN SIGN}", "\N{OHM SIGN}", "\N{ANGSTROM SIGN}", "\N{LATIN CAPITAL LETTER SHARP S}"),
    *("\N{GREEK PROSGEGRAMMENI}", "\u1fd3", "\u1fe3", *map(chr, range(0x1C80, 0x1C88))),
)
# How they begin, so that most texts are looked through for three beginnings only.
_BEGINNINGS = tuple(dict.fromkeys(sign.encode()[:2] for sign in STRANGERS))
# The letters of two bytes: their first byte, and how many there are.
_LEADS, _TWO_BYTES = (0xC2, 0xDF), range(0x80, 0x800)
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class RowGroup:
    """A group of rows, and the bitmap of its texts; None if it has to be read for every search."""

    first: int
    rows: int
    bitmap: NDArray[np.uint8] | None

    def may_hold(self, wanted: Sequence[Hashes]) -> bool:
        """Whether one of some texts may be in it, each given by the hashes of its sequences."""
        if self.bitmap is None:
            return True
        bits = self.bitmap
        return any(
            bool(np.all(bits[each >> np.uint64(3)] >> (each & np.uint64(7)).astype(np.uint8) & 1)) for each in wanted
        )


class TextIndex:
    """The groups of rows of files, as far as they have been looked through, the last ones up to `MOST_GROUPS`.

    It holds nothing of DuckDB, whose connections a thread that is still at work must not keep when the process ends.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[TableFile, Sequence[RowGroup]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, file: TableFile) -> None:
        """Looks through the texts of a local file, which takes a while; does nothing where it would have too many
        groups or has columns of which nobody can say here how a search reads them."""
        if not file.stamp:
            return
        made = _groups_of(file)
        with self._lock:
            self._groups[file] = made
            while sum(map(len, self._groups.values())) > MOST_GROUPS:
                self._groups.popitem(last=False)

    def that_may_hold(self, file: TableFile, search: str) -> list[RowGroup] | None:
        """The groups that may hold a text; None where that is not known."""
        groups, forms_ = self._groups.get(file), wanted(search)
        if not groups or forms_ is None:
            return None
        return [group for group in groups if group.may_hold(forms_)]


def _groups_of(file: TableFile) -> list[RowGroup]:
    import pyarrow as pa
    from pyarrow import parquet

    with file.path.open("rb") as opened:
        stat, stored = os.fstat(opened.fileno()), parquet.ParquetFile(opened)
        types = {field.name: field.type for field in stored.schema_arrow}
        texts = [name for name, kind in types.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]
        is_plain = all(pa.types.is_primitive(types[name]) for name in types if name not in texts)
        was_replaced = (stat.st_ino, stat.st_mtime_ns) != (file.stamp[1], file.stamp[3])
        if not is_plain or was_replaced or stored.num_row_groups > MOST_GROUPS:
            return []
        found: list[RowGroup] = []
        for number in range(stored.num_row_groups):
            rows = stored.read_row_group(number, columns=texts, use_threads=False)
            # The buffer of a chunk has all its texts one after the other.
            buffers = [chunk.buffers()[2] for column in rows.columns for chunk in column.chunks]
            first = found[-1].first + found[-1].rows if found else 0
            height = stored.metadata.row_group(number).num_rows
            found.append(RowGroup(first, height, bitmap([bytes(each) for each in buffers if each])))
        return found


def bitmap(texts: Sequence[bytes]) -> NDArray[np.uint8] | None:
    """A bit for each sequence in some texts; None where a letter is another one's other case across alphabets."""
    if any(map(_has_stranger, texts)):
        return None
    found = np.zeros(_ALL_BITS, dtype=bool)
    for text in texts:
        signs = folded(text)
        for start in range(0, len(signs), BYTES_HASHED_AT_ONCE):
            for length in BITS:
                found[hashes(signs[start : start + BYTES_HASHED_AT_ONCE + length - 1], length)] = True
    return np.packbits(found, bitorder="little")


def _has_stranger(text: bytes) -> bool:
    begun = () if text.isascii() else [beginning for beginning in _BEGINNINGS if beginning in text]
    return any(sign.encode() in text for sign in STRANGERS if sign.encode()[:2] in begun)


def folded(text: bytes) -> NDArray[np.uint8]:
    """The bytes of a text in which each letter of one or two bytes stands as one of its cases does."""
    signs = _LOWER[np.frombuffer(text, dtype=np.uint8)]
    if text.isascii():
        return signs
    leads = np.flatnonzero((signs[:-1] >= _LEADS[0]) & (signs[:-1] <= _LEADS[1]))
    codes = (signs[leads].astype(np.uint16) & 0x1F) << 6 | signs[leads + 1] & 0x3F
    codes = _one_case()[codes]
    signs[leads], signs[leads + 1] = 0xC0 | codes >> 6, 0x80 | codes & 0x3F
    return signs


@cache
def _one_case() -> NDArray[np.uint16]:
    """For the code of each letter of two bytes that of one of its cases, the same for all of them."""
    codes = np.arange(_TWO_BYTES.stop, dtype=np.uint16)
    for code in _TWO_BYTES:
        for other in _cases(chr(code)):
            if ord(other) in _TWO_BYTES:
                one, same = codes[code], codes[ord(other)]
                codes[codes == max(one, same)] = min(one, same)
    return codes


def _cases(sign: str) -> set[str]:
    return {case for case in (sign.lower(), sign.upper(), sign.title()) if len(case) == 1}


@cache
def _is_of_two_bytes_in_any_case(sign: str) -> bool:
    """Whether a letter and all its cases but those that are strangers have two bytes."""
    return ord(sign) in _TWO_BYTES and all(ord(case) in _TWO_BYTES for case in _cases(sign))


def _has_no_case(sign: str) -> bool:
    """Whether a sign is the same in any case; of one that this Python does not know yet nobody can say."""
    return _cases(sign) == {sign} and unicodedata.category(sign)[0] != "C"


def hashes(signs: NDArray[np.uint8], length: int) -> Hashes:
    """The bit of each sequence of so many bytes."""
    count = len(signs) - length + 1
    if count < 1:
        return np.empty(0, dtype=np.uint64)
    found = signs[:count].astype(np.uint64)
    for place in range(1, length):
        found <<= np.uint64(8)
        found |= signs[place : count + place]
    if BITS[length] < 8 * length:
        found *= _ODD
        found >>= np.uint64(64 - BITS[length])
    found += np.uint64(_STARTS[length])
    return found


def wanted(search: str) -> list[Hashes] | None:
    """Of each form of a text the bits of its sequences; None where nothing of one of them is the same in any case."""
    found = [np.concatenate([_longest(folded(run)) for run in _runs(form)]) for form in forms(search)]
    return found if all(map(len, found)) else None


def _longest(signs: NDArray[np.uint8]) -> Hashes:
    """The bits of the longest sequences that some bytes have."""
    return next((found for length in BITS if len(found := hashes(signs, length))), hashes(signs, 1))


def _runs(text: str) -> Iterator[bytes]:
    """The parts of a text whose bytes are the same in any case once they are folded."""
    run = ""
    for sign in text:
        if sign.isascii() or _is_of_two_bytes_in_any_case(sign) or _has_no_case(sign):
            run += sign
        else:
            yield run.encode()
            run = ""
    yield run.encode()
