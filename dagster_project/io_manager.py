"""Tables between steps: one Parquet file per partition in the study's store."""

from __future__ import annotations

import dagster as dg
import polars as pl

from expectations import contract as contracts
from expectations.frames import schema
from nift_assets.graph import CheckedRows, LoadedTable
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.table_files import DamagedTable, StoredTable


class ParquetIOManager(dg.IOManager):
    """Writes checked tables and reads them back as frames; nothing is pickled."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handle_output(self, context: dg.OutputContext, obj: CheckedRows) -> None:
        table = context.asset_key.path[-1]
        partition = context.asset_partition_key if context.has_asset_partitions else None
        for name, content in obj.files.items():
            self._store.write_bytes(content, name)
        path = self._store.write(table, partition, obj.rows, obj.version)
        context.add_output_metadata({"path": dg.MetadataValue.path(str(path)), "file_bytes": path.stat().st_size})

    def load_input(self, context: dg.InputContext) -> LoadedTable:
        """The stored frame; of several partitions, those that exist below each other, so that what is missing in a
        back-fill, or is damaged, does not keep a score table from being made."""
        table = context.asset_key.path[-1]
        declared = schema(contracts.load(table))
        keys = context.asset_partition_keys if context.has_asset_partitions else [None]
        gathers = context.has_asset_partitions and not context.has_partition_key
        read = {Partition(table, key): self._stored(context, table, key, gathers) for key in keys}
        stored = [table.rows for table in read.values() if table]
        versions = {place: table.version if table else None for place, table in read.items()}
        if stored and not context.has_asset_partitions:
            return LoadedTable(stored[0], versions)
        # A partition may be older than a column of the contract: what it lacks is null until it is made again.
        rows = pl.concat([pl.DataFrame(schema=declared), *stored], how="diagonal").select(*declared)
        return LoadedTable(rows, versions)

    def _stored(self, context: dg.InputContext, table: str, key: str | None, gathers: bool) -> StoredTable | None:
        try:
            return self._store.stored(table, key)
        except DamagedTable as damage:
            if not gathers:
                raise
            context.log.warning(f"left out: {damage}")
            return None
