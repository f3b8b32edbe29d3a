"""Rows of other trainers' layouts: read as those trainers mean them, or refused by the key that says more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nift_training.recipe import FAITHFUL
from nift_training.train import layouts, pairs
from nift_training.train.layouts import Pair, TrainingRow


def row(prompt: str, response: str) -> TrainingRow:
    return TrainingRow((Pair(prompt, response),))


def test_alpaca_messages_and_sharegpt_are_read(tmp_path: Path) -> None:
    files: list[list[dict[str, Any]]] = [
        [{"instruction": "Add.", "input": "1 1", "output": "2"}, {"instruction": "Hi", "input": "", "output": "Ho"}],
        [
            {"messages": [{"role": "user", "content": "Add.\n1 1"}, {"role": "assistant", "content": "2"}]},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        ],
        [
            {"conversations": [{"from": "human", "value": "Add.\n1 1"}, {"from": "gpt", "value": "2"}]},
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        ],
        [{"prompt": "Add.\n1 1", "response": "2"}, {"prompt": "Hi", "response": "Ho"}],
    ]
    for number, rows in enumerate(files):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(rows))
        assert layouts.read(path) == [row("Add.\n1 1", "2"), row("Hi", "Ho")]


def test_jsonl_and_parquet_give_the_same_rows(tmp_path: Path, pairs_file: Path) -> None:
    import polars

    read = layouts.read(pairs_file)
    texts = [each.pairs[0] for each in read]
    polars.DataFrame(
        {"prompt": [text.prompt for text in texts], "response": [text.response for text in texts]}
    ).write_parquet(tmp_path / "pairs.parquet")
    assert layouts.read(tmp_path / "pairs.parquet") == read


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no rows"),
        ('{"prompt": "a"}\n', "row 1 has no text in 'response'"),
        ('{"prompt": 1, "response": "b"}', "'prompt'"),
        ('{"messages": [{"role": "assistant", "content": "b"}]}', "row 1 is not texts of user and assistant by turns"),
        ('{"messages": "hello"}', "row 1 is not texts of user and assistant by turns"),
        ('{"messages": ["hello", "there"]}', "row 1 is not texts of user and assistant by turns"),
        (
            '{"messages": [{"role": "system", "content": 1}, {"role": "user", "content": "a"}, '
            '{"role": "assistant", "content": "b"}]}',
            "row 1 is not texts of user and assistant by turns",
        ),
        ('{"instruction": "a", "input": ""}', "'output'"),
        ('{"instruction": "a", "input": 5, "output": "b"}', "'input'"),
        ('{"instruction": "a", "input": "", "output": "b", "system": 4}', "'system'"),
    ],
)
def test_data_without_pairs_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(ValueError, match=complaint):
        layouts.read(tmp_path / "data.jsonl")


@pytest.mark.parametrize("damage", [b'[{"prompt": "a"', b"\xff\xfe[]"])
def test_a_json_file_that_cannot_be_read_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "data.json").write_bytes(damage)
    with pytest.raises(ValueError, match=r"data\.json cannot be read as JSON"):
        layouts.read(tmp_path / "data.json")


@pytest.mark.parametrize("mark", [{name: False} for name in layouts.MARKS] + [{"weight": 0}])
def test_an_answer_that_is_marked_is_read_and_not_learnt(
    tokenizer: Any, tmp_path: Path, mark: dict[str, object]
) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "wrong"}]
    turns += [{"role": "user", "content": "c"}, {"role": "assistant", "content": "right"}]
    plain, marked = (layouts.read(_written(tmp_path, [turns[0], turns[1] | how, *turns[2:]]))[0] for how in ({}, mark))
    ours, theirs = (pairs.encode(tokenizer, row, FAITHFUL) for row in (plain, marked))
    assert ours.ids.tolist() == theirs.ids.tolist()
    wrong = tokenizer("wrong", add_special_tokens=False)["input_ids"]
    assert int(ours.trained.sum() - theirs.trained.sum()) == len(wrong) + 1
    for message in ({"weight": 0.5}, {"train": "no"}):
        with pytest.raises(ValueError, match="answers are learnt"):
            layouts.read(_written(tmp_path, [turns[0], turns[1] | message]))
    with pytest.raises(ValueError, match="a message of 'user' with train True"):
        layouts.read(_written(tmp_path, [turns[0] | {"train": True}, turns[1]]))


def test_a_history_comes_before_an_instruction(tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    row = {"instruction": "c", "output": "d", "history": [["a", "b"]]}
    path.write_text(json.dumps([row, row | {"history": []}]))
    several, one = layouts.read(path)
    assert several.pairs == (Pair("a", "b"), Pair("c", "d"))
    assert one.pairs == (Pair("c", "d"),)
    path.write_text(json.dumps([row | {"history": ["a", "b"]}]))
    with pytest.raises(ValueError, match="row 1 has a history that is no list of pairs"):
        layouts.read(path)


def _written(folder: Path, messages: list[dict[str, Any]]) -> Path:
    path = folder / "messages.jsonl"
    path.write_text(json.dumps({"messages": messages}) + "\n")
    return path


PLAIN = {"prompt": "a", "response": "b"}
ALPACA = {"instruction": "a", "input": "", "output": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
ROWS = [PLAIN, {"prompt": "a", "completion": "b"}, ALPACA, CHAT, SHAREGPT]


def one(folder: Path, row: object) -> TrainingRow:
    path = folder / "data.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return layouts.read(path)[0]


def marked(row: dict[str, Any], place: int = -1, **marks: object) -> dict[str, Any]:
    """The row with more said in one of its messages."""
    (name,) = row
    messages = [*row[name]]
    messages[place] = messages[place] | marks
    return {name: messages}


@pytest.mark.parametrize("plain", ROWS)
def test_a_system_text_and_a_history_count_in_every_layout(tmp_path: Path, plain: dict[str, Any]) -> None:
    more = {"system": "s", "history": []}
    assert one(tmp_path, plain | more) == TrainingRow((Pair("a", "b"),), "s")
    if plain in (CHAT, SHAREGPT):
        with pytest.raises(ValueError, match=r"data\.jsonl row 1 has a history beside its"):
            one(tmp_path, plain | {"history": [["c", "d"]]})
    else:
        assert one(tmp_path, plain | {"history": [["c", "d"]]}).pairs == (Pair("c", "d"), Pair("a", "b"))


def test_two_system_texts_are_one_or_refused(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "system", "content": "s"}, *CHAT["messages"]]}
    assert one(tmp_path, chat | {"system": "s"}).system == one(tmp_path, chat).system == "s"
    with pytest.raises(ValueError, match="one system text among its messages and another beside them"):
        one(tmp_path, chat | {"system": "t"})


@pytest.mark.parametrize("plain", ROWS)
@pytest.mark.parametrize("key", layouts.UNREAD)
def test_a_key_that_means_more_to_a_trainer_is_refused_by_its_name(
    tmp_path: Path, plain: dict[str, Any], key: str
) -> None:
    empty: tuple[object, ...] = (None, "", [], {})
    for nothing in empty:
        assert one(tmp_path, plain | {key: nothing}).pairs == (Pair("a", "b"),)
    with pytest.raises(ValueError, match=rf"data\.jsonl row 1 has {key}, which other trainers .*: drop the row"):
        one(tmp_path, plain | {key: [{"type": "function"}]})


@pytest.mark.parametrize("plain", [CHAT, SHAREGPT])
@pytest.mark.parametrize("key", layouts.UNREAD_OF_A_MESSAGE)
def test_a_key_of_a_message_that_means_more_is_refused_by_its_name(
    tmp_path: Path, plain: dict[str, Any], key: str
) -> None:
    for place in (0, 1):
        assert one(tmp_path, marked(plain, place, **{key: None})).pairs == (Pair("a", "b"),)
        with pytest.raises(ValueError, match=f"row 1 has {key}, which other trainers"):
            one(tmp_path, marked(plain, place, **{key: "more"}))


@pytest.mark.parametrize("plain", ROWS)
@pytest.mark.parametrize("key", layouts.MARKS)
def test_a_mark_for_a_whole_row_is_refused_where_it_says_anything(
    tmp_path: Path, plain: dict[str, Any], key: str
) -> None:
    assert one(tmp_path, plain | {key: 1}) == one(tmp_path, plain | {key: True}) == one(tmp_path, plain)
    for value in (0, False, 0.5, "yes"):
        with pytest.raises(ValueError, match=f"row 1 has {key} .* for the whole of it"):
            one(tmp_path, plain | {key: value})


@pytest.mark.parametrize("plain", ROWS)
def test_other_columns_are_their_owners(tmp_path: Path, plain: dict[str, Any]) -> None:
    own = {"id": 7, "source": "web", "score": 0.5, "text": "a b", "label": False, "chosen": [], "tags": ["x"]}
    assert one(tmp_path, plain | own | {"metadata": {"tools": ["none"]}}) == one(tmp_path, plain)


def test_a_row_in_two_layouts_says_one_thing(tmp_path: Path) -> None:
    assert one(tmp_path, CHAT | PLAIN | ALPACA).pairs == (Pair("a", "b"),)
    assert one(tmp_path, CHAT | {"prompt": "of its own"}).pairs == (Pair("a", "b"),)
    for other in (PLAIN | {"response": "c"}, ALPACA | {"input": "c"}, {"conversations": SHAREGPT["conversations"] * 2}):
        with pytest.raises(ValueError, match="one thing in one layout and another in the next"):
            one(tmp_path, CHAT | other)
    with pytest.raises(ValueError, match="has an input beside its prompt"):
        one(tmp_path, PLAIN | {"input": "c"})


def test_what_a_column_leaves_empty_is_looked_for_in_the_next(tmp_path: Path) -> None:
    """A Parquet file has every column in every row, and every key in every message."""
    import polars

    message = {"role": None, "from": "human", "content": None, "value": "a", "tool_calls": None, "weight": None}
    answer = message | {"from": "gpt", "value": "b"}
    rows = {"messages": [None], "conversations": [[message, answer]], "tools": [None], "system": [None]}
    polars.DataFrame(rows).write_parquet(tmp_path / "data.parquet")
    assert layouts.read(tmp_path / "data.parquet") == [row("a", "b")]


@pytest.mark.parametrize("role", ["tool", "function_call", "observation", "developer", "User", None])
def test_a_speaker_that_nobody_knows_is_named(tmp_path: Path, role: object) -> None:
    with pytest.raises(ValueError, match=f"row 1 has a message of '{role}'"):
        one(tmp_path, marked(CHAT, 0, role=role))


def test_a_message_that_says_two_things_is_refused(tmp_path: Path) -> None:
    assert one(tmp_path, marked(CHAT, value="b")).pairs == (Pair("a", "b"),)
    with pytest.raises(ValueError, match="one content and another value"):
        one(tmp_path, marked(CHAT, value="c"))
    with pytest.raises(ValueError, match="is to be learnt and is not"):
        one(tmp_path, marked(CHAT, train=True, weight=0))


def test_a_json_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    for name, text in (("data.json", json.dumps([PLAIN])), ("data.jsonl", json.dumps(PLAIN))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert layouts.read(tmp_path / name) == [row("a", "b")]
