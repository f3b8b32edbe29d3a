"""What the tests of teachers share: ledgers of both kinds."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.ledger.asking import KEY
from tests.ledger.fault_server import FaultServer
from tests.postgres import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The SQLAlchemy URL of a real PostgreSQL server, one for the session; a test makes its own database or tables."""
    # Not pytest's folder, which only its owner can enter: under root the server belongs to somebody else.
    with tempfile.TemporaryDirectory(prefix="nift-postgres-") as folder, postgres(Path(folder)) as server:
        yield server.url


@pytest.fixture(scope="module")
def faultless() -> Iterator[FaultServer]:
    """A server that answers everybody, one for a file of tests."""
    with FaultServer() as running:
        yield running


@pytest.fixture
def test_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key of that server in the variable TEST_KEY."""
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.sqlite"


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """A database of the test's own on the PostgreSQL server."""
    name = f"nift_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    yield str(sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False))
    with engine.connect() as connection:
        connection.execute(sa.text(f"drop database {name} with (force)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", id="postgresql")])
def ledger_url(request: pytest.FixtureRequest) -> str:
    """A ledger of each kind."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "database_url"))
