"""What another process is started with: what it needs, by name, and no secret of this one (X15)."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.processes import Processes, WarmProcesses
from nift_assets.assets import evaluations
from nift_training import process_environment
from tests.demo import STUDY

# By the names that are known, and by names that say nothing.
SECRETS = {
    "OPENAI_API_KEY": "sk-proj-canary-0-of-openai",
    "ANTHROPIC_API_KEY_FILE": "/etc/canary-1-of-anthropic",
    "HF_TOKEN": "hf_canary2ofthehub",
    "HF_TOKEN_FILE": "/etc/canary-3-of-the-hub",
    "NIFT_UI_TOKEN": "canary4oftheui0123456789",
    "NIFT_SERVER_KEY": "canary-5-of-a-server",
    "NIFT_LEDGER_URL": "postgresql+psycopg://nift:canary-6-of-the-ledger@db.example.org/nift",
    "NIFT_FAILURE_WEBHOOK": "https://hooks.example.org/canary-7-of-a-channel",
    "PGPASSWORD": "canary-8-of-postgres",
    "AWS_SECRET_ACCESS_KEY": "canary-9-of-a-store",
    "HTTPS_PROXY": "http://me:canary-10-of-a-proxy@proxy.example.org",
    "COMPANY_LOGIN": "canary-11-that-nobody-knows",
    "LDAP_BIND": "canary-14-that-begins-as-a-loaders-would",
    "SSH_AUTH_SOCK": "/run/canary-15-of-an-agent",
    "NCCL_TOKEN": "canary-12-of-a-family-that-shapes",
    "PYTHON_KEYRING_PASSWORD": "canary-13-of-a-family-of-this-machine",
}
SHAPING = {"CUDA_VISIBLE_DEVICES": "0", "HF_HOME": "/data/hub", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
# What a process sees of itself and of every other one.
LOOK = """
import json, os, pathlib, sys
seen = {"environ": dict(os.environ), "raw": pathlib.Path("/proc/self/environ").read_bytes().decode(), "lines": []}
for process in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        seen["lines"].append((process / "cmdline").read_bytes().decode(errors="replace"))
    except OSError:
        pass
pathlib.Path(sys.argv[-1]).write_text(json.dumps(seen))
"""


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (SECRETS | SHAPING).items():
        monkeypatch.setenv(name, value)


def hits(seen: Mapping[str, object]) -> list[str]:
    environment = json.dumps([seen["environ"], seen["raw"]])
    lines = json.dumps(seen["lines"])
    named = [name for name in SECRETS if f'"{name}"' in environment or f"{name}=" in environment + lines]
    return named + [name for name, value in SECRETS.items() if value in environment + lines]


@pytest.mark.fault("X15")
def test_a_process_of_training_sees_no_secret_by_name_or_value(tmp_path: Path) -> None:
    """Neither in its environment nor in anybody's arguments, under the resource that starts every such process."""
    out = tmp_path / "seen.json"

    @dg.asset
    def weights(context: dg.AssetExecutionContext, pipes: dg.ResourceParam[Processes]) -> dg.MaterializeResult:
        return pipes.run(command=[sys.executable, "-c", LOOK, str(out)], context=context).get_materialize_result()

    assert dg.materialize([weights], resources={"pipes": Processes()}).success
    seen = json.loads(out.read_text())
    assert hits(seen) == []
    assert SHAPING.items() <= seen["environ"].items()
    assert seen["environ"]["PATH"] == os.environ["PATH"]
    assert {"DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"} <= seen["environ"].keys()
    assert os.environ["OPENAI_API_KEY"] == SECRETS["OPENAI_API_KEY"]


def test_a_fork_of_the_warm_process_sees_what_a_process_of_its_own_would(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, dict[str, str]]] = []
    monkeypatch.setattr(WarmProcesses, "_ask", lambda self, job: asked.append(job) or 0)

    @dg.asset
    def weights(context: dg.AssetExecutionContext, pipes: dg.ResourceParam[Processes]) -> dg.MaterializeResult:
        command = [sys.executable, "-m", "nift_training.train"]
        return pipes.run(command=command, context=context).get_materialize_result()

    assert dg.materialize([weights], resources={"pipes": WarmProcesses()}).success
    environment = asked[0]["environment"]
    assert hits({"environ": environment, "raw": "", "lines": []}) == []
    assert SHAPING.items() <= environment.items()


@pytest.mark.fault("X14", "X15")
def test_each_verb_is_told_what_it_asks_with_and_nobody_elses() -> None:
    def told(*command: str) -> set[str]:
        return {name for name in process_environment.told(["python", "-m", *command], os.environ) if name in SECRETS}

    assert told("nift_training.train") == told("nift_training.merge") == told("nift_training.pico") == set()
    assert told("nift_training.fetch") == {"HF_TOKEN", "HTTPS_PROXY"}
    assert told("nift_training.evaluate") == {"HTTPS_PROXY"}
    asked = ("nift_training.evaluate", "--server", "http://localhost:8000/v1", "--server-key-variable")
    assert told(*asked, "NIFT_SERVER_KEY") == {"HTTPS_PROXY", "NIFT_SERVER_KEY"}
    assert told("nift_training.train", "--hostfile", "hosts") == {"SSH_AUTH_SOCK"}


@pytest.mark.fault("X15")
def test_other_nodes_are_told_no_secret_and_nothing_that_their_shell_would_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = process_environment.of_nodes(os.environ, tmp_path)
    assert hits({"environ": told, "raw": "", "lines": []}) == []
    assert {"CUDA_VISIBLE_DEVICES", "HF_HOME", "OMP_NUM_THREADS"} <= told.keys()
    assert "LC_ALL" not in told
    assert told["PYTHONPATH"].split(":")[0] == str(tmp_path)
    for value in ("`touch /tmp/x`", "$(touch /tmp/x)", 'a"; touch /tmp/x; "', "a\ntouch /tmp/x", "a\\"):
        monkeypatch.setenv("HF_HOME", value)
        with pytest.raises(ValueError, match=r"HF_HOME is .* a shell on every node of the hostfile would run"):
            process_environment.of_nodes(os.environ, tmp_path)


def test_a_servers_password_is_refused_where_a_list_of_processes_would_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_SERVER", "http://me:canary@models.example.org/v1")
    with pytest.raises(ValueError, match="password in its address") as refused:
        evaluations._server(STUDY.models[0])
    assert "canary" not in str(refused.value)
    monkeypatch.setenv("NIFT_SERVER", "http://models.example.org/v1")
    server = evaluations._server(STUDY.models[0])
    assert server is not None
    assert server.key_variable == "NIFT_SERVER_KEY"
