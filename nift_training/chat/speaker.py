"""Who answers in a chat: a model with its template, whose answers come as text that is safe to show."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from nift_training import templates
from nift_training.evaluate import conversations, generation, serving
from nift_training.evaluate.conversations import Reply

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class SpeakerSource:
    """Where a speaker comes from: a model's folder or Hub repository, and the server that answers instead if any.

    `adapter` is a folder that the server is asked to lay over its base.
    """

    name: str
    model: str | Path
    template: str
    revision: str | None = None
    example: templates.OneShotExample | None = None
    server: serving.ModelServer | None = None
    adapter: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How answers are given."""

    temperature: float
    max_new_tokens: int
    seed: int
    system: str | None = None


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """A model that can be asked."""

    name: str
    generator: generation.Generator
    template: str
    example: templates.OneShotExample | None = None

    def prompt(self, turns: Sequence[str], system: str | None = None) -> str:
        """What the model reads: the prompt of evaluation that asks the last of the turns, which alternate question,
        answer, …, question.

        MT-Bench alone is asked with a second begin-of-text, as FastChat asks it.
        """
        if system is None:
            rendered = templates.render(self.template, turns, self.example)
        else:
            rendered = templates.render_with_system(self.template, system, turns, self.example)
        return generation.with_one_bos(self.generator, rendered)

    def answer(self, prompt: str, manner: Manner) -> Generator[Reply, None, None]:
        """The answer so far, again and again, each beginning with the one before; the last is what evaluation gets."""
        template = templates.named(self.template)
        so_far = Reply(text="", tokens=0, stopped="length")
        generations = generation.stream(
            self.generator,
            prompt,
            max_new_tokens=manner.max_new_tokens,
            temperature=manner.temperature,
            seed=manner.seed,
            stop_tokens=template.stop_tokens,
        )
        with closing(generations):
            for said in generations:
                reply = conversations.clean(self.generator, template, said)
                if reply.stopped == "stop":  # what follows a stop string is cut in any case
                    yield reply
                    return
                so_far = reply
                yield replace(reply, text=self._settled(reply.text))
        yield so_far

    def _settled(self, text: str) -> str:
        """The text without an end that may still become a mark that is cut, or half of a character."""
        text = text.rstrip("\ufffd")
        marks = [*templates.named(self.template).stop_strings, *self.generator.tokenizer.all_special_tokens]
        unsettled = (
            size for mark in marks for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])
        )
        return text[: len(text) - max(unsettled, default=0)].rstrip()


def speaker(source: SpeakerSource) -> Speaker:
    """The speaker of a source, its weights loaded or its server reached.

    A Hub repository without a revision is taken at the commit that it is at now, which its name then tells.
    """
    templates.render(source.template, ["?"], source.example)  # a template that is not there is told before anything
    model, revision, name = source.model, source.revision, source.name
    if revision is None and not Path(model).exists():
        if not HUB_ID.fullmatch(str(model)):
            raise ValueError(f"{model} is no folder and no Hub id: name a model's folder, or owner/name")
        revision = _commit(str(model))
        name = f"{name}@{revision[:8]}"
    if source.server is None:
        generator = generation.load(model, revision)
    else:
        serving.connect(source.server, source.adapter)
        generator = generation.served(model, source.server, revision)
    return Speaker(name=name, generator=generator, template=source.template, example=source.example)


def _commit(repository: str) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(repository).sha
    except Exception as mistake:  # a repository that is not there, no network, offline by setting: each its own class
        raise ValueError(
            f"{repository} cannot be looked up at the Hub ({type(mistake).__name__}): name a folder here, or give "
            "--revision with a commit that has been downloaded"
        ) from None
    assert commit is not None, "the Hub names the commit of what it has"
    return commit
