"""What a file may hold and what it may not: documents that are no text, bombs, files that lack or change something."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nift_assets import corpus, studies
from nift_assets.corpus import reading
from nift_assets.corpus.folders import KINDS, PACKED
from nift_assets.rows import Corpus
from tests.conftest import PROJECT
from tests.corpus.s3 import Bucket
from tests.counting import Counts
from tests.hub.server import Hub

COMMIT, OTHER = "a" * 40, "b" * 40


def at(location: object, revision: str | None = None) -> Corpus:
    return Corpus(name="c", location=str(location), revision=revision, licence="ours")


def reasons(location: object) -> list[tuple[int, str]]:
    return [(row, reason) for row, reason in corpus.sample(at(location)).rejects.select("row", "reason").iter_rows()]


def parquet_of(texts: list[str]) -> bytes:
    content = io.BytesIO()
    pl.DataFrame({"text": texts}).write_parquet(content)
    return content.getvalue()


# -- documents that are no text ----------------------------------------------------------------------------------------


def test_a_document_with_half_a_surrogate_pair_is_left_out_and_the_others_stay(tmp_path: Path, counts: Counts) -> None:
    lines = [
        json.dumps({"text": "a \U0001f600 whole pair"}),
        '{"text": "half a \\ud83d pair"}',
        '{"text": "the other half \\ude00 alone", "title": "\\ud83d"}',
        '{"text": "only the title is broken", "title": "\\ud83d"}',
        '{"text": null}',
        '{"title": "no text at all"}',
        '{"text": "nul \\u0000 and all"}',
        "",
        '{"text": ""}',
    ]
    (tmp_path / "c.jsonl").write_bytes("\n".join(lines).encode() + b'\n{"text": "caf\xe9"}\r\n{"text": "\xed\xa0\xbd"}')
    sample = corpus.sample(at(tmp_path / "c.jsonl"))
    assert set(sample.documents["text"]) == {"a 😀 whole pair", "only the title is broken", "nul \x00 and all", ""}
    assert reasons(tmp_path / "c.jsonl") == [
        (1, "lone surrogate"),
        (2, "lone surrogate"),
        (4, "no text"),
        (5, "no text"),
        (8, "not UTF-8"),
        (9, "lone surrogate"),
    ]
    counts("S12", "JSON lines: 10 documents, 3 with half a surrogate pair and 1 of another encoding left out, 0 lost")


def test_bytes_in_a_parquet_file_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    texts = [b"good", b"caf\xe9", b"\xed\xa0\xbd half", None, "gütig".encode()]
    column = pa.array(texts, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "c.parquet")
    assert reasons(tmp_path / "c.parquet") == [(1, "not UTF-8"), (2, "lone surrogate"), (3, "no text")]
    assert set(corpus.sample(at(tmp_path)).documents["text"]) == {"good", "gütig"}


def test_a_text_file_with_half_a_surrogate_pair_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "half.txt").write_bytes(b"half a \xed\xa0\xbd pair")
    (tmp_path / "whole.txt").write_text("a whole text")
    assert reasons(tmp_path) == [(0, "lone surrogate")]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_is_read_from_every_kind_of_column(kind: pa.DataType, tmp_path: Path) -> None:
    texts = ["one two", "three", None, "one two", "a text of more than twelve bytes"] * 50
    pq.write_table(pa.table({"n": pa.nulls(250), "text": pa.array(texts).cast(kind)}), tmp_path / "c.parquet")
    found = [each.text for each in corpus.read(at(tmp_path / "c.parquet"))]
    assert found == texts


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("c.tsv", b'text\nHello, world\nA; b | c\n"quoted, too"\n', ["Hello, world", "A; b | c", "quoted, too"]),
        ("c.csv", b'text\r\nHello, world\r\nHe said "hi", and left\r\n', ["Hello, world", 'He said "hi", and left']),
        ("c.tsv", b"id\ttext\n1\tHello, world\n", ["Hello, world"]),
        ("c.tsv", b"id,text\n1,Hello\n", ["Hello"]),
    ],
)
def test_a_file_of_one_column_is_not_cut_at_the_commas_of_its_texts(
    name: str, content: bytes, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert [each.text for each in corpus.read(at(tmp_path / name))] == texts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.txt", "a bridge"),
        ("c.csv", "text,id\na bridge,1\n"),
        ("c.tsv", "text\na bridge\n"),
        ("c.jsonl", '{"text": "a bridge"}\n'),
        ("c.json", '[{"text": "a bridge"}]'),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_it(
    name: str, content: str, packed: bool, tmp_path: Path
) -> None:
    written = content.encode("utf-8-sig")
    file = tmp_path / (f"{name}.gz" if packed else name)
    file.write_bytes(gzip.compress(written) if packed else written)
    assert [each.text for each in corpus.read(at(file))] == ["a bridge"]


def test_lines_of_files_that_were_joined_with_their_marks_are_read(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b"".join(f'{{"text": "{n}"}}\n'.encode("utf-8-sig") for n in range(3)))
    assert [each.text for each in corpus.read(at(tmp_path / "c.jsonl"))] == ["0", "1", "2"]


# -- files that cannot be read -----------------------------------------------------------------------------------------


def deep_json(folder: Path) -> Path:
    (folder / "c.jsonl").write_text('{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    return folder / "c.jsonl"


def long_line(folder: Path) -> Path:
    with gzip.open(folder / "c.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(65):
            file.write(b"x" * 2**20)
    return folder / "c.jsonl.gz"


def long_text(folder: Path) -> Path:
    with (folder / "c.txt").open("wb") as file:
        file.truncate(65 * 2**20)
    return folder / "c.txt"


def large_footer(folder: Path) -> Path:
    """As of a file with a million columns."""
    with (folder / "c.parquet").open("wb") as file:
        file.write(b"PAR1")
        file.seek(130 * 2**20)
        file.write(struct.pack("<I4s", 130 * 2**20, b"PAR1"))
    return folder / "c.parquet"


def squeezed(folder: Path) -> Path:
    table = pa.table({"text": [b"x" * 2**20] * 40}, schema=pa.schema([("text", pa.string())]))
    pq.write_table(table, folder / "c.parquet", compression="zstd", use_dictionary=False)
    return folder / "c.parquet"


def rows_of_arrays(folder: Path) -> Path:
    (folder / "c.jsonl").write_text('{"text": [1]}\n["a"]\n')
    return folder / "c.jsonl"


def torn_array(folder: Path) -> Path:
    (folder / "c.jsonl").write_text('[{"text": "a"},\n')
    return folder / "c.jsonl"


def goes_on(folder: Path) -> Path:
    (folder / "c.json").write_text('[{"text": "a"}]\n[{"text": "b"}]')
    return folder / "c.json"


def unknown_column(folder: Path) -> Path:
    (folder / "c.jsonl").write_text('{"body": "a", "title": "b"}\n')
    return folder / "c.jsonl"


def flipped_bits(folder: Path) -> Path:
    pq.write_table(pa.table({"text": ["some text"] * 500}), folder / "c.parquet", write_page_checksum=True)
    content = bytearray((folder / "c.parquet").read_bytes())
    content[40] ^= 0xFF
    (folder / "c.parquet").write_bytes(content)
    return folder / "c.parquet"


def doubled_column(folder: Path) -> Path:
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), folder / "c.parquet")
    return folder / "c.parquet"


def other_name(folder: Path) -> Path:
    """A name in Latin-1, as an old archive unpacks it; refused with its folder."""
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")).write_text("a b")
    return folder


def other_encoding(folder: Path) -> Path:
    (folder / "c.csv").write_bytes("id,text\n1,a b\n".encode("utf-16"))
    return folder / "c.csv"


def other_header(folder: Path) -> Path:
    (folder / "c.csv").write_bytes("téxt,text\na,b\n".encode("latin-1"))
    return folder / "c.csv"


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (doubled_column, "there are 2 columns 'text'"),
        (other_name, r"caf\\xe9.txt: its name is not UTF-8; rename it"),
        (other_encoding, "is UTF-16, not UTF-8"),
        (other_header, "its header is not UTF-8 text"),
        (deep_json, "cannot be read to its end"),
        (long_line, "line 1 is longer than"),
        (long_text, "is longer than"),
        (large_footer, "its footer is 136,314,880 bytes"),
        (squeezed, "would unpack to 41,9"),
        (rows_of_arrays, "the column 'text' is an array in line 1, not text"),
        (torn_array, "its array ends behind item 1"),
        (goes_on, "goes on behind its array"),
        (unknown_column, "there is no column 'text', but body, title"),
        (flipped_bits, "cannot be read to its end"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(
    write: Callable[[Path], Path], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ALWAYS_ALLOWED", 2**20)  # so that a bomb of 40 MB is large enough
    location = write(tmp_path)
    with pytest.raises(ValueError, match=problem) as refused:
        corpus.sample(at(location))
    assert str(refused.value).startswith(str(location))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "kind", [*KINDS, *(f"{kind}{packed}" for kind in (".txt", ".csv", ".jsonl") for packed in PACKED)]
)
def test_a_pointer_of_git_lfs_is_no_article_whatever_it_is_called(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"c{kind}").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ValueError, match=rf"c{kind}: is a pointer of git-lfs .* `git lfs pull`$"):
        corpus.sample(at(tmp_path / f"c{kind}"))


MEASURED = """
import sys
from nift_assets import corpus
from nift_assets.studies import Corpus
from nift_training.memory import peak_rss_mb
try:
    sample = corpus.sample(Corpus(name="c", location=sys.argv[1], licence="ours"))
    print(sample.documents.height, sample.rejects.height)
