"""A chat: what the model is sent, what is shown of its answer, and what a person can do meanwhile."""

from __future__ import annotations

import io
import itertools
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import wcwidth
from hypothesis import given
from hypothesis import strategies as st

from nift_training import templates, verbs
from nift_training.chat import __main__ as chatting
from nift_training.chat import conversation, screen
from nift_training.chat.conversation import ChatSettings, Conversation
from nift_training.chat.speaker import Manner, Speaker, SpeakerSource, speaker
from nift_training.evaluate import conversations, generation, serving, stepping
from nift_training.evaluate.conversations import BenchmarkQuestion
from nift_training.evaluate.generation import Generator
from tests.training.vllm import Vllm

TURNS = ("What grows in winter?", "Why?", "{braces} and\nlines?")
EXAMPLE = ("Hi?", "Hello.")
GREEDY = ChatSettings(temperature=0.0, max_new_tokens=12, seed=3)


@pytest.fixture(scope="module")
def generator(tiny: Path) -> Generator:
    return generation.load(tiny)


def named(generator: Generator, template: str = "zephyr", name: str = "tiny") -> Speaker:
    return Speaker(name=name, generator=generator, template=template, example=EXAMPLE)


class Terminal(io.StringIO):
    """What is written, of whatever width; `meanwhile` is called with each write."""

    def __init__(self, meanwhile: Callable[[int], None] = lambda number: None) -> None:
        super().__init__()
        self._meanwhile, self._numbers = meanwhile, itertools.count(1)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._meanwhile(next(self._numbers))
        return super().write(text)


def evaluated(
    generator: Generator, template: str, turns: Sequence[str], seed: int, temperature: float, patch: pytest.MonkeyPatch
) -> tuple[list[str], list[str]]:
    """What evaluation sends for a conversation, turn by turn, and what it is answered."""
    sent: list[str] = []
    ask = generation.generate

    def noted(by: Generator, prompts: Sequence[str], **how: Any) -> list[generation.Generation]:
        sent.extend(prompts)
        return ask(by, prompts, **how)

    with patch.context() as during:
        during.setattr(generation, "generate", noted)
        (row,) = conversations.answers(
            generator,
            "any",
            template,
            [BenchmarkQuestion(id=1, temperature=temperature, turns=tuple(turns))],
            runs=1,
            max_new_tokens=12,
            seed=seed,
            example=EXAMPLE,
        )
    return sent, row["turns"]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("template", [*templates.TEMPLATES])
