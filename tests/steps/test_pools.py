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
# Three runs that ask the vendor, each a process: it says that it is inside, and leaves when it is told to. They are
# forks of one that has imported Dagster.
RUNS = """
import os, sys, time
from pathlib import Path
import dagster as dg
from nift_assets.rows import Teacher
from nift_assets.steps import pools
folder, model = Path(sys.argv[1]), Teacher(name="t", provider="openai", model="m")

@dg.asset
def asking(context: dg.AssetExecutionContext) -> None:
    with pools.slot_of_pool(context, model):
        (folder / f"inside-{os.getpid()}").touch()
        while not (folder / "leave").exists():
            time.sleep(0.05)

children = []
for _ in range(3):
    if child := os.fork():
        children.append(child)
        continue
    os.dup2(os.open(folder / f"said-{os.getpid()}", os.O_WRONLY | os.O_CREAT), 2)
    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([asking], instance=instance).success
    os._exit(0)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
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
        runs = subprocess.Popen([sys.executable, "-c", RUNS, str(tmp_path)], env=environment)

        def said() -> list[str]:
            return [path.read_text() for path in tmp_path.glob("said-*")]

        def one_waits() -> bool:
            assert runs.poll() is None, said()
            return log.get_concurrency_info("openai").pending_step_count == 1

        try:
            wait(one_waits, 120, every=0.1)
            found = log.get_concurrency_info("openai")
            assert (found.slot_count, found.active_slot_count) == (2, 2)
            assert len(list(tmp_path.glob("inside-*"))) == 2
        finally:
            (tmp_path / "leave").touch()
        assert runs.wait(120) == 0, said()
        assert len(list(tmp_path.glob("inside-*"))) == 3
        assert sum("waiting for a place in the pool 'openai'" in each for each in said()) == 1
        assert log.get_concurrency_info("openai").active_slot_count == 0
