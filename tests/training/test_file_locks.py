"""Locks on files: one holder, whether thread or process, for as long as it lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nift_training import file_locks
from tests.conftest import PROJECT

HOLDER = """
import sys, time
from pathlib import Path
from nift_training import file_locks
lock = file_locks.take(Path(sys.argv[1]))
print("held" if lock else "refused", flush=True)
time.sleep(600)
"""


def holder(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], cwd=PROJECT, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def in_a_thread(path: Path) -> bool:
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(file_locks.take(path) is not None))
    thread.start()
    thread.join()
    return taken[0]


def test_the_second_is_refused_in_its_own_thread_in_another_and_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_locks.locked(path, "it is free"):
        with pytest.raises(ValueError, match="somebody has it"), file_locks.locked(path, "somebody has it"):
            pass
        assert not in_a_thread(path)
        other = holder(path)
        assert other.stdout is not None
        assert other.stdout.readline() == "refused\n"
        other.kill()
        other.wait()
    assert in_a_thread(path)


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = holder(path)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    assert file_locks.take(path) is None
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    lock = file_locks.take(path)
    assert lock is not None
    lock.release()


def test_a_lock_may_be_released_by_another_thread(tmp_path: Path) -> None:
    lock = file_locks.take(tmp_path / "lock")
    assert lock is not None
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    assert in_a_thread(tmp_path / "lock")


def test_who_is_refused_leaves_the_holders_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_locks.locked(path, "it is free"):
        path.write_text("http://127.0.0.1:3000\n")
        assert file_locks.take(path) is None
    assert path.read_text() == "http://127.0.0.1:3000\n"


def test_who_waits_goes_on_alone(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with file_locks.waited_for(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lock_that_is_cleared_away_lets_nobody_in_beside_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with file_locks.locked(path, "it is free"):
        path.unlink()
    assert not path.exists()
    assert in_a_thread(path)
