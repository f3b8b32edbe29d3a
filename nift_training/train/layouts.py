"""Training rows from a file, each read as the trainers mean it that its layout is from.

A key counts where LLaMA-Factory, TRL, axolotl, ms-swift, or Mistral's or OpenAI's fine-tuning would learn otherwise
with it than without: it is read here, or the row is refused by that key's name. Every other key is its owner's, an id
or a score for one, and is passed over. An empty value (null, "", [], {}) is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nift_training import artifacts, json_objects

SPEAKERS = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
CHATS = ("messages", "conversations")
PLAIN = (("instruction", "output"), ("prompt", "response"), ("prompt", "completion"))
LAYOUTS = "prompt and response, Alpaca's instruction, input and output, or messages"
MARKS = ("train", "training", "weight", "loss")
"""What says whether an answer is learnt: axolotl's two, OpenAI's and Mistral's, ms-swift's."""
# What those trainers put into a prompt, or leave out of the loss, and is not read here.
UNREAD = (
    *("tools", "functions", "images", "videos", "audios", "chat_template_kwargs", "kto_tag"),
    *("tool_calls", "function_call", "train_detail", "training_detail", "loss_scale"),
)
UNREAD_OF_A_MESSAGE = (
    *UNREAD,
    *("name", "tool_call_id", "reasoning_content", "reasoning", "thinking", "refusal", "audio"),
)


@dataclass(frozen=True)
class Pair:
    """One exchange in text: what is read, and what is learnt to follow it, unless it is marked not to be."""

    prompt: str
    response: str
    learnt: bool = True


@dataclass(frozen=True)
class TrainingRow:
    """One training example in text: its exchanges, mostly one, and what may stand before them."""

    pairs: tuple[Pair, ...]
    system: str = ""


def read(path: Path) -> list[TrainingRow]:
    """The rows of a .json, .jsonl or .parquet file in its order, in any of three layouts.

    - `prompt` and `response` (TRL's `completion`), or Alpaca's `instruction`, `input` and `output`, the first two
      joined by a line break; the turns of a `history` come before them, as in LLaMA-Factory (`data/aligner.py:25-32`).
    - `messages` (`conversations`) of user and assistant by turns, of which an answer that is marked with 0 or false is
      read and not learnt.

    A `system` text comes first. ValueError names a row that is none of these, or means more than is read here.
    """
    rows = _objects(path)
    if not rows:
        raise ValueError(f"{path} has no rows: nothing to train on")
    return [_row(row, f"{path} row {number}") for number, row in enumerate(rows, start=1)]


def _row(row: Mapping[str, Any], where: str) -> TrainingRow:
    _refuse_unread(row, UNREAD, where)
    for name in MARKS:
        if (value := row.get(name)) is not None and value != 1:
            raise ValueError(
                f"{where} has {name} {value!r} for the whole of it: drop the row, mark its answers instead, or give "
                "the column another name"
            )
    readings = list(_readings(row, where))
    if not readings:
        # What is there of a layout says best what is missing.
        _text(row, "output" if "instruction" in row else "prompt" if "prompt" not in row else "response", where)
    first, *others = readings
    for other in others:
        if [(pair.prompt, pair.response) for pair in other.pairs] != [(p.prompt, p.response) for p in first.pairs]:
            raise ValueError(f"{where} says one thing in one layout and another in the next: keep the columns of one")
    return first


def _readings(row: Mapping[str, Any], where: str) -> Iterator[TrainingRow]:
    """The row in each of the layouts that it has all columns of."""
    said = _optional(row, "system", where)
    for name in CHATS:
        if not _is_empty(row.get(name)):
            if not _is_empty(row.get("history")):
                raise ValueError(f"{where} has a history beside its {name}: put those turns among them")
            yield _chat(row[name], said, where)
    for asks, answers in PLAIN:
        if row.get(asks) is None or row.get(answers) is None:
            continue
        for beside in ("instruction", "input") if asks == "prompt" and row.get("output") is None else ():
            if not _is_empty(row.get(beside)):
                raise ValueError(f"{where} has an {beside} beside its prompt: join them, or give Alpaca's columns")
        texts = [_text(row, asks, where), _optional(row, "input", where) if asks == "instruction" else ""]
        last = Pair("\n".join(text for text in texts if text), _text(row, answers, where))
        yield TrainingRow((*_history(row, where), last), said)


def _refuse_unread(said: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    if found := next((name for name in names if not _is_empty(said.get(name))), None):
        raise ValueError(
            f"{where} has {found}, which other trainers learn otherwise with and is not read here: drop the row, put "
            "what it says into its texts, or remove the key"
        )


def _is_empty(value: object) -> bool:
    return value is None or value in ("", [], {})


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    text = row.get(column)
    if not json_objects.is_text(text):
        raise ValueError(f"{where} has no text in {column!r}: give {LAYOUTS}")
    return str(text)


def _optional(row: Mapping[str, Any], column: str, where: str) -> str:
    return "" if row.get(column) is None else _text(row, column, where)


def _history(row: Mapping[str, Any], where: str) -> list[Pair]:
    turns = row.get("history")
    if _is_empty(turns):
        return []
    if not isinstance(turns, list) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 and all(map(json_objects.is_text, turn)) for turn in turns
    ):
        raise ValueError(f"{where} has a history that is no list of pairs of texts: drop or repair it")
    return [Pair(*turn) for turn in turns]


@dataclass(frozen=True)
class _Turn:
    """A message: who speaks, by the name that its file has for that, what, and whether it is to be learnt."""

    called: str
    text: Any
    learnt: bool

    @property
    def speaker(self) -> str | None:
        return SPEAKERS.get(self.called)


def _chat(messages: object, system: str, where: str) -> TrainingRow:
    objects = messages if isinstance(messages, list) and all(isinstance(each, Mapping) for each in messages) else ()
    turns = [_turn(message, where) for message in objects]
    if strange := next((turn.called for turn in turns if not turn.speaker), None):
        raise ValueError(f"{where} has a message of {strange!r}: drop the row, or name one of {', '.join(SPEAKERS)}")
    if turns and turns[0].speaker == "system":
        opening = turns.pop(0).text
        if system and system != opening:
            raise ValueError(f"{where} has one system text among its messages and another beside them: keep one")
        system = opening
    speakers, texts = [turn.speaker for turn in turns], [turn.text for turn in turns]
    by_turns = ["user", "assistant"] * (len(turns) // 2)
    if not turns or speakers != by_turns or not all(map(json_objects.is_text, (system, *texts))):
        raise ValueError(f"{where} is not texts of user and assistant by turns: drop or repair it")
    exchanges = zip(turns[::2], turns[1::2], strict=True)
    return TrainingRow(tuple(Pair(asked.text, said.text, said.learnt) for asked, said in exchanges), system)


def _turn(message: Mapping[str, Any], where: str) -> _Turn:
    _refuse_unread(message, UNREAD_OF_A_MESSAGE, where)
    called, text = (_either(message, names, where) for names in (("role", "from"), ("content", "value")))
    turn = _Turn(str(called), text, learnt=True)
    marks = {name: message[name] for name in MARKS if message.get(name) is not None}
    for name, value in marks.items():
        if value not in (0, 1) or (value and turn.speaker != "assistant"):
            raise ValueError(
                f"{where} has a message of {turn.called!r} with {name} {value!r}: answers are learnt (1) or not (0), "
                "and nothing else is"
            )
    if len({bool(value) for value in marks.values()}) > 1:
        raise ValueError(f"{where} has an answer that is to be learnt and is not ({marks}): keep one of them")
    return replace(turn, learnt=all(marks.values()))


def _either(message: Mapping[str, Any], names: tuple[str, str], where: str) -> Any:
    """What a message says under one of two names."""
    said = [message[name] for name in names if message.get(name) is not None]
    if len(said) == 2 and said[0] != said[1]:
        raise ValueError(f"{where} has a message with one {names[0]} and another {names[1]}: keep one of them")
    return said[0] if said else None


def _objects(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return _of_parquet(path)
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as damage:  # no JSON, or no UTF-8
            raise ValueError(f"{path} cannot be read as JSON ({damage}): repair it, or save it as UTF-8") from None
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError(f"{path} is not a JSON list of objects: give one, or .jsonl with an object per line")
        return content
    return artifacts.read_rows(path)


def _of_parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    if not any({*columns} <= set(table.column_names) for columns in (*PLAIN, *((name,) for name in CHATS))):
        raise ValueError(f"{path} lacks the columns of any layout: give {LAYOUTS}; it has {table.column_names}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
