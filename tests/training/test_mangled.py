"""Every reader of a file from elsewhere, given real small files that have been mangled: a right result, or one line.

A key is dropped or doubled, a value becomes another type, null, empty or huge, a file ends early. What is accepted must
be what transformers and peft make of the same files.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nift_training import backbone, templates
from nift_training.evaluate import conversations, generation, ifeval
from nift_training.merge import run
from nift_training.recipe import FAITHFUL, named
from nift_training.train import layouts, pairs
from tests.counting import Counts
from tests.training.families import peft_adapter, write

QUICK, MANY = 25, 1000
NUMBERS = (0, -1, 1, 3, 0.5, 10**12, 2**63, 1e308, float("nan"), True)
OTHERS = (None, "", [], {}, "x", "\ud800", [1], {"a": 1}, "y" * 5000, [[]], ["x", "x"])
values = st.sampled_from([*NUMBERS, *OTHERS])


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what it is in, and its key there."""
    for key in list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ():
        yield content, key
        yield from places(content[key])


@st.composite
def mangled(draw: st.DrawFn, text: bytes) -> bytes:
    """The text of a JSON value with one thing in it changed, or cut off."""
    if draw(st.integers(0, 9)) == 0:
        return text[: draw(st.integers(0, len(text) - 1))]
    content = json.loads(text)
    inside, key = draw(st.sampled_from(list(places(content))))
    match draw(st.sampled_from(["drop", "other", "other", "double"])):
        case "drop":
            del inside[key]
        case "double" if isinstance(inside, list):
            inside.insert(key, inside[key])
        case "double":
            inside[f"{key}2"] = inside[key]
        case _:
            inside[key] = draw(values)
    return json.dumps(content).encode()


@st.composite
def mangled_header(draw: st.DrawFn, file: bytes) -> bytes:
    """A safetensors file whose header, length or end is another."""
    length = int.from_bytes(file[:8], "little")
    match draw(st.integers(0, 9)):
        case 0:
            return file[: draw(st.integers(0, len(file) - 1))]
        case 1:
            return draw(st.sampled_from([0, 1, 2**40, 2**64 - 1])).to_bytes(8, "little") + file[8:]
    header = draw(mangled(file[8 : 8 + length]))
    return len(header).to_bytes(8, "little") + header + file[8 + length :]


@st.composite
def mangled_lines(draw: st.DrawFn, text: bytes) -> bytes:
    """A file of JSON lines with one of them changed, doubled or cut off."""
    lines = text.splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    if draw(st.integers(0, 9)) == 0:
        lines.insert(number, lines[number])
    else:
        lines[number] = draw(mangled(lines[number]))
    return b"\n".join(lines)


