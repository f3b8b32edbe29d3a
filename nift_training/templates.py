"""The five MT-Bench conversation templates the paper's models are asked with.

Each is a row: what opens the prompt, what surrounds a question and what surrounds an answer already given. A
model's row names its template; FastChat instead guesses it from a substring of the model's path
(`fastchat/llm_judge/gen_model_answer.py`, whose rendered prompts these rows reproduce).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nift_training import json_objects

OneShotExample = tuple[str, str]
"""The question and answer that `one_shot` opens with."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One template: `{}` is where the question or answer goes.

    Generation ends at a stop token; a stop string cuts the decoded answer wherever it stands after its start.
    """

    opening: str = ""
    question: str
    answer: str
    stop_tokens: tuple[str, ...] = ()
    stop_strings: tuple[str, ...] = ()
    strips_turns: bool = False
    needs_example: bool = False


_LLAMA_3_HEADER = "<|start_header_id|>{role}<|end_header_id|>\n\n"

TEMPLATES = {
    "one_shot": Template(
        opening="A chat between a curious human and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the human's questions.",
        question="\n### Human: {}\n### Assistant:",
        answer=" {}",
        stop_strings=("###",),
        needs_example=True,
    ),
    "zephyr": Template(
        opening="<|system|>\n</s>\n",  # FastChat writes the system block even when there is no message in it
        question="<|user|>\n{}</s>\n<|assistant|>\n",
        answer="{}</s>\n",
        stop_tokens=("</s>",),
        stop_strings=("</s>",),
    ),
    "llama-2": Template(question="[INST] {} [/INST]", answer=" {} </s><s>"),
    "mistral": Template(question="[INST] {} [/INST]", answer=" {}</s>"),
    "llama-3": Template(
        # The tokenizer adds a second begin-of-text in front of this one; FastChat lets it, and so do we.
        opening="<|begin_of_text|>",
        question=_LLAMA_3_HEADER.format(role="user") + "{}<|eot_id|>" + _LLAMA_3_HEADER.format(role="assistant"),
        answer="{}<|eot_id|>",
        stop_tokens=("<|end_of_text|>", "<|eot_id|>"),
        stop_strings=("<|eot_id|>",),
        strips_turns=True,
    ),
}


def named(name: str) -> Template:
    """The template of that name."""
    if name not in TEMPLATES:
        raise ValueError(f"no template is called {name!r}: choose one of {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def read_example(path: Path) -> OneShotExample:
    """The example in a JSON file: `messages` of two, as FastChat's `one_shot` conversation lists them, either pairs of
    role and text or objects with `content`; ValueError for another shape."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        messages = content["messages"] if isinstance(content, dict) else content
        question, answer = (m["content"] if isinstance(m, dict) else m[1] for m in messages)
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f'{path} is no example: write {{"messages": [["Human", …], ["Assistant", …]]}}') from None
    if not (json_objects.is_text(question) and json_objects.is_text(answer)):
        raise ValueError(f"{path} is no example: its question and answer must be texts")
    return question, answer


def render(name: str, turns: Sequence[str], example: OneShotExample | None = None) -> str:
    """The prompt that asks the last of the turns, which alternate question, answer, …, question.

    `one_shot` opens with an example question and answer; the text is FastChat's, so it is given, not kept here.
    """
    template = named(name)
    if template.needs_example and example is None:
        others = ", ".join(other for other, row in TEMPLATES.items() if not row.needs_example)
        raise ValueError(
            f"template {name!r} needs an example question and answer: give both (--example) or choose {others}"
        )
    if len(turns) % 2 == 0:
        raise ValueError(f"{len(turns)} turns do not end with a question: give an odd number of turns")
    texts = [*(example or ()), *(turn.strip() if template.strips_turns else turn for turn in turns)]
    slots = (template.question, template.answer)
    return template.opening + "".join(slots[place % 2].format(text) for place, text in enumerate(texts))


# All that FastChat puts before the first question where there is a message to the system.
_BEFORE_FIRST_QUESTION = {
    "one_shot": "{}\n### Human: ",
    "zephyr": "<|system|>\n{}</s>\n<|user|>\n",
    "llama-2": "[INST] <<SYS>>\n{}\n<</SYS>>\n\n",
    "mistral": "[INST] {}\n",
    "llama-3": "<|begin_of_text|>"
    + _LLAMA_3_HEADER.format(role="system")
    + "{}<|eot_id|>"
    + _LLAMA_3_HEADER.format(role="user"),
}


def render_with_system(name: str, system: str, turns: Sequence[str], example: OneShotExample | None = None) -> str:
    """The prompt of `render` with a message to the system, where the template has a place for one; no benchmark has."""
    template = named(name)
    if name not in _BEFORE_FIRST_QUESTION:
        others = ", ".join(_BEFORE_FIRST_QUESTION)
        raise ValueError(f"template {name!r} has no place for a message to the system: leave it out, or use {others}")
    without = template.opening + template.question.partition("{}")[0]
    return _BEFORE_FIRST_QUESTION[name].format(system) + render(name, turns, example).removeprefix(without)
