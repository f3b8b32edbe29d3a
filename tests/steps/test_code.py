"""What counts as a change of code, and what code a function reaches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from nift_assets.steps.code import QualifiedName, Sources
from nift_assets.steps.digest_cache import ABSENT, DigestCache

STEP = """
from nift_assets import cutting
from nift_training.loss import CHUNK

def make(context):
    return cutting.cut(context, CHUNK)

def other(context):
    return cutting.unused()
"""
CUTTING = """
import math
LIMIT: int = 5

def cut(text: str, size: int) -> str:
    return _start(text)[: math.ceil(size)]

def _start(text):
    return text[LIMIT:]

def unused():
    return 1
"""
TREE = {
    "nift_assets/__init__.py": "",
    "nift_assets/step.py": STEP,
    "nift_assets/cutting.py": CUTTING,
    "nift_training/__init__.py": "",
    "nift_training/loss.py": "CHUNK = 7\n",
}
MAKE = QualifiedName("nift_assets.step", "make")

Write = Callable[..., Sources]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes `TREE` with some of its files changed, each time into a folder of its own."""
    count = iter(range(100))

    def write(changed: Mapping[str, str] = MappingProxyType({})) -> Sources:
        folder = tmp_path / str(next(count))
        for name, text in {**TREE, **changed}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return Sources(folder)

    return write


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("nift_assets/cutting.py", "import math\n", '"""Cuts."""\n# Texts.\nimport math\nimport os as system\n'),
        ("nift_assets/cutting.py", "text: str, size: int) -> str:", 'text, size):\n    """The first part."""'),
        ("nift_assets/cutting.py", "LIMIT: int = 5", 'LIMIT = 5\n"""How much is left out."""'),
        ("nift_assets/cutting.py", "return 1", "return 2"),
        ("nift_assets/cutting.py", "def cut(text", "def begun():\n    pass\n\ndef cut(text"),
        ("nift_assets/cutting.py", "import math", "from math import ceil as up"),
        ("nift_assets/step.py", "def make(", "@declared(pool='gpu')\ndef make("),
        ("nift_assets/step.py", "import CHUNK\n", "import CHUNK as SIZE\n"),
        ("nift_assets/step.py", "from nift_training.loss import CHUNK", "from nift_training import loss"),
        ("nift_assets/step.py", "from nift_assets import cutting", "import nift_assets.cutting as cutting"),
        ("nift_assets/step.py", "def make(context):\n", "def make(context):\n    from nift_assets import cutting\n"),
    ],
)
def test_wording_and_what_is_not_reached_changes_nothing(write: Write, name: str, before: str, after: str) -> None:
    changed = TREE[name].replace(before, after)
    assert changed != TREE[name]
    if "SIZE" in after:
        changed = changed.replace("context, CHUNK", "context, SIZE")
    if "import loss" in after:
        changed = changed.replace("context, CHUNK", "context, loss.CHUNK")
    if "as up" in after:
        changed = changed.replace("math.ceil(", "up(")
    assert write({name: changed}).digest(MAKE) == write().digest(MAKE)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("nift_training/loss.py", "7", "8"),
        ("nift_assets/cutting.py", "5", "5.0"),
        ("nift_assets/cutting.py", "5", "'5'"),
        ("nift_assets/cutting.py", "[LIMIT:]", "[:LIMIT]"),
        ("nift_assets/cutting.py", "math.ceil", "math.floor"),
        ("nift_assets/cutting.py", "import math", "import cmath as math"),
        ("nift_assets/cutting.py", "def _start", "@cache\ndef _start"),
        ("nift_assets/cutting.py", "size: int)", "size: int = 3)"),
        ("nift_assets/cutting.py", "def unused", "LIMIT += 1\n\ndef unused"),
        ("nift_assets/step.py", "CHUNK)", "-CHUNK)"),
    ],
)
def test_what_is_reached_and_computes_something_else_changes_the_digest(
    write: Write, name: str, before: str, after: str
) -> None:
    changed = TREE[name].replace(before, after)
    assert changed != TREE[name]
    assert write({name: changed}).digest(MAKE) != write().digest(MAKE)


