"""The benchmarks' files: fetched from their homes, whole and as they are known, or read from a folder that has them."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from dagster_project import definitions
from dagster_project.command_line import main
from nift_assets import benchmarks, graph, studies
from nift_assets.benchmarks import arena_hard, mt_bench
from nift_assets.benchmarks.scoring import files as benchmark_files
from nift_assets.benchmarks.scoring.files import PublishedFile
from nift_assets.study import Study
from tests.corpus.loopback import Loopback
from tests.demo import STUDY
from tests.shared_data import shared

QUESTIONS = b'{"question_id": 81, "category": "writing", "turns": ["a", "b"]}\n'


class Home(Loopback):
    """Serves files by their paths, and notes which were asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []
        super().__init__()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        home = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                home.asked.append(self.path)
                content = home.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home of one benchmark with two files, which is all there is to fetch."""
    files = {"/question.jsonl": QUESTIONS, "/reference_answer/gpt-4.jsonl": b"{}\n"}
    with Home(files) as started:
        rows = tuple(
            PublishedFile(path=path[1:], url=started.url + path, sha256=hashlib.sha256(content).hexdigest())
            for path, content in files.items()
        )
        for name in benchmarks.names():
            monkeypatch.setattr(benchmarks.module(name), "PUBLISHED", rows if name == mt_bench.NAME else ())
        yield started


def fetch(folder: Path, *options: str) -> tuple[int, str]:
    ran = CliRunner().invoke(main, ["benchmarks", str(folder), *options])
    return ran.exit_code, ran.output


def test_files_are_fetched_once_into_the_published_layout(home: Home, tmp_path: Path) -> None:
    code, said = fetch(tmp_path)
    assert (code, len(said.splitlines()), sorted(home.asked)) == (0, 2, sorted(home.files))
    assert (tmp_path / "mt_bench" / "question.jsonl").read_bytes() == QUESTIONS
    assert fetch(tmp_path) == (0, said)
    assert len(home.asked) == 2


def test_another_file_than_the_known_one_is_refused_and_not_kept(home: Home, tmp_path: Path) -> None:
    home.files["/question.jsonl"] = QUESTIONS.replace(b"writing", b"cheating")
    code, said = fetch(tmp_path / "benchmarks")
    assert (code, said.count("\n")) == (1, 1)
    assert "/question.jsonl is not the published question.jsonl" in said
    del home.files["/question.jsonl"]
    assert fetch(tmp_path / "benchmarks")[0] == 1
    assert list(tmp_path.iterdir()) == []  # nor an empty folder
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_bytes(b"mine\n")
    code, said = fetch(tmp_path)
    assert code == 1
    assert f"{tmp_path}/mt_bench/question.jsonl is not the published question.jsonl" in said
    assert (tmp_path / "mt_bench" / "question.jsonl").read_bytes() == b"mine\n"  # whose it is, we do not know


def test_a_file_that_does_not_come_is_named_with_its_address_and_its_place(home: Home, tmp_path: Path) -> None:
    del home.files["/reference_answer/gpt-4.jsonl"]
    code, said = fetch(tmp_path)
    kept, error = said.splitlines()
    assert (code, kept) == (1, f"{tmp_path}/mt_bench/question.jsonl")  # what came is kept and said as it comes
    assert error.startswith(f"error: {home.url}/reference_answer/gpt-4.jsonl could not be fetched (")
    assert error.endswith(f"put that file at {tmp_path}/mt_bench/reference_answer/gpt-4.jsonl yourself")


def test_one_benchmark_is_fetched_alone(home: Home, tmp_path: Path) -> None:
    assert fetch(tmp_path, "--only", "ifbench") == (0, "")
    assert home.asked == []
    assert fetch(tmp_path, "--only", "mt_bench")[0] == 0
    assert len(home.asked) == 2
    code, said = fetch(tmp_path, "--only", "mtbench")
    assert (code, "there is no benchmark 'mtbench'" in said) == (1, True)


@pytest.mark.parametrize("name", ["arena_hard", "ifeval", "mt_bench"])
def test_the_pinned_files_are_those_the_world_has(name: str) -> None:
    for file in benchmarks.load(name).PUBLISHED:
        if file.path != "judge_config.yaml":  # lies in another folder of its repository
            assert file.digest_of(shared(name, file.path).read_bytes()) == file.digest, file.path


def test_a_file_may_be_known_by_the_id_that_git_has_of_it() -> None:
    hello = PublishedFile(path="hello", url="", git_blob="ce013625030ba8dba906f756967f9e9ca394464a")
    assert hello.digest_of(b"hello\n") == hello.digest


def test_a_folder_of_benchmarks_takes_the_place_of_a_studys_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mt_bench").mkdir()
    (tmp_path / "arena_hard").mkdir()
    (tmp_path / "mt_bench" / "question.jsonl").write_bytes(QUESTIONS)
    monkeypatch.setenv("NIFT_STUDY", "demo")
    monkeypatch.setenv("NIFT_BENCHMARKS", str(tmp_path))
    study, own = studies.active(), studies.load("demo")
    assert study.benchmark("mt_bench") == dataclasses.replace(
        own.benchmark("mt_bench"), location=str(tmp_path / "mt_bench")
    )
    assert study.benchmark("arena_hard").baseline == "gpt-4-0314"  # there are no answers of the demo's own
    assert study.benchmark("ifeval") == own.benchmark("ifeval")
    assert benchmark_files.own_file("mt_bench", mt_bench.ASKED) == tmp_path / "mt_bench" / "question.jsonl"
    assert benchmark_files.own_file("arena_hard", arena_hard.ASKED) is None
    with pytest.raises(ValueError, match=r"has no such file; .*nift benchmarks"):
        benchmark_files.rows(study.benchmark("arena_hard"), "question.jsonl")
    monkeypatch.setenv("NIFT_BENCHMARKS", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="there is no such folder"):
        studies.active()


def test_the_graph_shows_which_files_each_table_is_made_from() -> None:
    graph = definitions.defs.resolve_asset_graph()
    for table, files in {
        "mt_bench_answers": "mt_bench_files",
        "mt_bench_judgments": "mt_bench_files",
        "arena_hard_answers": "arena_hard_files",
        "arena_hard_judgments": "arena_hard_files",
        "ifeval": "ifeval_files",
        "open_llm_leaderboard": "open_llm_leaderboard_files",
    }.items():
        above = {key.to_user_string() for key in graph.get(dg.AssetKey(table)).parent_keys}
        assert {name for name in above if name.endswith("_files")} == {files}


def test_a_file_is_described_by_its_home_only_if_it_is_the_published_one(home: Home, tmp_path: Path) -> None:
    fetch(tmp_path)
    (tmp_path / "mt_bench" / "reference_answer" / "gpt-4.jsonl").write_bytes(b"mine")
    benchmark = dataclasses.replace(studies.load("demo").benchmark("mt_bench"), location=str(tmp_path / "mt_bench"))
    first, second = benchmark_files.described(benchmark, mt_bench.PUBLISHED)
    assert first["home"] == f"{home.url}/question.jsonl"
    assert (second["home"], second["sha256"]) == ("its own", hashlib.sha256(b"mine").hexdigest())


def test_files_that_lie_elsewhere_make_nothing_stale_and_other_files_do(tmp_path: Path) -> None:
    """Answers cost hours of a GPU, verdicts money."""

    def what_shapes(study: Study) -> list[object]:
        tables = graph.build(study).tables
        return [tables[name].rows("pico", name) for name in ("mt_bench_answers", "mt_bench_judgments")]

    before, benchmark = what_shapes(STUDY), STUDY.benchmark("mt_bench")
    place = shutil.copytree(benchmark.location, tmp_path / "moved")
    rows = [
        dataclasses.replace(row, location=str(place)) if row.name == "mt_bench" else row for row in STUDY.benchmarks
    ]
    moved = dataclasses.replace(STUDY, benchmarks=tuple(rows))
    assert what_shapes(moved) == before
    with (place / "question.jsonl").open("a") as questions:
        questions.write("\n")
    assert [now == then for now, then in zip(what_shapes(moved), before, strict=True)] == [False, False]
