"""Prompt/response pairs as the paper's trainer saw them: read, tokenised, masked and cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import artifacts, json_objects
from nift_training.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AT_ONCE = 1000  # texts handed to the tokenizer at a time, which works on them in parallel
SPEAKERS = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
LAYOUTS = "prompt and response, Alpaca's instruction, input and output, or messages"


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


@dataclass(frozen=True)
class TrainingExample:
    """One training example in token ids, and which of them give loss."""

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Examples(Sequence[TrainingExample]):
    """All examples end to end: the i-th is `ids[starts[i]:starts[i + 1]]`."""

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: Any) -> Any:
        part = slice(self.starts[index], self.starts[index + 1])
        return TrainingExample(self.ids[part], self.trained[part])


def read(path: Path) -> list[TrainingRow]:
    """The rows of a .json, .jsonl or .parquet file in its order, in any of three layouts.

    `prompt` and `response`; Alpaca's `instruction`, `input` and `output`, the first two joined by a line break and the
    turns of a `history` before them, as LLaMA-Factory does (`data/aligner.py:25-32`); or `messages` (`conversations`)
    of user and assistant by turns, of which an answer with `train` false or `weight` 0 is read and not learnt.
    """
    rows = _read_objects(path)
    if not rows:
        raise ValueError(f"{path} has no rows: nothing to train on")
    return [_row(row, f"{path} row {number}") for number, row in enumerate(rows, start=1)]


def encode(tokenizer: Any, row: TrainingRow, recipe: Recipe) -> TrainingExample:
    """One row in token ids; see `examples`."""
    encoded: TrainingExample = examples(tokenizer, [row], recipe)[0]
    return encoded


def examples(tokenizer: Any, rows: Sequence[TrainingRow], recipe: Recipe) -> Examples:
    """The rows in token ids: prompt ++ response ++ end-of-sequence, and nothing else in the paper's recipe.

    LLaMA-Factory 0.5.2's `vanilla` template: each text is tokenised apart, with nothing between them and no
    begin-of-text in front. A tokenizer with a dummy prefix therefore begins the response with one.
    """
    import numpy as np

    starts, ids, trained = [0], [], []
    for start in range(0, len(rows), AT_ONCE):
        for row, texts in _tokenised(tokenizer, rows[start : start + AT_ONCE], recipe):
            exchanges = _exchanges(row, texts, tokenizer, recipe)
            length = learnt = 0
            for pair, (source, target) in zip(row.pairs, exchanges, strict=False):
                ids.append(np.array([*source, *target], dtype=np.int32))
                trained.append(np.repeat(np.array([False, pair.learnt]), [len(source), len(target)]))
                # The first token of a sequence has nothing before it and is never predicted.
                learnt += (len(target) if length or source else len(target) - 1) if pair.learnt else 0
                length += len(source) + len(target)
            if not learnt:
                raise ValueError(f"row {len(starts)} of the data has no token to learn: drop it")
            starts.append(starts[-1] + length)
    return Examples(np.concatenate(ids), np.concatenate(trained), np.array(starts, dtype=np.int64))


def cached(tokenizer: Any, data: Path, recipe: Recipe, folder: Path) -> Examples:
    """The examples of a file, tokenised once for a content of data, tokenizer and recipe, and kept in `folder`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    kept = folder / f"tokens-{_key(tokenizer, data, recipe)}.safetensors"
    if kept.is_file():
        try:
            return Examples(**load_file(kept))
        except (SafetensorError, TypeError):
            kept.unlink()  # a disk that lost its power left it damaged; it is only a copy
    examples_ = examples(tokenizer, read(data), recipe)
    with artifacts.replacing(kept) as partial:
        save_file({"ids": examples_.ids, "trained": examples_.trained, "starts": examples_.starts}, partial)
    return examples_


