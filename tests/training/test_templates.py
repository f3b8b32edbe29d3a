import json
from pathlib import Path

import pytest

from nift_training import templates

SECOND_TURNS = {
    "zephyr": "<|system|>\n</s>\n<|user|>\nQ1</s>\n<|assistant|>\nA1</s>\n<|user|>\nQ2</s>\n<|assistant|>\n",
    "llama-2": "[INST] Q1 [/INST] A1 </s><s>[INST] Q2 [/INST]",
    "mistral": "[INST] Q1 [/INST] A1</s>[INST] Q2 [/INST]",
    "llama-3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
}


@pytest.mark.parametrize("name", SECOND_TURNS)
def test_second_turns_render_as_fastchat_does(name: str) -> None:
    assert templates.render(name, ["Q1", "A1", "Q2"]) == SECOND_TURNS[name]


@pytest.mark.parametrize("name", SECOND_TURNS)
def test_the_second_turn_begins_with_the_first(name: str) -> None:
    assert templates.render(name, ["Q1", "A1", "Q2"]).startswith(templates.render(name, ["Q1"]))


def test_one_shot_needs_its_example_and_continues_from_it() -> None:
    with pytest.raises(ValueError, match="needs an example"):
        templates.render("one_shot", ["Q1"])
    assert templates.render("one_shot", ["Q1", "A1", "Q2"], ("E?", "E!")).endswith(
        "questions.\n### Human: E?\n### Assistant: E!\n### Human: Q1\n### Assistant: A1\n### Human: Q2\n### Assistant:"
    )


def test_braces_in_a_question_are_text() -> None:
    assert templates.render("mistral", ["{0} {name} {}"]) == "[INST] {0} {name} {} [/INST]"


def test_only_llama_3_strips_what_was_said() -> None:
    assert "user<|end_header_id|>\n\nQ<|eot_id|>" in templates.render("llama-3", [" Q\n"])
    assert templates.render("mistral", [" Q\n"]) == "[INST]  Q\n [/INST]"


def test_an_unknown_template_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'vicuna': choose one of one_shot, zephyr"):
        templates.render("vicuna", ["Q1"])


@pytest.mark.parametrize(
    "content",
    [
        [["Human", "E?"], ["Assistant", "E!"]],
        {"messages": [["Human", "E?"], ["Assistant", "E!"]]},
        {"messages": [{"role": "user", "content": "E?"}, {"role": "assistant", "content": "E!"}]},
    ],
)
def test_the_example_of_one_shot_is_read_from_a_file(content: object, tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text(json.dumps(content))
    assert templates.read_example(tmp_path / "example.json") == ("E?", "E!")


@pytest.mark.parametrize("content", ["{", "[]", '{"messages": [["Human", "E?"]]}', '[["Human", 1], ["Assistant", 2]]'])
def test_a_file_that_is_no_example_is_refused_with_its_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text(content)
    with pytest.raises(ValueError, match=r"example\.json is no example"):
        templates.read_example(tmp_path / "example.json")
