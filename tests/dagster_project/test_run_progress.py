"""What a person sees of runs that take long: in place on a terminal, as plain lines in a log."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from dagster_project.command_line import run_progress
from dagster_project.command_line.run_progress import RunProgress, counted
from dagster_project.command_line.study import where_to_read
from dagster_project.progress_file import ProgressLine, ProgressReader, tell
from dagster_project.run_study import PartitionRun, RunOutcome

RUN = PartitionRun("teacher echo", "echo", ("completions",), ("completions",), frozenset())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(number: int) -> list[ProgressLine]:
    return [ProgressLine(RUN.name, "completions", f"{number:,} of 80,000 answered, 5,000 tokens written, $0.12 spent")]


def shown(screen: io.StringIO, patch: pytest.MonkeyPatch, term: str) -> str:
    patch.setattr("sys.stdout", screen)
    patch.setenv("TERM", term)
    patch.setenv("NO_COLOR", "1")
    patch.setenv("COLUMNS", "200")
    progress = RunProgress(1)
    progress.started(RUN)
    for number in (1_000, 1_500, 2_000):
        progress.told(said(number))
    progress.ended(RUN, RunOutcome(("completions",), 3.0, "no key"))
    progress.close()
    return screen.getvalue()


def test_a_terminal_shows_how_far_a_run_is_in_place_and_is_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Terminal(), monkeypatch, "xterm")
    assert "2,000 of 80,000 answered, 5,000 tokens written, $0.12 spent" in text
    assert "\x1b[3" not in text, "a colour, whatever NO_COLOR says"
    last = text.rpartition("\r")[2]
    assert last == "[ 1/1] ✗ teacher echo: failed after 3.0 s\n"


@pytest.mark.parametrize(("tables", "said"), [(("halves",), "1 table in"), (("halves", "completions"), "2 tables in")])
def test_the_tables_of_a_run_are_counted(
    tables: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    RunProgress(1).ended(RUN, RunOutcome(tables, 3.0))
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("screen", [io.StringIO(), Terminal()])
def test_a_log_and_a_dumb_terminal_get_plain_lines_with_rate_and_time_left(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_progress, "SAY_EVERY_SECONDS", 0.0)
    text = shown(screen, monkeypatch, "dumb")
    assert "\x1b" not in text
    assert "\r" not in text
    lines = text.splitlines()
    assert lines[1] == "        … teacher echo: completions: " + said(1_000)[0].said
    assert lines[2].endswith(" left")


def test_a_report_is_named_only_where_there_is_one(tmp_path: Path) -> None:
    tables = "Every table: nift query 'select * from \"mine\".halves'. Lineage: nift ui"
    folder = tmp_path / "mine"
    folder.mkdir()
    assert where_to_read(folder) == tables
    (folder / "report.html").write_text("<html>")
    assert where_to_read(folder) == f"Report: {folder / 'report.html'}\n{tables}"


def test_a_count_is_read_of_what_every_long_step_says() -> None:
    assert counted("12 of 80,000 answered, 3 tokens written, $0.00 spent") == (12, 80_000)
    assert counted("train: step 3/90, loss 0.2, 5 tokens/s, 1:00 left") == (3, 90)
    assert counted("merge: shard 2/4, 1.0 GB, after 3 s") == (2, 4)
    assert counted("left out: 3 rows") == (0, None)
    assert counted("5 of 3 of nothing") == (0, None)


def test_what_a_killed_process_leaves_half_written_costs_its_line_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "progress"
    reader = ProgressReader(file)
    assert reader.lines() == []
    tell(file, ProgressLine("a", "halves", "1 of 2\x1b[31m\nred"))
    with file.open("ab") as torn:
        torn.write(b'{"run": "b", "st')
    assert reader.lines() == [ProgressLine("a", "halves", "1 of 2 [31m red")]
    tell(file, ProgressLine("c", "halves", "lost with it"))
    tell(file, ProgressLine("c", "halves", "漢" * 600))
    assert reader.lines() == [ProgressLine("c", "halves", "漢" * 500)]
    assert os.stat(file).st_mode & 0o077 == 0


@pytest.mark.parametrize("screen", [io.StringIO(), Terminal()])
def test_a_warning_is_a_line_at_once_and_once(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    progress = RunProgress(1)
    progress.started(RUN)
    progress.told([ProgressLine(RUN.name, "completions", "http://127.0.0.1:9/v1 does not answer", at_once=True)])
    for _ in range(3):
        progress.told([])
    progress.close()
    assert screen.getvalue().count("! teacher echo: completions: http://127.0.0.1:9/v1 does not answer\n") == 1