def cut(prompt: int, response: int, cutoff: int) -> tuple[int, int]:
    """How many tokens of prompt and response are kept, each side losing its right and in proportion to its length.

    1500 + 900 tokens at 1024 become 640 + 384: the prompt loses the text next to the response, the response its
    end-of-sequence. So LLaMA-Factory 0.5.2 does (`data/utils.py:42-46`); the response keeps at least one token. Its
    floating-point numbers are exact at 1024, a power of two; at a cutoff of 100 they would take one token of a pair
    of 71 + 29.
    """
    if prompt + response <= cutoff:
        return prompt, response
    kept = max(cutoff * response // (prompt + response), 1)
    return min(prompt, cutoff - kept), min(response, kept)


def _tokenised(
    tokenizer: Any, rows: Sequence[TrainingRow], recipe: Recipe
) -> Iterator[tuple[TrainingRow, list[list[int]]]]:
    """Each row with the ids of its texts in order: what stands before, then prompt, separator, response by turns."""
    texts = [[row.system, *(text for pair in row.pairs for text in _parts(pair, recipe))] for row in rows]
    flat = [text for several in texts for text in several]
    ids = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    for row, several in zip(rows, texts, strict=True):
        yield row, [next(ids) for _ in several]


def _parts(pair: Pair, recipe: Recipe) -> tuple[str, ...]:
    # A separator is part of the prompt's text, as a person would type it.
    return (pair.prompt + recipe.separator, pair.response)


def _exchanges(
    row: TrainingRow, texts: list[list[int]], tokenizer: Any, recipe: Recipe
) -> Iterator[tuple[list[int], ...]]:
    """The ids of each exchange, cut; of several the first take their part of the room before the later ones."""
    room = recipe.cutoff - recipe.keep_eos
    begin = [tokenizer.bos_token_id] if recipe.add_bos and tokenizer.bos_token_id is not None else []
    end = [tokenizer.eos_token_id] if recipe.add_eos else []
    for turn in range(len(row.pairs)):
        source, target = texts[1 + 2 * turn], texts[2 + 2 * turn]
        if turn == 0:
            source = [*begin, *texts[0], *source]
        if not recipe.keep_eos:
            target = [*target, *end]
        if room <= 0 or not (source or target):
            return
        kept, learnt = cut(len(source), len(target), room)
        room -= kept + learnt
        source, target = source[:kept], target[:learnt]
        yield source, [*target, *end] if recipe.keep_eos else target


def _key(tokenizer: Any, data: Path, recipe: Recipe) -> str:
    """A hash of all that shapes the token ids."""
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    shape = (recipe.cutoff, recipe.add_bos, recipe.add_eos, recipe.keep_eos, recipe.separator)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    what = json.dumps([artifacts.sha256(data), words, ends, shape])
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def _row(row: Mapping[str, Any], where: str) -> TrainingRow:
    if (messages := row.get("messages", row.get("conversations"))) is not None:
        return _from_messages(messages, where)
    if "instruction" in row:
        asked = [_text(row, "instruction", where), _text(row, "input", where, empty=True)]
        joined = "\n".join(text for text in asked if text)
        last = Pair(joined, _text(row, "output", where))
        return TrainingRow((*_history(row, where), last), _text(row, "system", where, empty=True))
    return TrainingRow((Pair(_text(row, "prompt", where), _text(row, "response", where)),))


def _text(row: Mapping[str, Any], column: str, where: str, *, empty: bool = False) -> str:
    text = row.get(column)
    if empty and text is None:
        return ""
    if not json_objects.is_text(text):
        raise ValueError(f"{where} has no text in {column!r}: give {LAYOUTS}")
    return str(text)


def _history(row: Mapping[str, Any], where: str) -> list[Pair]:
    turns = row.get("history")
    if turns is None:
        return []
    if not isinstance(turns, list) or not all(
        isinstance(turn, list | tuple) and len(turn) == 2 and all(map(json_objects.is_text, turn)) for turn in turns
    ):
        raise ValueError(f"{where} has a history that is no list of pairs of texts: drop or repair it")
    return [Pair(*turn) for turn in turns]


def _from_messages(messages: Any, where: str) -> TrainingRow:
    objects = isinstance(messages, list) and all(isinstance(message, Mapping) for message in messages)
    messages_of_turns = [
        (SPEAKERS.get(str(message.get("role", message.get("from")))), message.get("content", message.get("value")))
        for message in (messages if objects else ())
    ]
    marks = [_is_learnt(message, where) for message in (messages if objects else ())]
    system = messages_of_turns.pop(0)[1] if messages_of_turns and messages_of_turns[0][0] == "system" else ""
    turns, texts = ["user", "assistant"] * (len(messages_of_turns) // 2), [text for _, text in messages_of_turns]
    if (
        not turns
        or [who for who, _ in messages_of_turns] != turns
        or not all(map(json_objects.is_text, (system, *texts)))
    ):
        raise ValueError(f"{where} is not texts of user and assistant by turns: drop or repair it")
    learnt = marks[-len(texts) :][1::2]
    return TrainingRow(tuple(Pair(*pair) for pair in zip(texts[::2], texts[1::2], learnt, strict=True)), system)


def _is_learnt(message: Mapping[str, Any], where: str) -> bool:
    """Whether a message is to be learnt: by axolotl's `train`, or OpenAI's and Mistral's `weight` of 0 or 1."""
    answer = SPEAKERS.get(str(message.get("role", message.get("from")))) == "assistant"
    for name, value in (("train", message.get("train")), ("weight", message.get("weight"))):
        if value is None:
            continue
        if value not in (0, 1) or (value and not answer):
            raise ValueError(
                f"{where} has a message of {message.get('role', message.get('from'))!r} with {name} {value!r}: answers "
                "are learnt (1) or not (0), and nothing else is"
            )
        if answer and not value:
            return False
    return True


def _read_objects(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as damage:  # no JSON, or no UTF-8
            raise ValueError(f"{path} cannot be read as JSON ({damage}): repair it, or save it as UTF-8") from None
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError(f"{path} is not a JSON list of objects: give one, or .jsonl with an object per line")
        return content
    return artifacts.read_rows(path)


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    layouts = ({"prompt", "response"}, {"instruction", "output"}, {"messages"}, {"conversations"})
    if not any(layout <= set(table.column_names) for layout in layouts):
        raise ValueError(f"{path} lacks the columns of any layout: give {LAYOUTS}; it has {table.column_names}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
