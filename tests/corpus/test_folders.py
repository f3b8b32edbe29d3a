"""A folder is read whole or refused, and what is wrong with one row or one file costs that row or file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nift_assets import corpus
from nift_assets.rows import Corpus
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.hub.server import Hub

TEXTS = [f"Text {number}, «of a few words» and\na second line." for number in range(8)]


def at(location: object) -> Corpus:
    return Corpus(name="c", location=str(location), licence="ours")


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def array(texts: list[str]) -> bytes:
    return json.dumps([{"text": text, "n": 1.5} for text in texts], indent=1).encode()


def separated(texts: list[str], separator: str = ",") -> bytes:
    content = io.StringIO()
    csv.writer(content, delimiter=separator).writerows([["id", "text"], *([1, text] for text in texts)])
    return content.getvalue().encode("utf-8-sig")


def parquet(texts: list[str | None]) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), content)
    return content.getvalue()


def zst(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def rejected(location: object) -> list[tuple[str, int, str]]:
    rejects = corpus.sample(at(location)).rejects
    return [(Path(file).name, row, reason) for file, row, _, reason in rejects.iter_rows()]


def test_a_folder_of_several_kinds_of_rows_is_read_whole(tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "0.jsonl": lines(TEXTS[:1]),
            "1.jsonl.zst": zst(lines(TEXTS[1:2])),
            "2.json": array(TEXTS[2:3]),
            "3.csv": separated(TEXTS[3:4]),
            "4.tsv.gz": gzip.compress(separated(TEXTS[4:5], "\t")),
            "5.ndjson.bz2": bz2.compress(array(TEXTS[5:6])),
            "6.JSON.xz": lzma.compress(lines(TEXTS[6:7])),
            "deep/7.parquet": parquet(list(TEXTS[7:])),
        },
    )
    sample = corpus.sample(at(tmp_path))
    assert sorted(sample.documents["text"]) == TEXTS
    assert sample.rejects.is_empty()


def test_what_is_about_a_folder_is_no_article(tmp_path: Path) -> None:
    about = dict.fromkeys(
        ("README.txt", "LICENSE.txt", ".cache/notes.txt", "._a.parquet", "make.py", "x/LICENCE"), b"no"
    )
    sample = corpus.sample(at(written(tmp_path, {"a.parquet": parquet(list(TEXTS)), **about})))
    assert sorted(sample.documents["text"]) == TEXTS
    assert set(sample.rejects["reason"]) == {"not an article"}  # of those that are in sight


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a.parquet": b"x", "b.docx": b"x"}, "b.docx cannot be read and may hold articles too"),
        ({"a.jsonl": b"x", "b.tar.gz": b"x"}, "b.tar.gz cannot be read"),
        ({"a.txt": b"x", "part-00000": b"x"}, "part-00000 cannot be read"),
        ({"a.jsonl": b"x", "notes.txt": b"x"}, "notes.txt lies beside a.jsonl"),
        ({"README.md": b"x", ".a.jsonl": b"x"}, "no such file"),
    ],
)
def test_a_folder_that_may_hold_more_than_can_be_read_is_refused(
    files: dict[str, bytes], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        corpus.sample(at(written(tmp_path, files)))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("target", ["gone.jsonl", "elsewhere"])
def test_a_link_to_nothing_or_to_a_folder_is_refused_by_name(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "articles"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "So it goes on and on."}\n')
    (folder / "b.jsonl").symlink_to(tmp_path / target)
    _, refused = read(folder)
    assert refused is not None
    assert f"{folder / 'b.jsonl'}: it is a link to {tmp_path / target}" in refused
    (folder / "b.jsonl").unlink()
    (folder / "c.jsonl").symlink_to(folder / "a.jsonl")
    assert read(folder)[1] is None


def test_a_bad_row_costs_that_row(tmp_path: Path) -> None:
    content = lines(TEXTS[:1]) + b'{"text": 12}\n{"text": \n["text"]\n{"text": ["a"]}\n' + lines(TEXTS[1:])
    (tmp_path / "c.jsonl").write_bytes(content)
    assert rejected(tmp_path / "c.jsonl") == [
        ("c.jsonl", 1, "not text"),
        ("c.jsonl", 2, "broken row"),
        ("c.jsonl", 3, "broken row"),
        ("c.jsonl", 4, "not text"),
    ]
    (tmp_path / "c.csv").write_bytes(b"id,text\n1,one two\n2,not quoted, and cut\n\n3,caf\xe9\n4\n")
    assert rejected(tmp_path / "c.csv") == [
        ("c.csv", 1, "broken row"),
        ("c.csv", 2, "not UTF-8"),
        ("c.csv", 3, "broken row"),
    ]


def test_a_bad_file_among_others_costs_that_file(tmp_path: Path) -> None:
    files = {f"{number}.parquet": parquet([text]) for number, text in enumerate(TEXTS)}
    broken = {"nulls.parquet": parquet([None, None]), "torn.parquet": files["0.parquet"][:-9], "x.parquet": b"PAR1"}
    sample = corpus.sample(at(written(tmp_path, files | broken)))
    assert sorted(sample.documents["text"]) == TEXTS
    reasons = [(Path(file).name, row, reason) for file, row, _, reason in sample.rejects.iter_rows()]
    assert reasons == [
        ("nulls.parquet", 0, "no text"),
        ("nulls.parquet", 1, "no text"),
        ("torn.parquet", 0, "unreadable file"),
        ("x.parquet", 0, "unreadable file"),
    ]
    assert [problem.split(":")[0] for problem in sample.unreadable] == [
        str(tmp_path / "torn.parquet"),
        str(tmp_path / "x.parquet"),
    ]


def test_where_most_files_are_bad_the_corpus_is_refused(tmp_path: Path) -> None:
    written(tmp_path, {"a.txt": b"caf\xe9", "b.txt": b"caf\xe9", "c.txt": b"fine text"})
    with pytest.raises(ValueError, match="byte 3 is not UTF-8"):
        corpus.sample(at(tmp_path))


ONE_BY_ONE = """
import sys
from nift_assets import corpus
from nift_assets.studies import Corpus
for location in sys.argv[1:]:
    try:
        sample = corpus.sample(Corpus(name="c", location=location, licence="ours"))
        print(sample.documents.height, *sorted({file.rpartition("/")[2] for file in sample.documents["file"]}))
    except ValueError as error:
        print(error)
