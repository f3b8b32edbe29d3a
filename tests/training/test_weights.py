"""The assets of weights: checked before they are believed, kept as long as their row says, or left to a server."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import dagster as dg
import polars as pl
import pytest

from dagster_project.io_manager import ParquetIOManager
from expectations import contract
from expectations.frames import schema
from nift_assets import graph
from nift_assets.assets import backbones
from nift_assets.graph import CheckedRows
from nift_assets.steps.lineage import Graph, Partition
from nift_assets.store import Store
from nift_assets.table_files import Version, data_version
from nift_training import artifacts, fetch
from nift_training.merge import recomputation
from tests.conftest import PROJECT
from tests.demo import GRAPH, STUDY, assets, context
from tests.hub.server import Fault, Hub
from tests.training.vllm import Vllm

MODEL, ADAPTER = "pico.echo-filtered.lora", "pico.echo-filtered"

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Here:
    """A launcher that runs a verb in this process: torch is imported already."""

    def run(self, *, command: list[str], context: Any) -> None:
        importlib.import_module(f"{command[2]}.__main__").main(command[3:])


class Disk(ParquetIOManager):
    """Tables on a disk that has no room for those in `refused`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.refused: set[str] = set()

    def handle_output(self, context: dg.OutputContext, obj: CheckedRows) -> None:
        if context.asset_key.path[-1] in self.refused:
            raise OSError(errno.ENOSPC, "the disk is full")
        super().handle_output(context, obj)


@dataclass
class World:
    """A warehouse with a backbone and an adapter for it, and the real graph over it."""

    store: Store
    disk: Disk
    graph: Graph = GRAPH

    @property
    def job(self) -> dg.JobDefinition:
        """Every table of the graph."""
        resources = {"io_manager": self.disk, "store": self.store, "ledger": None, "pipes": Here()}
        return dg.Definitions(
            assets=assets(self.graph).values(), resources=resources
        ).resolve_implicit_global_asset_job_def()

    def make(self, *tables: str, key: str = MODEL) -> bool:
        run = self.job.execute_in_process(
            asset_selection=[dg.AssetKey(name) for name in tables], partition_key=key, raise_on_error=False
        )
        return run.success

    def row(self, table: str, key: str = MODEL) -> dict[str, Any]:
        return self.store.read(table, key).row(0, named=True)

    def weights(self) -> Path:
        return self.store.folder(self.row("merged_models")["folder"])

    def put(self, table: str, key: str, **row: object) -> None:
        """Stores one row, what it does not name being null, as if its step had just made it."""
        columns = schema(contract.load(table))
        self.put_frame(table, key, pl.DataFrame([dict.fromkeys(columns) | row], schema=columns))

    def put_frame(self, table: str, key: str, frame: pl.DataFrame) -> None:
        made_from = self.graph.inputs_version(self.store, Partition(table, key))
        self.store.write(table, key, frame, Version(data=data_version(frame), inputs=made_from))

    def take(self, table: str, key: str, folder: Path) -> dict[str, object]:
        """Takes a folder of weights into the warehouse, and says what is known of it."""
        manifest = artifacts.read_manifest(folder)
        name = f"{table}/{key}/{manifest.digest[:16]}"
        shutil.copytree(folder, self.store.folder(name))
        return {"digest": manifest.digest, "folder": name, "bytes": sum(file.bytes for file in manifest.files)}


@pytest.fixture
def world(tiny: Path, adapter: Path, tmp_path: Path) -> World:
    store = Store(root=str(tmp_path / "warehouse"), study=STUDY.name)
    disk = Disk(store)
    made = World(store, disk)
    with artifacts.folder(tmp_path / "base", "model") as draft:
        shutil.copytree(tiny, draft.path, dirs_exist_ok=True)
    known = made.take("backbones", "pico", tmp_path / "base")
    size = fetch.parameters(tmp_path / "base")
    made.put("backbones", "pico", backbone="pico", source="pico", template="zephyr", parameters=size, **known)
    known = made.take("lora_adapters", ADAPTER, adapter)
    made.put("lora_adapters", ADAPTER, adapter=ADAPTER, backbone="pico", training_set="echo-filtered", **known)
    return made


def keep(world: World, weights: Literal["delete", "regenerate"]) -> None:
    """From now on the study has another value for how long the weights of the model are kept."""
    models = tuple(replace(row, weights=weights) if row.name == MODEL else row for row in STUDY.models)
    world.graph = graph.build(replace(STUDY, models=models))


def answered_elsewhere(world: World, *tables: str) -> None:
    """Stores tables of answers as if they had been made."""
    for table in tables:
        world.put_frame(table, MODEL, pl.DataFrame(schema=schema(contract.load(table))))


def test_a_merge_is_held_against_peft_and_records_how_base_and_adapter_belong_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.make("merged_models")
    row = world.row("merged_models")
    assert (row["relation"], row["added_tokens"]) == ("the base it was trained on", 0)
    assert 0 <= row["logits_difference"] <= 1e-5
    monkeypatch.setattr(recomputation, "available_bytes", lambda device: 1000)
    assert world.make("merged_models")
    assert world.row("merged_models") == {**row, "logits_difference": None}


def test_a_merge_whose_lineage_is_another_is_not_stored(world: World) -> None:
    known = {name: world.row("lora_adapters", ADAPTER)[name] for name in ("digest", "folder", "bytes")}
    world.put("lora_adapters", ADAPTER, adapter=ADAPTER, backbone="pico-instruct", training_set="echo", **known)
    run = world.job.execute_in_process(
        asset_selection=[dg.AssetKey("merged_models")], partition_key=MODEL, raise_on_error=False
    )
    (failure,) = [event.step_failure_data.user_failure_data for event in run.all_events if event.is_step_failure]
    assert failure is not None
    assert "merged_models: the_adapter_belongs_to_the_base: " in str(failure.description)
    assert world.store.version("merged_models", MODEL) is None


