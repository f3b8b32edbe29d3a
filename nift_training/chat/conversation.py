"""A conversation at a terminal, or one question through a pipe."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from typing import TextIO

from nift_training import json_objects
from nift_training.chat import screen
from nift_training.chat.speaker import Manner, Speaker
from nift_training.evaluate.conversations import Reply

HELP = """\
/raw            what the models were sent for your last question, to the letter
/system TEXT    a message to the system from now on; without TEXT none
/temperature N  how freely answers are drawn; 0 always takes the likeliest token
/reset          begin anew; the message to the system stays
/exit           end, as Ctrl-D does
Ctrl-C stops an answer. A line that ends with \\ goes on in the next; \"\"\" begins and ends a text of several lines.
A question that begins with / is written with two: //"""
_BLOCK = '"""'
_OPENS, _GOES_ON = "> ", "… "


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """How answers are given; without a seed each is drawn anew."""

    temperature: float = 0.7
    max_new_tokens: int = 1024
    seed: int | None = None
    system: str | None = None

    def manner(self) -> Manner:
        seed = random.getrandbits(31) if self.seed is None else self.seed
        return Manner(temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=seed, system=self.system)


@dataclass
class Conversation:
    """What has been said so far: the turns of each speaker's own conversation, and what each was sent last."""

    speakers: Sequence[Speaker]
    settings: ChatSettings
    out: TextIO = field(default_factory=lambda: sys.stdout)
    turns: list[list[str]] = field(init=False)
    prompts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets what has been said."""
        self.turns = [[] for _ in self.speakers]
        self.prompts = []

    def ask(self, question: str, *, width: int | None = None) -> bool:
        """Asks every speaker and shows the answers as they come, in columns where the width has room for them.

        False if Ctrl-C stopped them: what had come until then is what was answered. A question that cannot be asked is
        no part of the conversation; ValueError says why.
        """
        if not json_objects.is_text(question):
            raise ValueError("the question is no text in UTF-8: write it as one")
        asked = [[*turns, question] for turns in self.turns]
        prompts = [
            speaker.prompt(turns, self.settings.system) for speaker, turns in zip(self.speakers, asked, strict=True)
        ]
        self.prompts = prompts
        manner = self.settings.manner()
        replies: list[Reply | None] = [None] * len(self.speakers)
        whole = True
        with ExitStack() as stack:
            answers = [
                stack.enter_context(closing(speaker.answer(prompt, manner)))
                for speaker, prompt in zip(self.speakers, prompts, strict=True)
            ]
            side_by_side = len(answers) > 1 and width is not None and width >= screen.LEAST_WIDTH
            try:
                (self._in_columns if side_by_side else self._in_turn)(answers, replies, width or 0)
            except KeyboardInterrupt:
                whole = False
        if whole or any(replies):
            self.turns = [[*turns, reply.text if reply else ""] for turns, reply in zip(asked, replies, strict=True)]
        self._endings(replies, whole=whole)
        return whole

    def raw(self) -> str:
        """What every speaker was sent last, or would be sent first, to the letter."""
        prompts = self.prompts or [speaker.prompt([""], self.settings.system) for speaker in self.speakers]
        if len(prompts) == 1:
            return prompts[0]
        return "\n\n".join(
            f"== {speaker.name} ==\n{prompt}" for speaker, prompt in zip(self.speakers, prompts, strict=True)
        )

    def _in_turn(self, answers: Sequence[Iterator[Reply]], replies: list[Reply | None], _: int) -> None:
        for place, answer in enumerate(answers):
            if len(answers) > 1:
                self._show(f"{chr(10) * (place > 0)}== {screen.safe(self.speakers[place].name)} ==\n")
            for more in _growing(answer, replies, place):
                self._show(screen.safe(more))
            self._show("\n")

    def _in_columns(self, answers: Sequence[Iterator[Reply]], replies: list[Reply | None], width: int) -> None:
        """A token of each in turn, as long as it has some."""
        columns = screen.Columns([speaker.name for speaker in self.speakers], width)
        self._rows(columns.head())
        growing = {place: _growing(answer, replies, place) for place, answer in enumerate(answers)}
        try:
            while growing:
                for place, texts in list(growing.items()):
                    came = next(texts, None)
                    if came is None:
                        del growing[place]
                        self._rows(columns.end(place))
                    else:
                        self._rows(columns.grow(place, came))
        except KeyboardInterrupt:
            for place in growing:
                self._rows(columns.end(place))
            raise

    def _endings(self, replies: Sequence[Reply | None], *, whole: bool) -> None:
        """Why an answer ended, where it did not by itself, for whoever sits there."""
        if not self.out.isatty():
            return
        if not whole:
            self._show("\n[stopped]\n")
        for speaker, reply in zip(self.speakers, replies, strict=True):
            if whole and reply is not None and reply.stopped == "length":
                who = f"{speaker.name}: " if len(self.speakers) > 1 else ""
                self._show(f"[{who}cut off after {reply.tokens:,} tokens]\n")

    def _rows(self, rows: Sequence[str] | Iterator[str]) -> None:
        for row in rows:
            self._show(row + "\n")

    def _show(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()


def _growing(answer: Iterator[Reply], replies: list[Reply | None], place: int) -> Iterator[str]:
    """What comes of an answer, bit by bit, which is noted at its place as far as it has come."""
    shown = 0
    for reply in answer:
        replies[place] = reply
        yield reply.text[shown:]
        shown = max(shown, len(reply.text))


def talk(conversation: Conversation, *, show_raw: bool = False) -> None:
    """Asks what a person types until `/exit` or Ctrl-D."""
    with suppress(ImportError):  # a Python without it has no history, and all else
        import readline  # noqa: F401  # input() edits lines and keeps their history with it

    conversation.out.write("/help says what can be done; Ctrl-D ends.\n")
    while True:
        try:
            text = _typed(input)
        except EOFError:
            conversation.out.write("\n")
            return
        except KeyboardInterrupt:
            conversation.out.write("\n(Ctrl-D ends)\n")
            continue
        try:
            if not obey(conversation, text, show_raw=show_raw):
                return
        except (ValueError, OSError) as mistake:
            conversation.out.write(f"{screen.safe(' '.join(str(mistake).split()))}\n")


def obey(conversation: Conversation, text: str, *, show_raw: bool = False) -> bool:
    """Does what a command says or asks a question; False for the command that ends it all."""
    command, _, rest = text.partition(" ")
    rest = rest.strip()
    if not text.strip():
        return True
    if not text.startswith("/") or text.startswith("//"):
        question = text.removeprefix("/") if text.startswith("//") else text
        if show_raw:
            _show_prompt(conversation, question)
        conversation.ask(question, width=shutil.get_terminal_size().columns if conversation.out.isatty() else None)
        return True
    if command in ("/exit", "/quit"):
        return False
    said = {
        "/help": lambda: HELP,
        "/raw": lambda: screen.safe(conversation.raw()),
        "/reset": lambda: _reset(conversation),
        "/system": lambda: _set_system(conversation, rest),
        "/temperature": lambda: _set_temperature(conversation, rest),
    }
    if command not in said:
        raise ValueError(f"{command} is no command: /help lists them, and a question that begins so is written /{text}")
    conversation.out.write(said[command]() + "\n")
    return True


def _show_prompt(conversation: Conversation, question: str) -> None:
    """What the question is about to be sent as; ValueError as for asking it."""
    for speaker, turns in zip(conversation.speakers, conversation.turns, strict=True):
        prompt = speaker.prompt([*turns, question], conversation.settings.system)
        print(screen.safe(prompt), file=sys.stderr, flush=True)


def once(conversation: Conversation, question: str, *, show_raw: bool = False) -> bool:
    """Asks one question and shows the answer alone; False if it was stopped."""
    if not question.strip():
        raise ValueError("there is no question: write one")
    if show_raw:
        _show_prompt(conversation, question)
    return conversation.ask(question)


def _typed(read: Callable[[str], str]) -> str:
    """What a person types: a line, several that each end with a backslash, or all between two marks."""
    text = read(_OPENS)
    if text.lstrip().startswith(_BLOCK):
        text = text.lstrip().removeprefix(_BLOCK)
        while not text.rstrip().endswith(_BLOCK):
            text += "\n" + read(_GOES_ON)
        return text.rstrip().removesuffix(_BLOCK).strip("\n")
    while text.endswith("\\"):
        text = text.removesuffix("\\") + "\n" + read(_GOES_ON)
    return text


def _reset(conversation: Conversation) -> str:
    conversation.reset()
    return "What has been said is forgotten."


def _set_system(conversation: Conversation, text: str) -> str:
    changed = replace(conversation.settings, system=text or None)
    for speaker in conversation.speakers:
        speaker.prompt(["?"], changed.system)  # a template without a place for it is told now
    conversation.settings = changed
    return "The models are told so from your next question on." if text else "No message to the system any more."


def _set_temperature(conversation: Conversation, text: str) -> str:
    if text:
        conversation.settings = replace(conversation.settings, temperature=temperature(text))
    return f"The temperature is {conversation.settings.temperature:g}."


def temperature(text: str) -> float:
    """A temperature as a person writes it; ValueError for what is none."""
    with suppress(ValueError):
        if 0 <= float(text) <= 100:
            return float(text)
    raise ValueError(f"{text!r} is no temperature: give a number from 0 on")
