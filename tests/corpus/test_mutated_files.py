"""Whatever is done to a file of articles, it is read or refused in one line that names it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nift_assets import corpus
from nift_assets.rows import Corpus
from tests.counting import Counts

TEXTS = [
    "The ferry, they say, is late.",
    'He said "no"; and left.',
    "Zoë – twice\nover two lines",
    "",
    "市场关门以后。",
]
ROWS = [{"id": number, "text": text, "more": {"a": [1, None]}} for number, text in enumerate(TEXTS)]


def parquet(compression: str) -> bytes:
    content = io.BytesIO()
    pq.write_table(
        pa.table({"id": range(len(TEXTS)), "text": TEXTS}), content, compression=compression, row_group_size=2
    )
    return content.getvalue()


def separated(separator: str) -> bytes:
    quoted = ('"{}"'.format(text.replace('"', '""')) for text in TEXTS)
    return "".join(f"{number}{separator}{text}\r\n" for number, text in [("id", "text"), *enumerate(quoted)]).encode()


def zst(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, "zstd", asbytes=True)
    return packed


LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
FILES: dict[str, bytes] = {
    "c.jsonl": LINES,
    "c.json": json.dumps(ROWS, indent=1).encode(),
    "c.csv": separated(","),
    "c.tsv": separated("\t"),
    "c.txt": "\n".join(TEXTS).encode("utf-8-sig"),
    "plain.parquet": parquet("none"),
    "packed.parquet": parquet("zstd"),
    "c.jsonl.gz": gzip.compress(LINES),
    "c.csv.bz2": bz2.compress(separated(",")),
    "c.txt.xz": lzma.compress(TEXTS[0].encode()),
    "c.jsonl.zst": zst(LINES),
}
# What may stand in a file where something else was.
PIECES = [
    b"",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\n",
    b'"',
    b"[",
    b"{}",
    b"null",
    b"\xed\xa0\xbd",
    b"1e999",
    b"\x1f",
    b"," * 9,
]
TRIED: Counter[str] = Counter()


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut off, or with a piece of it doubled, gone, or another."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        stop = draw(st.integers(start, min(len(content), start + 40)))
        how: Callable[[bytes], bytes] = draw(
            st.sampled_from(
                [lambda piece: piece * 2, lambda _: b"", lambda piece: bytes(byte ^ 0x40 for byte in piece), None]
            )
        ) or (lambda _: draw(st.sampled_from(PIECES)))
        content = content[:start] + how(content[start:stop]) + (b"" if draw(st.integers(0, 7)) == 0 else content[stop:])
    return content


def sampled(file: Path) -> str | None:
    """Why a file is refused, None if it is read."""
    try:
        sample = corpus.sample(Corpus(name="c", location=str(file), licence="ours"), threads=1)
    except ValueError as error:
        return str(error)
    assert sample.documents.height + sample.rejects.height == sample.read.rows
    sample.documents["text"].to_list()
    return None


@pytest.mark.parametrize("many", [60, pytest.param(1_500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_of_articles_is_read_or_refused_in_a_line(
    name: str, many: int, tmp_path: Path, counts: Counts
) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=many, database=None)
    @given(mutated(FILES[name]))
    def each(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        refused = sampled(tmp_path / name)
        seen["tried"] += 1
        if refused is not None:
            seen["refused"] += 1
            assert refused.startswith(str(tmp_path / name)), refused
            assert "\n" not in refused
            assert refused.isprintable(), ascii(refused)

    each()
    counts("fuzz", f"articles, {name}: {seen['tried']} files, {seen['refused']} refused in a line, 0 tracebacks")


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_read_as_it_is(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FILES[name])
    found = [each.text for each in corpus.read(Corpus(name="c", location=str(tmp_path / name), licence="ours"))]
    assert found == (["\n".join(TEXTS)] if name == "c.txt" else TEXTS[:1] if name == "c.txt.xz" else TEXTS)
