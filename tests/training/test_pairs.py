from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nift_training import pairs, train
from nift_training.pairs import Example, Pair


def test_a_pair_is_prompt_then_response_then_eos_without_bos(tokenizer: Any) -> None:
    example = pairs.encode(tokenizer, Pair("The old", " bridge"), cutoff=64)
    assert tokenizer.decode(example.prompt) == "The old"
    assert tokenizer.decode(example.response) == " bridge<|end_of_text|>"


def test_nothing_is_put_between_prompt_and_response(tokenizer: Any) -> None:
    example = pairs.encode(tokenizer, Pair("word", "next"), cutoff=64)
    assert tokenizer.decode(example.prompt + example.response) == "wordnext<|end_of_text|>"


def test_1500_and_900_tokens_become_640_and_384() -> None:
    example = pairs.cut(range(1500), range(900), cutoff=1024)
    assert example == Example(tuple(range(640)), tuple(range(384)))


def test_a_pair_of_exactly_the_cutoff_is_not_cut() -> None:
    assert pairs.cut(range(71), range(29), cutoff=100) == Example(tuple(range(71)), tuple(range(29)))


@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(2, 2048))
def test_a_cut_pair_has_at_most_the_cutoff_and_some_response(prompt: int, response: int, cutoff: int) -> None:
    example = pairs.cut(range(prompt), range(response), cutoff)
    assert len(example) <= cutoff
    assert 1 <= len(example.response) <= response
    assert len(example) == min(cutoff, prompt + response)


def test_labels_hide_prompt_and_padding() -> None:
    ids, mask, labels = train.batch_tensors([Example((5, 6), (7, 1)), Example((8,), (1,))], padding=1)
    assert ids.tolist() == [[5, 6, 7, 1], [8, 1, 1, 1]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert labels.tolist() == [[-100, -100, 7, 1], [-100, 1, -100, -100]]


def test_jsonl_and_parquet_give_the_same_pairs(tmp_path: Path, pairs_file: Path) -> None:
    import polars

    read = pairs.read(pairs_file)
    polars.DataFrame(
        {"prompt": [row.prompt for row in read], "response": [row.response for row in read]}
    ).write_parquet(tmp_path / "pairs.parquet")
    assert pairs.read(tmp_path / "pairs.parquet") == read


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "no rows"),
        ('{"prompt": "a"}\n', "row 1 has no text in 'response'"),
        ('{"prompt": 1, "response": "b"}', "'prompt'"),
    ],
)
def test_data_without_pairs_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(ValueError, match=complaint):
        pairs.read(tmp_path / "data.jsonl")
