"""Every kind of file that is stored, injured in every way, and every command that looks: it goes on, or ends in one
line that names the file."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from nift_assets.pages.viewer import links
from nift_assets.store import Store
from tests.conftest import Demo, nift_here
from tests.demo import STUDY
from tests.pages.viewer_store import application

# By its kind where a file lies below the folder of a warehouse and its Dagster instance.
FILES = {
    "a table": "warehouse/demo/halves.parquet",
    "a partition": "warehouse/demo/completions/echo.parquet",
    "the row of an adapter": "warehouse/demo/lora_adapters/*.parquet",
    "an adapter": "warehouse/demo/lora_adapters/*/*/adapter_model.safetensors",
    "a manifest": "warehouse/demo/merged_models/*/*/manifest.json",
    "a merged model": "warehouse/demo/merged_models/*/*/model.safetensors",
    "a note of inputs": "warehouse/demo/merged_models/*/.*.inputs",
    "a training file": "warehouse/demo/training_files/*/*/alpaca.jsonl",
    "the report": "warehouse/demo/report.html",
    "failing rows": "warehouse/demo/.failing/completions/*/*.parquet",
    "reviews": "warehouse/demo/reviews.parquet",
    "the ledger": "warehouse/ledger.sqlite",
    "the ledger's mark": "warehouse/ledger.sqlite.mark",
    "the catalogue": "warehouse/nift.duckdb",
    "the index of runs": "home/history/runs/index.db",
    "the events of a run": "home/history/runs/*-*.db",
    "the runs": "home/history/runs.db",
    "the schedules": "home/schedules/schedules.db",
}


def missing(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def flipped(file: Path) -> None:
    chance, content = random.Random(file.name), bytearray(file.read_bytes())
    for _ in range(8):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def anothers(file: Path) -> None:
    """The file of the same name or end that lies nearest, or what is no file of this kind at all."""
    others = [other for other in sorted(file.parent.parent.rglob(f"*{file.suffix}")) if other != file]
    shutil.copyfile(others[0] if others else __file__, file)


def forged_end(file: Path) -> None:
    """What most formats look at first."""
    file.write_bytes(file.read_bytes()[:-16] + b"\xff" * 16)


INJURIES = (missing, empty, cut, zeroed, flipped, anothers, forged_end)


@dataclass(frozen=True)
class Said:
    """How a command has ended, and what it said then."""

    status: int
    line: str


def by_command(*words: str) -> Callable[[Demo], Said]:
    def read(demo: Demo) -> Said:
        ran = nift_here(*words, environment=demo.environment())
        return Said(ran.returncode, ran.stderr)

    return read


def by_look(demo: Demo) -> Said:
    client = TestClient(application(Store(root=str(demo.warehouse), study=STUDY.name)))
    for path in (links.ROOT, links.pairs(), links.table("completions"), links.table("lora_adapters"), links.rejects()):
        assert client.get(path).status_code in (200, 404, 500)
    return Said(0, "")


READERS: Mapping[str, Callable[[Demo], Said]] = {
    "plan": by_command("plan"),
    "coverage": by_command("coverage"),
    "query": by_command("query", "select count(*) from halves, completions"),
    "docs": by_command("docs", "--out", os.devnull),
    "ledger": by_command("ledger"),
    "check": by_command("check", "completions"),
    "look": by_look,
}
ALL = [(kind, injury, reader) for kind in FILES for injury in INJURIES for reader in READERS]
# Every kind once, and every injury and every reader several times.
QUICK = {
    (kind, INJURIES[place % len(INJURIES)], list(READERS)[place * 3 % len(READERS)]) for place, kind in enumerate(FILES)
}


@pytest.fixture(scope="module")
def own(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return demo.copy(tmp_path_factory.mktemp("injured"))


@contextmanager
def injured(demo: Demo, kind: str, injury: Callable[[Path], None]) -> Iterator[Path]:
    """One file of a kind with its injury, which is healed again behind the block."""
    root = demo.warehouse.parent
    file = next(iter(sorted(root.glob(FILES[kind]))))
    beside = [path for path in root.rglob(f"{file.name}*") if path.parent == file.parent and path.is_file()]
    kept = {path: (path.read_bytes(), path.stat().st_mode) for path in beside}
    file.chmod(0o644)
    injury(file)
    try:
        yield file
    finally:
        _heal(file, root, kept)


def _heal(file: Path, root: Path, kept: Mapping[Path, tuple[bytes, int]]) -> None:
    for path in root.rglob(f"{file.name}*"):
        if path.parent == file.parent and path.is_file() and path not in kept:
            path.unlink()
    for path, (content, mode) in kept.items():
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)


@pytest.mark.fault("S4", "S15", "S18")
@pytest.mark.parametrize(
    ("kind", "injury", "reader"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in ALL],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_who_looks_goes_on_or_names_the_injured_file(
    kind: str, injury: Callable[[Path], None], reader: str, own: Demo
) -> None:
    with injured(own, kind, injury) as file:
        said = READERS[reader](own)
    assert "Traceback" not in said.line
    if said.status:
        assert said.line.count("\n") == 1
        assert file.name in said.line or file.stem in said.line.split()
