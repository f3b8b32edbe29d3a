"""Published instruction data: read by the paper's rule, held to what is pinned, and never trusted to be small."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

from expectations import contract
from expectations.frames import conform
from expectations.runner import check
from nift_assets import sql, studies
from nift_assets.pairs import reference_sets
from nift_assets.rows import ReferenceSet
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.shared_data import shared

DEMO = studies.load("demo")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
CONTRACT = contract.load("reference_sets")


def reference(folder: Path, file: str, **values: Any) -> ReferenceSet:
    fields: dict[str, Any] = {"layout": "alpaca", "licence": "ours"} | values
    return ReferenceSet(name="theirs", location=str(folder), file=file, **fields)


def written(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def row(instruction: object = "Do", input: object = "", output: object = "Done") -> dict[str, object]:
    return {"instruction": instruction, "input": input, "output": output}


def test_the_bundled_set_keeps_its_contract() -> None:
    bundled = DEMO.reference_set("instructions")
    rows = reference_sets.read(bundled).rows
    known = sql.named_study_rows(DEMO, (test.arguments.get("sql", "") for test in CONTRACT.tests))
    assert rows.height == bundled.rows == 24
    assert [result for result in check(conform(rows, CONTRACT), CONTRACT, known) if not result.passed] == []


def test_a_prompt_is_the_instruction_and_the_input_on_a_line_of_its_own_without_a_preamble(tmp_path: Path) -> None:
    rows = [row("Add.", "1 and 1", "2"), row("Sing."), row("Wait.", None), row("Trim.", " "), {**row(), "text": "…"}]
    written(tmp_path / "a.json", rows)
    made = reference_sets.read(reference(tmp_path, "a.json")).rows
    assert made["prompt"].to_list() == ["Add.\n1 and 1", "Sing.", "Wait.", "Trim.\n ", "Do"]
    assert made["row_id"].to_list() == [f"theirs-{number}" for number in range(5)]
    assert made["document_id"][0] == hashlib.sha256(b"Add.\n1 and 12").hexdigest()[:32]


def test_lines_of_json_and_parquet_say_the_same_as_a_list(tmp_path: Path) -> None:
    rows = [row("one\u2028line", "", "x"), row("two", "lines\nhere", "")]
    written(tmp_path / "a.json", rows)
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in rows))
    pl.DataFrame(rows).write_parquet(tmp_path / "c.parquet")
    made = [reference_sets.read(reference(tmp_path, name)).rows for name in ("a.json", "b.jsonl", "c.parquet")]
    assert made[0].equals(made[1])
    assert made[0].equals(made[2])


def test_the_mark_that_some_editors_begin_a_file_with_is_no_part_of_it(tmp_path: Path) -> None:
    for name, text in (("a.json", json.dumps([row()])), ("b.jsonl", json.dumps(row()))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert reference_sets.read(reference(tmp_path, name)).rows.height == 1


def doubled(path: Path) -> None:
    names = ["instruction", "output", "output"]
    parquet.write_table(pa.table([["Do"], ["Done"], ["Not"]], names=names), path)


def other_encoding(path: Path) -> None:
    output = pa.array([b"caf\xe9"], pa.binary()).view(pa.string())
    parquet.write_table(pa.table({"instruction": ["Do"], "output": output}), path)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (doubled, "has 2 columns 'output'"),
        (other_encoding, "is no Parquet that can be read .*utf-8"),
        (lambda path: path.write_bytes(POINTER), "is a pointer of git-lfs"),
    ],
)
def test_a_parquet_file_that_cannot_be_read_is_named(write: Callable[[Path], None], says: str, tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"^a\.parquet {says}"):
        reference_sets.read(reference(tmp_path, "a.parquet"))


def test_a_conversation_gives_its_first_exchange_and_files_are_read_in_order(tmp_path: Path) -> None:
    for part in ("train-1", "train-0"):
        said = [{"from": "human", "value": f"{part}?"}, {"from": "gpt", "value": "Yes."}]
        later = [{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": "No."}]
        frame = pl.DataFrame({"uuid": ["u"], "conversations": [said + later]})
        frame.write_parquet(tmp_path / f"{part}.parquet")
    published = reference_sets.read(reference(tmp_path, "train-*.parquet", layout="conversations", rows=2))
    assert published.rows.select("row", "prompt", "response").rows() == [
        (0, "train-0?", "Yes."),
        (1, "train-1?", "Yes."),
    ]
    assert [file.name for file in published.files] == ["train-0.parquet", "train-1.parquet"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]{", "is no JSON that can be read"),
        ('{"instruction": "a"', "is no JSON that can be read"),
        ("[" * 200_000, "is no JSON that can be read"),
        ("[1]", "row 0: expected an object, found int"),
        ('[{"instruction": "a", "output": "b"}, {"instruction": "a"}]', "row 1: this is no row of the layout 'alpaca'"),
        ('[{"instruction": "a", "output": null}]', "output is NoneType, not a text"),
        ('[{"instruction": "a", "input": ["b"], "output": "c"}]', "input is list, not a text"),
        (r'[{"instruction": "\ud800", "output": "c"}]', "row 0: .*UnicodeEncodeError"),
    ],
)
def test_what_is_no_row_is_refused_with_file_and_row(content: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=rf"^a\.json.*{says}"):
        reference_sets.read(reference(tmp_path, "a.json"))


def test_a_conversation_that_does_not_begin_with_a_question_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.json", [{"conversations": [{"from": "gpt", "value": "Hm."}]}])
    with pytest.raises(ValueError, match="begins with a message from `human`"):
        reference_sets.read(reference(tmp_path, "a.json", layout="conversations"))


def test_what_is_not_as_pinned_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", [row()])
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    published = reference_sets.read(reference(tmp_path, "a.json", rows=1, sha256=sha256))
    assert published.files == (reference_sets.SourceFile(name="a.json", bytes=file.stat().st_size, sha256=sha256),)
    with pytest.raises(ValueError, match=f"has the sha256 {sha256}, not {'0' * 64}"):
        reference_sets.read(reference(tmp_path, "a.json", sha256="0" * 64))
    with pytest.raises(ValueError, match="has 1 rows, not the 52,002 of the study"):
        reference_sets.read(reference(tmp_path, "a.json", rows=52_002))
    with pytest.raises(ValueError, match=r"has no file b\.json"):
        reference_sets.read(reference(tmp_path, "b.json"))


def test_a_local_file_that_changes_makes_its_table_stale(tmp_path: Path) -> None:
    mine = reference(tmp_path, "a.json")
    written(tmp_path / "a.json", [row()])
    before = reference_sets.fingerprint(mine)
    assert reference_sets.fingerprint(mine) == before
    written(tmp_path / "a.json", [row("Undo")])
    assert reference_sets.fingerprint(mine) != before
    assert reference_sets.fingerprint(studies.load("paper").reference_set("alpaca")) is None


# ---------- the Hub


ON_HUB = ReferenceSet(
    name="theirs",
    location="hf://datasets/owner/pairs",
    revision="main",
    file="data/a.json",
    layout="alpaca",
    licence="?",
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub's client, which may not reach the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_what_was_fetched_before_is_read_offline_with_the_commit_it_is_of(cache: Path) -> None:
    repository = cache / "datasets--owner--pairs"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    file = repository / "snapshots" / COMMIT / "data" / "a.json"
    file.parent.mkdir(parents=True)
    written(file, [row()])
    published = reference_sets.read(ON_HUB)
    assert published.commit == COMMIT
    assert published.rows["response"].to_list() == ["Done"]


def test_what_cannot_be_fetched_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be fetched from hf://datasets/owner/pairs at main .*HF_HUB_OFFLINE"):
        reference_sets.read(ON_HUB)
    assert list(cache.rglob("*.json")) == []


# ---------- bombs


def parquet_bomb(path: Path) -> None:
    """A few kilobytes that stand for ten gigabytes: one long value, named by ten thousand rows."""
    value = pa.array(["a" * 2**20])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), value)
    parquet.write_table(pa.table({"instruction": column, "output": column}), path, compression="zstd")


def zeros_bomb(path: Path) -> None:
    """A column of nothing but one letter, which the footer admits to be large."""
    column = pa.array(["a" * 2**20] * 128)
    parquet.write_table(
        pa.table({"instruction": column, "output": column}), path, compression="zstd", use_dictionary=False
    )


def wide_bomb(path: Path) -> None:
    parquet.write_table(pa.table({f"c{number}": [1] for number in range(2_000)}), path)


def footer_bomb(path: Path) -> None:
    """What the footer of a million columns would look like, without the footer."""
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
        file.seek(-8, 2)
        file.write((180 * 2**20).to_bytes(4, "little") + b"PAR1")


def nested_bomb(path: Path) -> None:
    path.write_text('{"instruction": ' + "[" * 5_000_000)


def torn(path: Path) -> None:
    pl.DataFrame([row()]).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])


BOMBS = {
    "a.parquet": [parquet_bomb, zeros_bomb, wide_bomb, footer_bomb, torn],
    "a.json": [nested_bomb],
}
READ = """
import sys
from nift_assets.pairs import reference_sets
from nift_training import memory
from nift_assets.studies import ReferenceSet
folder, file = sys.argv[1:]
try:
    reference_sets.read(ReferenceSet(name="theirs", location=folder, file=file, layout="alpaca", licence="?"))
