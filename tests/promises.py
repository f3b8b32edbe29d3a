"""What is promised when something goes wrong, and the tests that prove it, as a page.

    python -m tests.promises

writes dagster_project/guides/faults.md from the rows of tests/promises.toml and the marks on the tests, which it reads
without importing a test: `@pytest.mark.fault("T1", runs="5 kills")` claims that the test proves row T1, and says how
much of it the test runs where that is less than it sounds.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "dagster_project" / "guides" / "faults.md"
HEAD = """\
# What goes wrong, and what is promised then

This page is made by `make faults`: the rows are those of `tests/promises.toml`, the tests are those that are marked
with the row. *Slow* tests run in `make test-full` only; what is read of *real files* is skipped where
`NIFT_SHARED_DATA` does not say where they are. What is counted is printed at the end of each run, in the section
`faults`.
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Something that goes wrong, and what is promised then."""

    id: str
    fault: str
    promise: str


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A test that claims to prove a row."""

    row: str
    path: Path  # below the folder of the tests
    name: str
    slow: bool
    longer: bool  # quick, with more of the same in the slow ones
    real_files: bool  # skipped where the real files are not (see `shared_data`)
    runs: str  # how much of the row it runs; empty where the name says it


def promises() -> dict[str, str]:
    """The sentences that the rows name by their number."""
    return dict(_tables()["promises"])


def rows() -> list[Row]:
    """Every row, in the order of the page."""
    return [row for _, section in sections() for row in section]


def sections() -> list[tuple[str, list[Row]]]:
    """The title of each section, with its rows."""
    return [
        (table.pop("title"), [Row(id=id, fault=fault, promise=promise) for id, (fault, promise) in table.items()])
        for letter, table in _tables().items()
        if letter != "promises"
    ]


def _tables() -> dict[str, dict[str, Any]]:
    return tomllib.loads((TESTS / "promises.toml").read_text())


def proofs(folder: Path = TESTS) -> list[Proof]:
    """Every mark of every test below a folder, in the order of the files."""
    return [proof for path in sorted(folder.rglob("test_*.py")) for proof in _of_file(path, folder)]


def _of_file(path: Path, folder: Path) -> Iterator[Proof]:
    tree = ast.parse(path.read_text(), str(path))
    whole = [node.value for node in tree.body if isinstance(node, ast.Assign) and _assigns(node, "pytestmark")]
    for test in tree.body:
        if not isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef) or not test.name.startswith("test_"):
            continue
        around = [*test.decorator_list, *(mark for value in whole for mark in _each(value))]
        slow = any(_is_mark(mark, "slow") for mark in around)
        within = [node for decorator in around for node in ast.walk(decorator)]
        longer = not slow and any(_is_mark(node, "slow") for node in within)
        for mark in within:
            if isinstance(mark, ast.Call) and _is_mark(mark.func, "fault"):
                runs = {word.arg: ast.literal_eval(word.value) for word in mark.keywords}.get("runs", "")
                for row in map(ast.literal_eval, mark.args):
                    yield Proof(
                        row=row,
                        path=path.relative_to(folder),
                        name=test.name,
                        slow=slow,
                        longer=longer,
                        real_files=any(isinstance(node, ast.Name) and node.id == "shared" for node in ast.walk(test)),
                        runs=runs,
                    )


def _assigns(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _each(value: ast.expr) -> list[ast.expr]:
    return value.elts if isinstance(value, ast.List | ast.Tuple) else [value]


def _is_mark(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == name and ast.unparse(node.value) == "pytest.mark"


def page() -> str:
    """The page: what is promised in general, then a table of rows per section."""
    by_row: dict[str, list[Proof]] = {}
    for proof in proofs():
        by_row.setdefault(proof.row, []).append(proof)
    lines = [HEAD, "| | promise |", "|---|---|", *(f"| {id} | {said} |" for id, said in promises().items())]
    for title, section in sections():
        lines += ["", f"## {title}", "", "| | what goes wrong | what is promised | proven by |", "|---|---|---|---|"]
        for row in section:
            tests = "; ".join(_shown(proof) for proof in by_row.get(row.id, [])) or "none yet"
            lines.append(f"| {row.id} | {row.fault} | {row.promise} | {tests} |")
    return "\n".join(lines) + "\n"


def _shown(proof: Proof) -> str:
    said = proof.name.removeprefix("test_").replace("_", " ")
    when = "*slow*" if proof.slow else "*more in slow*" if proof.longer else ""
    notes = ", ".join(note for note in (proof.runs, when, "*real files*" if proof.real_files else "") if note)
    return f"[{said}](../../tests/{proof.path.as_posix()})" + (f" ({notes})" if notes else "")


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
