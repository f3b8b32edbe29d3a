"""Dagster's private names, all that this project uses. An upgrade may take any of them away; a test says which.

Each is imported when it is asked for: some take a second, which the definitions do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster._cli.proxy_server_manager import ProxyServerManager as ProxyServerManager
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJobDefinition,
    )
    from dagster._core.errors import DagsterPipesExecutionError as DagsterPipesExecutionError
    from dagster._core.errors import DagsterUserCodeUnreachableError as DagsterUserCodeUnreachableError
    from dagster._core.event_api import PartitionKeyFilter as PartitionKeyFilter
    from dagster._core.execution.plan.instance_concurrency_context import (
        InstanceConcurrencyContext as InstanceConcurrencyContext,
    )
    from dagster._core.remote_origin import RegisteredCodeLocationOrigin as RegisteredCodeLocationOrigin
    from dagster._core.remote_origin import RemoteRepositoryOrigin as RemoteRepositoryOrigin
    from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES as IN_PROGRESS_RUN_STATUSES
    from dagster._core.storage.event_log import SqliteEventLogStorage as SqliteEventLogStorage
    from dagster._core.storage.event_log.polling_event_watcher import SqlPollingEventWatcher as SqlPollingEventWatcher
    from dagster._core.storage.sqlite import create_db_conn_string as create_db_conn_string
    from dagster._core.storage.tags import BACKFILL_ID_TAG as BACKFILL_ID_TAG
    from dagster._core.storage.tags import GRPC_INFO_TAG as GRPC_INFO_TAG
    from dagster._core.storage.tags import MAX_RETRIES_TAG as MAX_RETRIES_TAG
    from dagster._core.storage.tags import PARTITION_NAME_TAG as PARTITION_NAME_TAG
    from dagster._core.workspace.context import WorkspaceProcessContext as WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget as WorkspaceFileTarget
    from dagster._serdes import ConfigurableClassData as ConfigurableClassData

MODULES = {
    "BACKFILL_ID_TAG": "dagster._core.storage.tags",
    "ConfigurableClassData": "dagster._serdes",
    "DagsterPipesExecutionError": "dagster._core.errors",
    "DagsterUserCodeUnreachableError": "dagster._core.errors",
    "GRPC_INFO_TAG": "dagster._core.storage.tags",
    "IN_PROGRESS_RUN_STATUSES": "dagster._core.storage.dagster_run",
    "InstanceConcurrencyContext": "dagster._core.execution.plan.instance_concurrency_context",
    "MAX_RETRIES_TAG": "dagster._core.storage.tags",
    "PARTITION_NAME_TAG": "dagster._core.storage.tags",
    "PartitionKeyFilter": "dagster._core.event_api",
    "ProxyServerManager": "dagster._cli.proxy_server_manager",
    "RegisteredCodeLocationOrigin": "dagster._core.remote_origin",
    "RemoteRepositoryOrigin": "dagster._core.remote_origin",
    "SqlPollingEventWatcher": "dagster._core.storage.event_log.polling_event_watcher",
    "SqliteEventLogStorage": "dagster._core.storage.event_log",
    "UnresolvedAssetJobDefinition": "dagster._core.definitions.unresolved_asset_job_definition",
    "WorkspaceFileTarget": "dagster._core.workspace.load_target",
    "WorkspaceProcessContext": "dagster._core.workspace.context",
    "create_db_conn_string": "dagster._core.storage.sqlite",
}
# What our event log reads or replaces of the class it extends.
EVENT_LOG_MEMBERS = ("_base_dir", "_connect", "_db_lock", "_initdb", "_initialized_dbs")
# Started as a process of its own: run queue, back-fills, sensors, automation.
DAEMON = "dagster._daemon"

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        import importlib

        if name not in MODULES:
            raise AttributeError(f"{name!r} is none of Dagster's private names that are used here")
        return getattr(importlib.import_module(MODULES[name]), name)