except ValueError as error:
    print(round(memory.peak_rss_mb()), str(error)[:200])
"""


@pytest.mark.fault("X9")
@pytest.mark.parametrize(
    ("file", "make"),
    [(file, make) for file, made in BOMBS.items() for make in made],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_file_that_unpacks_to_far_more_is_refused_by_name_in_little_memory(
    file: str, make: Any, tmp_path: Path, counts: Counts
) -> None:
    make(tmp_path / file)
    ran = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path), file], capture_output=True, text=True, cwd=PROJECT, check=False
    )
    megabytes, _, message = ran.stdout.partition(" ")
    assert message.startswith(file), ran.stdout + ran.stderr
    assert int(megabytes) < 1_000
    counts("X9", f"{make.__name__}: {(tmp_path / file).stat().st_size:,} bytes refused at {megabytes} MB")


# ---------- rows of a study


HOSTILE = [
    "../up",
    "/etc",
    "a/b",
    "a\\b",
    ".hidden",
    "",
    "a" * 97,
    "ü",
    "a b",
    "a\n",
    "a\0",
    "..",
    "A",
    "a..b",
    "%2e%2e",
]


@pytest.mark.fault("X7")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_out_of_the_warehouse_is_refused(name: str) -> None:
    for kind in ("reference_sets", "training_sets"):
        rows = list(getattr(DEMO, kind))
        rows[-1] = dataclasses.replace(rows[-1], name=name)
        with pytest.raises(ValueError, match=r"cannot be a partition key|no table can hold"):
            dataclasses.replace(DEMO, **{kind: tuple(rows)})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"location": "https://example.org/a.json"}, "use hf://datasets/owner/name or a folder"),
        ({"file": "../../etc/passwd"}, "leads out of its place"),
        ({"file": "/etc/passwd"}, "leads out of its place"),
        ({"layout": "csv"}, "give one of 'alpaca', 'conversations'"),
    ],
)
def test_a_row_of_another_kind_or_that_leads_out_is_refused(values: dict[str, str], says: str) -> None:
    changed = dataclasses.replace(DEMO.reference_sets[0], **values)
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(DEMO, reference_sets=(changed,))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"teacher": "echo"}, "name one of the two"),
        ({"reference": None}, "name one of the two"),
        ({"reference": "absent"}, "names 'absent', which is none of the reference_sets"),
        ({"keep_truncated": True}, "nobody asked for the pairs of a reference set"),
    ],
)
def test_a_training_set_has_a_teacher_or_a_reference_set(values: dict[str, Any], says: str) -> None:
    rows = [dataclasses.replace(row, **values) if row.name == "instructions" else row for row in DEMO.training_sets]
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(DEMO, training_sets=tuple(rows))


def test_the_papers_files_are_pinned_to_commits() -> None:
    pinned = {each.name: each.revision or "" for each in studies.load("paper").reference_sets}
    assert set(pinned) == {"alpaca", "gpt-4-alpaca", "magpie"}
    assert all(len(commit) == 40 and set(commit) <= set("0123456789abcdef") for commit in pinned.values())


def test_real_alpaca_rows_are_read_one_by_one() -> None:
    path = shared("alpaca", "alpaca_en_demo.json")
    made = reference_sets.read(reference(path.parent, path.name, rows=999)).rows
    theirs = json.loads(path.read_text())
    with_input = [each for each in theirs if each["input"]]
    assert len(with_input) == 412
    assert made["response"].to_list() == [each["output"] for each in theirs]
    assert made.filter(pl.col("prompt") == f"{with_input[0]['instruction']}\n{with_input[0]['input']}").height == 1
