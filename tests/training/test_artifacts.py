import json
import os
import threading
from pathlib import Path

import pytest

from nift_training import artifacts


def write(out: Path, text: str = "a", **facts: object) -> artifacts.Manifest:
    with artifacts.folder(out, "thing") as draft:
        (draft.path / "deep").mkdir()
        (draft.path / "deep" / "file.txt").write_text(text)
        draft.facts.update(facts)
    return artifacts.read_manifest(out)


def test_a_published_folder_verifies_and_lists_its_files(tmp_path: Path) -> None:
    manifest = write(tmp_path / "new" / "out", seconds=3)
    assert artifacts.verify(tmp_path / "new" / "out") == manifest
    assert [file.name for file in manifest.files] == ["deep/file.txt"]
    assert (manifest.kind, manifest.facts) == ("thing", {"seconds": 3})


def test_facts_do_not_change_the_digest_and_contents_do(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", seconds=3), write(tmp_path / "2", seconds=4)
    assert first.digest == second.digest != write(tmp_path / "3", text="b").digest


def test_an_exception_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with artifacts.folder(tmp_path / "out", "thing") as draft:
            (draft.path / "file.txt").write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_taken_name_is_refused_and_keeps_its_content(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with pytest.raises(ValueError, match="already exists: remove it"):
        write(tmp_path / "out", text="b")
    artifacts.verify(tmp_path / "out")
    with pytest.raises(ValueError, match="already exists"):
        artifacts.write_rows(tmp_path / "out", [{}])


@pytest.mark.parametrize("injury", ["flip", "truncate", "remove"])
def test_verify_names_the_injured_file(tmp_path: Path, injury: str) -> None:
    write(tmp_path / "out", text="abc")
    file = tmp_path / "out" / "deep" / "file.txt"
    if injury == "remove":
        file.unlink()
    else:
        file.write_text("abd" if injury == "flip" else "ab")
    with pytest.raises(ValueError, match=r"deep/file\.txt"):
        artifacts.verify(tmp_path / "out")


def test_a_row_that_cannot_be_made_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        artifacts.write_rows(tmp_path / "rows.jsonl", [{"a": 1}, {"a": float("nan")}])
    assert list(tmp_path.iterdir()) == []


def test_rows_survive_line_separators_inside_texts(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028two\u0085three\nfour"}, {"text": "五"}]
    artifacts.write_rows(tmp_path / "rows.jsonl", rows)
    assert artifacts.read_rows(tmp_path / "rows.jsonl") == rows


def test_a_broken_line_is_named_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"a": 1}) + "\n{\n")
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        artifacts.read_rows(tmp_path / "rows.jsonl")


def test_what_is_no_file_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with artifacts.replacing(pipe) as target:
        target.write_text("a page")
    reader.join()
    assert read == ["a page"]
    assert pipe.is_fifo()
    with artifacts.replacing(Path(os.devnull)) as target:
        target.write_text("a page")
    assert Path(os.devnull).is_char_device()
