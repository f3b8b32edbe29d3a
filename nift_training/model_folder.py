"""What a model folder has, as transformers loads it: one reading that training, merging and evaluating share.

transformers says which files hold the weights, what the model calls each of their tensors, and which of them are tied.
What it would load otherwise than the folder looks is refused in one line. No weights are read: the model is built
without memory, on torch's meta device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nift_training import json_objects, shards, transformers_internals
from nift_training.messages import one_line
from nift_training.shards import INDEX, SINGLE, Shard, Tensor

CONFIG = "config.json"
MOST_LAYERS = 10_000  # a configuration that says more would be built for hours before anything is compared with it
# What a model folder has besides its weights. Other weights (consolidated.*.pth, pytorch_model.bin) would be the
# unmerged model under the merged name, a trainer's leftovers (trainer_state.json, checkpoint-*) are another model's,
# and code is never carried on.
COMPANIONS = (
    *(CONFIG, "generation_config.json", INDEX),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tekken.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja"),
    *("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"),
    *("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "*.md"),
    # Of no use without weights that are not carried; but merges made before have them, and their digests are on record.
    *("pytorch_model.bin.index.json", "params.json", "original/params.json", "original/tokenizer.model"),
)


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A model folder: its configuration as transformers reads it, and the files that it loads the weights from."""

    path: Path
    config: Any
    files: tuple[Path, ...]

    @property
    def quantization(self) -> str | None:
        """How the weights are quantised, None if they are not."""
        said = getattr(self.config, "quantization_config", None)
        if not said:
            return None
        return str(said.get("quant_method", "quantized") if isinstance(said, Mapping) else said)