def test_a_module_that_is_moved_or_cut_in_two_keeps_the_digest(write: Write) -> None:
    start = CUTTING.index("def _start")
    moved = write(
        {
            "nift_assets/step.py": STEP.replace(
                "from nift_assets import cutting", "from nift_assets.corpus import words as cutting"
            ),
            "nift_assets/corpus/__init__.py": "from nift_assets.corpus.starts import _start as begin",
            "nift_assets/corpus/words.py": "import math\nfrom nift_assets.corpus import begin as _start\n"
            + CUTTING[CUTTING.index("def cut") : start],
            "nift_assets/corpus/starts.py": "LIMIT = 5\n" + CUTTING[start:],
        }
    )
    assert "nift_assets.corpus.starts._start" in moved.definitions(MAKE)
    assert moved.digest(MAKE) == write().digest(MAKE)


def test_two_functions_of_one_name_that_change_places_change_the_digest(write: Write) -> None:
    step = "from nift_assets import a, b\n\ndef make():\n    return {}.read() + 2 * {}.read()\n"
    readers = {
        "nift_assets/a.py": "def read():\n    return 1\n",
        "nift_assets/b.py": "def read():\n    return 2\n",
    }
    straight = write({"nift_assets/step.py": step.format("a", "b"), **readers})
    crossed = write({"nift_assets/step.py": step.format("b", "a"), **readers})
    assert straight.digest(MAKE) != crossed.digest(MAKE)


def test_a_class_is_reached_with_its_methods_and_what_it_is_made_from(write: Write) -> None:
    sources = write(
        {
            "nift_assets/step.py": "from nift_assets.shapes import Square\n\ndef make():\n    return Square().area()\n",
            "nift_assets/shapes.py": "from nift_assets.sides import SIDE\n\nclass Shape:\n    '''Any.'''\n\n"
            "class Square(Shape):\n    side: int = SIDE\n    def area(self):\n        return squared(self.side)\n\n"
            "def squared(side):\n    return side * side\n",
            "nift_assets/sides.py": "SIDE = 3\n",
        }
    )
    assert set(sources.definitions(MAKE)) == {
        "nift_assets.step.make",
        "nift_assets.shapes.Square",
        "nift_assets.shapes.Shape",
        "nift_assets.shapes.squared",
        "nift_assets.sides.SIDE",
    }


def test_a_field_of_a_class_counts_and_its_type_does_not(write: Write) -> None:
    def digest(fields: str) -> str:
        step = f"class Row:\n    {fields}\n\ndef make():\n    return Row()\n"
        return write({"nift_assets/step.py": step}).digest(MAKE)

    assert digest("a: int\n    b: str") == digest("a: float\n    b: 'text'")
    assert digest("a: int\n    b: str") != digest("b: str\n    a: int")
    assert digest("a: int = 1") != digest("a = 1")


@pytest.mark.parametrize("name", ["size", "sizes", "last", "each", "error", "rest"])
def test_what_a_function_binds_itself_is_no_name_of_the_module(write: Write, name: str) -> None:
    step = (
        "from nift_training.loss import CHUNK\n"
        f"{name} = CHUNK\n\n"
        "def make(size, *sizes):\n"
        "    try:\n        last = [each for each in sizes if (rest := each)]\n"
        "    except ValueError as error:\n        return size, last, error\n"
        "    return rest\n"
    )
    assert set(write({"nift_assets/step.py": step}).definitions(MAKE)) == {"nift_assets.step.make"}


def test_a_name_that_one_comprehension_binds_is_the_modules_elsewhere(write: Write) -> None:
    step = "from nift_training.loss import CHUNK\n\ndef make(rows):\n    return [CHUNK for CHUNK in rows], CHUNK\n"
    assert "nift_training.loss.CHUNK" in write({"nift_assets/step.py": step}).definitions(MAKE)


