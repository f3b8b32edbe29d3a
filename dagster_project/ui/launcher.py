"""Dagster's UI behind our gate, its daemon and its code server, started and ended as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dagster as dg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dagster_project import lost_runs, standard_error
from dagster_project.check_history import DOCS, refresh_contracts_page
from dagster_project.settings import warehouse
from dagster_project.ui.gate import Gate, UiAddress
from dagster_project.ui.listening import PageServer, listening
from dagster_project.ui.look import Look
from nift_assets import studies
from nift_assets.pages.report import served
from nift_assets.steps.dagster_internals import (
    DAEMON,
    ProxyServerManager,
    WorkspaceFileTarget,
    WorkspaceProcessContext,
)
from nift_assets.store import Store
from nift_training import file_locks
from nift_training.verbs import end_with_parent

# What a checkout's workspace.yaml says, which an installed package has not.
WORKSPACE = {"load_from": [{"python_module": {"module_name": "dagster_project.definitions", "location_name": "nift"}}]}
# What a stop waits for at most, besides open pages: runs that end what they are at, and the daemon.
RUNS_SECONDS, DAEMON_SECONDS = 15, 15
# In the instance's folder: what Dagster's processes and the runs say.
LOG = "ui.log"
PAGES = ("report.html", DOCS)
# A page of ours is no part of the UI and may not act for it. The report runs no script; its links lead past the gate,
# which lets in nobody whose origin is unknown. The documentation runs its own script, as somebody unknown.
SANDBOXES = {"report.html": "sandbox allow-same-origin allow-popups", DOCS: "sandbox allow-scripts allow-popups"}


def serve(home: Path, address: UiAddress, say: Callable[[str], None], tell: Callable[[str], None] = print) -> None:
    """The UI of the instance in `home` until Ctrl-C or SIGTERM; everything it has started has then ended. The address
    is said when it can be asked; what a stop waits for is told line by line.

    Raises ValueError where another one serves the instance already, and if the daemon ends by itself.
    """
    with ExitStack() as stack:
        bound = stack.enter_context(listening(address))
        url = address.url(bound.getsockname()[1])
        stack.enter_context(_only_server(home, url))
        # A shell starts background jobs with Ctrl-C ignored, which every process would inherit.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
        instance = stack.enter_context(dg.DagsterInstance.get())
        # A code server outlives a launcher that was killed until its runs have ended; without one they are lost.
        lost_runs.mark_failed(
            instance, [run for run in lost_runs.launched(instance) if not lost_runs.asked_to_end(instance, run)]
        )
        log = home / LOG
        # Dagster's own lines, a dozen for each check of each run, are no answer to who has typed `nift ui`.
        with standard_error.sent_to(log):
            workspace = stack.enter_context(_code_server(instance))
        # Before the code server goes: it waits for the runs it has started.
        stack.callback(_cancel_runs, instance, tell)
        daemon = stack.enter_context(_daemon(workspace, log))
        context = stack.enter_context(WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)])))
        server = PageServer(_application(context, address), lambda: say(url), lambda: _tell_of_stop(instance, tell))
        with _watched(daemon, server):
            server.run(sockets=[bound])
        if daemon.poll() is not None and not server.was_stopped:
            raise ValueError(f"Dagster's daemon has ended by itself (exit status {daemon.returncode}); {log} says why")


def _application(context: WorkspaceProcessContext, address: UiAddress) -> Gate:
    from dagster_webserver.app import create_app_from_workspace_process_context  # with the schema of all its questions

    app: Starlette = create_app_from_workspace_process_context(context)
    for name in PAGES:
        app.router.routes.insert(0, Route(f"/study/{name}", _page(name, context.instance)))
    app.router.routes[:0] = Look(studies.active, warehouse()).routes()
    return Gate(app, names=(address.host, *address.names), token=address.token)


def _page(name: str, instance: dg.DagsterInstance) -> Callable[[Request], Response]:
    """A page of the active study: the report as the last run made it, the tables' documentation as they stand now."""

    def page(request: Request) -> Response:
        study = studies.active()
        store = Store(root=warehouse(), study=study.name)
        path = store.folder(name)
        if name == DOCS:
            refresh_contracts_page(study, store, instance)
        if not path.exists():
            return PlainTextResponse(f"{name} has not been made yet\n", 404)
        headers = {"Content-Security-Policy": SANDBOXES[name], "Cache-Control": "no-store"}
        return Response(served(path.read_bytes()), media_type="text/html", headers=headers)

    return page