class Naming:
    """What transformers calls the tensors of files in a model, by its own rules for files of all ages."""

    def __init__(self, model: Any) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        steps = get_model_conversion_mapping(model)
        self.renamings = [step for step in steps if isinstance(step, WeightRenaming)]
        self.converters = [step for step in steps if isinstance(step, WeightConverter)]
        self.prefix = model.base_model_prefix
        self.wanted: dict[str, Any] = model.state_dict()
        self.ties = list(getattr(model, "all_tied_weights_keys", {}).items())

    def of(self, name: str) -> tuple[str, bool]:
        """The model's name of a tensor, and whether it is made into that: experts are put together, for one."""
        own, converter = self._renamed(name)
        return own, converter is not None

    def made_of(self, name: str) -> set[str]:
        """The model's names of all that is made of a tensor: gate and up projections may lie in a file as one."""
        own, converter = self._renamed(name)
        first, *others = converter.target_patterns if converter else [own]
        before, found, after = own.partition(first)
        return {own, *(before + other + after for other in others if found)}

    def _renamed(self, name: str) -> tuple[str, Any]:
        from transformers.core_model_loading import rename_source_key

        own, pattern = rename_source_key(name, self.renamings, self.converters, self.prefix, self.wanted)
        if own not in self.wanted and name in self.wanted:  # the rule was for names of another age
            own, pattern = rename_source_key(name, [], [], self.prefix, self.wanted)
        return own, next((each for each in self.converters if pattern in each.source_patterns), None)

    def tied_to(self, own: str) -> set[str]:
        """All names of the parameter."""
        return {own, *(end for pair in self.ties if own in pair for end in pair)}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What the files of a folder hold, and the model that they are the weights of, built without memory.

    `names` has the model's name of every tensor that it loads, by the name that its file has; several tensors may be
    parts of one parameter, as experts are.
    """

    folder: ModelFolder
    shards: tuple[Shard, ...]
    model: Any
    naming: Naming
    names: Mapping[str, str]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the model loads, by its file's name of it."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors if tensor.name in self.names}

    @cached_property
    def _by_parameter(self) -> dict[str, list[Tensor]]:
        found: dict[str, list[Tensor]] = {}
        for tensor in self.tensors.values():
            found.setdefault(self.names[tensor.name], []).append(tensor)
        return found

    def find(self, name: str) -> Tensor | None:
        """The tensor of that name, which may be its file's, the model's, or one that files had before."""
        if name in self.tensors:
            return self.tensors[name]
        own, is_made = self.naming.of(name)
        found = [tensor for each in self.naming.tied_to(own) for tensor in self._by_parameter.get(each, ())]
        return found[0] if len(found) == 1 and not is_made and not self.naming.of(found[0].name)[1] else None

    def is_tied(self, tensor: Tensor) -> bool:
        """Whether the model has the tensor under two names, so that who changes one changes both."""
        return len(self.naming.tied_to(self.names[tensor.name])) > 1

    def module(self, tensor: Tensor) -> Any:
        """The module of the model that the tensor is the weight of; None where it is a part of a parameter."""
        own = self.names[tensor.name]
        return None if self.naming.of(tensor.name)[1] else self.model.get_submodule(own.rpartition(".")[0])


def read(path: Path) -> ModelFolder:
    """The folder's configuration and its files of weights; a folder that transformers would lay an adapter over, or of
    which it would load other weights than other tools do, is refused."""
    from transformers.utils.peft_utils import find_adapter_config_file

    config = _config(path)
    if find_adapter_config_file(str(path), local_files_only=True) is not None:
        raise ValueError(
            f"{path} also holds an adapter (adapter_config.json), which transformers would lay over the model: move "
            "the adapter's files out of the folder"
        )
    named = indexed(path)
    try:
        files, by_index = transformers_internals.weight_files(path, config)
    except OSError:
        raise ValueError(f"{path} has neither {SINGLE} nor {INDEX}: convert its weights to safetensors") from None
    except (ValueError, KeyError, TypeError, AttributeError) as mistake:
        raise ValueError(
            f"transformers does not find the weights of {path} ({_brief(mistake)}): download its {INDEX} again"
        ) from None
    if not by_index and named and {file.name for file in files} != named:
        raise ValueError(
            f"{path} has {files[0].name}, and {INDEX} lists other files: transformers loads the one and other tools "
            "load the others; remove what is not this model"
        )
    return ModelFolder(path=path, config=config, files=tuple(files))


def indexed(path: Path) -> set[str] | None:
    """The files that the folder's index names, each of which is there; None without an index."""
    if not (path / INDEX).is_file():
        return None
    places = json_objects.of_file(path / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{path / INDEX} does not say which file each tensor is in (weight_map): download it again")
    for name in set(places.values()):
        if not shards.SAFE_NAME.fullmatch(name):
            raise ValueError(f"{path / INDEX} lists {name!r}, which is no plain file name: do not use this model")
        if not (path / name).is_file():
            raise ValueError(f"{path / name} is missing though {INDEX} lists it: download the model again")
    return set(places.values())


def weights(folder: ModelFolder) -> Weights:
    """What the folder's files hold for its model. ValueError for weights that are quantised, are no safetensors, lack
    what the model is made of, or have other shapes than its configuration says."""
    path = folder.path
    if folder.quantization:
        raise ValueError(
            f"{path} is quantized ({folder.quantization}): take the model's unquantized weights to train or merge"
        )
    if other := [file.name for file in folder.files if file.suffix != ".safetensors"]:
        raise ValueError(f"{path} has its weights as {other[0]}: convert them to safetensors")
    found = [shards.read(file) for file in folder.files]
    seen: dict[str, str] = {}
    for name, file in ((tensor.name, shard.path.name) for shard in found for tensor in shard.tensors):
        if name in seen:
            raise ValueError(f"{path} has {name} in {seen[name]} and in {file}: download the model again")
        seen[name] = file
    model = skeleton(folder)
    naming = Naming(model)
    names = _names(path, found, model, naming)
    return Weights(folder=folder, shards=tuple(found), model=model, naming=naming, names=names)


def skeleton(folder: ModelFolder) -> Any:
    """The model without its weights, which takes no memory; ValueError if it is none that writes text."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            kind: Any = AutoModelForCausalLM
            return kind.from_config(folder.config, trust_remote_code=False)
    except Exception as mistake:  # whatever a class of transformers makes of values that its configuration let pass
        raise ValueError(
            f"{folder.path / CONFIG} describes no model that writes text ({_brief(mistake)}): use one that "
            f"AutoModelForCausalLM of transformers {version('transformers')} can load"
        ) from None


def load(folder: ModelFolder, **options: Any) -> Any:
    """The model with its weights, by transformers; ValueError if some of it would be drawn at random."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    path = folder.path
    own: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True, "output_loading_info": True}
    try:
        kind: Any = AutoModelForCausalLM
        model, told = kind.from_pretrained(path, **own, **options)
    except SafetensorError as damage:
        raise ValueError(f"the weights in {path} cannot be read ({damage}): download them again") from None
    except (KeyError, TypeError, AttributeError, ImportError) as mistake:
        raise ValueError(f"transformers cannot load {path} ({_brief(mistake)}): download it again") from None
    if missing := sorted(told["missing_keys"]):
        raise _lacking(path, model, missing)
    return model


