"""What a model is asked: prompts as their makers mean them, or a line that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nift_training import backbone
from nift_training.evaluate import conversations, generation, ifeval
from tests.training.families import FAMILIES, write

PROMPT = "The old bridge over"
MASKLESS = ("rwkv", "xlnet", "cpmant", "trocr")


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def ending_texts(folder: Path) -> Path:
    """The folder with a tokenizer that also ends every text by itself."""
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    processor = written["post_processor"]
    end = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    number = next(token["id"] for token in written["added_tokens"] if token["content"] == end)
    processor["single"].append({"SpecialToken": {"id": end, "type_id": 0}})
    processor["special_tokens"][end] = {"id": end, "ids": [number], "tokens": [end]}
    (folder / "tokenizer.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


def test_a_prompt_has_one_begin_and_no_end_whatever_its_tokenizer_adds(tmp_path: Path) -> None:
    plain = generation.load(write(tmp_path / "plain", "llama"))
    ending = generation.load(ending_texts(write(tmp_path / "ending", "llama")))
    assert ending.tokenizer(PROMPT)["input_ids"][-1] == ending.tokenizer.eos_token_id
    assert generation.encode(ending, PROMPT) == generation.encode(plain, PROMPT) == plain.tokenizer(PROMPT)["input_ids"]
    begun = plain.tokenizer.bos_token + PROMPT
    assert generation.with_one_bos(ending, begun) == generation.with_one_bos(plain, begun) == PROMPT
    said = [generation.generate(each, [PROMPT], max_new_tokens=6)[0].ids for each in (plain, ending)]
    assert said[0] == said[1]


def test_padding_has_a_vector_of_the_model(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "llama")
    plain = generation.load(folder)
    alone = [generation.generate(plain, [prompt], max_new_tokens=4)[0].ids for prompt in ("He", PROMPT)]
    plain.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    plain.tokenizer.save_pretrained(folder)
    padded = generation.load(folder)
    assert [each.ids for each in generation.generate(padded, ["He", PROMPT], max_new_tokens=4)] == alone


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_answer_in_a_batch_is_the_answer_alone(tmp_path: Path, kind: str) -> None:
    asked = generation.load(write(tmp_path / "model", kind))
    prompts = [PROMPT, "He", "What grows in a garden in winter? Kale does"]
    together = generation.generate(asked, prompts, max_new_tokens=6)
    assert together == [generation.generate(asked, [each], max_new_tokens=6)[0] for each in prompts]
    assert asked.in_batches == (kind not in MASKLESS)


def test_an_answer_in_a_batch_is_the_answer_alone_without_the_word_of_a_tokenizer(tmp_path: Path) -> None:
    """One that does not name the mask among what a model is given makes none when it pads."""
    folder = write(tmp_path / "model", "llama")
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids"])
    asked = generation.load(folder)
    together = generation.generate(asked, [PROMPT, "He"], max_new_tokens=6)
    assert together == [generation.generate(asked, [each], max_new_tokens=6)[0] for each in (PROMPT, "He")]


@pytest.mark.parametrize(
    "said",
    [
        {"eos_token_id": "1"},
        {"eos_token_id": [1, "2"]},
        {"eos_token_id": {}},
        {"num_beams": "2"},
        {"top_p": "x"},
        {"top_k": "x"},
        {"prefill_chunk_size": [1]},
        {"prefill_chunk_size": [1, 4]},
        [1],
    ],
)
def test_settings_of_generation_that_no_model_can_be_asked_with_are_named(tmp_path: Path, said: Any) -> None:
    folder = write(tmp_path / "model", "llama")
    written = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(written | said if isinstance(said, dict) else said))
    with pytest.raises(ValueError, match=r"generation_config\.json"):
        generation.load(folder)


def test_settings_of_generation_do_not_change_what_is_given_back(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "llama")
    plain = generation.generate(generation.load(folder), [PROMPT], max_new_tokens=4)
    edit(folder / "generation_config.json", num_return_sequences=1, return_dict_in_generate=True, output_scores=True)
    assert generation.generate(generation.load(folder), [PROMPT], max_new_tokens=4) == plain


@pytest.mark.parametrize("said", [{"eos_token": ""}, {"model_max_length": "2048"}, {"model_input_names": 5}])
def test_a_tokenizer_that_cannot_be_used_is_named(tmp_path: Path, said: dict[str, Any]) -> None:
    folder = write(tmp_path / "model", "llama")
    edit(folder / "tokenizer_config.json", **said)
    for read in (generation.load, backbone.read):
        with pytest.raises(ValueError, match=r"the tokenizer of .*model (cannot be read|has no end-of-sequence token)"):
            read(folder)


def test_an_empty_prompt_is_asked_only_where_a_text_has_a_beginning(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "llama")
    assert generation.generate(generation.load(folder), [""], max_new_tokens=2)[0].tokens
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(written | {"post_processor": None}), encoding="utf-8")
    with pytest.raises(ValueError, match="the prompt '' has no token"):
        generation.generate(generation.load(folder), ["a", ""], max_new_tokens=2)


def test_a_prompt_that_the_model_cannot_read_is_named(tmp_path: Path) -> None:
    learned = generation.load(write(tmp_path / "gpt2", "gpt2", n_positions=16))
    with pytest.raises(ValueError, match="and the model 16 positions"):
        generation.generate(learned, ["a b c d e " * 9], max_new_tokens=4)
    together = generation.generate(learned, [PROMPT, "He"], max_new_tokens=20)
    assert together == [generation.generate(learned, [each], max_new_tokens=20)[0] for each in (PROMPT, "He")]
    assert max(len(generation.encode(learned, each)) for each in (PROMPT, "He")) + together[0].tokens <= 16
    learned.tokenizer.add_tokens(["<|new|>"])
    with pytest.raises(ValueError, match=r"has the token '<\|new\|>'"):
        generation.generate(learned, ["a <|new|>"], max_new_tokens=1)


def test_a_folder_without_its_tokenizers_files_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "gemma")
    (folder / "tokenizer.json").unlink()
    said = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        generation.load(folder)


def questions(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_two_questions_with_one_id_are_refused(tmp_path: Path) -> None:
    row = {"question_id": 81, "category": "math", "turns": ["What is 2 + 2?"]}
    with pytest.raises(ValueError, match="two questions with the id 81"):
        conversations.read_questions("mt-bench", questions(tmp_path / "q.jsonl", row, row))
    prompt = {"key": 1, "prompt": "Write", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    with pytest.raises(ValueError, match="two questions with the id 1"):
        ifeval.read_prompts(questions(tmp_path / "p.jsonl", prompt, prompt))


@pytest.mark.parametrize("turns", [["Write a function"], [{"content": "Write a function"}]])
def test_turns_are_texts_or_objects_with_one(tmp_path: Path, turns: list[object]) -> None:
    row = {"question_id": "a", "category": "x", "turns": turns}
    (question,) = conversations.read_questions("arena-hard", questions(tmp_path / "q.jsonl", row))
    assert question.turns == ("Write a function",)
    with pytest.raises(ValueError, match="needs a category and turns"):
        conversations.read_questions("arena-hard", questions(tmp_path / "q.jsonl", row | {"turns": [1]}))


def test_a_letter_that_is_none_is_drawn_for_each_row_alone() -> None:
    """Prompt 1122 of the published file asks for `#`, for which lm-eval's checker draws a letter."""

    def row(key: int, letter: str, times: int) -> dict[str, Any]:
        argument = {"let_relation": "at least", "letter": letter, "let_frequency": times}
        asked = {"key": key, "prompt": "Use it.", "instruction_id_list": ["keywords:letter_frequency"]}
        return {**asked, "kwargs": [argument], "response": "# # # # # ! ! ! ! ! ! " + "abcdefghijklm " * 6}

    verdicts = [ifeval.check([*[row(1129, "!", 6)] * before, row(1122, "#", 4)])[-1] for before in range(4)]
    assert all(verdict == verdicts[0] and verdict["strict"] <= verdict["loose"] for verdict in verdicts)
