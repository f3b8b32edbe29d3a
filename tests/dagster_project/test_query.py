"""`nift query`: all rows into a pipe or a file, some on a terminal, as formats that others read."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
from decimal import Decimal
from pathlib import Path

import duckdb
import polars as pl
import pytest

from nift_assets.store import Store
from nift_assets.table_files import version_of
from tests.conftest import NIFT, PROJECT, nift_here

ROWS = pl.DataFrame(
    {
        "document_id": [f"d{n}" for n in range(60)],
        "text": ['a,"b"\nc', "漢字 \x1b[31mred", "", None, *["word " * 1_000] * 56],
        "score": [1.5, float("nan"), float("inf"), None, *[0.25] * 56],
    }
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("warehouse")
    store = Store(root=str(root), study="demo")
    store.write("halves", None, ROWS, version_of(ROWS, inputs="made here"))
    return {"NIFT_WAREHOUSE": str(root), "PATH": os.environ["PATH"], "HOME": str(root)}


def test_every_row_goes_into_a_pipe_as_csv_and_as_json_that_others_read(environment: dict[str, str]) -> None:
    as_csv = nift_here("query", "from demo.halves", environment=environment)
    read = list(csv.DictReader(io.StringIO(as_csv.stdout, newline="")))
    assert [row["text"] for row in read] == [text or "" for text in ROWS["text"]]
    assert as_csv.stdout.count('d2,"",inf') == 1, "an empty text is not null"
    listed = json.loads(nift_here("query", "from halves", "--json", environment=environment).stdout, parse_constant=str)
    assert [row["text"] for row in listed] == ROWS["text"].to_list()
    assert [row["score"] for row in listed[:5]] == [1.5, None, None, None, 0.25], "JSON has no NaN"
    lines = nift_here("query", "from halves", "--jsonl", environment=environment).stdout.splitlines()
    assert [json.loads(line) for line in lines] == listed


def test_types_that_json_cannot_have_are_as_near_as_it_can(environment: dict[str, str]) -> None:
    asked = r"""select 0.12345678901234567890::decimal(38, 20) as d, timestamp '2026-01-02 03:04:05' as t,
        '\xAA'::blob as b, [{'x y': 'nan'::double, 'q"': 1}, null] as n, map {1: '-inf'::float} as m,
        ['\xAA'::blob] as l, interval 2 days as i, null as v, 2::hugeint ** 100 as f, [[1.5], []] as ll"""
    said = nift_here("query", asked, "--json", environment=environment).stdout
    assert '"d":0.12345678901234567890,' in said
    (row,) = json.loads(said, parse_constant=pytest.fail)
    assert row["n"] == [{"x y": None, 'q"': 1}, None]
    assert (row["t"], row["b"], row["m"], row["l"]) == ("2026-01-02 03:04:05", "qg==", {"1": None}, ["qg=="])
    assert (row["i"], row["v"], row["ll"]) == ("2 days", None, [[1.5], []])
    (cells,) = csv.DictReader(io.StringIO(nift_here("query", asked, environment=environment).stdout))
    assert json.loads(cells["n"]) == row["n"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ([" ; -- nothing"], "there is no statement"),
        (["select 1; select 2"], "2 of the statements give rows"),
        (["select 1 as a, 2 as a"], "two columns are named 'a'"),
        (["select 1", "--parquet"], "say which with --out FILE"),
        (["select 1", "--out", "rows.xls"], "let it end with .csv"),
        (["from demo.halvs"], "Did you mean"),
    ],
)
def test_what_cannot_be_answered_is_one_line(asked: list[str], says: str, environment: dict[str, str]) -> None:
    ran = nift_here("query", *asked, environment=environment)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert says in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_a_file_is_written_whole_or_not_at_all_and_never_among_the_tables(
    environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "rows.parquet"
    assert nift_here("query", "from halves", "--out", str(out), environment=environment).returncode == 0
    assert pl.read_parquet(out).equals(ROWS)
    failing = "select if(range = 50000, error('here'), range) as n from range(100000)"
    for name in ("rows.parquet", "rows.csv", "rows.json"):
        ran = nift_here("query", failing, "--out", str(tmp_path / name), environment=environment)
        assert ran.returncode == 1
        assert "here" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]
    assert pl.read_parquet(out).equals(ROWS)
    among = Path(environment["NIFT_WAREHOUSE"], "demo", "mine.csv")
    ran = nift_here("query", "from halves", "--out", str(among), environment=environment)
    assert "lies among the tables" in ran.stderr
    assert not among.exists()


@pytest.mark.parametrize(
    ("value", "kind", "read"),
    [
        ("1::hugeint << 100", "DECIMAL(38,0)", Decimal(2**100)),
        ("1.5::decimal(10, 2)", "DECIMAL(10,2)", Decimal("1.50")),
        ("[interval 1 day]", "VARCHAR", "[1 day]"),
        ("union_value(a := 1)", "VARCHAR", "1"),
        ("'101'::bit", "VARCHAR", "101"),
        ("map {'a': [1, 2]}", "MAP(VARCHAR, INTEGER[])", {"a": [1, 2]}),
        ("'a'::blob", "BLOB", b"a"),
    ],
)
def test_a_parquet_file_has_the_types_and_as_text_what_has_none_there(
    value: str, kind: str, read: object, environment: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "types.parquet"
    ran = nift_here("query", f'select {value} as "a ""b"', "--out", str(out), environment=environment)
    assert ran.returncode == 0, ran.stderr
    with duckdb.connect() as connection:
        rows = connection.read_parquet(str(out))
        assert ([str(type) for type in rows.types], rows.columns) == ([kind], ['a "b'])
        assert rows.fetchall() == [(read,)]


def test_a_query_that_fails_midway_never_waits_for_ever(environment: dict[str, str], tmp_path: Path) -> None:
    failing = "select if(range = 50000, error('here'), range) as n from range(100000)"
    for _ in range(30):
        ran = nift_here("query", failing, "--out", str(tmp_path / "rows.parquet"), environment=environment)
        assert (ran.returncode, "here" in ran.stderr) == (1, True)


def test_a_terminal_is_told_how_many_rows_there_are_and_gets_no_control_characters(environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    command = [NIFT, "query", "from halves; from range(20000)"]
    with subprocess.Popen(command, env={**environment, "COLUMNS": "80"}, stdout=theirs, cwd=PROJECT) as process:
        os.close(theirs)
        said = b""
        while part := read(ours):
            said += part
    os.close(ours)
    assert process.returncode == 0
    lines = said.decode().splitlines()
    assert "60 rows, 40 shown; all of them: --csv, --json or --out FILE" in lines
    assert "20,000 rows, the first 40 shown; all of them: --csv, --json or --out FILE" in lines
    assert max(map(len, lines)) <= 80
    assert b"\x1b" not in said


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def test_a_pipe_that_is_closed_is_quiet_however_many_rows_there_are(environment: dict[str, str]) -> None:
    asked = "select range as n, repeat('text ', 200) as text from range(1000000)"
    with subprocess.Popen(
        [NIFT, "query", asked], env=environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        first = process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert (first, said) == (b"n,text\n", b"")
