"""The asset of adapters: the study's row as a command, checkpoints under the row's own key, what the UI is shown."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from nift_assets.assets import lora_adapters as assets
from nift_assets.rows import digest
from nift_assets.steps.context import Context
from nift_assets.store import Store
from nift_training.machine import Machine
from tests.demo import GRAPH, STUDY, context
from tests.training.conftest import verb_here

ROW = STUDY.adapters[0]


def making(root: Path, ran: list[list[str]]) -> Context:
    """The partition of the row, with something that carries out verbs and is stopped as the first of them has ended."""

    def run(command: list[str], context: Any) -> None:
        ran.append(command)
        assert command[:2] == [sys.executable, "-m"]
        assert verb_here(*command[2:]) == 0
        if len(ran) == 1:
            raise KeyboardInterrupt

    store = Store(root=str(root), study=STUDY.name)
    return context(store, "lora_adapters", ROW.name, pipes=SimpleNamespace(run=run))


def test_an_adapter_is_its_rows_recipe_and_leaves_no_checkpoints(tiny: Path, tmp_path: Path) -> None:
    ran: list[list[str]] = []
    here = making(tmp_path, ran)
    here.store.folder("backbones").mkdir(parents=True)
    os.symlink(tiny, here.store.folder("backbones", "tiny"))
    pairs = pl.DataFrame(
        {"prompt": ["The old bridge"] * 9, "response": [" was closed last night."] * 9, "training_set": ["x"] * 9}
    )
    backbones = pl.DataFrame({"folder": ["backbones/tiny"], "digest": ["0" * 64]})
    make = GRAPH.tables["lora_adapters"].function
    with pytest.raises(KeyboardInterrupt):
        make(here, pairs, backbones)
    made = make(here, pairs, backbones)
    assert len(ran) == 1, "what was finished as the run was stopped is not trained again"
    row = made.rows.row(0, named=True)
    assert (row["rows"], row["steps"]) == (9, ROW.recipe.steps(9))
    recorded = made.metadata["recipe"].data
    assert recorded == {**recorded, "learning_rate": ROW.recipe.learning_rate, "batch_size": ROW.recipe.batch_size}
    assert {"loss", "model_card", "hardware", "tokens_per_second", "data_version"} <= made.metadata.keys()
    assert not list((tmp_path / ".checkpoints").rglob("checkpoint-*"))
    assert "--devices" not in ran[0]
    assert any(".checkpoints" in argument for argument in ran[0])


def test_the_machine_is_asked_for_and_makes_nothing_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    big = replace(ROW, machine=Machine(devices=8, zero=3, hostfile="hosts"))
    assert assets._options(big.machine) == {"devices": 8, "zero": 3, "hostfile": "hosts"}
    assert digest(assets._learnt(big)) == digest(assets._learnt(ROW))
    assert digest(assets._learnt(replace(ROW, recipe=replace(ROW.recipe, seed=1)))) != digest(assets._learnt(ROW))