@contextmanager
def instead(file: Path, content: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, one in shards, an adapter, and files of pairs, questions, prompts, a recipe and an example."""
    folder = tmp_path_factory.mktemp("world")
    write(folder / "base", "llama")
    write(folder / "sharded", "llama", shards="8KB")
    settings = {"rank_pattern": {"layers.1.self_attn.q_proj": 3}, "alpha_pattern": {"v_proj": 5}}
    peft_adapter(folder / "base", folder / "adapter", ["q_proj", "v_proj"], modules_to_save=["norm"], **settings)
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    (folder / "adapter" / "adapter_config.json").write_text(
        json.dumps(config | {"base_model_name_or_path": "org/base"})
    )
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]
    arguments = [{"relation": "at least", "num_words": 3}]
    files: dict[str, list[dict[str, Any]]] = {
        "pairs.jsonl": [
            {"prompt": "The old bridge", "response": " was closed"},
            {"prompt": "Kale", "response": " and"},
        ],
        "alpaca.jsonl": [{"instruction": "Go", "input": "", "output": "on", "history": [["a", "b"]], "system": "s"}],
        "messages.jsonl": [{"messages": [{"role": "system", "content": "s"}, *messages]}],
        "mt-bench.jsonl": [{"question_id": n, "category": "math", "turns": ["What?", "And?"]} for n in (81, 82)],
        "arena-hard.jsonl": [{"question_id": n, "category": "x", "turns": [{"content": "What?"}]} for n in ("a", "b")],
        "any.jsonl": [{"uid": "a", "prompt": "What?", "temperature": 0.5}, {"key": 1, "turns": ["What?"]}],
        "ifeval.jsonl": [
            {"key": n, "prompt": "W", "instruction_id_list": ["length_constraints:number_words"], "kwargs": arguments}
            for n in (1, 2)
        ],
    }
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "example.json").write_text(json.dumps({"messages": [["Human", "a"], ["Assistant", "b"]]}))
    (folder / "recipe.json").write_text(json.dumps({"epochs": 1, "rank": 2, "betas": [0.9, 0.99]}))
    return folder


def merged_as_by_peft(base: Path, adapter: Path, out: Path) -> None:
    try:
        run.merge(base, adapter, out, logits="always")
    except ValueError as refusal:
        assert "answers otherwise" not in str(refusal)  # noqa: PT017
        raise
    finally:
        shutil.rmtree(out, ignore_errors=True)


def read_pairs(path: Path) -> None:
    pairs.examples(backbone.read(path.parent / "base").tokenizer, layouts.read(path), FAITHFUL)


def respond_and_check(path: Path) -> None:
    ifeval.check([{**row, "response": "one two three four"} for row in ifeval.read_prompts(path)])


Mangle = Callable[[bytes], st.SearchStrategy[bytes]]
# What is mangled, how, and who reads it.
READERS: dict[str, tuple[str, Mangle, Callable[[Path], object]]] = {
    "an adapter's configuration": (
        "adapter/adapter_config.json",
        mangled,
        lambda file: merged_as_by_peft(file.parents[1] / "base", file.parent, file.parents[1] / "out"),
    ),
    "an adapter's header": (
        "adapter/adapter_model.safetensors",
        mangled_header,
        lambda file: merged_as_by_peft(file.parents[1] / "base", file.parent, file.parents[1] / "out"),
    ),
    "a model's configuration": ("base/config.json", mangled, lambda file: generation.load(file.parent)),
    "a model's settings of generation": (
        "base/generation_config.json",
        mangled,
        lambda file: generation.generate(generation.load(file.parent), ["a", "The old bridge"], max_new_tokens=2),
    ),
    "a model's header": ("base/model.safetensors", mangled_header, lambda file: generation.load(file.parent)),
    "a model's index": (
        "sharded/model.safetensors.index.json",
        mangled,
        lambda file: run.plan(file.parent, file.parents[1] / "adapter"),
    ),
    "a tokenizer": ("base/tokenizer.json", mangled, lambda file: run.plan(file.parent, file.parents[1] / "adapter")),
    "a tokenizer's settings": (
        "base/tokenizer_config.json",
        mangled,
        lambda file: read_pairs(file.parents[1] / "pairs.jsonl"),
    ),
    "pairs": ("pairs.jsonl", mangled_lines, read_pairs),
    "instructions": ("alpaca.jsonl", mangled_lines, read_pairs),
    "messages": ("messages.jsonl", mangled_lines, read_pairs),
    "MT-Bench's questions": ("mt-bench.jsonl", mangled_lines, lambda p: conversations.read_questions("mt-bench", p)),
    "Arena-Hard's questions": (
        "arena-hard.jsonl",
        mangled_lines,
        lambda file: conversations.read_questions("arena-hard", file),
    ),
    "any questions": ("any.jsonl", mangled_lines, lambda file: conversations.read_questions("any", file)),
    "IFEval's prompts": ("ifeval.jsonl", mangled_lines, respond_and_check),
    "an example": ("example.json", mangled, templates.read_example),
    "a recipe": ("recipe.json", mangled, lambda file: named(str(file))),
}


@pytest.mark.parametrize("many", [QUICK, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
def test_a_mangled_file_gives_a_right_result_or_one_line(world: Path, reader: str, many: int, counts: Counts) -> None:
    name, mangle, read = READERS[reader]
    seen: Counter[str] = Counter()

    @settings(max_examples=many, suppress_health_check=list(HealthCheck), database=None)
    @given(mangle((world / name).read_bytes()))
    def each(content: bytes) -> None:
        with instead(world / name, content):
            try:
                read(world / name)
                seen["read"] += 1
            except (ValueError, OSError):
                seen["refused"] += 1

    each()
    counts("fuzz", f"{reader}: {seen.total()} tried, {seen['read']} read, {seen['refused']} refused in a line")
