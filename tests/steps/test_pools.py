"""The pools of the instance as it is shipped: so many ask one vendor at a time, and the next waits for a place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nift_assets.rows import Teacher
from nift_assets.steps import pools
from tests.conftest import PROJECT, instance_at
from tests.demo import GRAPH
from tests.ledger.asking import wait

MODEL = Teacher(name="t", provider="openai", model="m")

# A run that asks the vendor: it says that it is inside, and leaves when it is told to.
RUN = """
import sys, time
from pathlib import Path
import dagster as dg
from nift_assets.steps import pools
from tests.steps.test_pools import MODEL
folder, number = Path(sys.argv[1]), sys.argv[2]

@dg.asset
def asking(context: dg.AssetExecutionContext) -> None:
    with pools.slot_of_pool(context, MODEL):
        Path(folder, f"inside-{number}").touch()
        while not Path(folder, "leave").exists():
            time.sleep(0.05)

with dg.DagsterInstance.get() as instance:
    assert dg.materialize([asking], instance=instance).success
"""


def test_a_pool_is_a_vendor_or_the_machine_of_a_server_and_training_and_the_hub_have_theirs() -> None:
    assert pools.name(MODEL) == "openai"
    assert pools.name(Teacher(name="t", provider="openai", model="m", base_url="http://gpu-7:8000/v1")) == "gpu-7"
    assert {step.pool for step in GRAPH.steps} == {None, "gpu", "hub"}
    assert GRAPH.tables["lora_adapters"].pool == "gpu"
    assert GRAPH.tables["hub_models"].pool == "hub"


def test_a_third_run_of_a_vendor_waits_until_one_of_two_is_done(tmp_path: Path) -> None:
    shipped = PROJECT / "dagster_project" / "instance" / "dagster.yaml"
    (tmp_path / "dagster.yaml").write_bytes(shipped.read_bytes())
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    with instance_at(tmp_path) as instance:
        log = instance.event_log_storage
        # A new instance's databases are made here: of three processes that make them at once Dagster may stop one.
        instance.get_runs_count()
        instance.all_instigator_state()
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", RUN, str(tmp_path), number], env=environment, stderr=subprocess.PIPE
            )
            for number in "123"
        ]

        def one_waits() -> bool:
            ended = [run.communicate()[1].decode() for run in runs if run.poll() is not None]
            assert not ended, ended
            return log.get_concurrency_info("openai").pending_step_count == 1

        try:
            wait(one_waits, 120, every=0.1)
            found = log.get_concurrency_info("openai")
            assert (found.slot_count, found.active_slot_count) == (2, 2)
            assert len(list(tmp_path.glob("inside-*"))) == 2
        finally:
            (tmp_path / "leave").touch()
        said = [run.communicate(timeout=120)[1].decode() for run in runs]
        assert [run.returncode for run in runs] == [0, 0, 0], said
        assert len(list(tmp_path.glob("inside-*"))) == 3
        assert sum("waiting for a place in the pool 'openai'" in each for each in said) == 1
        assert log.get_concurrency_info("openai").active_slot_count == 0