def positions(model: Any) -> int | None:
    """The number of positions that a model has learned a vector for each; None where any number can be computed."""
    import torch

    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    words = model.get_input_embeddings()
    tables = (each for each in model.modules() if isinstance(each, torch.nn.Embedding) and each is not words)
    # Some keep a row or two for padding in front.
    learned = any(most is not None and most <= table.num_embeddings <= most + 8 for table in tables)
    return most if learned else None


def companions(folder: ModelFolder) -> Iterator[tuple[Path, str]]:
    """The files besides the weights that belong to the model, each with its name in the folder.

    A link may lead to where the Hub's cache keeps its contents, and nowhere else outside the folder.
    """
    base = folder.path
    inside = {base.resolve(), base.resolve().parent.parent / "blobs"}
    for file in sorted(base.rglob("*")):
        name = file.relative_to(base).as_posix()
        if not file.is_file() or not any(_fits(name, pattern) for pattern in COMPANIONS):
            continue
        if not any(file.resolve().is_relative_to(place) for place in inside):
            raise ValueError(f"{file} leads out of the model's folder to {file.resolve()}: do not use this model")
        yield file, name


def _fits(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _config(path: Path) -> Any:
    from transformers import AutoConfig

    if not (path / CONFIG).is_file():
        raise ValueError(f"{path} has no {CONFIG}: name a model folder")
    said = json_objects.of_file(path / CONFIG)
    for name, value in _entries(said):
        if "layer" in name and isinstance(value, int) and value > MOST_LAYERS:
            raise ValueError(f"{path / CONFIG} says {name} {value}, more than any model has: download it again")
        if name.endswith("_implementation") and "/" in str(value):
            # transformers fetches a kernel of that name from the Hub, which is machine code, and runs it.
            raise ValueError(f"{path / CONFIG} asks for the kernel {value} ({name}), which is never run: remove it")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        config.get_text_config()
    except Exception as mistake:  # whatever a class of transformers makes of values it does not expect
        if said.get("auto_map"):
            raise ValueError(
                f"{path / CONFIG} asks for code of its own (auto_map), which is never run: use a model that "
                "transformers knows"
            ) from None
        raise ValueError(
            f"{path / CONFIG} is no configuration that transformers {version('transformers')} can read "
            f"({_brief(mistake)}): download it again, or a newer transformers"
        ) from None
    return config


def _entries(said: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(said, dict):
        for name, value in said.items():
            yield name, value
            yield from _entries(value)


def _names(path: Path, found: Sequence[Shard], model: Any, naming: Naming) -> dict[str, str]:
    """The model's name of each tensor that it loads, by the file's; all that the model is made of must be there."""
    names: dict[str, str] = {}
    there: set[str] = set()
    for tensor in (tensor for shard in found for tensor in shard.tensors):
        own, is_made = naming.of(tensor.name)
        if own not in naming.wanted:
            continue  # transformers leaves it out: an inverse frequency, a head for several tokens
        wanted = tuple(naming.wanted[own].shape)
        if not is_made and wanted != tensor.shape:
            raise ValueError(
                f"{path} has {tensor.name} {tensor.shape}, and by its {CONFIG} it is {wanted}: download the model again"
            )
        names[tensor.name] = own
        there.update(end for made in naming.made_of(tensor.name) for end in naming.tied_to(made))
    missing = naming.wanted.keys() - there
    if missing := missing - transformers_internals.not_needed(model, missing):
        raise _lacking(path, model, sorted(missing))
    return names


def _lacking(path: Path, model: Any, missing: Sequence[str]) -> ValueError:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return ValueError(
        f"{path} lacks {missing[0]}{more}, of which {type(model).__name__} is made: download the model again"
    )


def _brief(mistake: Exception) -> str:
    return f"{type(mistake).__name__}: {one_line(mistake, 160)}"
