"""The PostgreSQL server of the tests: a real one, reachable from this machine only, gone when the tests are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import PROJECT
from tests.postgres import postgres


def test_it_is_postgresql_and_keeps_rows(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    table = sa.Table("fixture_rows", sa.MetaData(), sa.Column("n", sa.Integer, primary_key=True))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"n": n} for n in range(3)])
    with engine.begin() as connection:
        assert str(connection.scalar(sa.text("select version()"))).startswith("PostgreSQL")
        assert connection.scalars(sa.select(table.c.n).order_by(table.c.n)).all() == [0, 1, 2]
        assert connection.scalar(sa.text("show fsync")) == "on"
        assert connection.scalar(sa.text("show listen_addresses")) == "127.0.0.1"
        table.drop(connection)
    engine.dispose()


def test_an_advisory_lock_is_held_by_one_connection_at_a_time(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    take, release = sa.text("select pg_try_advisory_lock(7)"), sa.text("select pg_advisory_unlock(7)")
    with engine.connect() as one, engine.connect() as other:
        one.execute(sa.text("select pg_advisory_lock(7)"))
        assert other.scalar(take) is False
        other.execute(sa.text("set lock_timeout = '100ms'"))
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            other.execute(sa.text("select pg_advisory_lock(7)"))
        assert one.scalar(release) is True
        assert other.scalar(take) is True
        assert other.scalar(release) is True
    engine.dispose()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_the_server_ends_when_the_process_that_started_it_is_killed() -> None:
    script = """
import sys, time
from pathlib import Path
from tests.postgres import postgres
with postgres(Path(sys.argv[1])):
    print((Path(sys.argv[1]) / "data" / "postmaster.pid").read_text().split()[0], flush=True)
    time.sleep(600)
"""
    with tempfile.TemporaryDirectory(prefix="nift-postgres-") as folder:
        tests = subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE, text=True, cwd=PROJECT)
        assert tests.stdout is not None
        server = int(tests.stdout.readline())
        assert is_there(server)
        tests.send_signal(signal.SIGKILL)
        tests.communicate()
        deadline = time.monotonic() + 20
        while is_there(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_there(server)


def test_the_block_ends_with_the_server_gone_even_if_somebody_is_connected() -> None:
    with tempfile.TemporaryDirectory(prefix="nift-postgres-") as folder:
        with postgres(Path(folder)) as running:
            left_open = sa.create_engine(running.url).connect()
            server = int((Path(folder) / "data" / "postmaster.pid").read_text().split()[0])
        assert not is_there(server)
        left_open.invalidate()


def is_there(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after yet does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
