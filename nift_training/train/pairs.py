"""Prompt/response pairs as the paper's trainer saw them: tokenised, masked and cut."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import artifacts
from nift_training.recipe import Recipe
from nift_training.train.layouts import Pair, TrainingRow, read

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AT_ONCE = 1000  # texts handed to the tokenizer at a time, which works on them in parallel
READING = 2  # raised when a row is read otherwise than before, so that no ids of an older reading are taken


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
    what = json.dumps([READING, artifacts.sha256(data), words, ends, shape])
    return hashlib.sha256(what.encode()).hexdigest()[:32]