"""


def test_addresses_of_the_hub_are_read_as_others_write_them() -> None:
    revisions = ["", "@refs/convert/parquet", "@refs%2Fconvert%2Fparquet", "@~parquet"]
    places = [f"hf://datasets/nobody/news{revision}" for revision in revisions]
    patterns = [f"{places[0]}/data/*.jsonl", *(f"{place}/default/*/*.parquet" for place in places[1:])]
    with Hub() as hub:
        held = hub.hold("nobody/news", {"data/a.jsonl": lines(TEXTS), "README.md": b"About."})
        converted = {"default/train/0.parquet": hub._keep("default/train/0.parquet", parquet(list(TEXTS[:6])))}
        held.tags["refs/convert/parquet"] = hub._add(held, converted, "convert", "").oid
        held.commits.reverse()
        online = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HTTP"))}
        ran = subprocess.run(
            [sys.executable, "-c", ONE_BY_ONE, *places, *patterns, "hf://datasets/news", "hf://nobody/news"],
            cwd=PROJECT,
            env=online | {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            check=True,
        )
    said = ran.stdout.splitlines()
    assert said[:8] == ["8 a.jsonl", *["6 0.parquet"] * 3] * 2
    assert ["is no address of a dataset" in line for line in said[8:]] == [True, True]


# -- whatever is done to a file, the result is right or one line -------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("text"), inside, max_size=3)
    ),
    max_leaves=4,
)
ROWS = st.lists(
    st.fixed_dictionaries({}, optional={"text": st.text(max_size=30) | JSON_VALUES, "id": JSON_VALUES}) | JSON_VALUES,
    max_size=6,
)
SHAPES: list[Callable[[list[Any]], bytes]] = [
    lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    lambda rows: json.dumps(rows).encode(),
    lambda rows: "\n".join(f"{json.dumps(row)},{row!r}" for row in ["text", *rows]).encode("utf-8", "replace"),
    lambda rows: parquet([str(row).encode("utf-8", "replace").decode() for row in rows]),
]


def read(file: Path) -> tuple[list[corpus.Document], str | None]:
    """The documents of a file, or why it is refused."""
    try:
        return list(corpus.read(at(file))), None
    except ValueError as error:
        return [], str(error)


NAMES = ["c.jsonl", "c.json", "c.csv", "c.parquet", "c.txt", "c.jsonl.gz", "c.json.zst"]
TRIED = [0, 0]


@settings(max_examples=200)
@given(
    rows=ROWS,
    shape=st.sampled_from(SHAPES),
    name=st.sampled_from(NAMES),
    cut=st.none() | st.integers(0, 60),
    junk=st.binary(max_size=3),
    place=st.integers(0, 60),
)
def test_whatever_a_file_holds_its_texts_are_read_or_it_is_refused_in_a_line(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Any],
    shape: Callable[[list[Any]], bytes],
    name: str,
    cut: int | None,
    junk: bytes,
    place: int,
) -> None:
    whole = shape(rows)
    content = whole[:cut] if cut is not None else whole
    content = content[:place] + junk + content[place:]
    packed = gzip.compress(content) if name.endswith(".gz") else zst(content) if name.endswith(".zst") else content
    file = tmp_path_factory.getbasetemp() / name
    file.write_bytes(packed)
    TRIED[0] += 1
    found, refused = read(file)
    if refused is not None:
        TRIED[1] += 1
        assert str(file) in refused
        assert "\n" not in refused
        return
    assert [document.row for document in found] == list(range(len(found)))
    is_array = any(isinstance(row, list) for row in rows)  # whose items are the rows, wherever it stands
    if content == whole and shape is SHAPES[0] and name == "c.jsonl" and not is_array:
        texts = [row["text"] for row in rows if isinstance(row, dict) and isinstance(row.get("text"), str)]
        assert [document.text for document in found if document.text is not None] == texts


def test_how_many_files_were_tried(counts: Counts) -> None:
    counts("fuzz", f"corpora: {TRIED[0]} files, {TRIED[1]} refused in a line, 0 tracebacks")
