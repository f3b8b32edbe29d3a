"""What is found at a model: its architecture, its size, its licence, and which of our templates its own one is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nift_assets.rows import is_folder
from nift_training import json_objects, templates
from nift_training.messages import one_line

QUESTION, ANSWER, FOLLOW_UP = "What is a halyard?", "A rope that hoists a sail.", "And a sheet?"
# What in a tokenizer's own template names a family, where no template of ours renders the very same.
MARKS = {"<|start_header_id|>": "llama-3", "<|user|>": "zephyr", "[INST]": "mistral"}
FOR_A_BASE_MODEL = "zephyr"
SMALL_FILES = ("config.json", "tokenizer_config.json", "chat_template.jinja", "README.md")


@dataclass(frozen=True, kw_only=True)
class BackboneLook:
    """What was found of a model: `source` and `revision` are what its row says; `own_template` is what is known of the
    tokenizer's: that it has none, that `template` renders the same, or only resembles it."""

    source: str
    revision: str | None
    architecture: str
    bytes: int
    licence: str
    template: str
    own_template: str


def look(given: str, revision: str | None = None) -> BackboneLook:
    """What is found at a folder, or at a repository of the Hub, which is pinned to the commit it has now."""
    if is_folder(given) or os.path.isfile(os.path.join(os.path.expanduser(given), "config.json")):
        return _of_folder(Path(os.path.abspath(os.path.expanduser(given))))
    return _of_hub(given, revision)


def _of_folder(folder: Path) -> BackboneLook:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no model folder: it has no config.json; name one that transformers has written")
    weights = [*folder.glob("*.safetensors")]
    if not weights:
        raise ValueError(f"{folder} has no safetensors weights; save the model with save_pretrained")

    def read(name: str) -> str | None:
        path = folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    return _look(str(folder), None, read, sum(file.stat().st_size for file in weights), None)


def _of_hub(repository: str, revision: str | None) -> BackboneLook:
    from huggingface_hub import HfApi, hf_hub_download

    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        weights = [name for name in sizes if name.endswith(".safetensors") and "/" not in name]
        if not weights:
            raise ValueError("it has no safetensors weights")

        def read(name: str) -> str | None:
            if name not in sizes:
                return None
            path = Path(hf_hub_download(repository, name, revision=info.sha))
            return path.read_text(encoding="utf-8", errors="replace")

        licence = getattr(info.card_data, "license", None) if info.card_data else None
        return _look(repository, info.sha, read, sum(map(sizes.__getitem__, weights)), licence)
    except (OSError, ValueError) as error:  # all errors of the Hub's client are one or the other
        at = f" at {revision}" if revision else ""
        raise ValueError(
            f"the backbone {repository!r}{at} cannot be looked at on the Hub ({one_line(error)}); check its name, your "
            "permission and the network, or give a folder of yours as ./name"
        ) from None


def _look(
    source: str, revision: str | None, read: Callable[[str], str | None], size: int, licence: str | None
) -> BackboneLook:
    config = _object(read("config.json"))
    tokenizer = _object(read("tokenizer_config.json"))
    own = read("chat_template.jinja") or _chat_template(tokenizer)
    template, said = _template(own, tokenizer)
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    return BackboneLook(
        source=source,
        revision=revision,
        architecture=str(named or "unknown"),
        bytes=size,
        licence=str(licence or _licence(read("README.md")) or "not stated"),
        template=template,
        own_template=said,
    )


def _object(text: str | None) -> Mapping[str, Any]:
    try:
        return json_objects.parse((text or "{}").encode())
    except ValueError:
        return {}


def _chat_template(tokenizer: Mapping[str, Any]) -> str | None:
    """The template of a tokenizer's configuration; of several the one that is called default."""
    own = tokenizer.get("chat_template")
    if isinstance(own, list):
        by_name = {row.get("name"): row.get("template") for row in own if isinstance(row, dict)}
        own = by_name.get("default")
    return own if isinstance(own, str) else None


def _template(own: str | None, tokenizer: Mapping[str, Any]) -> tuple[str, str]:
    """Which of our templates a model is asked in, and what is to be said of that."""
    if own is None:
        return FOR_A_BASE_MODEL, f"the tokenizer has no chat template: a base model, asked in {FOR_A_BASE_MODEL}'s"
    ours = [name for name, row in templates.TEMPLATES.items() if not row.needs_example]
    turns = [[QUESTION], [QUESTION, ANSWER, FOLLOW_UP]]
    theirs = [_rendered(own, tokenizer, each) for each in turns]
    if None not in theirs:
        for name in ours:
            if all(
                _bare(templates.render(name, each)) == _bare(text or "")
                for each, text in zip(turns, theirs, strict=True)
            ):
                return name, f"the tokenizer's own chat template is ours called {name}"
    if marked := next((name for mark, name in MARKS.items() if mark in own), None):
        return marked, f"the tokenizer's own chat template resembles {marked}, and renders otherwise"
    return (
        FOR_A_BASE_MODEL,
        f"the tokenizer's own chat template is none of ours ({', '.join(ours)}): choose the nearest",
    )


def _bare(text: str) -> str:
    """A prompt without what a tokenizer puts in front by itself, and without differences of white space."""
    return re.sub(r"\s+", "", re.sub(r"^(<s>|<\|begin_of_text\|>)+", "", text.strip()))


def _rendered(own: str, tokenizer: Mapping[str, Any], turns: list[str]) -> str | None:
    """What a tokenizer's own template makes of a conversation, as transformers renders it; None where it cannot."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> str:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: ""
    environment.filters["tojson"] = lambda value, **_: json.dumps(value)
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(turns)]
    tokens = {name: _token(tokenizer.get(name)) for name in ("bos_token", "eos_token")}
    try:
        return environment.from_string(own).render(messages=messages, add_generation_prompt=True, **tokens)
    except Exception:  # somebody else's program, which may fail in any way
        return None


def _token(said: Any) -> str:
    return str(said.get("content", "")) if isinstance(said, Mapping) else str(said or "")


def _licence(card: str | None) -> str | None:
    """The licence that the head of a card names."""
    match = re.match(r"---\n(.*?)\n---", card or "", re.DOTALL)
    named = re.search(r"^license:\s*(\S+)\s*$", match[1], re.MULTILINE) if match else None
    return named[1] if named else None


def lines(found: BackboneLook) -> list[str]:
    """What was found, a sentence a line."""
    size = f"{found.bytes / 1e9:,.1f} GB" if found.bytes >= 1e8 else f"{found.bytes / 1e6:,.1f} MB"
    weights = f", {size} of weights" if found.bytes else ""  # the Hub may not say how large a file is
    said = [f"{found.architecture}{weights}, licence: {found.licence}", found.own_template]
    if found.revision:
        said.append("pinned to the commit that the Hub has today")
    return said
