"""What a peft LoRA adapter does to each tensor of a base, read from its configuration and its file."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nift_training import artifacts, shards
from nift_training.shards import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
LAYER = re.compile(r"(?P<module>.+)\.lora_(?P<matrix>embedding_A|embedding_B|A\.weight|B\.weight)")
# What a model calls its embeddings and its head.
TIED = re.compile(r"(lm_head|embed_tokens|wte|embed_in|embed_out|word_embeddings)\.weight$")
# How the same module is called in a model and in a file saved without its head: `transformer.h.0` and `h.0` in GPT-2.
PREFIXES = ("", "model.", "transformer.", "language_model.")

# What a plain LoRA may say of itself. Any other setting that is on changes more than W + scale·B·A, or is newer than
# this list: either way the adapter is refused by that setting's name.
UNDERSTOOD = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out"),
    *("bias", "use_rslora", "modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "megatron_core", "qalora_group_size", "runtime_config", "loftq_config"),
}


@dataclass(frozen=True, kw_only=True)
class Low:
    """W + scale·left·right: the two matrices of a LoRA layer, each as it lies in the adapter's file.

    `left` has the rows of W and `right` its columns once those that are `flipped` have been transposed.
    """

    scale: float
    left: Tensor
    right: Tensor
    flipped: bool


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A tensor of `modules_to_save`, which takes the place of the base's."""

    tensor: Tensor


@dataclass(frozen=True, kw_only=True)
class AdapterWeights:
    """An adapter: its folder, its configuration, what it does to each tensor of a base, and its content's digest."""

    path: Path
    config: Mapping[str, Any]
    changes: Mapping[str, Low | Whole]
    digest: str

    @property
    def file(self) -> Path:
        return self.path / WEIGHTS

    @property
    def base_name(self) -> str:
        return str(self.config.get("base_model_name_or_path"))


def read(path: Path) -> AdapterWeights:
    """The adapter of a peft folder; any kind but plain LoRA is refused by the setting that makes it so."""
    for needed in (CONFIG, WEIGHTS):
        if not (path / needed).is_file():
            raise ValueError(f"{path / needed} is missing: name a peft adapter folder")
    config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    _refuse_more_than_lora(path, config)
    found = {tensor.name: tensor for tensor in shards.read(path / WEIGHTS).tensors}
    for tensor in found.values():
        if tensor.dtype not in shards.FLOATS or not tensor.numbers:
            raise ValueError(f"{path / WEIGHTS} has {tensor.name} {tensor.shape} as {tensor.dtype}: cannot merge")
    content = hashlib.sha256((path / CONFIG).read_bytes())
    content.update(bytes.fromhex(artifacts.sha256(path / WEIGHTS)))
    return AdapterWeights(path=path, config=config, changes=_changes(path, config, found), digest=content.hexdigest())


def match(lora: AdapterWeights, base: Mapping[str, Tensor], *, tied: bool) -> dict[str, Low | Whole]:
    """What the adapter does to each tensor of the base, by the base's name of it.

    Refuses an adapter of which any part has no partner in the base, or one of another shape: peft only warns of such
    parts, and merges freshly initialised ones in their place.
    """
    matched: dict[str, Low | Whole] = {}
    for name, change in lora.changes.items():
        if tied and TIED.search(name):
            raise ValueError(
                f"the adapter changes {name}, which the base ties to its other end, so that both would change: train "
                "on other modules, or untie the base first"
            )
        partner = _partner(name, base)
        if partner is None or partner.name in matched:
            raise ValueError(f"the adapter's {name} matches no tensor of the base: it is for another base")
        _check_shape(change, partner)
        matched[partner.name] = change
    return matched