def test_the_model_is_sent_what_evaluation_sends_and_answers_the_same(
    template: str, temperature: float, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, answered = evaluated(generator, template, TURNS, 3, temperature, monkeypatch)
    settings = replace(GREEDY, temperature=temperature)
    chat = Conversation([named(generator, template)], settings, out=io.StringIO())
    prompts = []
    for turn in TURNS:
        assert chat.ask(turn)
        prompts += chat.prompts
    assert prompts == sent
    assert chat.turns == [[text for pair in zip(TURNS, answered, strict=True) for text in pair]]
    assert chat.out.getvalue() == "".join(f"{screen.safe(text)}\n" for text in answered)  # type: ignore[attr-defined]


def test_two_models_answer_as_each_does_by_itself_also_while_their_tokens_take_turns(generator: Generator) -> None:
    settings = replace(GREEDY, temperature=1.0, max_new_tokens=30)
    apart = []
    for template in ("zephyr", "llama-3"):
        alone = Conversation([named(generator, template)], settings, out=io.StringIO())
        alone.ask(TURNS[0])
        apart.append(alone.turns[0])
    both = [named(generator, "zephyr", "one"), named(generator, "llama-3", "other")]
    for width in (None, 79, 80, 200):
        together = Conversation(both, settings, out=Terminal())
        together.ask(TURNS[0], width=width)
        assert together.turns == apart
        lines = together.out.getvalue().splitlines()  # type: ignore[attr-defined]
        assert (lines[0].split() == ["one", "│", "other"]) == (width is not None and width >= screen.LEAST_WIDTH)
        assert all(wcwidth.width(line) <= (width or 10**9) for line in lines if "│" in line)


@pytest.mark.parametrize("width", [None, 120])
def test_ctrl_c_stops_the_answer_and_keeps_what_had_come(width: int | None, generator: Generator) -> None:
    def interrupt(number: int) -> None:
        if number == 6:
            signal.raise_signal(signal.SIGINT)

    settings = replace(GREEDY, max_new_tokens=2000, temperature=1.0)
    speakers = [named(generator), named(generator, "llama-3", "other")][: 1 if width is None else 2]
    chat = Conversation(speakers, settings, out=Terminal(interrupt))
    assert not chat.ask(TURNS[0], width=width)
    assert "[stopped]" in chat.out.getvalue()  # type: ignore[attr-defined]
    assert [len(turns) for turns in chat.turns] == [2] * len(speakers)
    assert all(len(turns[1]) < 2000 for turns in chat.turns)
    chat.settings, chat.out = replace(settings, max_new_tokens=3), io.StringIO()
    assert chat.ask("And then?")
    assert [len(turns) for turns in chat.turns] == [4] * len(speakers)


def test_commands_do_what_help_says(generator: Generator) -> None:
    chat = Conversation([replace(named(generator), example=None)], GREEDY, out=io.StringIO())

    def says(text: str) -> str:
        chat.out = io.StringIO()
        assert conversation.obey(chat, text)
        return chat.out.getvalue()

    assert "/temperature" in says("/help")
    assert "<|user|>\n</s>" in says("/raw")
    first = says("What?")
    assert says("/raw") == "<|system|>\n</s>\n<|user|>\nWhat?</s>\n<|assistant|>\n\n"
    says("Why?")
    assert first.strip() in says("/raw")
    assert "forgotten" in says("/reset")
    says("/system Be brief.")
    says("//etc?")
    assert says("/raw") == "<|system|>\nBe brief.</s>\n<|user|>\n/etc?</s>\n<|assistant|>\n\n"
    assert says("/system") == "No message to the system any more.\n"
    assert "The temperature is 0.5." in says("/temperature 0.5")
    assert says("  ") == ""
    for mistake in ("/temprature 1", "/temperature warm", "/temperature -1", "/temperature nan", "half \ud83d of it"):
        with pytest.raises(ValueError, match=r"is no command|is no temperature|no text in UTF-8"):
            says(mistake)
    assert chat.settings.temperature == 0.5
    assert not conversation.obey(chat, "/exit")


@pytest.mark.parametrize(
    ("template", "system"),
    [
        # By FastChat's get_prompt of each template with `set_system_message("Be kind.")`.
        ("one_shot", "Be kind.\n### Human: Hi?\n### Assistant: Hello.\n### Human: A?\n### Assistant:"),
        ("zephyr", "<|system|>\nBe kind.</s>\n<|user|>\nA?</s>\n<|assistant|>\n"),
        ("llama-2", "[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nA? [/INST]"),
        ("mistral", "[INST] Be kind.\nA? [/INST]"),
        (
            "llama-3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nA?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    ],
)
def test_a_message_to_the_system_stands_where_fastchat_puts_it(template: str, system: str) -> None:
    example = EXAMPLE if template == "one_shot" else None
    assert templates.render_with_system(template, "Be kind.", ["A?"], example) == system


def test_lines_are_put_together_as_they_are_typed() -> None:
    def typed(*lines: str) -> str:
        left = iter(lines)
        return conversation._typed(lambda prompt: next(left))

    assert typed("one \\", "two\\", "three") == "one \ntwo\nthree"
    assert typed('"""', "one", "", "  two", '"""') == "one\n\n  two"
    assert typed('"""one', 'two"""') == "one\ntwo"
    assert typed("plain") == "plain"


@given(st.text() | st.text(st.sampled_from("\x1b[]2J0;m\x07\x9b\x9d\r\b\u202e\u2066\n\ta")))
def test_nothing_in_an_answer_is_obeyed_by_a_terminal(text: str) -> None:
    shown = screen.safe(text)
    assert not [
        letter for letter in shown if (ord(letter) < 32 and letter not in "\n\t") or 0x7F <= ord(letter) <= 0x9F
    ]
    assert not {*shown} & {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"}
    plain = "".join(letter for letter in text if letter.isprintable())
    assert [letter for letter in plain if letter not in shown] == []


BITS = st.lists(st.text("ab 日本é\n-", max_size=12), max_size=12)


@given(BITS, BITS, st.integers(10, 60))
def test_columns_hold_every_word_and_never_grow_wider(one: list[str], other: list[str], width: int) -> None:
    columns = screen.Columns(["one", "other"], width)
    rows = columns.head()
    for bits in itertools.zip_longest(one, other):
        for place, bit in enumerate(bits):
            rows += [] if bit is None else columns.grow(place, bit)
    rows += [*columns.end(0), *columns.end(1)]
    assert all(wcwidth.width(row) <= width for row in rows)
    cells = [row.partition(" │")[::2] if " │" in row else (row, "") for row in rows[2:]]
    for place, bits_of in enumerate((one, other)):
        shown = "".join("".join(cell[place] for cell in cells).split())
        assert shown == "".join("".join(bits_of).split())


def test_what_the_tokens_spell_bit_by_bit_is_what_they_spell_at_once(generator: Generator) -> None:
    """Also where a mark that is cut, or a letter of several bytes, comes in pieces."""
    texts = ["Hello ## not yet ### Human: cut", "日本語 and é", "a </s", "spelled </s> out", "### first", "ends #"]
    tokenizer = generator.tokenizer
    by = named(generator, "one_shot")
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = generation.Generation(ids=tuple(ids), text=text, tokens=len(ids), stopped="eos")
        growing = [replace(whole, ids=tuple(ids[: size + 1])) for size in range(len(ids))]

        def follow(*_: Any, growing: Any = growing, **__: Any) -> Iterator[generation.Generation]:
            yield from growing

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(generation, "stream", follow)
            said = [reply.text for reply in by.answer("?", Manner(temperature=0.0, max_new_tokens=1, seed=0))]
        assert said[-1] == conversations.clean(generator, templates.named("one_shot"), whole).text
        assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(said))


def test_a_server_that_streams_says_what_the_weights_say(vllm: Vllm, tiny: Path) -> None:
    here = SpeakerSource(name="here", model=tiny, template="zephyr")
    there = replace(here, name="there", server=serving.ModelServer(url=vllm.url, model="base"))
    said = []
    for source in (here, there):
        chat = Conversation([speaker(source)], GREEDY, out=io.StringIO())
        chat.ask(TURNS[0])
        said.append(chat.turns)
    assert said[0] == said[1]
    assert vllm.asked[0]["stream"] is True
    vllm.streams_at_most = 2
    with pytest.raises(ValueError, match="broke off in the middle of an answer"):
        chat.ask(TURNS[0])
    assert chat.turns == said[1], "what broke off is no part of the conversation"
    vllm.streams_at_most, vllm.busy = None, 1
    with pytest.raises(ValueError, match="refuses with 503: loading"):
        chat.ask(TURNS[0])


def test_a_server_that_cannot_stream_says_it_at_once() -> None:
    lines = [b"{\n", b'  "choices": [{"text": "Hi",\n', b'    "finish_reason": "stop"}]\n', b"}"]
    assert list(serving._events(lines)) == [{"choices": [{"text": "Hi", "finish_reason": "stop"}]}]


def test_work_that_nobody_follows_any_more_ends() -> None:
    done: list[str] = []

    def work(came: Callable[[int], None]) -> None:
        try:
            for number in itertools.count():
                came(number)
        finally:
            done.append("ended")

    steps = stepping.steps(work)
    assert [next(steps), next(steps)] == [0, 1]
    steps.close()  # type: ignore[attr-defined]
    assert done == ["ended"]

    def fails(came: Callable[[int], None]) -> None:
        came(1)
        raise ValueError("as it does here")

    with pytest.raises(ValueError, match="as it does here"):
        list(stepping.steps(fails))


@pytest.mark.parametrize(
    ("arguments", "through_pipe", "says"),
    [
        (["--model", "{tiny}", "--template", "zepyr"], "Hi", "no template is called 'zepyr'"),
        (["--model", "nowhere", "--template", "zephyr"], "Hi", "nowhere is no folder and no Hub id"),
        (["--model", "{tiny}", "--template", "zephyr"], "\n", "nothing comes through the pipe"),
        (["--model", "{tiny}", "--template", "one_shot"], "Hi", "needs an example"),
        (["--model", "{tiny}", "--template", "zephyr", "--server", "http://127.0.0.1:9"], "Hi", "Give --server-model"),
        (["--model", "a", "--model", "b", "--model", "c", "--template", "zephyr"], "Hi", "3 models are named"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str],
    through_pipe: str,
    says: str,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(through_pipe))
    with pytest.raises(SystemExit) as ended:
        verbs.run(chatting.main, [argument.format(tiny=tiny) for argument in arguments])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_one_question_through_a_pipe_gets_the_answer_alone(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    how = ["--model", str(tiny), "--template", "zephyr", "--temperature", "0", "--max-new-tokens", "8"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("What grows\nin winter?\n"))
    chatting.main(how)
    piped = capsys.readouterr()
    chatting.main([*how, "--once", "What grows\nin winter?", "--raw"])
    asked = capsys.readouterr()
    assert piped.out == asked.out != ""
    assert asked.err.endswith("<|system|>\n</s>\n<|user|>\nWhat grows\nin winter?</s>\n<|assistant|>\n\n")


@pytest.mark.slow
def test_at_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(tiny: Path) -> None:
    leader, follower = pty.openpty()
    how = ["--model", str(tiny), "--template", "zephyr", "--max-new-tokens", "2000", "--temperature", "1.5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "nift_training.chat", *how],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(follower)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + 120
        while text not in seen:
            assert time.monotonic() < end, seen
            seen += os.read(leader, 1 << 16).decode("utf-8", "replace")
        seen = seen.partition(text)[2]

    until("> ")
    os.write(leader, b"Tell me all.\n")
    until("Tell me all.")
    time.sleep(1.0)
    os.write(leader, b"\x03")
    until("[stopped]")
    until("> ")
    os.write(leader, b"/raw\n")
    until("Tell me all.</s>")
    until("> ")
    os.write(leader, b"\x03")
    until("(Ctrl-D ends)")
    os.write(leader, b"\x04")
    assert process.wait(60) == 0
    os.close(leader)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
