"""A chat with a model, or with two side by side: each is asked as evaluation asks it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nift_training import templates, verbs
from nift_training.chat import conversation as conversations
from nift_training.chat.conversation import ChatSettings, Conversation
from nift_training.chat.speaker import SpeakerSource, speaker
from nift_training.evaluate.serving import ModelServer


def main(argv: Sequence[str]) -> None:
    """Reads the command line, and talks: at a terminal until Ctrl-D, else with one answer to standard input."""
    defaults = ChatSettings()
    parser = argparse.ArgumentParser(prog="python -m nift_training.chat", description=__doc__)
    parser.add_argument("--model", action="append", required=True, help="model folder or Hub id; twice for two")
    parser.add_argument("--template", required=True, help=f"one of {', '.join(templates.TEMPLATES)}")
    parser.add_argument("--revision", help="commit of a Hub repository (without it: the one it is at now)")
    parser.add_argument("--example", type=Path, help="one_shot's question and answer, a JSON file with two messages")
    parser.add_argument("--server", help="OpenAI-compatible server that answers, such as http://localhost:8000/v1")
    parser.add_argument("--server-model", help="what the server calls the model")
    parser.add_argument("--server-key-variable", help="environment variable with the server's key")
    parser.add_argument("--system", help="a message to the system")
    parser.add_argument("--temperature", type=_temperature, default=defaults.temperature, help="0 draws nothing")
    parser.add_argument("--max-new-tokens", type=verbs.positive, default=defaults.max_new_tokens, help="per answer")
    parser.add_argument("--seed", type=int, help="the same draws each time (without it: others)")
    parser.add_argument("--once", metavar="TEXT", help="ask this alone, and end")
    parser.add_argument("--raw", action="store_true", help="show on standard error what the model is sent")
    parser.add_argument("--threads", type=verbs.positive, default=os.cpu_count(), help="CPU threads")
    options = parser.parse_args(argv)
    if len(options.model) > 2:
        raise ValueError(f"{len(options.model)} models are named: name one, or two to see side by side")
    if options.server and not options.server_model:
        raise ValueError(f"what does {options.server} call the model? Give --server-model")
    example = templates.read_example(options.example) if options.example else None
    server = options.server and ModelServer(
        url=options.server, model=options.server_model, key_variable=options.server_key_variable
    )
    sources = [
        SpeakerSource(
            name=name,
            model=name,
            revision=None if Path(name).is_dir() else options.revision,
            template=options.template,
            example=example,
            server=server,
        )
        for name in options.model
    ]
    settings = ChatSettings(
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        system=options.system,
    )
    try:
        run(sources, settings, once=options.once, show_raw=options.raw, threads=options.threads)
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell has it


def run(
    sources: Sequence[SpeakerSource],
    settings: ChatSettings,
    *,
    once: str | None = None,
    show_raw: bool = False,
    threads: int | None = None,
) -> None:
    """Loads the speakers and talks; with `once`, or where nobody sits at the terminal, one question is asked alone.

    ValueError before anything is loaded for what no question can be.
    """
    if once is None and not sys.stdin.isatty():
        once = _from_pipe()
    os.environ.setdefault("TQDM_DISABLE", "1")
    if any(source.server is None for source in sources):
        verbs.use_threads(threads or os.cpu_count() or 1)
    if once is None:
        print(f"Loading {' and '.join(source.name for source in sources)} …", file=sys.stderr, flush=True)
    loaded = {source: speaker(source) for source in sources}  # of two that are one the weights are there once
    conversation = Conversation([loaded[source] for source in sources], settings)
    if once is None:
        conversations.talk(conversation, show_raw=show_raw)
    elif not conversations.once(conversation, once, show_raw=show_raw):
        raise KeyboardInterrupt


def _from_pipe() -> str:
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as mistake:
        raise ValueError(f"what comes through the pipe is no text in UTF-8 ({mistake}): convert it") from None
    if not text.strip():
        raise ValueError("nothing comes through the pipe: write a question into it, or give --once")
    return text.removesuffix("\n")


def _temperature(text: str) -> float:
    try:
        return conversations.temperature(text)
    except ValueError as mistake:
        raise argparse.ArgumentTypeError(str(mistake)) from None


if __name__ == "__main__":
    verbs.run(main)
