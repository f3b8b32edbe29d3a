"""No key goes where it does not belong: to another server, or into anything that is written (T22, X1, X2)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dagster_project import definitions
from dagster_project.settings import dagster_home
from nift_assets import providers
from nift_assets.protocol.server import Remote
from nift_assets.secrets.redaction import _Factory
from tests import canaries
from tests.conftest import PROJECT, instance_at
from tests.counting import Counts
from tests.ledger.fault_server import FaultServer, sha256
from tests.ledger.shapes import KEY_VARIABLE, SHAPES, Asking, Shape, asking, prompts, teacher

both_shapes = pytest.mark.parametrize("shape", SHAPES)

# A canary of each shape a key can have.
CANARIES = {
    "PLAIN_API_KEY": "sk-Canary0PlainCanary0PlainCanary0Plain",
    "PROJECT_API_KEY": "sk-proj-Canary1_Project-Canary1_Project-Canary1_Project",
    "CLAUDE_API_KEY": "sk-ant-api03-Canary2-Claude_Canary2-Claude_Canary2",
    "HUB_TOKEN": "hf_Canary3HubCanary3HubCanary3HubCa",
    "STORE_ACCESS_KEY_ID": "AKIACANARY4STORE4CAN",
}
OWN_KEYS = {"OPENAI_API_KEY": "sk-canary-of-openai-0123456789", "ANTHROPIC_API_KEY": "sk-ant-canary-of-anthropic-0123"}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**OWN_KEYS, KEY_VARIABLE: CANARIES["PLAIN_API_KEY"]}.items():
        monkeypatch.setenv(name, value)


# --------------------------------------------------------------------------------------------- T22: another server


@pytest.mark.fault("T22")
@both_shapes
def test_a_providers_own_key_goes_to_the_provider_only(shape: Shape, tmp_path: Path, counts: Counts) -> None:
    with FaultServer() as other:
        asked = Asking(f"sqlite:///{tmp_path}/l.sqlite", teacher(shape, other.url, key_variable=None)).ask(prompts(5))
        seen = [bill.headers for bill in other.arrivals()]
    # The fault server turns away whoever brings no key, as it should be.
    assert asked.stopped is not None
    assert asked.stopped.cause == "authentication"
    assert seen
    assert all("authorization_sha256" not in headers and "x-api-key_sha256" not in headers for headers in seen)
    counts("T22", f"{shape}: base_url elsewhere: {len(seen)} requests, the provider's key in 0")


@pytest.mark.fault("T22")
@both_shapes
@pytest.mark.parametrize("url", ["http://models.example", "http://10.0.0.7:8000", "http://127.0.0.1.evil.example"])
def test_no_key_goes_over_http_to_another_machine(shape: Shape, url: str) -> None:
    with pytest.raises(ValueError, match="https") as refused:
        providers.load(shape).connect(teacher(shape, url), None)
    assert CANARIES["PLAIN_API_KEY"] not in str(refused.value)
    providers.load(shape).connect(teacher(shape, url, key_variable=None), None)
    providers.load(shape).connect(teacher(shape, url.replace("http:", "https:")), None)


@both_shapes
@pytest.mark.parametrize("url", ["ftp://models.example", "models.example", "file:///etc/passwd", "https://", ""])
def test_an_address_that_is_none_is_refused_with_a_remedy(shape: Shape, url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        providers.load(shape).connect(teacher(shape, url, base_url=url), None)


@pytest.mark.fault("T22")
@both_shapes
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_the_second_server_sees_nothing(
    shape: Shape, code: int, tmp_path: Path, counts: Counts
) -> None:
    path = "/v1/chat/completions" if shape == "openai" else "/v1/messages"
    with FaultServer() as second:
        rule = {"fault": "redirect", "code": code, "to": second.url + path}
        with asking(shape, tmp_path, faults=[rule]) as both:
            asked = both.ask(prompts(20), in_flight=4)
        assert second.arrivals() == []
    assert asked.stopped is not None
    assert asked.stopped.cause == "redirected"
    assert "base_url" in str(asked.stopped)
    assert asked.sent <= 4
    counts("T22", f"{shape}: redirect {code}: refused after {asked.sent} sends, the second server saw 0 requests")


@pytest.mark.fault("T22")
@both_shapes
def test_nothing_in_the_environment_diverts_a_request(
    shape: Shape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    with FaultServer() as other:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, other.url)
            monkeypatch.setenv(name.lower(), other.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{other.url}/v1")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", other.url)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password netrc-canary\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        with asking(shape, tmp_path) as both:
            asked = both.ask(prompts(10))
            sent = {
                bill.headers.get("authorization_sha256") or bill.headers["x-api-key_sha256"] for bill in both.bills()
            }
        assert other.arrivals() == []
    assert asked.counts == {"ok": 10}
    assert sent == {sha256(CANARIES["PLAIN_API_KEY"])}
    row = teacher(shape, "", base_url=None, key_variable=None)
    remote = providers.load(shape).connect(row, None)
    assert isinstance(remote, Remote)
    assert remote.url.startswith(("https://api.openai.com/", "https://api.anthropic.com/"))
    counts("T22", f"{shape}: proxies and base URLs of the environment: 10 of 10 to the row's server, 0 elsewhere")


# ------------------------------------------------------------------------------------- X1: nothing that is written

MODES: dict[str, dict[str, object]] = {
    "fine": {"fault": "slow", "headers": {"x-echo": "{key}", "set-cookie": "session={key}"}},
    "auth": {"fault": "auth", "echo_key": True},
    "permission": {"fault": "permission", "echo_key": True},
    "missing": {"fault": "not_found", "echo_key": True},
    "quota": {"fault": "insufficient_quota", "echo_key": True},
    "rejected": {"fault": "bad_request", "echo_key": True},
    "trouble": {"fault": "server_error", "echo_key": True},
    "limited": {"fault": "rate_limit", "first": 1, "echo_key": True, "retry_after": "0"},
    "told": {"fault": "ending", "reason": "stop", "text": "The key is {key}, and so it goes on."},
    "unheard": {"fault": "ending", "reason": "{key}", "text": "It ends."},
    "redirected": {"fault": "redirect", "to": "http://127.0.0.1:1/?key={key}"},
    "garbled": {"fault": "ending", "reason": None, "text": "Half a text with {key}"},
}
STUDY = """
import dataclasses, json, os
from nift_assets.studies.demo import STUDY as DEMO
from nift_assets.studies import Limits, Price, Teacher
limits = Limits(in_flight=4, backoff_seconds=0.01, seconds_per_request=5)
rows = json.loads(os.environ["CANARY_ROWS"])
price = Price(input=1.0, output=2.0, max_output=100)
canaries = tuple(Teacher(**row, limits=limits, price=price, documents=6, max_tokens=100) for row in rows)
STUDY = dataclasses.replace(DEMO, name="canaries", budget_usd=100.0, teachers=(*DEMO.teachers, *canaries))
"""
# What `nift demo` does for each of its runs, for the tables up to the completions.
RUN = """
import json, sys
from pathlib import Path
from dagster_project import worker
from dagster_project.settings import dagster_home
dagster_home("canaries")
worker.begin(sys.argv[1])
from dagster_project.run_study import PartitionRun, execute_one
articles = ("raw_sample", "raw_sample_rejects", "halves")
outcomes = {"data": execute_one(PartitionRun("data", None, ("raw_sample", "halves"), articles, frozenset())).error}
for name in json.loads(sys.argv[2]):
    outcomes[name] = execute_one(PartitionRun(name, name, ("completions",), ("completions",), frozenset())).error
