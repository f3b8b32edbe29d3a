"""`nift new` and `nift preview`: from articles and a server to a study and its first pairs, and what is refused."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from nift_assets import corpus as corpora
from nift_assets import studies
from nift_assets.corpus import halves
from nift_assets.ledger.book import Book
from nift_assets.new_study import corpus as looking
from nift_assets.prompts import completions
from tests.conftest import NIFT, PROJECT, nift, nift_here
from tests.ledger.scripted import Reply, Scripted, chat, serving

TEXTS = [
    f"Article {number} tells of the harbour, where the boats come in with the morning tide. " * 12
    for number in range(8)
]


def going_on(text: str, number: int) -> Reply:
    return chat(f" and so on from {text[-10:]!r}.", prompt=2 * len(text.split()))


@pytest.fixture(scope="module")
def server() -> Iterator[Scripted]:
    with serving(going_on, models=["my-model"]) as running:
        yield running


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("NIFT_")}
    return ours | {"NIFT_WAREHOUSE": str(tmp_path / "warehouse"), "DAGSTER_HOME": str(tmp_path / "home")}


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    """A file with more columns than the text, of which some rows are no use."""
    rows = [{"url": f"https://a.example/{n}", "headline": "Harbour", "body": text} for n, text in enumerate(TEXTS)]
    rows += [{"url": "twice", "headline": "Harbour", "body": TEXTS[0]}, {"url": "x", "headline": "x", "body": None}]
    rows += [{"url": "one", "headline": "One", "body": "Word"}]
    (tmp_path / "articles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "articles.jsonl"


def test_articles_and_a_server_are_a_study_by_one_command(
    tmp_path: Path, environment: dict[str, str], articles: Path, server: Scripted
) -> None:
    file = tmp_path / "mine.py"
    # The address without /v1, and no model: the server lists one.
    url = server.url
    made = nift_here(
        "new", "mine", "--corpus", str(articles), "--base-url", url, "--out", str(file), environment=environment
    )
    assert (made.returncode, made.stderr) == (0, "")
    study = studies.load(str(file))
    assert (study.corpus.location, study.corpus.text_column, study.corpus.documents) == (str(articles), "body", 9)
    teacher = study.teachers[0]
    assert (teacher.name, teacher.provider, teacher.model, teacher.base_url) == (
        "my-model",
        "openai",
        "my-model",
        f"{server.url}/v1",
    )
    content = file.read_text()
    for found in ("11 documents in 1 file", "English 100%", "1 without text, 1 twice", "body (", "4,096 tokens"):
        assert found in content
    assert "together" in made.stdout
    ruff = Path(sys.executable).with_name("ruff")
    for checked in (("check", "--isolated"), ("format", "--check", "--isolated")):
        assert subprocess.run([ruff, *checked, file], capture_output=True, check=False).returncode == 0
    assert not Path(environment["NIFT_WAREHOUSE"]).exists()

    # Three are asked, under the keys by which the step asks them, so that a second look costs nothing.
    chosen = environment | {"NIFT_STUDY": str(file)}
    before = server.asked.total()
    shown = nift_here("preview", "--json", environment=chosen)
    assert (shown.returncode, server.asked.total() - before) == (0, 3)
    cut = halves.halve(corpora.sample(study.corpus).documents, seed=study.corpus.seed)
    requests = completions.requests(teacher, cut)
    book = Book(f"sqlite:///{environment['NIFT_WAREHOUSE']}/ledger.sqlite")
    assert book.settled(requests, reuse_below_limit=True) == {request.key for request in requests[:3]}
    rows = json.loads(shown.stdout)["rows"]
    assert [row["prompt"] for row in rows] == cut["first_half"].to_list()[:3]
    assert {row["usd"] for row in rows} == {0.0}
    again = nift_here("preview", "my-model", "--documents", "2", environment=chosen)
    assert server.asked.total() - before == 3
    assert "0 asked now, 2 answered before" in again.stdout
    assert rows[0]["answer"] in again.stdout
    assert [path.name for path in Path(environment["NIFT_WAREHOUSE"]).iterdir() if "ledger" not in path.name] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["My Study"], "use 'my_study'"),
        (["../up"], "use 'up'"),
        (["demo"], "there is a study 'demo' already"),
        ([], "nobody can be asked here; give --corpus and --teacher PROVIDER:MODEL, or --base-url of your server"),
        (["--corpus", "{a}"], "give --teacher PROVIDER:MODEL"),
        (["--corpus", "{a}", "--provider", "openai"], "give --model"),
        (["--corpus", "{a}", "--teacher", "nobody:x"], "one of the providers anthropic, "),
        (["--corpus", "{a}", "--teacher", "echo:x", "--provider", "echo"], "give one or the other"),
        (["--corpus", "{t}/absent.jsonl", "--teacher", "echo"], "absent.jsonl: no such file"),
        (["--corpus", "{a}", "--text-column", "abstract", "--teacher", "echo"], "there is no column 'abstract'"),
        (["--corpus", "{a}", "--teacher", "echo", "--benchmarks", "ifeval"], "name one with --backbone"),
        (["--corpus", "{a}", "--teacher", "echo", "--benchmarks", "glue"], "--benchmarks names 'glue'"),
        (["--corpus", "{a}", "--teacher", "local"], "name it with --backbone"),
        (["--corpus", "{a}", "--teacher", "echo", "--backbone", "{t}"], "has no config.json"),
        (["--corpus", "{a}", "--base-url", "nowhere"], "give an address such as"),
        (["--corpus", "{a}", "--teacher", "echo", "--budget-usd", "nan"], "give an amount in US dollars"),
        (["--corpus", "{a}", "--base-url", "http://127.0.0.1:9/v1"], "nobody answers there"),
        (["--corpus", "{a}", "--teacher", "echo", "--out", "{t}/no/such/mine.py"], "there is no folder"),
        (["--corpus", "{a}", "--teacher", "echo", "--out", "{a}"], "give --out"),
    ],
)
def test_what_cannot_be_a_study_is_refused_in_one_line_and_nothing_is_written(
    arguments: list[str], says: str, tmp_path: Path, environment: dict[str, str], articles: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    said = [part.format(a=articles, t=tmp_path) for part in arguments]
    named = said if said and not said[0].startswith("-") else ["mine", *said]
    out = [] if "--out" in named else ["--out", str(tmp_path / "mine.py")]
    refused = nift_here("new", *named, *out, environment=environment)
    assert refused.returncode == 1
    assert (refused.stderr[:7], refused.stderr.count("\n")) == ("error: ", 1)
    assert says in refused.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("argv", "path", "called"), [("bin/nift", "", "bin/nift"), ("bin/nift", "bin", "nift"), ("pytest", "", "nift")]
)
def test_the_commands_that_come_next_are_written_as_this_one_can_be_called(
    argv: str,
    path: str,
    called: str,
    tmp_path: Path,
    environment: dict[str, str],
    articles: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nift").touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [argv])
    file = tmp_path / "mine.py"
    chosen = environment | {"PATH": str(tmp_path / path) if path else str(tmp_path / "none")}
    said = nift_here(
        "new", "mine", "--corpus", str(articles), "--teacher", "echo", "--out", str(file), environment=chosen
    )
    assert said.stdout.splitlines()[-1].endswith(f"NIFT_STUDY={file} {called} run filtered_completions")


def test_a_file_that_is_there_is_kept_unless_forced_and_ctrl_c_leaves_nothing(
    tmp_path: Path, environment: dict[str, str], articles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    command = ("new", "mine", "--corpus", str(articles), "--teacher", "echo", "--out", str(file))
    file.write_text("mine")
    refused = nift_here(*command, environment=environment)
    assert "is there already" in refused.stderr
    assert file.read_text() == "mine"
    with monkeypatch.context() as patch:
        patch.setattr(looking, "look", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped = nift_here(*command, "--force", environment=environment)
    assert "nothing was written" in stopped.stderr
    assert file.read_text() == "mine"
    assert nift_here(*command, "--force", environment=environment).returncode == 0
    assert studies.load(str(file)).name == "mine"


def test_a_server_that_is_not_there_yet_is_said_and_no_hindrance(
    tmp_path: Path, environment: dict[str, str], articles: Path
) -> None:
    file = tmp_path / "mine.py"
    command = ("new", "mine", "--corpus", str(articles), "--out", str(file), "--teacher", "llama3:8b")
    with serving(going_on, models=["my-model"], listing=401) as guarded:
        made = nift_here(*command, "--base-url", f"{guarded.url}/v1", environment=environment)
        assert made.returncode == 0
        assert "it wants a key (HTTP 401); name its variable with --key-variable" in file.read_text()
    assert studies.load(str(file)).teachers[0].model == "llama3:8b"
    assert nift_here(*command, "--force", "--base-url", f"{guarded.url}/v1", environment=environment).returncode == 0
    assert "nobody answers there" in file.read_text()
    # A run would wait for it; who only looks is told at once.
    shown = nift_here("preview", environment=environment | {"NIFT_STUDY": str(file)})
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "nobody answers there" in shown.stderr


@pytest.mark.parametrize("kind", ["csv", "parquet", "array", "texts", "japanese"])
def test_the_column_the_unit_and_the_language_are_found_in_every_kind_of_file(kind: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [str(n) for n in range(8)], "article": TEXTS, "year": list(range(8))})
    unit, language, column = "spaces", "en", "article"
    if kind == "csv":
        frame.write_csv(tmp_path / "a.csv", separator=";")
    elif kind == "parquet":
        frame.write_parquet(tmp_path / "a.parquet")
    elif kind == "array":
        (tmp_path / "a.json").write_text(json.dumps(frame.to_dicts()))
    elif kind == "texts":
        column = "text"
        for number, text in enumerate(TEXTS):
            (tmp_path / f"{number}.txt").write_text(text)
    else:
        unit, language = "words", "ja"
        text = "港には朝の潮とともに船が入ってくる。人々は魚を運び、市場へ急いだ。"
        pl.DataFrame({"article": [f"{n}。{text}" * 5 for n in range(8)]}).write_parquet(tmp_path / "a.parquet")
    found = looking.look(str(tmp_path), name="mine", text_column=None)
    assert (found.row.text_column, found.row.cut_at, found.languages[0][0]) == (column, unit, language)
    assert (found.documents, found.usable, found.complete) == (8, 8, True)


@pytest.mark.slow
def test_somebody_at_a_terminal_is_asked_for_what_she_has_not_said(
    tmp_path: Path, environment: dict[str, str], articles: Path, server: Scripted
) -> None:
    answers = {
        "Your articles": str(articles),
        "Address of your own": f"{server.url}/v1",
        "A model to train": "none",
    }
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [NIFT, "new", "mine", "--out", str(tmp_path / "mine.py")],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        cwd=PROJECT,
    )
    os.close(terminal)
    said, deadline = "", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.2)[0]:
            try:
                said += os.read(main, 4096).decode(errors="replace")
            except OSError:  # the terminal's other end is closed
                break
        for question in [question for question in answers if question in said]:
            os.write(main, f"{answers.pop(question)}\n".encode())
    os.close(main)
    assert process.wait(30) == 0, said
    assert studies.load(str(tmp_path / "mine.py")).teachers[0].model == "my-model"


@pytest.mark.slow
def test_three_commands_and_no_line_of_python_lead_to_first_pairs(
    tmp_path: Path, environment: dict[str, str], articles: Path, server: Scripted
) -> None:
    chosen = environment | {"NIFT_STUDY": str(tmp_path / "mine.py")}
    before = server.asked.total()
    commands = [
        (
            "new",
            "mine",
            "--corpus",
            str(articles),
            "--base-url",
            f"{server.url}/v1",
            "--out",
            str(tmp_path / "mine.py"),
        ),
        ("preview",),
        ("run", "filtered_completions"),
    ]
    for command in commands:
        done = nift(*command, environment=chosen)
        assert done.returncode == 0, done.stderr
    counted = nift("query", "select count(*) as pairs from mine.filtered_completions", environment=chosen)
    assert " 8 " in counted.stdout
    assert server.asked.total() - before == 8  # three of them by the preview
