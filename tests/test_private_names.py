"""Names that a library keeps to itself may go at any upgrade: each stands in one module, and a test says which went."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from nift_assets.steps import dagster_internals
from tests.conftest import PROJECT

PACKAGES = ("nift_assets", "nift_training", "dagster_project", "expectations")
INTERNALS = {
    "dagster": "nift_assets/steps/dagster_internals.py",
    "huggingface_hub": "nift_assets/hub/huggingface_internals.py",
    "lm_eval": "nift_training/evaluate/lm_eval_internals.py",
    "transformers": "nift_training/transformers_internals.py",
}


def private_imports(source: str) -> Iterator[tuple[str, str]]:
    """Module and name of each import of what one of these libraries keeps to itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found = [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        else:
            continue
        for module, name in found:
            if module.partition(".")[0] in INTERNALS and any(map(_is_private, f"{module}.{name}".split("."))):
                yield module, name


def private_attributes(source: str) -> Iterator[str]:
    """Each private attribute of what is imported from one of these libraries, `dg.DagsterInstance._x` too."""
    tree = ast.parse(source)
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
    of_library = {name for name, module in names.items() if module.partition(".")[0] in INTERNALS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and _root(node) in of_library:
            yield ast.unparse(node)


def _is_private(part: str) -> bool:
    return part.startswith("_") and not part.startswith("__")


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else None


def used(library: str) -> list[tuple[str, str]]:
    return sorted(set(private_imports((PROJECT / INTERNALS[library]).read_text())))


@pytest.mark.parametrize(
    ("library", "module", "name"), [(library, *private) for library in INTERNALS for private in used(library)]
)
def test_the_library_still_has_the_private_name(library: str, module: str, name: str) -> None:
    gone = f"{library} {version(library)} has no {module}.{name} any more; see {INTERNALS[library]}"
    try:
        there = hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        there = False
    assert there, gone


@pytest.mark.parametrize("member", dagster_internals.EVENT_LOG_MEMBERS)
def test_dagsters_event_log_still_has_the_private_member(member: str, tmp_path: Path) -> None:
    log = dagster_internals.SqliteEventLogStorage(str(tmp_path))
    assert hasattr(log, member), f"dagster {version('dagster')}: its SQLite event log has no {member} any more"
    log.dispose()


def test_our_event_log_touches_no_other_private_member_of_dagsters(tmp_path: Path) -> None:
    log = dagster_internals.SqliteEventLogStorage(str(tmp_path))
    touched = {
        node.attr if isinstance(node, ast.Attribute) else node.name
        for node in ast.walk(ast.parse((PROJECT / "dagster_project/event_log.py").read_text()))
        if (isinstance(node, ast.Attribute) and _root(node) == "self") or isinstance(node, ast.FunctionDef)
    }
    assert {name for name in touched if _is_private(name) and hasattr(log, name)} == set(
        dagster_internals.EVENT_LOG_MEMBERS
    )
    log.dispose()


def test_dagsters_daemon_is_still_a_module_that_can_be_run() -> None:
    assert importlib.util.find_spec(f"{dagster_internals.DAEMON}.__main__")


def test_each_private_name_of_dagster_is_found_where_the_type_checker_finds_it() -> None:
    assert {name: module for module, name in used("dagster")} == dagster_internals.MODULES


def test_no_other_module_uses_a_private_name_of_these_libraries() -> None:
    found = {
        (str(path.relative_to(PROJECT)), private)
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*.py")
        if str(path.relative_to(PROJECT)) not in INTERNALS.values()
        for source in [path.read_text()]
        for private in (*map(".".join, private_imports(source)), *private_attributes(source))
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        "from dagster._core.errors import DagsterError",
        "import dagster._serdes",
        "from huggingface_hub.utils import _http",
        "import dagster as dg\ndg.DagsterInstance.get()._run_storage",
        "def read():\n    import lm_eval.tasks\n    return lm_eval.tasks._yaml_loader",
    ],
)
def test_a_private_name_is_seen_however_it_is_reached(source: str) -> None:
    assert [*private_imports(source), *private_attributes(source)]