def test_a_module_that_is_named_as_a_value_is_reached_whole_with_its_main(write: Write) -> None:
    sources = write(
        {
            "nift_assets/step.py": "from nift_training import train\n\ndef make(run):\n    run(train)\n",
            "nift_training/train/__init__.py": "",
            "nift_training/train/__main__.py": "from nift_training.train.loop import steps\n\nif True:\n    steps()\n",
            "nift_training/train/loop.py": "def steps():\n    return 3\n\ndef unused():\n    return 4\n",
        }
    )
    assert set(sources.definitions(MAKE)) == {
        "nift_assets.step.make",
        "nift_training.train.__main__.<statements>",
        "nift_training.train.loop.steps",
    }


def test_a_step_within_a_function_reaches_what_its_closure_holds(write: Write) -> None:
    step = (
        "from nift_training import loss\n\n"
        "def declare(study):\n"
        "    from nift_assets.cutting import cut\n"
        "    def shown(text):\n        return text[loss.CHUNK]\n"
        "    @declared(study)\n"
        "    def make(context):\n        return cut(shown(study), 1)\n"
        "    return make\n"
    )
    sources = write({"nift_assets/step.py": step})
    nested = QualifiedName("nift_assets.step", "declare.<locals>.make")
    assert set(sources.definitions(nested)) == {
        "nift_assets.step.declare.<locals>.make",
        "nift_assets.step.declare.<locals>.shown",
        "nift_assets.cutting.cut",
        "nift_assets.cutting._start",
        "nift_assets.cutting.LIMIT",
        "nift_training.loss.CHUNK",
    }
    other = write({"nift_assets/step.py": step.replace("@declared(study)", "@declared(study, pool='gpu')")})
    assert other.digest(nested) == sources.digest(nested)


def test_functions_that_call_each_other_have_a_digest(write: Write) -> None:
    def digest(last: str) -> str:
        step = f"def make(n):\n    return n and odd(n - 1)\n\ndef odd(n):\n    return make(n - 1) + {last}\n"
        return write({"nift_assets/step.py": step}).digest(MAKE)

    assert digest("1") == digest("1")
    assert digest("1") != digest("2")


def test_what_a_plug_in_says_of_itself_is_no_part_of_its_digest(write: Write) -> None:
    def digest(text: str) -> str:
        return write({"nift_training/loss.py": text}).digest(QualifiedName("nift_training.loss", ""))

    assert digest("CHUNK = 7\nVERSION = 1\n") == digest("VERSION = 2\nTERMS = 'none'\nCHUNK = 7\n")
    assert digest("CHUNK = 7\n") != digest("CHUNK = 8\n")


@pytest.mark.parametrize(
    "handing_on",
    [
        "from nift_assets.cutting import cut, unused\n__all__ = ['cut']\n",
        "from nift_assets.cutting import cut as cut\n",
    ],
)
def test_a_plug_in_is_reached_with_what_it_hands_on_of_others(write: Write, handing_on: str) -> None:
    sources = write({"nift_assets/plugin.py": f"{handing_on}\ndef connect():\n    return 1\n"})
    reached = set(sources.definitions(QualifiedName("nift_assets.plugin", "")))
    assert {"nift_assets.plugin.connect", "nift_assets.cutting.cut", "nift_assets.cutting.LIMIT"} <= reached
    assert "nift_assets.cutting.unused" not in reached


def test_digests_are_kept_until_a_file_they_were_worked_out_from_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    files = {"nift_assets.step": "1", "nift_assets.gone": ABSENT}

    def kept(parser: bytes = b"ours") -> DigestCache:
        return DigestCache(parser, lambda name: files.get(name, ABSENT))

    first = kept()
    assert first.get("make") is None
    first.add("make", "abc", files)
    first.save()
    assert kept().get("make") == "abc"
    assert kept(b"another").get("make") is None
    for name in files:
        known = files[name]
        files[name] = "other"
        assert kept().get("make") is None
        files[name] = known


def test_a_changed_constant_is_seen_although_digests_are_kept(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def digest(folder: Path) -> str:
        sources = Sources(folder)
        sources.kept = DigestCache(b"parser", sources.file_digest)
        try:
            return sources.digest(MAKE)
        finally:
            sources.kept.save()

    folder = write().folder
    before = digest(folder)
    assert digest(folder) == before
    (folder / "nift_training/loss.py").write_text("CHUNK = 8\n")
    assert digest(folder) == Sources(folder).digest(MAKE) != before
