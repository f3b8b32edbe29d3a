"""What the assets are handed: where tables lie, where answers are kept, and how processes are started."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from dagster_project.io_manager import ParquetIOManager
from dagster_project.places import open_book, warehouse
from nift_assets import keys
from nift_assets.assets.partitions import STUDY
from nift_assets.store import Store

if TYPE_CHECKING:
    from nift_assets.ledger.book import Book


class LazyLedger:
    """The ledger, opened when first used."""

    @cached_property
    def book(self) -> Book:
        return open_book()


class Processes(dg.PipesSubprocessClient):
    """Starts the processes of `nift_training` without the keys of teachers, auditors and judges."""

    def run(
        self, *, context: dg.OpExecutionContext | dg.AssetExecutionContext, **options: Any
    ) -> dg.PipesClientCompletedInvocation:
        # Dagster hands its whole environment down and can only add to it; `env` then becomes the command itself.
        unset = [text for name in sorted(os.environ.keys() - keys.without_keys(os.environ)) for text in ("-u", name)]
        return super().run(context=context, **options | {"command": ["env", *unset, *options["command"]]})


_launch: Callable[[], Processes] = Processes


def start_warm() -> None:
    """From now on the runs of this process start verbs as forks of one that stays: see `warm`."""
    global _launch
    from dagster_project.warm import warm_processes

    _launch = warm_processes


def store() -> Store:
    return Store(root=warehouse(), study=STUDY.name)


def resources() -> dict[str, object]:
    """The resources every table asset is given, by name. None takes a configuration: what is typed into one is kept."""
    return {
        "io_manager": dg.IOManagerDefinition(lambda _: ParquetIOManager(store()), config_schema={}),
        "store": dg.ResourceDefinition(lambda _: store(), config_schema={}),
        "ledger": dg.ResourceDefinition(lambda _: LazyLedger(), config_schema={}),
        "pipes": dg.ResourceDefinition(lambda _: _launch(), config_schema={}),
    }
