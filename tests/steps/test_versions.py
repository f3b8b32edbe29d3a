"""Which version of its code makes a result: what is expensive is made again when somebody decided so, or nobody did."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from nift_assets import providers, record_versions, sql
from nift_assets.prompts import audits
from nift_assets.steps import code, versions
from nift_assets.steps.code import Sources
from nift_assets.steps.syntax import parse
from nift_assets.steps.versions import NumberedCode
from tests.demo import GRAPH, STUDY

NUMBERED = {numbered.name: numbered for numbered in record_versions.numbered()}
LORA = "lora_adapters"
PARSE = cache(parse)


@pytest.fixture(autouse=True)
def parsing_each_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most files of a copy are those of the next."""
    monkeypatch.setattr(code, "parse", PARSE)


def copied(folder: Path, changes: Mapping[str, tuple[str, str]] | None = None) -> Sources:
    """The sources that results rest on in another folder, with one text of some of the files replaced by another."""
    for package in ("nift_assets", "nift_training", "expectations"):
        shutil.copytree(code.FOLDER / package, folder / package, ignore=shutil.ignore_patterns("demo", "__pycache__"))
    for name, (before, after) in (changes or {}).items():
        text = (folder / name).read_text(encoding="utf-8")
        assert before in text, f"{before!r} is not in {name}"
        (folder / name).write_text(text.replace(before, after), encoding="utf-8")
    return Sources(folder)


def cheap(sources: Sources) -> dict[str, str]:
    return {name: sources.digest(step.function) for name, step in GRAPH.tables.items() if step.version is None}


def undecided(sources: Sources) -> dict[str, str]:
    return {name: line for name, numbered in NUMBERED.items() if (line := versions.undecided(numbered, sources))}


def test_every_version_was_decided_for_the_code_as_it_is() -> None:
    lines = undecided(code.sources())
    assert not lines, "\n" + "\n".join(lines.values())
    assert {versions.version(numbered) for numbered in NUMBERED.values()} == {
        str(numbered.version) for numbered in NUMBERED.values()
    }


def test_what_takes_a_gpu_money_or_hours_has_a_number() -> None:
    expensive = {step.tables[0] for step in GRAPH.steps if step.asks or step.pool == "gpu"}
    assert {step.tables[0] for step in GRAPH.steps if step.version is not None} == expensive | {
        "backbones",
        "merged_models",
    }


def test_one_word_in_every_docstring_and_comment_changes_no_version(tmp_path: Path) -> None:
    sources = copied(tmp_path)
    for file in tmp_path.rglob("*.py"):
        file.write_text(_reworded(file.read_text(encoding="utf-8")), encoding="utf-8")
    assert undecided(sources) == {}
    assert cheap(sources) == cheap(code.sources())


def _reworded(text: str) -> str:
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            first, last = node.lineno - 1, (node.end_lineno or 0)
            indent = " " * node.col_offset
            lines[first:last] = [f'{indent}"""Other words."""', *[f"{indent}# And a comment."] * (last - first - 1)]
    return "\n".join(lines)


def test_a_module_that_is_renamed_changes_no_version(tmp_path: Path) -> None:
    sources = copied(tmp_path)
    (tmp_path / "nift_training/train/loss.py").rename(tmp_path / "nift_training/objective.py")
    with (tmp_path / "nift_training/train/__init__.py").open("a") as package:
        package.write("from nift_training import objective as loss\n")
    assert "nift_training.objective.CHUNK" in sources.definitions(*NUMBERED[LORA].roots)
    assert undecided(sources) == {}


def test_a_changed_constant_of_the_loss_asks_for_the_number_of_the_adapters_alone(tmp_path: Path) -> None:
    chunk = next(line for line in _text("nift_training/train/loss.py").split("\n") if line.startswith("CHUNK = "))
    sources = copied(tmp_path, {"nift_training/train/loss.py": (chunk, "CHUNK = 7")})
    assert list(undecided(sources)) == [LORA]
    assert undecided(sources)[LORA] == (
        "lora_adapters: nift_training.train.loss.CHUNK changed and its version is still 1: raise `version` in "
        "nift_assets/assets/lora_adapters.py if what it makes comes out otherwise, then run `make versions` to record "
        "it"
    )
    assert re.fullmatch(r"1\+[0-9a-f]{12}", versions.version(NUMBERED[LORA], sources))
    assert cheap(sources) == cheap(code.sources())


def _text(name: str) -> str:
    return (code.FOLDER / name).read_text(encoding="utf-8")


JUDGES = ["mt_bench_judgments", "arena_hard_judgments"]
ASKING = ["completions", "content_audit", "control_texts", *JUDGES]


PROVIDERS = [f"providers.{name}" for name in providers.names()]


