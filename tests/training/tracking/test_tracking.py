"""Trackers: each client is told what was measured, a run goes on under its name, no fault of one reaches the work."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts, process_environment
from nift_training.tracking import __main__ as serving
from nift_training.tracking import follower, trackers
from nift_training.tracking.follower import Follower
from nift_training.tracking.measurements import Measurement, Opening, RunEnding, as_line, of_line, run_name
from nift_training.tracking.trackers import Tracker
from nift_training.train import __main__ as training
from nift_training.train import run
from tests.conftest import PROJECT
from tests.training.conftest import RECIPE

RUN = "demo/lora_adapters/pico/0123abcd"
CANARY = "canary-0123456789abcdef"


def needs(client: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(client) is None
    return pytest.mark.skipif(missing, reason=f"{client} is not installed: pip install '.[trackers]'")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first use of a client on a busy machine takes its time, which a test waits for and work does not."""
    monkeypatch.setattr(follower, "END_SECONDS", 60.0)


def opening(first_step: int | None = 1, **settings: Any) -> Opening:
    return Opening(run=RUN, settings=settings, seconds=1000.0, first_step=first_step)


def follow(setting: str, losses: dict[int, float], **settings: Any) -> list[str]:
    """What is said while a tracker is told of a run with these losses by their step."""
    said: list[str] = []
    with Follower(setting, said.append) as telling:
        telling.begin(opening(min(losses), **settings))
        for step, loss in losses.items():
            telling.tell(step, {"train/loss": loss, "train/gradient_norm": None})
    return said


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads of a run's folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def records(written: bytes) -> Iterator[bytes]:
    """What W&B has written into its file, a log of LevelDB's kind, as long as it is one block of it."""
    place = 7
    while place + 7 <= len(written) <= 32768:
        _, length, kind = struct.unpack_from("<IHB", written, place)
        assert kind == 1, "a record in one piece"
        yield written[place + 7 : place + 7 + length]
        place += 7 + length


@contextmanager
def listening(*, answers: bool) -> Iterator[tuple[str, list[int]]]:
    """A server that takes connections and never says a word, or that nobody is at; and how many it took."""
    taken: list[int] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if answers:
            server.listen()
            held: list[socket.socket] = []

            def accept() -> None:
                while True:
                    try:
                        held.append(server.accept()[0])
                    except OSError:
                        return
                    taken.append(len(held))

            threading.Thread(target=accept, daemon=True).start()
        yield address, taken


@needs("tensorboard")
def test_tensorboard_reads_what_it_was_told_and_a_run_that_goes_on_replaces_its_own_steps(tmp_path: Path) -> None:
    assert follow(f"tensorboard:{tmp_path}", {1: 4.0, 2: 2.0, 3: 9.0}) == []
    assert follow(f"tensorboard:{tmp_path}", {3: 1.0, 4: 0.5}) == []
    assert scalars(tmp_path / RUN) == {"train/loss": [(1, 4.0), (2, 2.0), (3, 1.0), (4, 0.5)]}


@needs("mlflow")
def test_mlflow_has_one_run_of_a_name_with_its_settings_and_all_its_steps(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path}/mlflow.db"
    assert follow(f"mlflow:{address}", {1: 4.0, 2: 2.0}, rank=8, base="pico") == []
    assert follow(f"mlflow:{address}", {2: 2.0, 3: 1.0}, rank=8, base="pico") == []
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=address)
    (found,) = client.search_runs([client.get_experiment_by_name("nift").experiment_id])
    assert (found.info.run_name, found.info.status) == (RUN, "FINISHED")
    assert found.data.params == {"rank": "8", "base": "pico"}
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert {(metric.step, metric.value) for metric in history} == {(1, 4.0), (2, 2.0), (3, 1.0)}
    assert found.data.tags == {"mlflow.runName": RUN}, "who ran what where is nobody's business"