@contextmanager
def _code_server(instance: dg.DagsterInstance) -> Iterator[Path]:
    """One code server for webserver and daemon, on a socket of its own, as a workspace file that names it."""
    import yaml

    with tempfile.TemporaryDirectory(prefix="nift-") as folder:
        location, workspace = Path(folder, "location.yaml"), Path(folder, "workspace.yaml")
        location.write_text(yaml.safe_dump(WORKSPACE))
        with ProxyServerManager(instance, WorkspaceFileTarget([str(location)]), "WARNING") as servers:
            workspace.write_text(yaml.safe_dump({"load_from": list(servers.get_code_server_specs())}))
            yield workspace


@contextmanager
def _daemon(workspace: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Dagster's daemon: run queue, back-fills, sensors, automation. It ends with this process, whatever ends that."""
    command = [sys.executable, "-m", DAEMON, "run", "--log-level", "warning", "--workspace", str(workspace)]
    with log.open("ab") as lines:
        process = subprocess.Popen(command, preexec_fn=end_with_parent, stderr=lines)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(DAEMON_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _watched(daemon: subprocess.Popen[bytes], server: PageServer) -> Iterator[None]:
    """Has the server end when the daemon does: a UI whose runs stay queued for ever is worse than none."""

    def wait() -> None:
        daemon.wait()
        server.should_exit = True

    threading.Thread(target=wait, daemon=True).start()
    yield


def _tell_of_stop(instance: dg.DagsterInstance, tell: Callable[[str], None]) -> None:
    """What a stop is going to wait for, said when it begins."""
    under_way = lost_runs.launched(instance)
    waits = f"Stopping: Dagster's daemon ends, which takes up to {DAEMON_SECONDS} s"
    if not under_way:
        tell(f"{waits}; no run is under way.")
        return
    named = ", ".join(map(lost_runs.in_words, under_way))
    plural = "1 run is" if len(under_way) == 1 else f"{len(under_way)} runs are"
    tell(f"{waits}; then {plural} canceled ({named}), for up to {RUNS_SECONDS} s: what was answered is kept.")


def _cancel_runs(instance: dg.DagsterInstance, tell: Callable[[str], None]) -> None:
    """Cancels the runs that are under way, which keeps what they were answered, and waits until they have ended."""
    for run in lost_runs.launched(instance):
        if not lost_runs.asked_to_end(instance, run):
            instance.report_run_canceled(run, "its process ended with nift ui")
    end = time.monotonic() + RUNS_SECONDS
    while time.monotonic() < end and lost_runs.launched(instance):
        time.sleep(0.2)
    for run in lost_runs.launched(instance):
        tell(f"{lost_runs.in_words(run)} has not ended after {RUNS_SECONDS} s; its process still comes to its end.")


@contextmanager
def _only_server(home: Path, url: str) -> Iterator[None]:
    """A lock of the operating system on one instance: two daemons would launch every run twice.

    Who may read its file, this account alone, finds the address with its token there.
    """
    path = home / "ui.lock"
    lock = file_locks.take(path)
    if lock is None:
        raise ValueError(f"the UI of this instance is served already: {path.read_text().strip()}")
    try:
        path.chmod(0o600)
        path.write_text(url + "\n")
        yield
    finally:
        lock.release()
