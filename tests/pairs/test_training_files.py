"""Training sets as files: other trainers read them as they are, and a folder is there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.io_manager import ParquetIOManager
from expectations import contract
from expectations.frames import conform
from nift_assets.graph import asset_definition
from nift_assets.pairs import training_files
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from nift_training import artifacts
from tests.demo import GRAPH, STUDY
from tests.training.train.readers import TEXTS

NAME = "echo-filtered"


def pairs(prompts: list[str], responses: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"prompt": prompts, "response": responses}, schema={"prompt": pl.String, "response": pl.String})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_both_layouts_hold_every_pair_in_order(tmp_path: Path) -> None:
    training_files.write(tmp_path, NAME, pairs(TEXTS, TEXTS[::-1]))
    assert lines(tmp_path / "alpaca.jsonl") == [
        {"instruction": prompt, "input": "", "output": response}
        for prompt, response in zip(TEXTS, TEXTS[::-1], strict=True)
    ]
    assert lines(tmp_path / "messages.jsonl") == [
        {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]}
        for prompt, response in zip(TEXTS, TEXTS[::-1], strict=True)
    ]


@settings(max_examples=50)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8))
def test_any_text_comes_back_as_it_was(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("files")
    training_files.write(folder, NAME, pairs(texts, texts))
    assert [row["output"] for row in lines(folder / "alpaca.jsonl")] == texts
    assert [row["messages"][1]["content"] for row in lines(folder / "messages.jsonl")] == texts


def test_sets_of_more_rows_than_are_written_at_once_lose_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_files, "ROWS_AT_A_TIME", 3)
    texts = [str(number) for number in range(10)]
    training_files.write(tmp_path, NAME, pairs(texts, texts))
    assert [row["instruction"] for row in lines(tmp_path / "alpaca.jsonl")] == texts


def test_the_datasets_library_reads_folder_and_files(tmp_path: Path) -> None:
    """What TRL and axolotl load their data with; it reads either a folder and a configuration, or one file."""
    datasets = pytest.importorskip("datasets", reason="needs the extra `evaluate`, which brings `datasets`")
    folder, cache = tmp_path / "set", str(tmp_path / "cache")
    folder.mkdir()
    training_files.write(folder, NAME, pairs(TEXTS, TEXTS[::-1]))
    (folder / "manifest.json").write_text("{}")
    for rows in (
        datasets.load_dataset(str(folder), "alpaca", split="train", cache_dir=cache),
        datasets.load_dataset("json", data_files=str(folder / "alpaca.jsonl"), split="train", cache_dir=cache),
    ):
        assert rows["instruction"][:] == TEXTS
        assert rows["output"][:] == TEXTS[::-1]
        assert {*rows["input"]} == {""}
    for rows in (
        datasets.load_dataset(str(folder), "messages", split="train", cache_dir=cache),
        datasets.load_dataset("json", data_files=str(folder / "messages.jsonl"), split="train", cache_dir=cache),
    ):
        assert [[message["content"] for message in row] for row in rows["messages"]] == list(
            map(list, zip(TEXTS, TEXTS[::-1], strict=True))
        )


# The keys LLaMA-Factory's data/README.md names, as of its release 0.5.2 and today.
COLUMNS = {"prompt", "query", "response", "history", "system", "messages", "tools"}
TAGS = {"role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag"}


def as_llama_factory_reads(folder: Path, name: str) -> list[tuple[str, str]]:
    """The pairs of one entry of `dataset_info.json`, by the rules of LLaMA-Factory's data/README.md."""
    entry = json.loads((folder / "dataset_info.json").read_text())[name]
    assert entry.keys() <= {"file_name", "formatting", "columns", "tags"}
    columns, tags = entry["columns"], entry.get("tags", {})
    assert columns.keys() <= COLUMNS
    assert tags.keys() <= TAGS
    rows = lines(folder / entry["file_name"])
    if entry["formatting"] == "alpaca":
        asked = [[row[columns[part]] for part in ("prompt", "query")] for row in rows]
        responses = [row[columns["response"]] for row in rows]
        return [("\n".join(part for part in parts if part), said) for parts, said in zip(asked, responses, strict=True)]
    chats = [row[columns["messages"]] for row in rows]
    roles = [tags["user_tag"], tags["assistant_tag"]]
    assert all([message[tags["role_tag"]] for message in chat] == roles for chat in chats)
    return [(chat[0][tags["content_tag"]], chat[1][tags["content_tag"]]) for chat in chats]


def test_llama_factory_finds_both_layouts_in_its_list_of_data_sets(tmp_path: Path) -> None:
    training_files.write(tmp_path, NAME, pairs(TEXTS, TEXTS[::-1]))
    for name in (NAME, f"{NAME}-messages"):
        assert as_llama_factory_reads(tmp_path, name) == list(zip(TEXTS, TEXTS[::-1], strict=True))


# ---------- the asset

AS_THEY_ARE = [asset_definition(GRAPH, step) for step in GRAPH.steps]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(root=str(tmp_path), study=STUDY.name)
    put(made, TEXTS)
    return made


def put(store: Store, texts: list[str]) -> None:
    rows = pl.DataFrame({"prompt": texts, "response": texts}).with_columns(
        pl.int_range(pl.len()).cast(pl.String).alias("document_id"),
        pl.int_range(pl.len()).alias("sample_rank"),
        pl.lit(NAME).alias("training_set"),
        pl.lit("echo").alias("teacher"),
    )
    frame = conform(rows, contract.load("training_sets"))
    store.write("training_sets", NAME, frame, Version(data=data_version(frame), inputs=""))


def materialize(store: Store) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        AS_THEY_ARE,
        selection=["training_files"],
        partition_key=NAME,
        resources={"io_manager": ParquetIOManager(store), "store": store, "ledger": None, "pipes": None},
        raise_on_error=False,
    )


def on_disk(store: Store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.folder())): path.read_bytes()
        for path in store.folder().rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_a_training_set_lies_in_a_folder_named_after_its_content(store: Store) -> None:
    assert materialize(store).success
    row = store.read("training_files", NAME).row(0, named=True)
    folder = store.folder(row["folder"])
    assert artifacts.verify(folder).digest == row["digest"]
    assert row["rows"] == len(TEXTS) == len(lines(folder / "alpaca.jsonl"))
    before = on_disk(store)
    assert materialize(store).success
    assert on_disk(store) == before


def test_another_content_is_another_folder_and_the_old_one_stays_for_who_reads_it(store: Store) -> None:
    assert materialize(store).success
    old = store.read("training_files", NAME)["folder"][0]
    put(store, TEXTS[:2])
    assert materialize(store).success
    new = store.read("training_files", NAME)["folder"][0]
    assert new != old
    assert len(lines(store.folder(old) / "alpaca.jsonl")) == len(TEXTS)
    assert len(lines(store.folder(new) / "alpaca.jsonl")) == 2
    store.remove_unnamed_folders()
    assert not store.folder(old).exists()
    assert store.folder(new).exists()


@pytest.mark.parametrize("earlier", [True, False], ids=["over a good version", "over nothing"])
def test_a_write_that_breaks_in_the_middle_leaves_what_was_there(
    earlier: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if earlier:
        assert materialize(store).success
        put(store, TEXTS[:2])
    before = on_disk(store)

    def no_space_left(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training_files, "_card", no_space_left)
    assert not materialize(store).success
    assert on_disk(store) == before
