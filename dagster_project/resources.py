"""What the assets are handed: where tables lie, where answers are kept, and how processes are started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import dagster as dg

from dagster_project.io_manager import ParquetIOManager
from nift_assets.assets.partitions import STUDY
from nift_assets.ledger import Answer, Ledger, Provider, Request
from nift_assets.store import Store


def warehouse() -> str:
    """The root of all studies' tables: `NIFT_WAREHOUSE`, a folder or an address such as s3://bucket/nift."""
    root = os.environ.get("NIFT_WAREHOUSE") or "warehouse"
    return root if "://" in root else str(Path(root).absolute())


class LazyLedger:
    """The ledger at `NIFT_LEDGER_URL`, or in `ledger.sqlite` beside the tables; opened when first asked."""

    def __init__(self, root: str) -> None:
        self._root = root

    def ask(self, requests: Sequence[Request], provider: Provider) -> list[Answer]:
        return self._ledger.ask(requests, provider)

    @cached_property
    def _ledger(self) -> Ledger:
        if url := os.environ.get("NIFT_LEDGER_URL"):
            return Ledger(url)
        if "://" in self._root:
            raise ValueError(
                f"the warehouse is {self._root}, which holds no database; set NIFT_LEDGER_URL to where the answers go"
            )
        Path(self._root).mkdir(parents=True, exist_ok=True)
        return Ledger(f"sqlite:///{self._root}/ledger.sqlite")


def store() -> Store:
    return Store(root=warehouse(), study=STUDY.name)


def resources() -> dict[str, object]:
    """The resources every table asset is given, by name."""
    return {
        "io_manager": dg.IOManagerDefinition.hardcoded_io_manager(ParquetIOManager(store())),
        "store": store(),
        "ledger": LazyLedger(warehouse()),
        "pipes": dg.PipesSubprocessClient(),
    }