Path(sys.argv[3]).write_text(json.dumps(outcomes))
print(json.dumps(outcomes))
"""


def _arguments(process: int) -> Iterator[bytes]:
    """The command lines of a process and of all that it has started, as `ps` shows them."""
    try:
        yield Path(f"/proc/{process}/cmdline").read_bytes()
        # A process is the child of the thread that started it.
        children = [
            child
            for thread in Path(f"/proc/{process}/task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield from _arguments(int(child))


def test_the_command_line_of_a_process_that_a_thread_has_started_is_seen() -> None:
    script = "import subprocess, sys, threading; threading.Thread(target=subprocess.run, args=[sys.argv[1:]]).start()"
    command = [sys.executable, "-c", script, sys.executable, "-c", "print(flush=True); input()", "a-planted-key"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = [line.count(b"a-planted-key") for line in _arguments(process.pid)]
        process.communicate(b"\n")
    assert seen == [1, 1]


@pytest.mark.fault("X1", runs="4 runs; slow: 60")
@pytest.mark.parametrize(
    ("modes", "with_every_key"),
    [
        # In the quick tests some modes with one of the keys each, else each mode with each key.
        pytest.param(("fine", "auth", "rejected", "told"), False, id="some"),
        pytest.param(tuple(MODES), True, id="all", marks=pytest.mark.slow),
    ],
)
def test_no_key_is_in_anything_that_a_run_of_dagster_writes(
    modes: tuple[str, ...], with_every_key: bool, tmp_path: Path, counts: Counts
) -> None:
    names = list(CANARIES)
    cells = [
        (mode, variable)
        for place, mode in enumerate(modes)
        for variable in (names if with_every_key else names[place : place + 1])
    ]
    rows, rules = [], []
    for place, (mode, variable) in enumerate(cells):
        shape = SHAPES[place % 2]
        name = f"{mode}-{names.index(variable)}"
        told = json.loads(json.dumps(MODES[mode]).replace("{key}", CANARIES[variable]))
        rules.append({**told, "model": name})
        rows.append({"name": name, "provider": shape, "model": name, "key_variable": variable})
    for folder in ("home", "temporary"):
        (tmp_path / folder).mkdir()
    with FaultServer(faults=rules) as server:
        for row in rows:
            row["base_url"] = f"{server.url}/v1" if row["provider"] == "openai" else server.url
        (tmp_path / "study.py").write_text(STUDY)
        environment = {
            **os.environ,
            **CANARIES,
            "CANARY_ROWS": json.dumps(rows),
            "NIFT_STUDY": str(tmp_path / "study.py"),
            "NIFT_WAREHOUSE": str(tmp_path / "warehouse"),
            "DAGSTER_HOME": str(tmp_path / "home"),
            "TMPDIR": str(tmp_path / "temporary"),
        }
        outcomes, printed = tmp_path / "outcomes.json", tmp_path / "printed"
        partitions = json.dumps([row["name"] for row in rows])
        with printed.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(tmp_path / "log"), partitions, str(outcomes)],
                cwd=PROJECT,
                env=environment,
                stdout=output,
                stderr=output,
            )
            shown = 0
            while process.poll() is None:
                shown += any(key.encode() in line for line in _arguments(process.pid) for key in CANARIES.values())
                try:
                    process.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
        seen = {
            bill.headers.get("authorization_sha256") or bill.headers.get("x-api-key_sha256") for bill in server.bills()
        }
    assert outcomes.exists(), (tmp_path / "log").read_text()[-3000:]
    said = json.loads(outcomes.read_text())
    assert said.pop("data") is None
    stops = ("auth", "permission", "missing", "quota", "redirected")
    assert {name for name, error in said.items() if error} >= {n for n in said if n.split("-")[0] in stops}
    # The keys did go out, and came back in bodies, headers and messages.
    assert seen == {sha256(CANARIES[variable]) for _, variable in cells}
    found, files = canaries.found(tmp_path, CANARIES)
    assert found == []
    assert files > 20
    assert (tmp_path / "warehouse" / "ledger.sqlite").exists()
    assert "[redacted]" in json.dumps(said)
    assert shown == 0
    counts("X1", f"{len(cells)} runs, {len(modes)} modes, {len({v for _, v in cells})} keys, {files} files: 0 hits")


def test_the_code_location_redacts_what_is_logged() -> None:
    import logging

    assert definitions.defs is not None
    assert isinstance(logging.getLogRecordFactory(), _Factory)


# ------------------------------------------------------------------------------------------- X2: typed into a run

TRIES = {
    "op": {"ops": {"completions": {"config": {"api_key": "{key}"}}}},
    "resource": {"resources": {"ledger": {"config": {"api_key": "{key}"}}}},
    "unknown": {"api_key": "{key}"},
}


@pytest.mark.fault("X2")
def test_a_key_typed_into_the_configuration_of_a_run_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], counts: Counts
) -> None:
    key = CANARIES["PROJECT_API_KEY"]
    monkeypatch.setenv("NIFT_WAREHOUSE", str(tmp_path / "warehouse"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    job = definitions.defs.resolve_implicit_global_asset_job_def()
    tries = json.loads(json.dumps(TRIES).replace("{key}", key))
    with instance_at(dagster_home("demo")) as instance:
        for config in tries.values():
            with pytest.raises(dg.DagsterInvalidConfigError) as refused:
                job.execute_in_process(
                    run_config=config,
                    instance=instance,
                    partition_key="echo",
                    asset_selection=[dg.AssetKey("completions")],
                )
            assert key not in str(refused.value)
        assert instance.get_runs() == []
    assert key not in "".join(capfd.readouterr())
    found, files = canaries.found(tmp_path, {"typed": key})
    assert found == []
    counts("X2", f"3 ways to type a key into a run: 3 refused by schema, 0 runs, 0 hits in {files} files")
