"""How many tokens texts are: counted where the model's tokenizer is on this machine, else an honest range.

Nothing here ever reaches the network.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import polars as pl

from nift_training.artifacts import sha256

Basis = Literal["counted", "measured", "estimated", "assumed"]
BASES: tuple[Basis, ...] = ("counted", "measured", "estimated", "assumed")

# Counting goes on for minutes over a large sample, and the ratio of tokens to bytes is known well long before.
MOST_COUNTED = 2_000
DEVIATIONS = 3.0


@dataclass(frozen=True, kw_only=True)
class TokenCount:
    """A number of tokens, with the least and the most it can reasonably be and what it rests on.

    `counted` by the model's own tokenizer, `measured` from answers of the same model, `estimated` from the texts,
    `assumed` where there is no text yet.
    """

    low: int
    expected: int
    high: int
    basis: Basis

    def __add__(self, other: TokenCount) -> TokenCount:
        """The sum; it rests on the weaker of the two."""
        return TokenCount(
            low=self.low + other.low,
            expected=self.expected + other.expected,
            high=self.high + other.high,
            basis=max(self.basis, other.basis, key=BASES.index),
        )

    def times(self, factor: float) -> TokenCount:
        """So many times as much."""
        return TokenCount(
            low=round(self.low * factor),
            expected=round(self.expected * factor),
            high=math.ceil(self.high * factor),
            basis=self.basis,
        )


NONE = TokenCount(low=0, expected=0, high=0, basis="counted")

# Tokens per occurrence, (low, expected, high), for tokenizers whose vocabulary nobody has here. From cl100k, o200k,
# Claude 2's and Llama 2's on 1,440 English web documents and 153 in other languages: a short English word is one
# token, a Thai letter anything from a third of one to nearly two.
RATES: Mapping[str, tuple[float, float, float]] = {
    "[A-Za-z]+": (0.85, 1.2, 1.9),
    "[A-Z][A-Z]": (0.0, 0.35, 0.95),
    "[0-9]": (0.25, 0.5, 1.0),
    "[!-/:-@\\[-`{-~]": (0.4, 0.85, 1.3),
    r"\s\s": (0.0, 0.3, 1.0),
    "[\u0080-\u024f\u2000-\u206f]": (0.3, 1.0, 2.5),
    "[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]": (0.6, 1.1, 2.0),
    "[\u0250-\u1fff\u2070-\u2e7f\U00010000-\U0010ffff]": (0.2, 0.7, 1.8),
}


def estimate(texts: pl.Series) -> TokenCount:
    """The tokens of all the texts together by the scripts they are in; never more than their UTF-8 bytes."""
    if texts.is_empty():
        return NONE
    matches = {pattern: texts.str.count_matches(pattern) for pattern in RATES}
    sums = [
        sum((matches[pattern] * RATES[pattern][place] for pattern in RATES), start=pl.zeros(len(texts), eager=True))
        for place in range(3)
    ]
    # A byte is the smallest token there is; a text that is not empty is at least one.
    frame = pl.DataFrame({"low": sums[0], "expected": sums[1], "high": sums[2], "bytes": texts.str.len_bytes()})
    bounded = frame.select(
        pl.min_horizontal(pl.col(name).round().clip(1), "bytes").sum() for name in ("low", "expected", "high")
    )
    low, expected, high = (int(value) for value in bounded.row(0))
    return TokenCount(low=low, expected=expected, high=high, basis="estimated")


def count(texts: pl.Series, counter: Callable[[str], int] | None) -> TokenCount:
    """The tokens of all the texts together: counted if there is a counter, else estimated.

    Of many texts evenly spaced ones are counted; the range is then three standard errors wide on either side.
    """
    return count_portions([texts], len(texts), counter)


def count_portions(portions: Iterable[pl.Series], texts: int, counter: Callable[[str], int] | None) -> TokenCount:
    """As `count`, of so many texts that come by portions and need not fit into memory."""
    if counter is None or not texts:
        return sum(map(estimate, portions), start=NONE)
    step = math.ceil(texts / MOST_COUNTED)
    counted: list[float] = []
    sizes_counted: list[float] = []
    seen = every_byte = 0
    for portion in portions:
        spaced = portion.gather_every(step, offset=-seen % step) if len(portion) > -seen % step else portion.clear()
        counted += [counter(text) for text in spaced]
        sizes_counted += spaced.str.len_bytes().to_list()
        every_byte += int(portion.str.len_bytes().sum())
        seen += len(portion)
    tokens = pl.Series(counted, dtype=pl.Float64)
    if step == 1:
        exact = int(tokens.sum())
        return TokenCount(low=exact, expected=exact, high=exact, basis="counted")
    sizes = pl.Series(sizes_counted, dtype=pl.Float64)
    ratio = float(tokens.sum()) / float(sizes.sum())
    left_over = cast("float", (tokens - ratio * sizes).std())
    error = DEVIATIONS * left_over / math.sqrt(len(counted)) / cast("float", sizes.mean())
    return TokenCount(
        low=round(max(0.0, ratio - error) * every_byte),
        expected=round(ratio * every_byte),
        high=min(every_byte, math.ceil((ratio + error) * every_byte)),
        basis="counted",
    )


# Where tiktoken's own files come from, which names them in its cache, and the sha256 of each. A file that is not
# there, or not this one, would be fetched from there; so it is looked for before tiktoken is asked.
ENCODINGS = {
    "cl100k_base": (
        "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}


def openai_counter(encoding: str) -> Callable[[str], int] | None:
    """Counts tokens as OpenAI does, or None if tiktoken or its file of that encoding is not on this machine."""
    if encoding not in ENCODINGS or importlib.util.find_spec("tiktoken") is None or not _is_cached(encoding):
        return None
    # Not by a plain import: it is an extra that the type checker need not find.
    tokenizer = importlib.import_module("tiktoken").get_encoding(encoding)
    return lambda text: len(tokenizer.encode(text, disallowed_special=()))


def folder_counter(folder: Path) -> Callable[[str], int] | None:
    """Counts tokens with the tokenizer in a model's folder, or None if there is none or it cannot be loaded here."""
    file = folder / "tokenizer.json"
    if not file.is_file() or importlib.util.find_spec("tokenizers") is None:
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text).ids)


def _is_cached(encoding: str) -> bool:
    url, digest = ENCODINGS[encoding]
    named = next(
        (os.environ[name] for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR") if name in os.environ), None
    )
    if named == "":
        return False  # tiktoken's own way to switch its cache off
    folder = Path(named) if named else Path(tempfile.gettempdir(), "data-gym-cache")
    file = folder / hashlib.sha1(url.encode()).hexdigest()
    return file.is_file() and sha256(file) == digest
