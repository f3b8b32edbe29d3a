"""`nift ask`: a teacher's portions asked by several processes beside each other, which may be killed at any moment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import NIFT, PROJECT, nift, nift_here
from tests.counting import Counts
from tests.ledger.scripted import Reply, Scripted, chat, serving

DOCUMENTS, PORTION = 60, 6
STUDY = """
from nift_assets.studies import Corpus, Limits, Study, Teacher

STUDY = Study(
    name="mine",
    title="Mine",
    corpus=Corpus(name="mine", location={articles!r}, licence="mine"),
    teachers=(
        Teacher(
            name="t", provider="openai", model="m", base_url={url!r}, max_tokens=64, limits=Limits(in_flight={most})
        ),
    ),
)
"""


def going_on(text: str, number: int) -> Reply:
    time.sleep(0.05)
    return chat(f" and so on from {text[-20:]!r}.", prompt=2 * len(text.split()))


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with serving(going_on) as running:
        yield running


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Halved articles, and a study whose teacher has not been asked."""
    folder = tmp_path_factory.mktemp("halved")
    texts = [f"Article {n} of the harbour and its boats. " * 9 for n in range(DOCUMENTS)]
    (folder / "articles.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    write_study(folder / "mine.py", folder, "http://127.0.0.1:1/v1")
    assert nift("run", "halves", environment=environment_of(folder, folder / "mine.py")).returncode == 0
    return folder


def write_study(file: Path, halved: Path, url: str, most: int = 8) -> None:
    file.write_text(STUDY.format(articles=str(halved / "articles.jsonl"), url=url, most=most))


def environment_of(folder: Path, study: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    return ours | {
        "NIFT_WAREHOUSE": str(folder / "warehouse"),
        "DAGSTER_HOME": str(folder / "home"),
        "NIFT_STUDY": str(study),
        "NIFT_PORTION": str(PORTION),
    }


def copied(halved: Path, folder: Path, study: Path) -> dict[str, str]:
    for name in ("warehouse", "home"):
        shutil.copytree(halved / name, folder / name)
    return environment_of(folder, study)


@pytest.fixture
def environment(tmp_path: Path, halved: Path, server: Scripted) -> dict[str, str]:
    """The teacher at a server that answers."""
    write_study(tmp_path / "mine.py", halved, f"{server.url}/v1")
    server.asked.clear()
    return copied(halved, tmp_path, tmp_path / "mine.py")


@pytest.mark.fault("T28", runs="`nift ask`, two at once, one of them killed")
def test_killed_processes_portions_are_finished_by_others_and_the_table_is_the_same_bytes(
    environment: dict[str, str], server: Scripted, halved: Path, tmp_path: Path, counts: Counts
) -> None:
    chance, quiet = random.Random(7), {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    going = [subprocess.Popen([NIFT, "ask"], env=environment, cwd=PROJECT, **quiet) for _ in range(2)]  # type: ignore[call-overload]
    for point in (12,):
        while server.asked.total() < point:
            time.sleep(0.01)
        killed = going.pop(chance.randrange(len(going)))
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
        going.append(subprocess.Popen([NIFT, "ask"], env=environment, cwd=PROJECT, **quiet))  # type: ignore[call-overload]
    said = [process.communicate(timeout=120) for process in going]
    assert [process.returncode for process in going] == [0, 0], said
    assert all("Nothing is left to ask. The table: nift run completions --partition t" in out for out, _ in said)
    with closing(sqlite3.connect(Path(environment["NIFT_WAREHOUSE"], "ledger.sqlite"))) as ledger:
        unknown = ledger.execute("select count(*) from attempts where state = 'unknown'").fetchone()[0]
    # What was in flight at a kill is asked once more, and no more than that.
    assert DOCUMENTS <= server.asked.total() <= DOCUMENTS + unknown
    assert max(server.asked.values()) <= 3
    before = server.asked.total()
    made = nift_here("run", "completions", "--partition", "t", environment=environment)
    assert (made.returncode, server.asked.total()) == (0, before), made.stderr
    # In another warehouse, by one process and in one portion.
    (tmp_path / "other").mkdir()
    other = copied(halved, tmp_path / "other", tmp_path / "mine.py")
    del other["NIFT_PORTION"]
    assert nift_here("run", "completions", "--partition", "t", environment=other).returncode == 0
    tables = [Path(root["NIFT_WAREHOUSE"], "mine", "completions", "t.parquet") for root in (environment, other)]
    assert tables[0].read_bytes() == tables[1].read_bytes()
    counts(
        "T28",
        f"nift ask: 1 of 2 killed at {DOCUMENTS // PORTION} portions: {before - DOCUMENTS} asked twice, the same bytes",
    )


def test_some_portions_are_asked_and_no_others(environment: dict[str, str], server: Scripted, tmp_path: Path) -> None:
    refused = nift_here("ask", environment=environment | {"NIFT_WAREHOUSE": str(tmp_path / "empty")})
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "not made or out of date: nift run halves" in refused.stderr
    some = nift_here("ask", "t", "--portions", "2-3", environment=environment)
    assert (some.returncode, server.asked.total()) == (0, 2 * PORTION), some.stderr
    assert some.stdout.startswith(f"{2 * PORTION} asked here for $0.00")
    again = nift_here("ask", "t", "--portions", "2", environment=environment)
    assert again.stdout.startswith("0 asked here")
    for wrong in ("0", "3-2", "11", "x", "1-11", "-1"):
        refused = nift_here("ask", "t", f"--portions={wrong}", environment=environment)
        assert refused.returncode == 1
        assert refused.stderr.count("\n") == 1
        assert "give one, as 1, or several, as 1-10" in refused.stderr
    refused = nift_here("ask", "nobody", environment=environment)
    assert (refused.returncode, "the study has no row 'nobody'" in refused.stderr) == (1, True)
    refused = nift_here("ask", environment=environment | {"NIFT_PORTION": "0"})
    assert (refused.returncode, "NIFT_PORTION is '0'" in refused.stderr) == (1, True)


def test_a_first_portion_that_nobody_can_use_keeps_the_rest_from_being_asked(
    environment: dict[str, str], halved: Path
) -> None:
    with serving(refusing_most) as server:
        write_study(Path(environment["NIFT_STUDY"]), halved, f"{server.url}/v1", most=2)
        stopped = nift_here("ask", environment=environment)
    assert stopped.returncode == 5
    assert "rows fail most_are_answered, and at most 20% may; the rest is not asked" in stopped.stderr
    assert server.asked.total() < DOCUMENTS


def refusing_most(text: str, number: int) -> Reply:
    if sum(text.encode()) % 5:
        return 400, {"error": {"message": "not this text", "type": "invalid_request_error"}}
    return chat(prompt=2 * len(text.split()))
