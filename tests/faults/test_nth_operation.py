"""Whichever operation on the disk fails: what is read is the old or the new, never a half, and the line says where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.counting import Counts
from tests.faults import shim
from tests.faults.nth_operation import KINDS

# Those that are quick, and how many operations are left out between two that fail; the others import a great deal.
QUICK = {"table": 4, "page": 2, "folder": 2, "resumed": 3, "ledger": 8}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = shim.build(tmp_path_factory.mktemp("shim"))
    if built is None:
        pytest.skip("there is no C compiler to build the shim with")
    return built


@pytest.mark.fault("S1", "S2", "S3")
@pytest.mark.parametrize(
    ("kind", "stride"),
    [
        *(pytest.param(kind, stride, id=f"{kind}, some") for kind, stride in QUICK.items()),
        *(pytest.param(kind, 1, id=kind, marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_whichever_operation_fails_nothing_half_is_believed(
    kind: str, stride: int, library: Path, tmp_path: Path, counts: Counts
) -> None:
    command = [sys.executable, "-m", "tests.faults.nth_operation", kind, str(tmp_path / "work"), str(stride)]
    environment = {**os.environ, "LD_PRELOAD": str(library), "TMPDIR": str(tmp_path), "RUST_BACKTRACE": "0"}
    ran = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    counted = json.loads(ran.stdout.splitlines()[-1])
    assert counted["failed"] > 0
    counts(
        "S3",
        f"{kind}: {counted['operations']} operations failed, by ENOSPC or EIO: 0 halves",
    )