def _refuse_more_than_lora(path: Path, config: Mapping[str, Any]) -> None:
    asked = sorted(name for name, value in config.items() if value and name not in UNDERSTOOD)
    # pissa, olora, corda and loftq start from a changed base, to which the matrices belong.
    if isinstance(config.get("init_lora_weights"), str) and config["init_lora_weights"] != "gaussian":
        asked.append(f"init_lora_weights {config['init_lora_weights']}")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or asked:
        why = ", ".join(asked) or f"peft_type {config.get('peft_type')}, bias {config.get('bias')}"
        raise ValueError(f"{path} is not a plain LoRA adapter ({why}): merge it with peft itself")


def _changes(path: Path, config: Mapping[str, Any], found: Mapping[str, Tensor]) -> dict[str, Low | Whole]:
    layers: dict[str, dict[str, Tensor]] = {}
    changes: dict[str, Low | Whole] = {}
    for name, tensor in found.items():
        own = name.removeprefix(PEFT_PREFIX)
        if layer := LAYER.fullmatch(own):
            layers.setdefault(layer["module"], {})[layer["matrix"]] = tensor
        elif _is_saved_whole(own, config.get("modules_to_save") or ()):
            changes[own] = Whole(tensor=tensor)
        else:
            raise ValueError(f"{path / WEIGHTS} has {name}, which is no lora_A/lora_B pair of a layer: cannot merge")
    for module, matrices in layers.items():
        changes[f"{module}.weight"] = _low(path, module, matrices, config)
    if not changes:
        raise ValueError(f"{path / WEIGHTS} holds no LoRA matrices: train the adapter again")
    return changes


def _low(path: Path, module: str, matrices: Mapping[str, Tensor], config: Mapping[str, Any]) -> Low:
    embedding = set(matrices) == {"embedding_A", "embedding_B"}
    if not embedding and set(matrices) != {"A.weight", "B.weight"}:
        raise ValueError(f"{path / WEIGHTS} has {module} without a lora_A/lora_B pair: cannot merge")
    down, up = (
        matrices["embedding_A" if embedding else "A.weight"],
        matrices["embedding_B" if embedding else "B.weight"],
    )
    rank = int(_by_pattern(config.get("rank_pattern"), module, config["r"]))
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != rank or up.shape[1] != rank:
        raise ValueError(
            f"the adapter's {module} has matrices {down.shape} and {up.shape}, and its configuration gives it rank "
            f"{rank}: they do not belong together"
        )
    alpha = _by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    # An embedding keeps a token per row and a Conv1D (GPT-2) an input per row, so that B·A has to be transposed.
    flipped = embedding or bool(config.get("fan_in_fan_out"))
    left, right = (down, up) if flipped else (up, down)
    return Low(scale=scale, left=left, right=right, flipped=flipped)


def _by_pattern(patterns: Mapping[str, float] | None, module: str, otherwise: float) -> float:
    """The value of the first pattern that a module's name ends with, by peft's own rule (`get_pattern_key`)."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def _is_saved_whole(name: str, modules: tuple[str, ...] | list[str]) -> bool:
    module = name.rpartition(".")[0]
    return any(module == saved or module.endswith(f".{saved}") for saved in modules)


def _partner(name: str, base: Mapping[str, Tensor]) -> Tensor | None:
    if name in base:
        return base[name]
    bare = [name.removeprefix(prefix) for prefix in PREFIXES]
    others = {prefix + each for prefix in PREFIXES for each in bare} & base.keys()
    return base[others.pop()] if len(others) == 1 else None


def _check_shape(change: Low | Whole, partner: Tensor) -> None:
    if partner.dtype not in ("F32", "F16", "BF16"):
        raise ValueError(f"the base holds {partner.name} as {partner.dtype}: merge into its unquantised weights")
    if isinstance(change, Whole):
        shape = change.tensor.shape
    elif change.flipped:
        shape = (change.left.shape[1], change.right.shape[0])
    else:
        shape = (change.left.shape[0], change.right.shape[1])
    if shape != partner.shape:
        raise ValueError(f"the adapter's {shape} do not fit {partner.name} {partner.shape}: it is for another base")
