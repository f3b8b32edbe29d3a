"""Files are read whatever they and those beside them are called, and stay what they were while they are compared."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nift_assets import catalogue, checks
from nift_assets.differences import comparison
from nift_assets.differences.comparison import Comparison
from nift_assets.differences.states import StudyState
from nift_assets.pages.viewer import files
from nift_assets.pages.viewer.conditions import Query
from nift_assets.pages.viewer.reading import Reader
from nift_assets.steps.lineage import Partition
from tests.conftest import nift_here
from tests.demo import GRAPH
from tests.differences.small_study import Document, SmallStudy, store
from tests.pages.viewer_store import filled

# With each of these lies a file that a pattern made of its name could stand for, or that no pattern gets past.
NAMES = st.text("ab[]*?!\\{}'\" =%~$-^漢", min_size=1, max_size=10).filter(lambda name: name.strip(" ."))
HOSTILE = ("back\\slash [1]", "a[b]*c?", "it's \\*", "\\[x", "teacher=x [a-b]", "\\")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=2, max_size=3, unique=True), file=NAMES)
def test_a_file_of_any_name_is_opened_and_no_other_whatever_lies_beside_it(
    folder: Path, names: list[str], file: str
) -> None:
    paths = [folder / name / f"{file}.parquet" for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        pl.DataFrame({"n": [number]}).write_parquet(path)
    with duckdb.connect() as connection:
        for number, path in enumerate(paths):
            name = catalogue.plain(path).replace("'", "''")
            sql = f"select n from read_parquet('{name}', hive_partitioning = false)"
            assert connection.execute(sql).fetchall() == [(number,)]
            assert pl.scan_parquet(catalogue.plain(path)).collect()["n"].to_list() == [number]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_warehouse_of_any_name_is_looked_at_checked_asked_and_compared(name: str, tmp_path: Path) -> None:
    (tmp_path / "\\").mkdir(exist_ok=True)
    at = filled(str(tmp_path / name / "warehouse"))
    reader = Reader(at)
    for file in files.stored(at)["halves"]:
        listing = reader.listing([file], Query(search="plain"), wanted=1, seconds=20)
        assert reader.rows([file], listing.page(0, 1), 100)
    checked = checks.check_stored(GRAPH, at, Partition("completions", "echo"))
    assert checked.results
    environment = {"NIFT_WAREHOUSE": at.root, "NIFT_STUDY": "demo", "HOME": str(tmp_path), "PATH": ""}
    asked = nift_here("query", "select count(*) as n from demo.halves", environment=environment)
    assert (asked.returncode, asked.stderr) == (0, "")
    shutil.copytree(at.root, tmp_path / name / "copy")
    same = nift_here("diff", str(tmp_path / name / "copy"), environment=environment)
    assert (same.returncode, same.stdout[:16]) == (0, "Nothing differs ")


def test_two_states_stay_what_they_were_while_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied, stored, later = (
        SmallStudy(documents=[Document(id=f"d{n}", answer=f"and so it {ended}.") for n in range(count)])
        for count, ended in ((4, "went on"), (5, "ended"), (7, "began again"))
    )
    store(tmp_path / "copy", copied)
    store(tmp_path / "warehouse", stored)
    environment = {"NIFT_WAREHOUSE": str(tmp_path / "warehouse"), "NIFT_STUDY": "small", "HOME": str(tmp_path)}
    alone = nift_here("diff", str(tmp_path / "copy"), environment=environment)
    assert (alone.returncode, alone.stderr) == (0, "")
    assert "ended" in alone.stdout
    opened = comparison.opened

    def written_meanwhile(*states: StudyState) -> AbstractContextManager[Comparison]:
        store(tmp_path / "warehouse", later)  # a run ends between the look at the versions and that at the rows
        return opened(*states)

    monkeypatch.setattr(comparison, "opened", written_meanwhile)
    assert nift_here("diff", str(tmp_path / "copy"), environment=environment).stdout == alone.stdout
    monkeypatch.undo()
    assert "began again" in nift_here("diff", str(tmp_path / "copy"), environment=environment).stdout
