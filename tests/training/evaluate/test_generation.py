import json
from dataclasses import replace
from pathlib import Path

import pytest

from nift_training import templates
from nift_training.evaluate import conversations, generation, serving
from nift_training.evaluate.conversations import BenchmarkQuestion
from nift_training.evaluate.generation import Generation, Generator
from tests.shared_data import shared

NEW_LINE = [29871, 13]
PROMPTS = ["The old bridge", "What grows in a garden in winter? Kale does", "He", "Cover the soil"]


@pytest.fixture(scope="module")
def generator(tiny: Path) -> Generator:
    return generation.load(tiny)


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        # By transformers 4.37.2, `AutoTokenizer.from_pretrained(folder)([prompt])`, which is what FastChat does.
        ("Hello world", [1, 15043, 3186]),
        (" leading", [1, 29871, 8236]),
        (
            "<|system|>\nBe.</s>\n<|user|>\nWhat?</s>\n<|assistant|>\n",
            [
                1,
                32004,
                *NEW_LINE,
                3629,
                29889,
                2,
                *NEW_LINE,
                32002,
                *NEW_LINE,
                5618,
                29973,
                2,
                *NEW_LINE,
                32003,
                *NEW_LINE,
            ],
        ),
        ("[INST] Name one. [/INST]", [1, 518, 25580, 29962, 4408, 697, 29889, 518, 29914, 25580, 29962]),
    ],
)
def test_a_prompt_is_encoded_as_fastchat_encoded_it(prompt: str, ids: list[int], tmp_path: Path) -> None:
    for file in shared("tokenizers", "granite-7b-lab").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    # Granite's leaves the beginning of the text out; Llama's and Mistral's own have it so.
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    written["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(written), encoding="utf-8")
    asked = generation.served(tmp_path, serving.ModelServer(url="http://127.0.0.1:1", model="none"))
    assert asked.tokenizer(prompt)["input_ids"] == ids
    assert generation.with_one_bos(asked, f"<s>{prompt}") == prompt


def test_a_generation_without_an_end_token_stops_at_the_length(generator: Generator) -> None:
    for said in generation.generate(generator, PROMPTS, max_new_tokens=5):
        assert (said.stopped, said.tokens, len(said.ids)) in [
            ("length", 5, 5),
            ("eos", len(said.ids) + 1, len(said.ids)),
        ]


def test_a_stop_token_ends_the_generation_and_is_counted_but_not_shown(generator: Generator) -> None:
    plain = generation.generate(generator, PROMPTS[:1], max_new_tokens=6)[0]
    third = generator.tokenizer.convert_ids_to_tokens(plain.ids[2])
    said = generation.generate(generator, PROMPTS[:1], max_new_tokens=6, stop_tokens=[third])[0]
    first = plain.ids.index(plain.ids[2])
    assert (said.stopped, said.ids, said.tokens) == ("eos", plain.ids[:first], first + 1)


def test_greedy_text_does_not_depend_on_the_company_of_a_prompt(generator: Generator) -> None:
    together = generation.generate(generator, PROMPTS, max_new_tokens=8)
    alone = [generation.generate(generator, [prompt], max_new_tokens=8)[0] for prompt in PROMPTS]
    assert together == alone


def test_samples_repeat_with_their_seed_and_change_with_it(generator: Generator) -> None:
    def sample(seed: int) -> list[Generation]:
        return generation.generate(generator, PROMPTS, max_new_tokens=8, temperature=0.7, seed=seed)

    assert sample(1) == sample(1) != sample(2)


def test_servers_see_one_begin_of_text_and_mt_bench_two(generator: Generator) -> None:
    prompt = templates.render("llama-3", ["Q"])
    bos = generator.tokenizer.bos_token_id
    assert generator.tokenizer(prompt)["input_ids"][:2] == [bos, bos]
    assert generator.tokenizer(generation.with_one_bos(generator, prompt))["input_ids"].count(bos) == 1


def test_runs_differ_where_sampled_and_repeat_at_temperature_zero(generator: Generator) -> None:
    questions = [
        BenchmarkQuestion(id=81, temperature=conversations.TEMPERATURES["writing"], turns=("Write a poem", "Shorter")),
        BenchmarkQuestion(
            id=111, temperature=conversations.TEMPERATURES["math"], turns=("What is 2 + 2?", "And 3 + 3?")
        ),
    ]
    rows = conversations.answers(generator, "mt-bench", "llama-3", questions, runs=3, max_new_tokens=6, seed=0)
    assert [(row["question_id"], row["run"]) for row in rows] == [(i, run) for i in (81, 111) for run in range(3)]
    writing, math = rows[:3], rows[3:]
    assert len({tuple(row["turns"]) for row in writing}) == 3
    assert len({tuple(row["turns"]) for row in math}) == 1
    assert all(len(row["turns"]) == len(row["tokens"]) == len(row["stopped"]) == 2 for row in rows)
    assert rows == conversations.answers(generator, "mt-bench", "llama-3", questions, runs=3, max_new_tokens=6, seed=0)


@pytest.mark.parametrize(
    ("said", "shown", "stopped"),
    [
        (" Four. ### Human: next", "Four.", "stop"),
        ("### Human: next", "### Human: next", "eos"),
        (" Four.<|begin_of_text|> ", "Four.", "eos"),
    ],
)
def test_an_answer_is_cleaned_as_fastchat_does(generator: Generator, said: str, shown: str, stopped: str) -> None:
    ids = tuple(generator.tokenizer(said, add_special_tokens=False)["input_ids"])
    reply = conversations.clean(
        generator, templates.named("one_shot"), Generation(ids=ids, text=said, tokens=len(ids) + 1, stopped="eos")
    )
    assert (reply.text, reply.stopped) == (shown, stopped)


def test_a_model_that_brings_code_is_refused(tiny: Path, tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="asks for code of its own"):
        generation.load(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_not_there_is_refused_without_asking_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a model folder: name one, or a Hub repository and its revision"):
        generation.load(tmp_path / "model")


def test_a_tokenizer_without_an_end_is_refused(tiny: Path, tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(tiny, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        generation.load(tmp_path / "model")


def test_a_question_is_answered_at_its_categorys_temperature(tmp_path: Path) -> None:
    rows = '{"question_id": 1, "category": "stem", "turns": ["a"]}\n{"question_id": 2, "category": "x", "turns": ["b"]}'
    (tmp_path / "questions.jsonl").write_text(rows)
    questions = conversations.read_questions("mt-bench", tmp_path / "questions.jsonl")
    assert [question.temperature for question in questions] == [0.1, 0.7]
    assert replace(questions[0], id=2).turns == ("a",)
