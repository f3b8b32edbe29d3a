"""The page of faults is what its script makes of the marks, and no row is without a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import promises


def test_the_page_is_what_its_script_makes() -> None:
    assert promises.PAGE.read_text() == promises.page(), "run `make faults`"


def test_a_test_is_marked_with_rows_that_there_are() -> None:
    known = {row.id for row in promises.rows()}
    assert [proof for proof in promises.proofs() if proof.row not in known] == []


def test_every_row_has_a_test_that_proves_it_and_a_promise_that_there_is() -> None:
    proven = {proof.row for proof in promises.proofs()}
    assert {row.id for row in promises.rows()} == proven
    named = {word for row in promises.rows() for word in row.promise.replace(";", ",").split(", ") if word[:1] == "P"}
    assert {word for word in named if word[1:].isdigit()} <= set(promises.promises())


def test_marks_are_read_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text("""
import pytest
pytestmark = [pytest.mark.slow, pytest.mark.fault("T1")]

@pytest.mark.fault("T2", "T3", runs="2 kills")
def test_a(): ...

@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.fault("S1"))])
async def test_b(n): ...

@pytest.mark.fault("S2")
def helper(): ...
""")
    (tmp_path / "test_two.py").write_text("""
import pytest

@pytest.mark.parametrize("n", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.fault("S3")
def test_c(n): ...

@pytest.mark.fault("E2")
def test_d():
    open(shared("mt_bench"))
""")
    found = [(proof.name, proof.row, proof.slow, proof.longer, proof.runs) for proof in promises.proofs(tmp_path)]
    assert [proof.name for proof in promises.proofs(tmp_path) if proof.real_files] == ["test_d"]
    assert found == [
        ("test_a", "T2", True, False, "2 kills"),
        ("test_a", "T3", True, False, "2 kills"),
        ("test_a", "T1", True, False, ""),
        ("test_b", "S1", True, False, ""),
        ("test_b", "T1", True, False, ""),
        ("test_c", "S3", False, True, ""),
        ("test_d", "E2", False, False, ""),
    ]


def test_a_mark_says_which_row(pytestconfig: pytest.Config) -> None:
    assert any(line.startswith("fault(") for line in pytestconfig.getini("markers"))
