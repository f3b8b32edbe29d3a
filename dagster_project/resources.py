"""What the assets are handed: where tables lie, where answers are kept, and how processes are started."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from dagster_project.io_manager import ParquetIOManager
from dagster_project.processes import processes
from dagster_project.settings import open_book, warehouse
from nift_assets.store import Store
from nift_assets.study import Study

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book


class LazyLedger:
    """The ledger, opened when first used."""

    @cached_property
    def book(self) -> Book:
        return open_book()


def store(study: Study) -> Store:
    return Store(root=warehouse(), study=study.name)


def resources(study: Study) -> dict[str, object]:
    """The resources every table asset is given, by name. None takes a configuration: what is typed into one is kept."""
    return {
        "io_manager": dg.IOManagerDefinition(lambda _: ParquetIOManager(store(study)), config_schema={}),
        "store": dg.ResourceDefinition(lambda _: store(study), config_schema={}),
        "ledger": dg.ResourceDefinition(lambda _: LazyLedger(), config_schema={}),
        "pipes": dg.ResourceDefinition(lambda _: processes(), config_schema={}),
    }