@needs("wandb")
def test_wandb_writes_offline_what_it_was_told_and_nothing_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", CANARY.replace("-", "").ljust(40, "0"))
    assert follow("wandb:beside", {1: 4.0, 2: 2.0}, rank=8) == []
    from wandb.proto import wandb_internal_pb2

    (file,) = tmp_path.rglob("*.wandb")
    told, begun = [], None
    for content in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        begun = record.run if record.HasField("run") else begun
        told.append({"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item})
    assert begun is not None
    assert (begun.project, begun.display_name, begun.host) == ("beside", RUN, "nift")
    assert [float(row["train/loss"]) for row in told if "train/loss" in row] == [4.0, 2.0]
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert CANARY.replace("-", "").encode() not in written
    assert str(PROJECT).encode() not in file.read_bytes()


@needs("tensorboard")
def test_an_adapter_is_the_same_to_the_byte_whoever_is_told_of_it(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    followed = {"tracker": f"tensorboard:{tmp_path / 'runs'}", "tracked_as": RUN}
    alone = run.train(tiny, "tiny", pairs_file, RECIPE, tmp_path / "alone", 1)
    told = run.train(tiny, "tiny", pairs_file, RECIPE, tmp_path / "told", 1, **followed)
    assert told.digest == alone.digest
    log = artifacts.read_rows(tmp_path / "told" / "train_log.jsonl")
    found = scalars(tmp_path / "runs" / RUN)
    for name in run.TOLD:
        steps = [(step["step"], pytest.approx(step[name], rel=1e-6)) for step in log]
        assert found[f"train/{name}"] == steps
    assert "runs" not in json.dumps(told.facts), "who was told is no fact of an adapter"


@needs("mlflow")
@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "hangs"])
def test_a_tracker_that_is_down_or_hangs_neither_fails_nor_slows_a_training(
    answers: bool,
    tiny: Path,
    pairs_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(follower, "END_SECONDS", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with listening(answers=answers) as (address, _):
        alone = run.train(tiny, "tiny", pairs_file, RECIPE, tmp_path / "alone", 1)
        told = run.train(tiny, "tiny", pairs_file, RECIPE, tmp_path / "told", 1, tracker=f"mlflow:{address}")
    assert told.digest == alone.digest
    assert told.facts["seconds"] < alone.facts["seconds"] + 3
    assert len([line for line in capsys.readouterr().err.splitlines() if line.startswith("tracker: ")]) <= 1


@needs("mlflow")
@pytest.mark.parametrize("answers", [False, True], ids=["refuses", "hangs"])
def test_a_tracker_that_takes_nothing_is_said_in_one_line_without_a_secret(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", CANARY)
    said: list[str] = []
    with listening(answers=answers) as (address, taken):
        began = time.monotonic()
        with Follower(f"mlflow:{address}", said.append) as telling:
            telling.begin(opening())
            for step in range(1, 2001):
                telling.tell(step, {"train/loss": 1 / step})
            assert time.monotonic() - began < 2, "nobody waits for a tracker"
    (line,) = said
    assert line.startswith("tracker: mlflow cannot be told: ")
    assert line.endswith("; the work goes on")
    assert CANARY not in line
    assert bool(taken) is answers


@needs("mlflow")
def test_a_tracker_that_hangs_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "END_SECONDS", 1.0)
    waited = []
    with listening(answers=True) as (address, _):
        for _ in range(2):
            began = time.monotonic()
            with Follower(f"mlflow:{address}") as telling:
                telling.begin(opening())
                telling.tell(1, {"train/loss": 1.0})
            waited.append(time.monotonic() - began)
    first, second = waited
    assert first >= 1
    assert second < 0.5


class StuckRun:
    """A run of a tracker whose client does not come back."""

    def __init__(self, until: threading.Event) -> None:
        self.until = until

    def send(self, measurements: Sequence[Measurement]) -> None:
        self.until.wait()

    def end(self, *, finished: bool) -> None:
        """It ends with the test."""


def test_a_client_that_does_not_come_back_is_complained_of_while_it_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "SLOW_SECONDS", 0.05)
    until = threading.Event()
    sender = serving.Sender(Tracker("mlflow"))
    sender.run = StuckRun(until)
    waiting = serving.WaitingToBeSent()
    with (tmp_path / "said").open("w") as out:
        complaints = serving.Complaints(Tracker("mlflow"), out)
        serving.read([as_line(Measurement(step=1, seconds=1.0, numbers={"loss": 1.0})) + "\n"], waiting)
        thread = threading.Thread(target=serving.deliver, args=(sender, waiting, complaints))
        thread.start()
        while not complaints.said:
            time.sleep(0.01)
        until.set()
        thread.join(10)
    assert [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()] == [
        "mlflow has not answered for 0 s"
    ]


@needs("tensorboard")
def test_a_tracker_whose_process_ends_is_said_and_the_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (said,) = follow(f"tensorboard:{tmp_path / 'file'}", {1: 1.0})
    assert said.startswith("tracker: tensorboard cannot be told: ")


@needs("tensorboard")
def test_what_was_told_before_the_work_is_killed_still_arrives(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "from nift_training.tracking.follower import Follower\n"
        "from nift_training.tracking.measurements import Opening\n"
        f"told = Follower('tensorboard:{tmp_path}', print)\n"
        f"told.begin(Opening(run='{RUN}', seconds=time.time(), first_step=1))\n"
        "told.tell(1, {'train/loss': 4.0})\n"
        "while not told._waiting.empty(): time.sleep(0.01)\n"
        "time.sleep(0.2)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=False)
    assert killed.returncode == -9
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("events.*")) or not scalars(tmp_path / RUN):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert scalars(tmp_path / RUN) == {"train/loss": [(1, 4.0)]}


def test_a_line_that_was_cut_with_the_work_loses_nothing_that_was_told_before() -> None:
    measured = Measurement(step=1, seconds=1.0, numbers={"loss": 1.0})
    waiting = serving.WaitingToBeSent()
    serving.read([as_line(opening()) + "\n", as_line(measured) + "\n", as_line(measured)[:-9]], waiting)
    assert (waiting.told, waiting.closed) == ([opening(), measured, RunEnding(finished=False)], True)


def test_a_tracker_is_told_by_name_what_it_needs_and_only_where_it_is_set() -> None:
    environment = {
        "PATH": "/bin",
        "MLFLOW_TRACKING_TOKEN": CANARY,
        "WANDB_API_KEY": CANARY,
        "OPENAI_API_KEY": CANARY,
        "HTTPS_PROXY": "http://proxy",
    }
    command = ["python", "-m", "nift_training.train", "--out", "x"]
    assert process_environment.told(command, environment).keys() == {"PATH"}
    told = {
        setting: set(process_environment.told([*command, "--tracker", setting], environment)) - {"PATH"}
        for setting in ("tensorboard:runs", "mlflow:http://localhost:5000", "wandb")
    }
    assert told == {
        "tensorboard:runs": set(),
        "mlflow:http://localhost:5000": {"MLFLOW_TRACKING_TOKEN", "HTTPS_PROXY"},
        "wandb": {"WANDB_API_KEY", "HTTPS_PROXY"},
    }
    assert process_environment.TRACKERS.keys() == trackers.CLIENTS.keys()


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("comet", "there is no tracker 'comet'; use one of mlflow, tensorboard, wandb"),
        ("mlflow:http://me:secret@localhost:5000", "has a password in it"),
        ("mlflow:http://me:top/secret@localhost:5000", "has a password in it"),
        ("mlflow:postgresql://me:secret#?@localhost/runs", "has a password in it"),
        ("tensorboard:s3://bucket/runs", "name a folder"),
    ],
)
def test_what_names_no_tracker_is_refused_in_one_line_before_anything_is_read(
    setting: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: importlib.util.find_spec("json"))
    (tmp_path / "pairs.jsonl").write_text("not read")
    arguments = ["--base", str(tmp_path), "--data", str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match=why) as refused:
        training.main([*arguments, "--threads", "1", "--tracker", setting])
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_client_that_is_not_installed_is_named_with_the_extra_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"the client of wandb is not installed; run pip install '\.\[wandb\]'"):
        trackers.parse("wandb")


def test_nothing_imports_a_client_in_the_process_that_works() -> None:
    """Which would cost it seconds, and what the client does to signals, threads and the log."""
    script = "import sys, nift_training.train.__main__; print({'mlflow', 'wandb', 'tensorboard'} & sys.modules.keys())"
    shown = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_what_is_told_is_read_again_as_it_was() -> None:
    for told in (opening(rank=8), Measurement(step=3, seconds=2.5, numbers={"loss": 0.5}), RunEnding(finished=True)):
        assert of_line(as_line(told)) == told
    assert replace(opening(), run="other") != opening()


def test_a_runs_name_is_a_folder_below_the_one_that_is_named() -> None:
    assert run_name("demo", "lora_adapters", "pico", "0123") == "demo/lora_adapters/pico/0123"
    assert run_name("../../etc", "it's mine", "") == "etc/it-s-mine"


def test_no_value_of_a_secret_is_complained_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", CANARY)
    said = serving.without_secrets(f"refused {CANARY} at\nhttp://me:word@localhost or http://me:two/words@localhost")
    assert said == "refused … at http://…@localhost or http://…@localhost"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == CANARY
