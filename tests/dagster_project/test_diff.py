"""`nift diff` as a person types it: which states there are, what is said of them, and that nothing is written."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import socket
from pathlib import Path

import pytest

from expectations import contract
from expectations.frames import conform
from nift_assets import benchmarks, studies
from nift_assets.ledger.book import Book
from nift_assets.pages.viewer import files as files_of_viewer
from nift_assets.pages.viewer import reading
from nift_assets.protocol import Message, Request
from nift_assets.store import Store
from nift_assets.table_files import version_of
from tests.conftest import nift_here
from tests.differences.small_study import SET, TEACHER, Document, SmallStudy, store, write
from tests.ledgers import SPENT, answered, play
from tests.studies.test_own_files import ANSWERED, nothing_stays, write_benchmark

BEFORE = SmallStudy(documents=[Document(id=f"d{n:02}") for n in range(12)], followed={"m": [False] * 30})
AFTER = SmallStudy(
    documents=[
        *(Document(id=f"d{n:02}") for n in range(8)),
        Document(id="d08", answer="and so\x1b[31m it ended."),
        Document(id="d09", found="2 words"),
        Document(id="d10", status="refused"),
    ],
    followed={"m": [True] * 30},
)


__all__ = ["nothing_stays"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A warehouse with the later state, and a copy of the earlier one."""
    store(tmp_path / "copy", BEFORE)
    store(tmp_path / "warehouse", AFTER)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    return kept | {"NIFT_WAREHOUSE": str(tmp_path / "warehouse"), "NIFT_STUDY": "small"}


