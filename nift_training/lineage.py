"""What a model is, briefly enough to be recorded in every adapter trained on it, and what may be merged with what."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from nift_training import artifacts, json_objects, model_folder, shards
from nift_training.shards import Shard

# Settings that change with the library that saved a configuration and not with the model.
PASSING = {"transformers_version", "_name_or_path", "torch_dtype", "dtype", "use_cache", "_attn_implementation"}
COMPARED = ("architecture", "shapes", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """A model's name, origin and revision, its architecture, and digests of its parts.

    `shapes` leaves the size of the vocabulary out, so that a sibling with a few special tokens more has the same.
    `tokenizer` is of the first `tokens` tokens and how texts are cut into them; `weights` of headers and samples of the
    weights.
    """

    name: str
    source: str | None
    revision: str | None
    architecture: str
    config: str
    tokenizer: str
    tokens: int
    shapes: str
    weights: str


def of(model: Path, name: str | None = None, shards_of_model: Sequence[Shard] | None = None) -> Lineage:
    """The lineage of a model folder, whose shards may be at hand already; one that cannot be loaded is refused."""
    if shards_of_model is None:
        shards_of_model = model_folder.weights(model_folder.read(model)).shards
    config = json_objects.of_file(model / "config.json")
    facts = artifacts.read_manifest(model).facts if (model / artifacts.MANIFEST).is_file() else {}
    tokens = _tokens(model)
    return Lineage(
        name=name or facts.get("source") or model.name,
        source=facts.get("source"),
        revision=facts.get("revision"),
        architecture=f"{config.get('model_type')} {_joined(config.get('architectures'))}",
        config=_digest({key: value for key, value in config.items() if key not in PASSING}),
        tokenizer=_tokenizer(model, tokens, len(tokens)),
        tokens=len(tokens),
        shapes=_shapes(shards_of_model, config),
        weights=shards.fingerprint(shards_of_model),
    )


def recorded(adapter: Path) -> Lineage | None:
    """The lineage an adapter's manifest carries, if it has one."""
    if not (adapter / artifacts.MANIFEST).is_file():
        return None
    lineage = artifacts.read_manifest(adapter).facts.get("lineage")
    try:
        return Lineage(**{field.name: lineage[field.name] for field in fields(Lineage)}) if lineage else None
    except (KeyError, TypeError):
        raise ValueError(f"{adapter / artifacts.MANIFEST} is damaged: train the adapter again") from None


def check_same(trained_on: Lineage, base: Path, lineage: Lineage) -> None:
    """Refuses a base that is not the model an adapter was trained on, down to the weights."""
    for part in (*COMPARED, "tokens", "config", "weights"):
        if getattr(trained_on, part) != getattr(lineage, part):
            raise ValueError(
                f"the adapter was trained on {_called(trained_on)}, and {base} ({_called(lineage)}) has another "
                f"{part}: give --base that model, or name it with --sibling-of if this is its Instruct sibling"
            )


def check_sibling(trained_on: Lineage, sibling_of: str, base: Path, lineage: Lineage) -> int:
    """The number of tokens a sibling has added; refuses anything but a declared sibling of what was trained on."""
    if sibling_of not in (trained_on.name, trained_on.source):
        raise ValueError(
            f"{base} is declared a sibling of {sibling_of!r}, and the adapter was trained on {trained_on.name!r}: "
            "give it to that model's sibling"
        )
    theirs = asdict(lineage) | {"tokenizer": _tokenizer(base, _tokens(base), trained_on.tokens)}
    for part in COMPARED:
        if theirs[part] != getattr(trained_on, part):
            raise ValueError(
                f"{base} is no sibling of {_called(trained_on)}: it has another {part}, and matrices trained on the "
                "one mean nothing in the other"
            )
    return lineage.tokens - trained_on.tokens


def _joined(names: object) -> str:
    return ",".join(map(str, names)) if isinstance(names, list) else ""


def _shapes(shards_of_model: Sequence[Shard], config: Mapping[str, Any]) -> str:
    words = config.get("vocab_size")
    return _digest(
        sorted(
            (tensor.name, ["vocabulary" if size == words else size for size in tensor.shape])
            for shard in shards_of_model
            for tensor in shard.tensors
        )
    )


def _tokens(model: Path) -> dict[int, str]:
    """Every token by its id, as `tokenizer.json` lists them; none where there is another kind of tokenizer."""
    if not (model / "tokenizer.json").is_file():
        return {}
    content = json_objects.of_file(model / "tokenizer.json")
    try:
        words = content["model"].get("vocab", {})
        listed = words.items() if isinstance(words, dict) else ((entry[0], place) for place, entry in enumerate(words))
        added = {operator.index(each["id"]): each["content"] for each in content["added_tokens"]}
        return {operator.index(place): word for word, place in listed} | added
    except (KeyError, IndexError, TypeError, AttributeError) as mistake:
        raise ValueError(f"{model / 'tokenizer.json'} is no tokenizer ({mistake!r}): download it again") from None


def _tokenizer(model: Path, tokens: Mapping[int, str], first: int) -> str:
    """A digest of how texts become the first so many tokens."""
    if not tokens:
        files = [model / name for name in ("tokenizer.model", "vocab.json", "merges.txt", "spiece.model")]
        return _digest([artifacts.sha256(file) for file in files if file.is_file()])
    content = json_objects.of_file(model / "tokenizer.json")
    steps = [content.get(step) for step in ("normalizer", "pre_tokenizer")]
    return _digest([sorted(tokens.items())[:first], content["model"].get("merges"), steps])


def _called(lineage: Lineage) -> str:
    return f"{lineage.name} at {lineage.revision}" if lineage.revision else lineage.name


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
