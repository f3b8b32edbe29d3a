"""Pairs: the layouts that are read, the ids and labels of the paper's recipe, and the cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nift_training import backbone
from nift_training.recipe import FAITHFUL, MODERN
from nift_training.train import pairs
from nift_training.train.layouts import Pair, TrainingRow
from tests.shared_data import shared


def row(prompt: str, response: str) -> TrainingRow:
    return TrainingRow((Pair(prompt, response),))


def test_a_pair_is_prompt_then_response_then_eos_without_bos(tokenizer: Any) -> None:
    example = pairs.encode(tokenizer, row("The old", " bridge"), FAITHFUL)
    assert tokenizer.decode(example.ids) == "The old bridge<|end_of_text|>"
    assert tokenizer.decode(example.ids[example.trained]) == " bridge<|end_of_text|>"


def test_nothing_is_put_between_prompt_and_response(tokenizer: Any) -> None:
    example = pairs.encode(tokenizer, row("word", "next"), FAITHFUL)
    assert tokenizer.decode(example.ids) == "wordnext<|end_of_text|>"


@pytest.mark.parametrize(
    ("prompt", "response", "ids"),
    [
        # By the sentencepiece package on the tokenizer.model of the same folder: what the paper's trainer used.
        ("The old bridge", "was closed.\nNobody", [450, 2030, 12945, 471, 5764, 29889, 13, 29940, 711, 1486]),
        ("word", "next", [1734, 2446]),
        ("word", " next", [1734, 29871, 2446]),
        ("word", "  two", [1734, 259, 1023]),
        ("word", "\nline", [1734, 29871, 13, 1220]),
    ],
)
def test_llama_2s_tokenizer_begins_every_response_with_its_dummy_prefix(
    prompt: str, response: str, ids: list[int]
) -> None:
    tokenizer = backbone.read(shared("tokenizers", "granite-7b-lab")).tokenizer
    example = pairs.encode(tokenizer, row(prompt, response), FAITHFUL)
    assert example.ids.tolist() == [*ids, tokenizer.eos_token_id]
    assert example.trained.sum() == len(tokenizer(response, add_special_tokens=False)["input_ids"]) + 1


def test_a_llama_3_tokenizer_gets_neither_prefix_nor_bos() -> None:
    from transformers import PreTrainedTokenizerFast

    # It has no config.json beside it and splits into bytes, without the spaces.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shared("tokenizers", "torchtitan-tiny-llama3"))
    example = pairs.encode(tokenizer, row("The old", "bridge"), FAITHFUL)
    assert example.ids.tolist() == [84, 104, 101, 111, 108, 100, 98, 114, 105, 100, 103, 101, 2003]
    assert tokenizer.bos_token_id not in example.ids


def test_the_cut_of_real_tokens_keeps_the_beginning_of_both() -> None:
    """900 and 600 words of one token each, cut at 1024: 1024·900/1501 leaves 614 and 410, and no end of sequence."""
    tokenizer = backbone.read(shared("tokenizers", "granite-7b-lab")).tokenizer
    example = pairs.encode(tokenizer, row(" ".join(["old"] * 900), " ".join(["word"] * 600)), FAITHFUL)
    assert example.ids.tolist() == [2030] * 614 + [1734] * 410
    assert example.trained.tolist() == [False] * 614 + [True] * 410


def test_1500_and_900_tokens_become_640_and_384() -> None:
    assert pairs.cut(1500, 900, 1024) == (640, 384)


def test_a_pair_of_exactly_the_cutoff_is_not_cut() -> None:
    assert pairs.cut(71, 29, 100) == (71, 29)


@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(2, 2048))
def test_a_cut_pair_has_at_most_the_cutoff_and_some_response(prompt: int, response: int, cutoff: int) -> None:
    kept, learnt = pairs.cut(prompt, response, cutoff)
    assert kept + learnt <= cutoff
    assert 1 <= learnt <= response
    if prompt + response <= cutoff:
        assert (kept, learnt) == (prompt, response)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_cut_is_llama_factorys(prompt: int, response: int) -> None:
    """`infer_max_len` of LLaMA-Factory 0.5.2 in its own arithmetic, and slices as `_make_pairs` takes them."""
    most_response = max(int(1024 * (response / (prompt + response))), 1)
    expected = len(range(prompt)[: 1024 - most_response]), len(range(response)[:most_response])
    assert pairs.cut(prompt, response, 1024) == expected


def test_a_pair_that_is_too_long_loses_its_end_in_the_papers_recipe_and_keeps_it_in_the_modern(tokenizer: Any) -> None:
    long = row("a b c " * 200, "d e f " * 100)
    cut = pairs.encode(tokenizer, long, replace(FAITHFUL, cutoff=64))
    kept = pairs.encode(tokenizer, long, replace(MODERN, cutoff=64))
    assert len(cut) == len(kept) == 64
    assert tokenizer.eos_token_id not in cut.ids
    assert kept.ids[-1] == tokenizer.eos_token_id
    assert kept.trained[-1]


def test_begin_separator_and_end_are_options(tokenizer: Any) -> None:
    example = pairs.encode(
        tokenizer, row("word", "next"), replace(FAITHFUL, add_bos=True, add_eos=False, separator=" ")
    )
    assert tokenizer.decode(example.ids) == "<|begin_of_text|>word next"
    assert tokenizer.decode(example.ids[example.trained]) == "next"


def test_every_answer_of_a_dialogue_is_learnt_and_no_question(tokenizer: Any) -> None:
    dialogue = TrainingRow((Pair("One?", "1."), Pair("Two?", "2.")), system="Count. ")
    example = pairs.encode(tokenizer, dialogue, FAITHFUL)
    assert tokenizer.decode(example.ids) == "Count. One?1.<|end_of_text|>Two?2.<|end_of_text|>"
    assert tokenizer.decode(example.ids[example.trained]) == "1.<|end_of_text|>2.<|end_of_text|>"


@pytest.mark.parametrize("add_eos", [True, False])
def test_a_row_in_which_nothing_is_predicted_is_named(tokenizer: Any, add_eos: bool) -> None:
    """With an end of sequence an empty pair is that token alone, which has nothing before it."""
    with pytest.raises(ValueError, match="row 2 of the data has no token to learn"):
        pairs.examples(tokenizer, [row("a", "b"), row("", "")], replace(FAITHFUL, add_eos=add_eos))
    assert len(pairs.examples(tokenizer, [row("a", ""), row("", "b")], FAITHFUL)) == 2


def test_tokens_are_kept_by_content_and_made_anew_when_it_or_the_recipe_changes(
    tokenizer: Any, pairs_file: Path, tmp_path: Path
) -> None:
    def kept() -> int:
        return len(list(tmp_path.glob("tokens-*")))

    first = pairs.cached(tokenizer, pairs_file, FAITHFUL, tmp_path)
    again = pairs.cached(tokenizer, pairs_file, replace(FAITHFUL, learning_rate=1.0), tmp_path)
    assert kept() == 1
    assert again.ids.tolist() == first.ids.tolist()
    assert again.trained.tolist() == first.trained.tolist()
    assert again.starts.tolist() == first.starts.tolist()
    pairs.cached(tokenizer, pairs_file, replace(FAITHFUL, cutoff=32), tmp_path)
    assert kept() == 2


def test_kept_tokens_that_are_damaged_are_made_anew(tokenizer: Any, pairs_file: Path, tmp_path: Path) -> None:
    first = pairs.cached(tokenizer, pairs_file, FAITHFUL, tmp_path)
    (file,) = tmp_path.glob("tokens-*")
    file.write_bytes(file.read_bytes()[:100])
    assert pairs.cached(tokenizer, pairs_file, FAITHFUL, tmp_path).ids.tolist() == first.ids.tolist()