def files(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_a_copy_is_held_against_what_is_stored_now(environment: dict[str, str], tmp_path: Path) -> None:
    before = files(tmp_path)
    ran = nift_here("diff", str(tmp_path / "copy"), environment=environment)
    assert ran.returncode == 0, ran.stderr
    said = (
        f"training_sets/{SET}: 3 rows out (1 answer refused, 1 dropped by short, 1 not in the sample), 1 row changed",
        "d08 completion: and [-so it went on.-] {+so\ufffd[31m it ended.+}",
        "m      ifeval     0.00 [0.00, 0.00]  100.00 [100.00, 100.00]  +100.00",
        "m on ifeval differs significantly",
        "Numbers made of these differ in funnel.",
        "asked           12     11      -1             -      -",
    )
    assert [each for each in said if each not in ran.stdout] == [], ran.stdout
    assert "\x1b" not in ran.stdout
    assert files(tmp_path) == before, "a comparison writes nothing"


def test_the_same_twice_is_one_sentence(environment: dict[str, str], tmp_path: Path) -> None:
    store(tmp_path / "same", AFTER)
    ran = nift_here("diff", str(tmp_path / "same"), "--exit-code", environment=environment)
    assert (ran.returncode, ran.stdout.count("\n")) == (0, 1)
    assert ran.stdout.startswith("Nothing differs between small in ")
    assert nift_here("diff", str(tmp_path / "copy"), "--exit-code", environment=environment).returncode == 1


def test_a_study_of_the_warehouse_and_a_folder_of_one_study_are_states(
    environment: dict[str, str], tmp_path: Path
) -> None:
    store(tmp_path / "warehouse", BEFORE, name="earlier")
    outputs = {
        json.dumps(json.loads(ran.stdout)["rows"])
        for first in ("earlier", str(tmp_path / "copy"), str(tmp_path / "copy" / "small"))
        if (ran := nift_here("diff", first, "small", "--json", environment=environment))
    }
    assert len(outputs) == 1


def test_every_row_that_differs_goes_into_a_file(environment: dict[str, str], tmp_path: Path) -> None:
    arguments = ("--table", "filtered_completions", "--out", str(tmp_path / "rows.csv"))
    ran = nift_here("diff", str(tmp_path / "copy"), *arguments, environment=environment)
    assert ran.stderr == f"4 rows: {tmp_path / 'rows.csv'}\n"
    with (tmp_path / "rows.csv").open() as file:
        rows = [(row["document_id"], row["change"], row["reason"]) for row in csv.DictReader(file)]
    assert rows == [
        ("d08", "changed", "another answer"),
        ("d09", "out", "dropped by short"),
        ("d10", "out", "answer refused"),
        ("d11", "out", "not in the sample"),
    ]


def test_what_each_ledger_has_paid_stands_beside_the_other(environment: dict[str, str], tmp_path: Path) -> None:
    asked = [
        (Request(provider="openai", model="m", messages=(Message(role="user", content=str(n)),)), answered("a"))
        for n in range(3)
    ]
    play(Book(f"sqlite:///{tmp_path}/copy/ledger.sqlite"), "small", TEACHER, asked[:1])
    play(Book(f"sqlite:///{tmp_path}/warehouse/ledger.sqlite"), "small", TEACHER, asked)
    ran = nift_here("diff", str(tmp_path / "copy"), "--json", environment=environment)
    dollars = json.loads(ran.stdout)["dollars"]
    assert dollars == {"before": {TEACHER: SPENT / 1e9}, "after": {TEACHER: pytest.approx(3 * SPENT / 1e9)}}
    shown = nift_here("diff", str(tmp_path / "copy"), environment=environment).stdout
    assert "echo        0.0004  0.0012  +0.0008" in shown


def test_a_folder_that_is_called_like_a_column_is_a_folder(environment: dict[str, str], tmp_path: Path) -> None:
    places = [tmp_path / "teacher=mallory" / name for name in ("copy", "warehouse")]
    for place, study in zip(places, (BEFORE, AFTER), strict=True):
        store(place, study)
    environment |= {"NIFT_WAREHOUSE": str(places[1])}
    ran = nift_here("diff", str(places[0]), environment=environment)
    assert f"training_sets/{SET}: 3 rows out (1 answer refused, 1 dropped by short, 1 not in the sample)" in ran.stdout
    asked = nift_here("query", "select distinct teacher from completions", "--csv", environment=environment)
    assert asked.stdout.split() == ["teacher", TEACHER], asked.stderr
    reader = reading.Reader(Store(root=str(places[1]), study="small"))
    (file,) = files_of_viewer.of_table(reader.store, "completions")
    assert reader.select(file, "select distinct teacher from this") == [(TEACHER,)]


def test_no_name_and_no_word_of_a_copy_is_an_order_to_the_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    order = "\x1b]0;title\x07\x9b2J"
    copy = store(tmp_path / "copy", dataclasses.replace(BEFORE, documents=[Document(id=f"{order}d", found=order)]))
    (place,) = copy.folder("completions").glob("*.parquet")
    place.rename(place.with_stem(f"other{order}"))
    named = nift_here("diff", str(tmp_path / "copy"), environment=environment)
    assert named.returncode == 1, "the file says that it is another partition"
    place.with_stem(f"other{order}").unlink()
    write(copy, "reviews", None, [{"document_id": "d", "teacher": order}])
    write(copy, "funnel", None, [{"teacher": order, "place": 1, "step": order, "kept": 1}])
    ran = nift_here("diff", str(tmp_path / "copy"), "--table", "short_removals", environment=environment)
    whole = nift_here("diff", str(tmp_path / "copy"), environment=environment)
    for said in (named.stderr, ran.stdout, whole.stdout):
        assert "\ufffd]0;title" in said
        assert [sign for sign in "\x1b\x07\x9b" if sign in said] == []


@pytest.mark.usefixtures("nothing_stays")
def test_a_benchmark_of_ones_own_is_compared_and_what_has_no_contract_is_named(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    study = studies.load(str(write_benchmark(tmp_path / "study")))
    answers = benchmarks.load("capitals").answers(study.benchmark("capitals"), "m", ANSWERED).rows
    rows = conform(answers, contract.load("capitals_answers"))
    for name, kept in (("copy", rows.head(1)), ("warehouse", rows)):
        to = Store(root=str(tmp_path / name), study="measured")
        to.write("capitals_answers", "m", kept, version_of(kept, inputs="made here"))
        to.write("sightings", None, kept, version_of(kept, inputs="made here"))
    own = environment | {"NIFT_STUDY": str(tmp_path / "study" / "measured.py")}
    found = json.loads(nift_here("diff", str(tmp_path / "copy" / "measured"), "--json", environment=own).stdout)
    assert [row["table"] for row in found["rows"]] == ["capitals_answers"]
    assert {score["benchmark"] for score in found["scores"]} == {"capitals"}
    assert found["not_compared"] == ["sightings"]
    shown = nift_here("diff", str(tmp_path / "copy" / "measured"), environment=own).stdout
    assert "Not compared, for want of a contract: sightings" in shown


def test_a_ledger_that_is_away_is_one_line_whatever_asks_it(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        environment |= {"NIFT_LEDGER_URL": f"postgresql+psycopg://me:not-to-be-seen@127.0.0.1:{port}/ledger"}
        for command in (("diff", str(tmp_path / "copy")), ("ledger",)):
            ran = nift_here(*command, environment=environment)
            assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1), ran.stderr
            assert ran.stderr.startswith("error: the ledger cannot be reached (connection failed")
            assert "not-to-be-seen" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["smal"], "there is no study and no folder 'smal'; did you mean 'small'?"),
        (["small"], "is one state; name a copy"),
        (["nothing"], "the warehouse holds small"),
        (["{tmp}"], "holds the studies copy, warehouse"),
        (["{tmp}/empty"], "is a folder without tables"),
        (["s3://bucket/nift"], "is no folder of this machine"),
        (["hf://datasets/me"], "name it hf://datasets/owner/name@revision"),
        (["{tmp}/copy", "--table", "halfs"], "neither state has a table 'halfs'; did you mean 'halves'?"),
        (["{tmp}/copy", "--out", "{tmp}/rows.xls"], "let it end with .csv"),
        (["{tmp}/copy", "--out", "{tmp}/warehouse/rows.csv"], "lies among the tables"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    arguments: list[str], says: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    ran = nift_here("diff", *(each.format(tmp=tmp_path) for each in arguments), environment=environment)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert says in ran.stderr


def test_of_a_warehouse_with_several_studies_it_is_the_active_one(environment: dict[str, str], tmp_path: Path) -> None:
    store(tmp_path / "copy", AFTER, name="another")
    ran = nift_here("diff", str(tmp_path / "copy"), environment=environment)
    assert f"before: small in {tmp_path / 'copy'}" in ran.stdout
    neither = nift_here("diff", str(tmp_path / "copy"), environment=environment | {"NIFT_STUDY": "demo"})
    assert "holds the studies another, small, and not 'demo'" in neither.stderr


def test_a_damaged_file_is_named_with_its_remedy(environment: dict[str, str], tmp_path: Path) -> None:
    path = Store(root=str(tmp_path / "copy"), study="small").path("halves", None)
    path.write_bytes(path.read_bytes()[:-50])
    ran = nift_here("diff", str(tmp_path / "copy"), environment=environment)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert f"{path} is damaged" in ran.stderr
