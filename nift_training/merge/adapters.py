"""What a peft LoRA adapter does to each tensor of a base: what peft would do with its configuration and its file.

peft says what a setting is that the configuration leaves out, which layers it names, and with which rank and scale; the
model's class says how a layer keeps its weight. What peft would leave out, or make up, is refused.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nift_training import artifacts, json_objects, shards
from nift_training.messages import one_line
from nift_training.model_folder import Weights
from nift_training.shards import Shard, Tensor

CONFIG, WEIGHTS, AS_BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PEFT_PREFIX = "base_model.model."
LAYER = re.compile(r"(?P<module>.+)\.lora_(?P<matrix>embedding_A|embedding_B|A\.weight|B\.weight)")
ALL_LINEAR = "all-linear"  # peft's word for a model's every linear layer but its head
ROWS = 4096  # of two tensors that are compared, so many at a time

# What a plain LoRA may say of itself. Any other setting that is on changes more than W + scale·B·A, or is newer than
# this list: either way the adapter is refused by that setting's name.
UNDERSTOOD = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "fan_in_fan_out"),
    *("bias", "use_rslora", "modules_to_save", "init_lora_weights", "layers_to_transform", "layers_pattern"),
    *("rank_pattern", "alpha_pattern", "megatron_core", "qalora_group_size", "runtime_config", "loftq_config"),
}


@dataclass(frozen=True, kw_only=True)
class LowRankUpdate:
    """W + scale·left·right: the two matrices of a LoRA layer, each as it lies in the adapter's file.

    `left` has the rows of W and `right` its columns once those that are `flipped` have been transposed. W is the
    base's, or the adapter's own `onto` where it brings one.
    """

    scale: float
    left: Tensor
    right: Tensor
    flipped: bool
    onto: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ReplacementTensor:
    """A tensor that takes the place of the base's."""

    tensor: Tensor


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A LoRA layer as the file has it: both matrices, and whether they are of an embedding."""

    down: Tensor
    up: Tensor
    embedding: bool


@dataclass(frozen=True, kw_only=True)
class AdapterWeights:
    """An adapter: its folder, what its configuration says, peft's reading of that, its LoRA layers by the module they
    are on, its other tensors by the name of what they replace, and its content's digest."""

    path: Path
    config: Mapping[str, Any]
    settings: Any
    layers: Mapping[str, Layer]
    others: Mapping[str, Tensor]
    digest: str

    @property
    def file(self) -> Path:
        return self.path / WEIGHTS

    @property
    def base_name(self) -> str:
        return str(self.config.get("base_model_name_or_path") or "")


def read(path: Path) -> AdapterWeights:
    """The adapter of a peft folder; any kind but plain LoRA is refused by the setting that makes it so."""
    if (path / AS_BIN).is_file() and not (path / WEIGHTS).is_file():
        raise ValueError(f"{path / AS_BIN} may hold code, and is never loaded: save the adapter as {WEIGHTS}")
    for needed in (CONFIG, WEIGHTS):
        if not (path / needed).is_file():
            raise ValueError(f"{path / needed} is missing: name a peft adapter folder")
    config = json_objects.of_file(path / CONFIG)
    _refuse_more_than_lora(path, config)
    layers, others = _sorted(path, shards.read(path / WEIGHTS))
    content = hashlib.sha256((path / CONFIG).read_bytes())
    content.update(bytes.fromhex(artifacts.sha256(path / WEIGHTS)))
    return AdapterWeights(
        path=path,
        config=config,
        settings=_settings(path, config),
        layers=layers,
        others=others,
        digest=content.hexdigest(),
    )


def match(
    lora: AdapterWeights, base: Weights, *, sibling: bool = False
) -> dict[str, LowRankUpdate | ReplacementTensor]:
    """What the adapter does to each tensor of the base, by the name of the base's file for it.

    Refuses an adapter of which any part has no partner in the base, or one of another shape: peft only warns of such
    parts, and merges freshly initialised ones in their place.
    """
    matched: dict[str, LowRankUpdate | ReplacementTensor] = {}
    brought = _brought(lora, base, sibling=sibling)
    on: set[str] = set()
    for module, layer in lora.layers.items():
        partner = _partner(f"{module}.weight", base, matched)
        on.add(base.names[partner.name].rpartition(".")[0])
        low = _low(lora, module, layer, base.module(partner))
        matched[partner.name] = dataclasses.replace(low, onto=brought.pop(partner.name, None))
    for name, tensor in brought.items():
        matched[name] = ReplacementTensor(tensor=tensor)
    for name, change in matched.items():
        _check_shape(change, base.tensors[name])
        if base.is_tied(base.tensors[name]):
            raise ValueError(
                f"the adapter changes {name}, which the base ties to its other end, so that both would change: train "
                "on other modules, or untie the base first"
            )
    _check_whole(lora, base, on)
    return matched


