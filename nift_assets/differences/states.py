"""A state of a study: the files of each partition of each table, wherever they lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from expectations import contract, frames
from nift_assets import catalogue, filters, table_files
from nift_assets.near_names import near
from nift_assets.table_files import LacksColumn

# The table that a published data set has in the place of a table per filter.
REMOVALS = "removals"

# A table and the key of one of its partitions, None for a table that has none.
TablePartition = tuple[str, str | None]
Hold = Callable[[AbstractContextManager[Path]], Path]


@dataclass(frozen=True, kw_only=True)
class StudyState:
    """The files of each partition, and what tells without reading them whether two are the same.

    `sealed` are files of a warehouse, whose rows are held against their footer before they are compared. `teacher` is
    whose data a published data set is, and `root` the warehouse of another state. `unknown` are tables without a
    contract, of which nobody can say what names a row.
    """

    name: str
    study: str
    files: Mapping[TablePartition, Sequence[Path]]
    versions: Mapping[TablePartition, str]
    sealed: bool = True
    teacher: str | None = None
    root: Path | None = None
    unknown: Sequence[str] = ()

    def check(self, place: TablePartition) -> None:
        """DamagedTable if the rows of a partition are not those that were written."""
        if self.sealed:
            for file in self.files.get(place, ()):
                table_files.check(file, _in_words(file, self.study))

    def read(self, place: TablePartition) -> pl.DataFrame | None:
        """The rows of a partition of a warehouse, None where there is none; for tables of some thousand rows. A column
        that came into the contract after they were stored is null if it may be."""
        files = self.files.get(place)
        if not files or not self.sealed:
            return None
        rows = table_files.read(files[0], _in_words(files[0], self.study)).rows
        nullable = frames.nullable(contract.load(place[0]))
        return rows.with_columns(pl.lit(None, nullable[name]).alias(name) for name in nullable if name not in rows)

    def lacks(self, place: TablePartition, column: str) -> LacksColumn:
        """The error for a partition without a column that is needed."""
        (file,) = self.files[place]
        return LacksColumn(file, _in_words(file, self.study), column)

    def as_published(self, teacher: str, training_sets: Sequence[str]) -> StudyState:
        """What of this state a published data set of the teacher holds, under the names that it has there; what has no
        rows is not published."""
        found = sorted(place for place in self.files if place[0].endswith(filters.TABLE_SUFFIX) and place[1] == teacher)
        files: dict[TablePartition, Sequence[Path]] = {
            **{("training_sets", name): self.files.get(("training_sets", name), ()) for name in training_sets},
            (REMOVALS, teacher): tuple(file for place in found for file in self.files[place]),
            ("content_audit", teacher): self.files.get(("content_audit", teacher), ()),
            ("completions", teacher): self.files.get(("completions", teacher), ()),
        }
        files = {place: paths for place, paths in files.items() if height(paths)}
        versions = {place: " ".join(map(str, paths)) for place, paths in files.items()}
        return StudyState(name=self.name, study=self.study, files=files, versions=versions, teacher=teacher)


def of_folder(root: Path, study: str, name: str, hold: Hold | None = None) -> StudyState:
    """What is stored of a study under a local root; DamagedTable for a file whose footer cannot be read. With `hold`,
    which enters what ends with the comparison, it stays this state whatever is written meanwhile."""
    place = hold(catalogue.held(root, study)) if hold else root
    files: dict[TablePartition, tuple[Path, ...]] = {}
    unknown = []
    for table, paths in ((table, paths) for owner, table, paths in catalogue.tables(place) if owner == study):
        if not contract.is_known(table):
            unknown.append(table)
        else:
            files |= {(table, path.stem if path.parent.name == table else None): (path,) for path in paths}
    versions = {place: table_files.version(paths[0], _in_words(paths[0], study)).data for place, paths in files.items()}
    return StudyState(name=name, study=study, files=files, versions=versions, root=root, unknown=unknown)


def named(argument: str, root: Path, active: Callable[[], str], hold: Hold | None = None) -> StudyState:
    """The state that a person names: a study of the warehouse `root`, the folder of another warehouse, or that of one
    study in it. Of a warehouse with several studies it is the active one. ValueError for what is none of these."""
    own = studies_in(root)
    folder = Path(argument).absolute()
    if argument in own:
        return of_warehouse(root, argument, hold)
    if folder.is_dir() and _is_study(folder):
        return of_folder(folder.parent, folder.name, argument, hold)
    inside = studies_in(folder)
    if inside:
        chosen = inside[0] if len(inside) == 1 else active()
        if chosen not in inside:
            raise ValueError(
                f"{argument} holds the studies {', '.join(inside)}, and not {chosen!r}; name one with --study, or its "
                f"folder, such as {Path(argument, inside[0])}"
            )
        return of_folder(folder, chosen, f"{chosen} in {argument}", hold)
    if folder.is_dir():
        raise ValueError(f"{argument} is a folder without tables; name a warehouse, or a study's folder in one")
    known = f"; the warehouse holds {', '.join(own)}" if own else ""
    raise ValueError(
        f"there is no study and no folder {argument!r}{near(argument, own) or known}. A published data set is named "
        "hf://datasets/owner/name@revision"
    )


def of_warehouse(root: Path, study: str, hold: Hold | None = None) -> StudyState:
    """What a warehouse holds of a study; ValueError if that is nothing."""
    own = studies_in(root)
    if study not in own:
        raise ValueError(
            f"nothing of the study {study} is stored under {root}{near(study, own)}; `nift run` makes some of it, "
            "NIFT_STUDY and NIFT_WAREHOUSE name another"
        )
    return of_folder(root, study, f"{study} in {root}", hold)


def studies_in(root: Path) -> list[str]:
    """The studies under a root, none where it is no warehouse."""
    if not root.is_dir() or _is_study(root):
        return []
    return list(dict.fromkeys(study for study, _, _ in catalogue.tables(root)))


def height(files: Sequence[Path]) -> int:
    """How many rows files have together, from their footers alone."""
    from pyarrow import parquet

    return sum(int(parquet.read_metadata(file).num_rows) for file in files)


def is_removals(table: str) -> bool:
    """Whether a table holds what filters found."""
    return table == REMOVALS or table.endswith(filters.TABLE_SUFFIX)


def _is_study(folder: Path) -> bool:
    """Whether a folder is that of one study: it holds a table by its name, as a file or as a folder of partitions."""
    tables = contract.known()
    return any(path.stem in tables and path.suffix == ".parquet" for path in folder.iterdir()) or any(
        path.name in tables and any(path.glob("[!.]*.parquet")) for path in folder.iterdir() if path.is_dir()
    )


def _in_words(file: Path, study: str) -> str:
    """What the footer of a file says that it is."""
    return file.stem if file.parent.name == study else f"{file.parent.name}/{file.stem}"