def test_weights_are_removed_after_the_last_benchmark_and_made_again_when_asked_for(world: World) -> None:
    keep(world, "regenerate")
    assert world.make("merged_models")
    answered_elsewhere(world, "ifeval", "open_llm_leaderboard")
    assert world.make("mt_bench_answers")
    assert world.weights().exists(), "Arena-Hard is still to come"
    assert world.make("arena_hard_answers")
    assert not world.weights().exists()
    first = world.store.version("arena_hard_answers", MODEL)
    assert world.make("arena_hard_answers")
    assert world.store.version("arena_hard_answers", MODEL) == first
    assert not world.weights().exists()


def test_weights_are_not_removed_before_what_was_made_from_them_is_stored(world: World) -> None:
    keep(world, "delete")
    assert world.make("merged_models")
    answered_elsewhere(world, "ifeval", "open_llm_leaderboard", "arena_hard_answers")
    world.disk.refused = {"mt_bench_answers"}
    assert not world.make("mt_bench_answers")
    assert artifacts.verify(world.weights())
    world.disk.refused = set()
    assert world.make("mt_bench_answers")
    assert not world.weights().exists()
    assert not world.make("mt_bench_answers"), "whoever deletes them says when they are made again"
    assert world.make("merged_models", "mt_bench_answers")


def test_a_server_for_all_models_answers_from_the_adapter_unmerged(
    world: World, vllm: Vllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(world, "delete")
    assert world.make("merged_models")
    assert world.make("arena_hard_answers")
    by_weights = world.store.read("arena_hard_answers", MODEL)
    shutil.rmtree(world.weights())
    monkeypatch.setenv("NIFT_SERVER", vllm.url)
    monkeypatch.setenv("NIFT_SERVER_KEY", "secret-of-the-server")
    assert world.make("arena_hard_answers")
    assert vllm.loaded == {MODEL: str(world.store.folder(world.row("lora_adapters", ADAPTER)["folder"]))}
    assert {body["model"] for body in vllm.asked} == {MODEL}
    assert set(vllm.keys) == {"Bearer secret-of-the-server"}
    assert world.store.read("arena_hard_answers", MODEL).height == by_weights.height


def test_answers_of_a_server_that_broke_are_not_mixed_with_those_of_the_weights(
    world: World, vllm: Vllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.make("merged_models")
    vllm.breaks_after = 16  # the first batch of Arena-Hard's eight questions, or of MT-Bench's first temperature
    monkeypatch.setenv("NIFT_SERVER", vllm.url)
    assert not world.make("mt_bench_answers")
    (begun,) = world.store.folder(".unfinished").iterdir()
    assert (begun / "mt_bench.jsonl.unfinished").read_text().count("\n") > 1
    monkeypatch.delenv("NIFT_SERVER")
    asked = len(vllm.asked)
    assert world.make("mt_bench_answers")
    assert len(vllm.asked) == asked
    assert list(world.store.folder(".unfinished").iterdir()) == []


def test_a_backbone_of_the_hub_is_fetched_at_its_commit_and_merged_into(
    world: World, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in tiny.iterdir()} | {"LICENSE": b"CC0-1.0"}
    files |= {"pytorch_model.bin": b"a pickle, which is never fetched", "modeling_tiny.py": b"raise SystemExit"}
    row = replace(STUDY.backbone("pico"), source="nobody/tiny", revision="v1", template="zephyr")
    study = replace(STUDY, backbones=(row, *(each for each in STUDY.backbones if each.name != "pico")))
    world.graph = graph.build(study)
    with Hub() as hub:
        hub.hold("nobody/tiny", files, kind="model", commit=COMMIT).tags["v1"] = COMMIT
        own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}

        def run(command: list[str], context: Any) -> None:
            subprocess.run(command, check=True, cwd=PROJECT, env=os.environ | own)

        here = context(world.store, "backbones", "pico", of=world.graph, pipes=SimpleNamespace(run=run))
        folder = backbones._fetch(here, row)
    assert {file.name for file in folder.manifest.files} == files.keys() - {"pytorch_model.bin", "modeling_tiny.py"}
    assert folder.manifest.facts["revision"] == COMMIT
    size = folder.manifest.facts["parameters"]
    known = {"digest": folder.manifest.digest, "folder": folder.name, "bytes": folder.bytes, "parameters": size}
    world.put("backbones", "pico", backbone="pico", source="nobody/tiny", revision=COMMIT, template="zephyr", **known)
    assert world.make("merged_models")
    card = (world.weights() / "README.md").read_text()
    assert f"base: pico at {COMMIT}" in card
    assert "base_model: nobody/tiny" in card


@pytest.mark.parametrize(
    ("repository", "complaint"), [("nobody/none", "Repository Not Found"), ("nobody/tiny", "gated repo")]
)
def test_weights_that_are_absent_or_gated_are_one_error_and_nothing_partial(
    repository: str, complaint: str, tmp_path: Path
) -> None:
    gate = Fault("/resolve/", times=99, status=403, message="ask for access", headers={"X-Error-Code": "GatedRepo"})
    with Hub() as hub:
        hub.hold("nobody/tiny", {"config.json": b"{}", "model.safetensors": b"weights"}, kind="model")
        hub.faults.append(gate)
        own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
        command = [sys.executable, "-m", "nift_training.fetch", "--repository", repository, "--revision", "main"]
        command += ["--out", str(tmp_path / "models" / "tiny")]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT, env=os.environ | own)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("error: ")
    assert complaint in ran.stderr.splitlines()[-1]
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.glob("models/*")) == list(tmp_path.glob("models/.*")) == []
