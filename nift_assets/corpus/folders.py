"""Which files of a folder are its articles: all of one kind that can be read, or a refusal that says what stands in the
way. What is about the folder and not in it is left out: hidden files, a README, a licence, pictures, code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

FileKind = Literal["parquet", "json", "csv", "text"]

KINDS: dict[str, FileKind] = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
    ".text": "text",
}
# What any kind but Parquet, which compresses by itself, may be packed with.
PACKED = (".gz", ".zst", ".bz2", ".xz")
READABLE = f"{', '.join(KINDS)} (all but Parquet also {', '.join(PACKED)})"

# Names of files that say something about the folder they lie in, whatever comes behind the first dot.
ABOUT = {
    *("readme", "license", "licence", "copying", "notice", "authors", "citation", "changelog", "contributing"),
    *("dataset_card", "datasheet", "dataset_info", "dataset_infos", "dataset_dict", "state", "_success", "_metadata"),
    *("_common_metadata", "makefile", "dockerfile", "thumbs", "desktop", "sha256sums", "md5sums", "checksums"),
}
# Kinds of files that no article is written in.
NEVER = {
    *(".py", ".ipynb", ".sh", ".yaml", ".yml", ".toml", ".cfg", ".ini", ".lock", ".js", ".css", ".bib", ".crc", ".idx"),
    *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".ico", ".sha256", ".md5", ".log"),
}


def kind_of(name: str) -> FileKind | None:
    """How a file is read, by its name; None for one that cannot be."""
    name = name.lower()
    packed = next((ending for ending in PACKED if name.endswith(ending)), "")
    kind = KINDS.get(_ending(name.removesuffix(packed)))
    return None if packed and kind == "parquet" else kind


def articles(location: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files of a folder that hold its articles, by their paths in it, and those that are about it.

    ValueError for a folder that holds something else as well, which may be articles too: nothing is left out in
    silence.
    """
    visible = [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))]
    about = [name for name in visible if _is_about(name)]
    rest = [name for name in visible if not _is_about(name)]
    unknown = [name for name in rest if kind_of(name) is None]
    if unknown and len(unknown) < len(rest):
        raise ValueError(
            f"{location}: {_named(unknown)} cannot be read and may hold articles too; give a pattern for the files you "
            f"want, or files of the kinds {READABLE}"
        )
    texts = [name for name in rest if kind_of(name) == "text"]
    tables = [name for name in rest if kind_of(name) not in ("text", None)]
    if texts and tables:
        raise ValueError(
            f"{location}: {_named(texts)} lies beside {_named(tables)}, and only one of them can be the articles; give "
            "a pattern for the files you want"
        )
    return texts or tables, about


def _is_about(name: str) -> bool:
    last = name.lower().rpartition("/")[2]
    return last.partition(".")[0] in ABOUT or _ending(last) in NEVER


def _ending(name: str) -> str:
    """What a name ends in, with its dot."""
    before, dot, ending = name.rpartition(".")
    return dot + ending if before and "/" not in ending else ""


def _named(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