except ValueError as error:
    print(error)
print(peak_rss_mb())
"""


@pytest.mark.fault("X9")
def test_a_text_that_stands_a_thousand_times_in_a_kilobyte_is_not_unpacked_at_once(
    tmp_path: Path, counts: Counts
) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 200, pa.int32()), pa.array(["word " * 2**20]))
    pq.write_table(pa.table({"text": texts}), tmp_path / "c.parquet", compression="zstd")
    size = (tmp_path / "c.parquet").stat().st_size
    printed = outcome(tmp_path / "c.parquet").splitlines()
    assert printed[0] == "1 199"
    assert float(printed[1]) < 600
    counts("X9", f"Parquet of {size:,} bytes that unpacks to 1.0 GB: read with {float(printed[1]):,.0f} MB at most")


def outcome(location: object) -> str:
    """What sampling in a process of its own says."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, str(location)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


def test_articles_in_a_folder_of_another_encoding_are_no_study(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"caf\\xe9: its name is not UTF-8; rename it$"):
        studies.on_own_documents(studies.load("demo"), folder, text_column="text", documents=None)


# -- shards and revisions ----------------------------------------------------------------------------------------------


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    for part in (0, 1, 3):
        (tmp_path / f"train-{part:05}-of-00004.parquet").write_bytes(parquet_of(["a b"]))
    with pytest.raises(ValueError, match=r"1 of 4 shards are not there, the first is train-00002-of-00004\.parquet"):
        corpus.files(at(tmp_path))
    assert len(corpus.files(at(f"{tmp_path}/train-00000*.parquet"))) == 1
    (tmp_path / "train-00002-of-00004.parquet").write_bytes(parquet_of(["a b"]))
    assert len(corpus.files(at(tmp_path))) == 4


