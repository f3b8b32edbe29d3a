"""Where everything lies: the warehouse of all studies' tables, the ledger of answers, and the Dagster instances."""

from __future__ import annotations

import os
from importlib import resources as package_files
from pathlib import Path
from typing import TYPE_CHECKING

from nift_assets import environment
from nift_training import gpus

if TYPE_CHECKING:
    from sqlalchemy import URL

    from nift_assets.ledger.book import Book
    from nift_assets.study import Study

# In the folder of an instance while its databases are made for the first time.
MAKING = ".making"


def warehouse() -> str:
    """The root of all studies' tables: `NIFT_WAREHOUSE`, a folder or an address such as s3://bucket/nift."""
    root = environment.warehouse()
    return root if "://" in root else str(Path(root).absolute())


def take_over(study: Study) -> None:
    """Has what a study stored before versions were digests of code counted as what it is, the first time it is met."""
    from nift_assets.store import Store

    store = Store(root=warehouse(), study=study.name)
    if store.has_taken_over() or not store.folder().exists():
        return
    # Imported now: the whole graph is asked what it stored, which takes a second.
    from nift_assets import graph, takeover

    takeover.take_over(graph.build(study), store)


def ledger_url(root: str) -> str | URL:
    """The ledger's address: `NIFT_LEDGER_URL`, or `ledger.sqlite` beside the tables under a local root.

    Raises ValueError for a remote root without the variable: it holds no database.
    """
    if url := environment.ledger_url():
        return url
    if "://" in root:
        raise ValueError(
            f"the warehouse is {root}, which holds no database; set NIFT_LEDGER_URL to where the answers go"
        )
    from sqlalchemy import URL

    # Not as text: a path may hold what means something else in an address.
    return URL.create("sqlite", database=f"{root}/ledger.sqlite")


def open_book() -> Book:
    """The ledger, made if it is not there yet."""
    from nift_assets.ledger.book import Book

    url = ledger_url(warehouse())
    if file := _file(url):
        file.parent.mkdir(parents=True, exist_ok=True)
    return Book(url)


def existing_book() -> Book | None:
    """The ledger if there is one: whoever only looks makes no file. A database server is asked in any case."""
    from nift_assets.ledger.book import Book

    root = warehouse()
    if "://" in root and not environment.ledger_url():
        return None
    url = ledger_url(root)
    file = _file(url)
    # A mark without its ledger says that there was one.
    there = file is None or file.exists() or Path(f"{file}.mark").exists()
    return Book(url, look=True) if there else None


def dagster_home(study: str) -> Path:
    """The folder of the Dagster instance, made with our configuration: `DAGSTER_HOME`, by default `.dagster/<study>`.

    Assets have the same names in every study, so one instance for two would show one's runs under the other.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or Path(".dagster", study)).absolute()
    make_folder(home, "DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)
    if _is_unmade(home):
        from nift_training import file_locks

        with file_locks.waited_for(home / ".making.lock"):
            if _is_unmade(home):
                _make_instance(home)
    return home


def _is_unmade(home: Path) -> bool:
    return not (home / "dagster.yaml").exists() or (home / MAKING).exists()


def _make_instance(home: Path) -> None:
    """Writes our configuration and opens each database once: of two processes that do so first, one may die."""
    import dagster as dg

    (home / MAKING).touch()
    configuration = package_files.files("dagster_project") / "instance" / "dagster.yaml"
    (home / "dagster.yaml").write_bytes(configuration.read_bytes())
    with dg.DagsterInstance.get() as instance:
        instance.get_runs_count()
        instance.all_instigator_state()
        instance.all_asset_keys()
        if here := gpus.listed():
            instance.event_log_storage.set_concurrency_slots("gpu", len(here))
    (home / MAKING).unlink()


def make_folder(folder: Path, variable: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = f"set {variable} to a folder you may write to"
        raise ValueError(f"{folder} cannot be made ({error.strerror}); {remedy}") from None


def _file(url: str | URL) -> Path | None:
    """The file of an SQLite ledger, None for a server's."""
    from sqlalchemy import make_url

    address = make_url(url)
    return Path(address.database or "") if address.get_backend_name() == "sqlite" else None