def _refuse_more_than_lora(path: Path, config: Mapping[str, Any]) -> None:
    from peft import LoraConfig

    usual = {field.name: field.default for field in dataclasses.fields(LoraConfig)}
    asked = sorted(
        name
        for name, value in config.items()
        if name not in UNDERSTOOD and (value or (name in usual and value not in (None, "", [], {}, usual[name])))
    )
    # pissa, olora, corda and loftq start from a changed base, to which the matrices belong.
    if isinstance(config.get("init_lora_weights"), str) and config["init_lora_weights"] != "gaussian":
        asked.append(f"init_lora_weights {config['init_lora_weights']}")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or asked:
        why = ", ".join(asked) or f"peft_type {config.get('peft_type')}, bias {config.get('bias')}"
        raise ValueError(f"{path} is not a plain LoRA adapter ({why}): merge it with peft itself")


def _settings(path: Path, config: Mapping[str, Any]) -> Any:
    """The configuration as peft has it, with its own values of what is left out."""
    from peft import LoraConfig

    try:
        known = UNDERSTOOD & {field.name for field in dataclasses.fields(LoraConfig)}
        settings: Any = LoraConfig(**{name: value for name, value in config.items() if name in known})
    except (ValueError, TypeError, AttributeError, re.error) as mistake:
        raise ValueError(f"{path / CONFIG} cannot be read by peft ({mistake}): save the adapter again") from None
    numbers = {"r": settings.r, "lora_alpha": settings.lora_alpha}
    for name in ("rank_pattern", "alpha_pattern"):
        patterns = getattr(settings, name)
        if not isinstance(patterns, Mapping | None) or not all(map(_is_pattern, patterns or {})):
            raise ValueError(f"{path / CONFIG} has a {name} that is no table of layers: save the adapter again")
        numbers |= {f"{name} of {layer}": value for layer, value in (patterns or {}).items()}
    for name, value in numbers.items():
        whole = "alpha" not in name
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not _is_usable(value):
            raise ValueError(f"{path / CONFIG} says that {name} is {value!r}: save the adapter again")
    if not isinstance(settings.use_rslora, bool):
        raise ValueError(f"{path / CONFIG} says that use_rslora is {settings.use_rslora!r}: save the adapter again")
    for name in ("target_modules", "exclude_modules", "modules_to_save"):
        value = getattr(settings, name)
        several = isinstance(value, list | tuple | set) and all(isinstance(module, str) for module in value)
        if not (value is None or isinstance(value, str) or several):
            raise ValueError(f"{path / CONFIG} has {name} that are no names: save the adapter again")
    return settings


def _is_usable(number: float) -> bool:
    return math.isfinite(number) and 0 < abs(number) < 2**31