def test_a_copy_of_another_revision_is_named(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "datasets--nobody--articles" / "snapshots" / OTHER
    snapshot.mkdir(parents=True)
    (snapshot / "c.parquet").write_bytes(parquet_of(["a b"]))
    copy = tmp_path / "copy"
    (copy / "data").mkdir(parents=True)
    (copy / "data" / "c.parquet").write_bytes(parquet_of(["a b"]))
    notes = copy / ".cache" / "huggingface" / "download" / "data"
    notes.mkdir(parents=True)
    (notes / "c.parquet.metadata").write_text(f"{OTHER}\netag\n1700000000.0\n")
    for place in (snapshot, copy):
        with pytest.raises(ValueError, match=f"c.parquet: it is of the revision {OTHER}, .* pinned to {COMMIT}"):
            corpus.files(at(place, COMMIT))
        assert len(corpus.files(at(place, OTHER))) == len(corpus.files(at(place))) == 1


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    path.write_bytes(parquet_of([f"text {i}" for i in range(10_000)]))
    rows = corpus.read(at(path))
    next(rows)
    os.utime(path, (1, 1))
    with pytest.raises(ValueError, match=r"c\.parquet: was changed while it was read"):
        list(rows)


def test_the_published_corpus_is_pinned_to_a_commit() -> None:
    for name in ("paper", "today"):
        pinned = studies.load(name).corpus.revision
        assert pinned is not None
        assert len(pinned) == 40


SAMPLED = """
import sys
from nift_assets import corpus
from nift_assets.studies import Corpus
location, *revisions = sys.argv[1:]
for revision in revisions:
    try:
        sample = corpus.sample(Corpus(name="c", location=location, revision=revision or None, licence="ours"))
        print(sample.documents.height, sample.documents["file"].min())
    except ValueError as error:
        print(error)
"""
SHARDS = {f"data/train-0000{part}-of-00002.parquet": parquet_of([f"{part} {i}" for i in range(30)]) for part in (0, 1)}


def sampled(location: str, *revisions: str, **environment: str) -> list[str]:
    """A line for each revision from a process of its own, which may use the network as those of tests may not."""
    online = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HTTP", "AWS_"))}
    ran = subprocess.run(
        [sys.executable, "-c", SAMPLED, location, *revisions],
        cwd=PROJECT,
        env=online | {"HF_HUB_DISABLE_TELEMETRY": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout.splitlines()


def test_shards_are_read_from_the_hub_at_the_pinned_commit() -> None:
    with Hub() as hub:
        held = hub.hold("nobody/articles", {**SHARDS, "README.md": b"About."}, commit=COMMIT)
        held.tags[OTHER] = COMMIT
        said = sampled(f"hf://datasets/{held.name}", COMMIT, "", OTHER, HF_ENDPOINT=hub.url)
    first = f"hf://datasets/{held.name}@{COMMIT}/data/train-00000-of-00002.parquet"
    assert said[:2] == [f"60 {first}", f"60 {first}"]
    assert f"pinned to the revision {OTHER}, but the Hub serves {COMMIT}" in said[2]


@pytest.mark.parametrize(
    ("location", "documents"), [("s3://ours/data", 60), ("s3://ours/data/*-00000-*.parquet", 30), ("s3://ours/no", 0)]
)
def test_shards_are_read_from_an_object_store(location: str, documents: int) -> None:
    with Bucket(SHARDS) as bucket:
        (said,) = sampled(location, "", **bucket.environment())
    expected = f"{documents} s3://ours/data/train-00000-of-00002.parquet"
    assert said == expected if documents else "s3://ours/no: nothing can be found there" in said