@pytest.mark.parametrize(
    ("name", "before", "after", "changed"),
    [
        # What a local teacher writes hangs on how this machine generates; so do the models' answers.
        ("nift_training/evaluate/generation.py", "\nBATCH = ", "\nBATCH = 1 + ", ["evaluations", "providers.local"]),
        (
            "nift_training/backbone.py",
            "model: str | Path, **own",
            "model: str | Path, /, **own",
            [LORA, "evaluations", "providers.local"],
        ),
        ("nift_training/templates.py", "HEADER = ", "HEADER = 2 * ", ["backbones", "completions", "evaluations"]),
        ("nift_assets/prompts/audits.py", "\nANSWER_FIRST = ", "\nANSWER_FIRST = 2 * ", ["content_audit"]),
        (
            "nift_assets/benchmarks/scoring/verdicts.py",
            "HIGHEST = ",
            "HIGHEST = 2 * ",
            ["benchmarks.mt_bench.judgments"],
        ),
        (
            "nift_assets/benchmarks/scoring/games.py",
            "CONTINUE = ",
            "CONTINUE = 2 * ",
            ["benchmarks.arena_hard.retries"],
        ),
        ("nift_assets/providers/__init__.py", "if stored.http_status >= 400", "if stored.http_status >= 500", ASKING),
        ("nift_assets/protocol/answer.py", 'return "refused"', 'return "other"', PROVIDERS),
        ("nift_training/endings.py", '"limit"), "cut"', '"limit"), "whole"', ["evaluations", *PROVIDERS]),
        ("nift_assets/providers/anthropic.py", "\nOUT_OF_FUNDS = ", "\nOUT_OF_FUNDS = 2 * ", ["providers.anthropic"]),
        ("nift_assets/providers/echo.py", "VERSION = 1", "VERSION = 2", []),
        ("nift_training/merge/run.py", "ARITHMETIC = ", "ARITHMETIC = 2 * ", ["merged_models"]),
        ("nift_training/pico.py", "EMBEDDING_RATE = ", "EMBEDDING_RATE = 2 * ", ["backbones"]),
        ("nift_assets/ledger/door.py", "def ask(", "def asked(", []),
        ("nift_assets/pages/charts.py", "WIDTH", "BREADTH", []),
        ("nift_training/progress.py", "RANK", "rank", []),
        ("nift_training/tracking/wandb.py", "KEPT_HERE", "KEPT", []),
    ],
)
def test_changed_code_asks_for_the_numbers_of_what_it_makes(
    tmp_path: Path, name: str, before: str, after: str, changed: Sequence[str]
) -> None:
    assert sorted(undecided(copied(tmp_path, {name: (before, after)}))) == sorted(changed)


def test_another_provider_asks_for_no_number(tmp_path: Path) -> None:
    sources = copied(tmp_path)
    shutil.copy(tmp_path / "nift_assets/providers/echo.py", tmp_path / "nift_assets/providers/parrot.py")
    assert undecided(sources) == {}


def test_a_partition_has_the_version_of_its_own_provider() -> None:
    teachers = {row.name: row.provider for row in STUDY.teachers}
    assert {GRAPH.tables["completions"].version_of(name, "completions") for name in teachers} == {"1 1"}
    plugins = {name: [module.__name__ for module in GRAPH.tables["completions"].plugins(name, "")] for name in teachers}
    assert plugins == {name: [f"nift_assets.providers.{provider}"] for name, provider in teachers.items()}


def test_a_filter_has_the_version_of_its_file() -> None:
    step = GRAPH.tables["contamination_removals"]
    own, *plugins = step.version_of("echo", "contamination_removals").split()
    assert own == step.code_version
    assert plugins == [code.digest(plugin) for plugin in step.plugins("echo", "contamination_removals")]
    rule, *questions = step.plugins("echo", "contamination_removals")
    assert isinstance(rule, ModuleType)
    assert rule.__name__ == "nift_assets.filters.contamination"
    assert [asked.__module__.rpartition(".")[2] for asked in questions] == [row.name for row in STUDY.benchmarks]


def test_a_raised_number_is_recorded_and_then_stands_alone(tmp_path: Path) -> None:
    file = tmp_path / "versions.json"
    raised = NumberedCode(name=LORA, version=2, roots=NUMBERED[LORA].roots, raised="`version`")
    assert versions.undecided(raised) == (
        "lora_adapters: its version was 1, and is 2 now: run `make versions` to record it"
    )
    assert versions.decide([NUMBERED[LORA]], file) == ["lora_adapters: its version is not recorded, and is 1 now"]
    assert versions.decide([NUMBERED[LORA]], file) == []
    assert versions.decide([raised], file) == ["lora_adapters: its version was 1, and is 2 now"]
    assert versions.version(raised, record=versions.read(file)) == "2"


def test_a_plug_in_of_what_is_expensive_has_to_carry_a_number() -> None:
    with pytest.raises(ValueError, match=r"nift_assets/prompts/audits.py makes what is expensive and has no VERSION"):
        versions.of_plugin(audits)
    assert all(isinstance(module.VERSION, int) for module in map(providers.module, providers.names()))


def test_numbers_say_where_they_are_raised() -> None:
    module: ModuleType = providers.module("openai")
    assert versions.of_plugin(module).raised == "`VERSION` in nift_assets/providers/openai.py"
    assert versions.of_plugin(module).name == "providers.openai"


def test_a_comment_in_sql_is_no_other_version_and_a_changed_text_is() -> None:
    from nift_assets.assets import sql_models

    def code_version(text: str) -> str:
        model = dataclasses.replace(sql.compile("table_1"), sql=text)
        return sql_models.declare(model).of(STUDY).code_version

    text = sql.compile("table_1").sql
    assert code_version(f"-- ours\n{text}") == code_version(text) == GRAPH.tables["table_1"].code_version
    assert code_version(f"{text} limit 1") != code_version(text)