def _is_pattern(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(re.compile(rf"(.*\.)?({text})$"))
    except re.error:
        return False


def _sorted(path: Path, shard: Shard) -> tuple[dict[str, Layer], dict[str, Tensor]]:
    """The LoRA layers of a file by the module they are on, and its other tensors by the model's name of them."""
    matrices: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for tensor in shard.tensors:
        if tensor.dtype not in shards.FLOATS or not tensor.numbers or not tensor.shape:
            raise ValueError(f"{path / WEIGHTS} has {tensor.name} {tensor.shape} as {tensor.dtype}: cannot merge")
        own = tensor.name.removeprefix(PEFT_PREFIX)
        if own == tensor.name:
            raise ValueError(
                f"{path / WEIGHTS} has {own} without {PEFT_PREFIX!r} before it, so that peft leaves it out: save the "
                "adapter with peft"
            )
        # What a layer was before the adapter came on it; peft saves that of an embedding or a head by default.
        replaced = own.replace(".base_layer.", ".")
        if layer := LAYER.fullmatch(own):
            matrices.setdefault(layer["module"], {})[layer["matrix"]] = tensor
        elif ".lora_" in own or replaced in others:
            raise ValueError(f"{path / WEIGHTS} has {own}, which is no lora_A/lora_B pair of a layer: cannot merge")
        else:
            others[replaced] = tensor
    if not matrices and not others:
        raise ValueError(f"{path / WEIGHTS} holds no LoRA matrices: train the adapter again")
    return {module: _layer(path, module, each) for module, each in matrices.items()}, others


def _layer(path: Path, module: str, matrices: Mapping[str, Tensor]) -> Layer:
    embedding = set(matrices) == {"embedding_A", "embedding_B"}
    if not embedding and set(matrices) != {"A.weight", "B.weight"}:
        raise ValueError(f"{path / WEIGHTS} has {module} without a lora_A/lora_B pair: cannot merge")
    end = "" if embedding else ".weight"
    kind = "embedding_" if embedding else ""
    return Layer(down=matrices[f"{kind}A{end}"], up=matrices[f"{kind}B{end}"], embedding=embedding)


def _partner(name: str, base: Weights, taken: Mapping[str, object]) -> Tensor:
    partner = base.find(name)
    if partner is None and base.naming.of(name)[0] in base.naming.wanted:
        raise ValueError(
            f"the adapter changes {name}, which the base's files keep otherwise than the model: merge it with peft "
            "itself"
        )
    if partner is None or partner.name in taken:
        raise ValueError(f"the adapter's {name} matches no tensor of the base: it is for another base")
    return partner


def _low(lora: AdapterWeights, module: str, layer: Layer, of: Any) -> LowRankUpdate:
    """What a LoRA layer does to the weight of a module, which is None for one of several experts."""
    import torch
    from peft.utils.other import get_pattern_key
    from transformers.pytorch_utils import Conv1D

    settings, down, up = lora.settings, layer.down, layer.up
    if of is not None and isinstance(of, torch.nn.Embedding) != layer.embedding:
        raise ValueError(f"the adapter's {module} is not on such a layer as the base has there: it is for another base")
    ranks, alphas = settings.rank_pattern or {}, settings.alpha_pattern or {}
    rank = ranks.get(get_pattern_key(ranks.keys(), module), settings.r)
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != rank or up.shape[1] != rank:
        raise ValueError(
            f"the adapter's {module} has matrices {down.shape} and {up.shape}, and its configuration gives it rank "
            f"{rank}: they do not belong together"
        )
    alpha = alphas.get(get_pattern_key(alphas.keys(), module), settings.lora_alpha)
    scale = alpha / (math.sqrt(rank) if settings.use_rslora else rank)
    # An embedding keeps a token per row and a Conv1D (GPT-2) an input per row, so that B·A has to be transposed. peft
    # sees this by the layer's class as well, whatever the configuration says of it (fan_in_fan_out).
    flipped = layer.embedding or isinstance(of, Conv1D)
    left, right = (down, up) if flipped else (up, down)
    return LowRankUpdate(scale=scale, left=left, right=right, flipped=flipped)


def _brought(lora: AdapterWeights, base: Weights, *, sibling: bool) -> dict[str, Tensor]:
    """The tensors that peft would lay over the base's, by the name of the base's file, without those that are equal.

    Besides `modules_to_save` they are an embedding and a head that peft saves when it sees that an adapter is on them,
    or that the vocabulary has grown. A sibling's own are another thing, and are not replaced for that.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in lora.others.items():
        partner = _partner(name, base, found)
        _check_shape(ReplacementTensor(tensor=tensor), partner)
        if _equal(lora.file, tensor, base, partner):
            continue
        # What an adapter is on has its own tensors under another name in peft's model.
        within = name.rpartition(".")[0] in lora.layers
        if within != (tensor.name != f"{PEFT_PREFIX}{name}"):
            raise ValueError(
                f"{lora.file} has {tensor.name}, which is called otherwise in peft's model with this adapter, so that "
                "peft leaves it out: remove it, or save the adapter again"
            )
        if sibling and not any(_is_saved(module, lora.settings) for module in _modules(name)):
            raise ValueError(
                f"the adapter brings {name} of the model it was trained on, and its sibling has another: save the "
                "adapter without its embedding layers (save_embedding_layers=False)"
            )
        found[partner.name] = tensor
    return found


def _equal(file: Path, tensor: Tensor, base: Weights, partner: Tensor) -> bool:
    import torch

    home = next(shard.path for shard in base.shards if partner in shard.tensors)
    for first in range(0, partner.shape[0], ROWS):
        count = min(ROWS, partner.shape[0] - first)
        ours, theirs = shards.rows(home, partner, first, count), shards.rows(file, tensor, first, count)
        if not torch.equal(ours, theirs.to(ours.dtype)):
            return False
    return True


def _check_whole(lora: AdapterWeights, base: Weights, on: set[str]) -> None:
    """Refuses an adapter that lacks what its configuration names, or has layers that it does not name: peft would make
    up the ones and leave the others out. `on` are the modules that its layers are on, as the model calls them."""
    there = {base.naming.of(name)[0] for name in lora.others}
    for name, _ in base.model.named_parameters():
        if name not in there and any(_is_saved(module, lora.settings) for module in _modules(name)):
            raise ValueError(f"{lora.file} lacks {name}, which its modules_to_save name: download the adapter again")
    settings = _resolved(lora, base)
    for name in lora.layers:
        partner = base.find(f"{name}.weight")
        assert partner is not None, "it has been matched"
        called = (name, base.names[partner.name].rpartition(".")[0])
        if not any(_is_named(each, settings, lora) for each in called):
            raise ValueError(
                f"{lora.file} has {name}, which its target_modules do not name, so that peft leaves it out: add it to "
                f"them in {CONFIG}, or download the adapter again"
            )
    if lost := sorted(name for name in _adaptable(base.model) - on if _is_named(name, settings, lora)):
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise ValueError(
            f"{lora.file} has nothing for {lost[0]}{more}, which its target_modules name: download the adapter again"
        )


def _adaptable(model: Any) -> set[str]:
    """The modules of a model that a plain LoRA can be on."""
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds = torch.nn.Linear | torch.nn.Embedding | Conv1D
    return {name for name, module in model.named_modules() if isinstance(module, kinds)}


def _resolved(lora: AdapterWeights, base: Weights) -> Any:
    """The adapter's settings with the names of its modules, which peft itself finds in the model where the
    configuration leaves the choice to it."""
    said = lora.settings.target_modules
    if said is not None and not (isinstance(said, str) and said.lower() == ALL_LINEAR):
        return lora.settings
    from peft import LoraModel

    try:
        on = LoraModel(copy.deepcopy(base.model), copy.copy(lora.settings), "default", low_cpu_mem_usage=True)
    except ValueError as mistake:
        raise ValueError(
            f"{lora.path / CONFIG} leaves its target_modules to peft, which knows none for {type(base.model).__name__} "
            f"({one_line(mistake)}): name them there"
        ) from None
    found = copy.copy(lora.settings)
    found.target_modules = set(on.targeted_module_names)
    return found


def _is_named(module: str, settings: Any, lora: AdapterWeights) -> bool:
    from peft.tuners.tuners_utils import check_target_module_exists

    try:
        return bool(check_target_module_exists(settings, module))
    except (re.error, TypeError, ValueError, AttributeError) as mistake:
        raise ValueError(f"{lora.path / CONFIG} names layers in a way that peft does not know ({mistake})") from None


def _is_saved(module: str, settings: Any) -> bool:
    """Whether `modules_to_save` names a module: by the end of its name, as peft compares them."""
    return any(module.endswith(saved) for saved in settings.modules_to_save or () if saved)


def _modules(name: str) -> Iterator[str]:
    """The modules that a parameter or a module is in, the innermost first."""
    while name := name.rpartition(".")[0]:
        yield name


def _check_shape(change: LowRankUpdate | ReplacementTensor, partner: Tensor) -> None:
    if partner.dtype not in ("F32", "F16", "BF16"):
        raise ValueError(f"the base holds {partner.name} as {partner.dtype}: merge into its unquantised weights")
    if isinstance(change, ReplacementTensor):
        shape = change.tensor.shape
    elif change.flipped:
        shape = (change.left.shape[1], change.right.shape[0])
    else:
        shape = (change.left.shape[0], change.right.shape[1])
    if shape != partner.shape:
        raise ValueError(f"the adapter's {shape} do not fit {partner.name} {partner.shape}: it is for another base")
