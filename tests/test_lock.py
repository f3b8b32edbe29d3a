"""Supply chain (X13): what is installed is what was locked, by version and by hash, and nothing is installed later."""

from __future__ import annotations

import ast
import re
from importlib.metadata import distributions
from pathlib import Path

import pytest

from tests.conftest import PROJECT

# What a virtual environment is made of, and the project itself.
BEFORE = {"pip", "setuptools", "wheel", "nift"}
UNLOCKED = {"torch"}  # the build is the machine's: see the head of requirements.lock
# What the builds of torch for NVIDIA's devices bring along, each at one version.
OF_TORCH = re.compile("nvidia-.*|cuda-.*|triton")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pinned = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert all(is_pinned for _, is_pinned, _ in pinned), "each is at one version"
    return {canonical(name): version for name, _, version in pinned}


def locked() -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each distribution of the lock."""
    text = re.sub(r"\\\n", " ", (PROJECT / "requirements.lock").read_text())
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            requirement, *options = line.split()
            name, is_pinned, version = requirement.partition("==")
            assert is_pinned, line
            found[canonical(name)] = version, options
    return found


@pytest.mark.fault("X13")
def test_the_lock_has_the_versions_of_the_constraints_each_with_its_hashes() -> None:
    found = locked()
    assert {name: version for name, (version, _) in found.items()} == {
        name: version for name, version in constraints().items() if name not in UNLOCKED
    }
    for name, (_, options) in found.items():
        assert options, f"{name} has no hash: make lock"
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", option) for option in options), name
    assert "://" not in (PROJECT / "requirements.lock").read_text(), "a lock names no index"


@pytest.mark.fault("X13")
def test_every_installed_distribution_is_named_at_its_version() -> None:
    named = constraints()
    installed = {canonical(found.metadata["Name"]): found.version for found in distributions()}
    other = {
        f"{name}=={version}"
        for name, version in installed.items()
        if name not in BEFORE and not OF_TORCH.fullmatch(name) and named.get(name) != version.partition("+")[0]
    }
    assert other == set(), "not in constraints.txt: add what was tested, and make lock"


INSTALLERS = re.compile(r"\bpip3?\b|\buv\b|\bconda\b|ensurepip|easy_install|apt-get")


def installs(source: str) -> list[str]:
    """Every text of a program that names an installer, docstrings and sentences for a person aside."""
    tree = ast.parse(source)
    said = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    said |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in said
        and INSTALLERS.search(node.value)
        and " " not in node.value
    ]


@pytest.mark.parametrize(
    "source",
    ['run([sys.executable, "-m", "pip", "install", name])', 'run(["uv", "add"])', 'import_module("ensurepip")'],
)
def test_an_installer_is_seen(source: str) -> None:
    assert installs(source)


@pytest.mark.fault("X13")
def test_nothing_is_installed_at_run_time() -> None:
    """`sentences` takes one file out of one wheel, whose sha256 it knows, when the environment is set up."""
    found = {
        str(path.relative_to(PROJECT))
        for package in ("nift_assets", "nift_training", "dagster_project", "expectations")
        for path in Path(PROJECT, package).rglob("*.py")
        if installs(path.read_text())
    }
    assert found == {"nift_training/sentences.py"}
