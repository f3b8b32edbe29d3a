"""The `nift` command as a person types it: what it says of itself, and the one line it says of a mistake."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from dagster_project.command_line import study
from nift_assets import studies
from nift_assets.store import Store
from nift_assets.studies.demo import STUDY
from nift_assets.table_files import version_of
from nift_training.artifacts import verify
from tests.conftest import NIFT, PROJECT, Demo, nift, nift_here

TEXTS = [f"Article {i} goes on for several words, and then some more of them." for i in range(4)]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A warehouse and a Dagster instance of the test's own, neither of them made yet, and no study chosen."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    return ours | {"NIFT_WAREHOUSE": str(tmp_path / "warehouse"), "DAGSTER_HOME": str(tmp_path / "home")}


def articles(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "articles.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return folder / "articles.jsonl"


def tables(environment: dict[str, str]) -> list[str]:
    """Everything under the warehouse but the locks, which are empty."""
    warehouse = Path(environment["NIFT_WAREHOUSE"])
    return sorted(str(path) for path in warehouse.rglob("*") if not path.name.endswith(".lock"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], ["demo", "ui", "articles in, checked data"]),
        (["demo"], ["--corpus", "--text-column", "--documents", "--fresh", "paid answers are kept"]),
        (["ui"], ["--corpus", "--port", "this machine only"]),
    ],
)
def test_help_names_every_option_and_imports_nothing_heavy(
    arguments: list[str], says: list[str], environment: dict[str, str]
) -> None:
    helped = nift(*arguments, "--help", environment={**environment, "PYTHONPROFILEIMPORTTIME": "1"})
    assert helped.returncode == 0
    assert [words for words in says if words not in " ".join(helped.stdout.split())] == []
    imported = {line.rpartition("|")[2].strip() for line in helped.stderr.splitlines()}
    assert "dagster_project.command_line" in imported
    assert imported & {"dagster", "great_expectations", "torch", "transformers"} == set()
    assert not Path(environment["DAGSTER_HOME"]).exists()


def missing(folder: Path) -> dict[str, str]:
    return {"corpus": str(folder / "nothing.parquet")}


def nothing_readable(folder: Path) -> dict[str, str]:
    (folder / "letters").mkdir()
    (folder / "letters" / "a.docx").write_bytes(b"PK")
    return {"corpus": str(folder / "letters")}


def no_documents(folder: Path) -> dict[str, str]:
    return {"corpus": str(articles(folder)), "documents": "0"}


def half_a_document(folder: Path) -> dict[str, str]:
    return {"corpus": str(articles(folder)), "documents": "0.5"}


def no_corpus(folder: Path) -> dict[str, str]:
    return {"documents": "4"}


def no_text_column(folder: Path) -> dict[str, str]:
    pl.DataFrame({"body": TEXTS}).write_parquet(folder / "articles.parquet")
    return {"corpus": str(folder / "articles.parquet")}


def cut_short(folder: Path) -> dict[str, str]:
    pl.DataFrame({"text": TEXTS}).write_parquet(folder / "articles.parquet")
    whole = (folder / "articles.parquet").read_bytes()
    (folder / "articles.parquet").write_bytes(whole[:-50])
    return {"corpus": str(folder / "articles.parquet")}


def unknown_study(folder: Path) -> dict[str, str]:
    return {"NIFT_STUDY": "papr"}


def unknown_scheme(folder: Path) -> dict[str, str]:
    return {"corpus": "gopher://nobody/nothing"}


def warehouse_is_a_file(folder: Path) -> dict[str, str]:
    return {"NIFT_WAREHOUSE": str(articles(folder))}


def warehouse_cannot_be_made(folder: Path) -> dict[str, str]:
    return {"NIFT_WAREHOUSE": "/proc/nift"}


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (missing, "nothing.parquet: no such file"),
        (nothing_readable, "letters: no such file, and no folder or pattern with files in it of the kinds .parquet"),
        (no_documents, "NIFT_DOCUMENTS is '0'; give the number of documents to sample, 1 or more"),
        (half_a_document, "NIFT_DOCUMENTS is '0.5'; give the number of documents to sample, 1 or more"),
        (no_corpus, "a number of documents or what to cut at is given without a corpus"),
        (no_text_column, "articles.parquet: there is no column 'text'"),
        (cut_short, "articles.parquet: cannot be read to its end"),
        (unknown_study, "there is no study 'papr'; NIFT_STUDY can be one of: demo, paper, today"),
        (unknown_scheme, "gopher://nobody/nothing: cannot be listed"),
        (warehouse_is_a_file, "articles.jsonl"),
        (warehouse_cannot_be_made, "/proc/nift"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_made(
    mistake: Callable[[Path], dict[str, str]], says: str, environment: dict[str, str], tmp_path: Path
) -> None:
    given = mistake(tmp_path)
    options = [text for name in ("corpus", "documents") if name in given for text in (f"--{name}", given[name])]
    variables = {name: value for name, value in given.items() if name.startswith("NIFT_")}
    # One of them as a process: there it is the only line that anything writes.
    run = nift if mistake is missing else nift_here
    refused = run("demo", *options, environment=environment | variables)
    assert refused.returncode == 1
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert tables(environment) == []


def test_a_full_disk_is_refused_before_anything_is_made(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "DEMO_BYTES", 2**80)
    refused = nift_here("demo", environment=environment)
    assert refused.returncode == 1
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {environment['NIFT_WAREHOUSE']}: ")
    assert "MB are free" in line
    assert "set NIFT_WAREHOUSE to a folder on a larger disk" in line
    assert tables(environment) == []


def test_own_documents_are_a_study_of_their_own(tmp_path: Path) -> None:
    """Two files of one name and the demo itself: three names, so three folders, schemas and locks in one warehouse."""
    own = {
        studies.on_own_documents(STUDY, str(articles(tmp_path / folder)), text_column="text", documents=4).name
        for folder in ("a", "b")
    }
    names = own | {STUDY.name}
    assert len(names) == 3
    store = {name: Store(root=str(tmp_path / "warehouse"), study=name) for name in names}
    assert len({store[name].path("halves", None) for name in names}) == 3
    assert len({store[name].folder("report.html") for name in names}) == 3


def test_the_sample_size_and_the_column_update_a_study_in_place(tmp_path: Path) -> None:
    location = str(articles(tmp_path))
    few = studies.on_own_documents(STUDY, location, text_column="text", documents=4)
    all_of_them = studies.on_own_documents(STUDY, location, text_column="body", documents=None)
    assert few.name == all_of_them.name
    assert few.corpus != all_of_them.corpus


@pytest.mark.slow
def test_a_line_on_own_documents_leaves_the_demos_tables_as_they_were(
    environment: dict[str, str], tmp_path: Path
) -> None:
    demos = Store(root=environment["NIFT_WAREHOUSE"], study=STUDY.name)
    rows = pl.DataFrame({"a": [1]})
    demos.write("halves", None, rows, version_of(rows, "i"))
    before = {path: path.stat().st_mtime_ns for path in demos.folder().rglob("*")}
    ran = nift("demo", "--corpus", str(articles(tmp_path)), "--documents", "4", environment=environment)
    assert ran.returncode == 0, ran.stderr
    assert {path: path.stat().st_mtime_ns for path in demos.folder().rglob("*")} == before


def in_session(leader: int) -> Iterator[str]:
    """The commands of a session that are still running; one that has ended and waits to be reaped is not."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = status.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                yield (status.parent / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it ended meanwhile


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for what is left among the processes of /proc")
def test_ctrl_c_stops_everything_within_seconds_and_leaves_nothing_half_written(demo: Demo, tmp_path: Path) -> None:
    """Pressed while models are being trained, which is in processes of processes: all else is there already."""
    copied = demo.copy(tmp_path)
    adapters = copied.warehouse / "demo" / "lora_adapters"
    shutil.rmtree(adapters / "pico.original")
    (adapters / "pico.original.parquet").unlink()
    environment, printed = copied.environment(), tmp_path / "printed"
    with printed.open("w") as file:
        running = subprocess.Popen(
            [NIFT, "demo"], env=environment, cwd=PROJECT, stdout=file, stderr=file, start_new_session=True
        )
    while "… adapter pico.original" not in printed.read_text():
        assert running.poll() is None, printed.read_text()
        time.sleep(0.1)
    # The process that imports what verbs need, and its fork that is one of them.
    while sum("nift_training.warm" in command for command in in_session(running.pid)) < 2:
        assert running.poll() is None, printed.read_text()
        time.sleep(0.1)
    os.killpg(running.pid, signal.SIGINT)
    began = time.monotonic()
    assert running.wait(timeout=30) != 0
    print(f"stopped after {time.monotonic() - began:.1f} s")
    while list(in_session(running.pid)):  # Python's own resource tracker goes a moment after those it served
        assert time.monotonic() - began < 30, list(in_session(running.pid))
        time.sleep(0.1)
    # What was finished in the very moment is whole, and taken over by the next run.
    for folder in copied.warehouse.rglob("making"):
        verify(folder)
    assert [name for name in tables(environment) if "partial" in name and "making/" not in name] == []
