"""Merges a LoRA adapter into the weights of a base model, or of the base's Instruct sibling.

No model is built. Shapes and dtypes stay, so a merged shard is its base's shard with the bytes of the changed
tensors written over: W + (alpha/rank)·B·A in float32, rounded once to the base's dtype. One tensor is in memory at a
time, and everything that could be refused is refused before a byte is written.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import artifacts, progress, verbs

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PEFT_PREFIX = "base_model.model."

# What an adapter must not ask for, because it changes more than W + (alpha/rank)·B·A or changes the rank by layer.
REFUSED_SETTINGS = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "fan_in_fan_out",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "use_bdlora",
    "velora_config",
)
# A base's other weights (a consolidated.*.pth, a pytorch_model.bin) would be the unmerged model under the merged name.
OTHER_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"}


@dataclass(frozen=True, kw_only=True)
class Update:
    """One change of a base tensor: the names of its two LoRA matrices in the adapter's file."""

    down: str
    up: str


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """An adapter's file, its scale alpha/rank, its rank, the base it names, and its update of each tensor."""

    file: Path
    scale: float
    rank: int
    base_name: str
    updates: Mapping[str, Update]


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What merging did: tensors changed, and the weights and bytes of the whole model."""

    tensors_changed: int
    parameters: int
    bytes: int


def merge(base: Path, adapter: Path, out: Path) -> artifacts.Manifest:
    """The manifest of the merged model folder `out`: the base's own files with the adapted tensors changed."""
    artifacts.check_free(out)
    started = time.monotonic()
    base_digest, adapter_digest = artifacts.verified_digest(base), artifacts.verified_digest(adapter)
    lora = read_adapter(adapter)
    shards = read_shards(base)
    check_match(base, shards, lora)
    with artifacts.folder(out, "model") as draft:
        _copy_companions(base, draft.path)
        parts = [_merge_shard(base / shard, lora, draft.path / shard) for shard in sorted(set(shards.values()))]
        draft.facts.update(
            base_digest=base_digest,
            adapter_digest=adapter_digest,
            adapter_base_name=lora.base_name,
            tensors_changed=sum(part.tensors_changed for part in parts),
            parameters=sum(part.parameters for part in parts),
            bytes=sum(part.bytes for part in parts),
            seconds=round(time.monotonic() - started, 2),
            versions=artifacts.versions("torch", "safetensors"),
        )
    progress.say(f"merge: {len(lora.updates)} tensors changed in {len(parts)} shards")
    return artifacts.read_manifest(out)


def read_adapter(path: Path) -> Adapter:
    """The plain LoRA of a peft adapter folder; any other kind is refused by the setting that makes it so."""
    config_file, file = path / "adapter_config.json", path / "adapter_model.safetensors"
    for needed in (config_file, file):
        if not needed.is_file():
            raise ValueError(f"{needed} is missing: name a peft adapter folder")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    asked = [name for name in REFUSED_SETTINGS if config.get(name)]
    # pissa, olora, corda and loftq start from a changed base, to which the matrices belong.
    if isinstance(config.get("init_lora_weights"), str) and config["init_lora_weights"] != "gaussian":
        asked.append(f"init_lora_weights {config['init_lora_weights']}")
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or asked:
        why = ", ".join(asked) or f"peft_type {config.get('peft_type')}, bias {config.get('bias')}"
        raise ValueError(f"{path} is not a plain LoRA adapter ({why}): merge it with peft itself")
    return Adapter(
        file=file,
        scale=config["lora_alpha"] / config["r"],
        rank=config["r"],
        base_name=str(config.get("base_model_name_or_path")),
        updates=_updates(file),
    )


def read_shards(base: Path) -> dict[str, str]:
    """The file that holds each tensor of a model folder."""
    from safetensors import safe_open

    if (base / INDEX).is_file():
        shards: dict[str, str] = json.loads((base / INDEX).read_text(encoding="utf-8"))["weight_map"]
        for shard in sorted(set(shards.values())):
            if not (base / shard).is_file():
                raise ValueError(f"{base / shard} is missing though {INDEX} lists it: download the model again")
        return shards
    if not (base / SINGLE).is_file():
        raise ValueError(f"{base} has neither {SINGLE} nor {INDEX}: convert its weights to safetensors")
    with safe_open(base / SINGLE, framework="pt") as file:
        return dict.fromkeys(file.keys(), SINGLE)


def check_match(base: Path, shards: Mapping[str, str], lora: Adapter) -> None:
    """Refuses an adapter of which any tensor has no partner in the base, or one of another shape.

    peft only warns of such tensors, and merges freshly initialised ones in their place.
    """
    from safetensors import safe_open

    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    with safe_open(lora.file, framework="pt") as adapter:
        for name, update in lora.updates.items():
            if name not in shards:
                raise ValueError(f"the adapter's {update.down} matches no tensor of {base}: it is for another base")
            if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                raise ValueError(f"the adapter changes {name}, which {base} ties to its embeddings: cannot merge")
            with safe_open(base / shards[name], framework="pt") as file:
                rows, columns = file.get_slice(name).get_shape()
            down, up = (adapter.get_slice(part).get_shape() for part in (update.down, update.up))
            if down != [lora.rank, columns] or up != [rows, lora.rank]:
                raise ValueError(
                    f"the adapter's {update.down} {down} and {update.up} {up} do not fit {name} "
                    f"[{rows}, {columns}] at rank {lora.rank}: it is for another base"
                )


def merged_tensor(weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scale: float) -> torch.Tensor:
    """W + scale·B·A, computed in float32 and rounded once to the dtype of W."""
    return (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)


def _updates(file: Path) -> dict[str, Update]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as adapter:
        names = set(adapter.keys())
    downs = sorted(name for name in names if name.endswith(".lora_A.weight"))
    updates = {
        name.removeprefix(PEFT_PREFIX).replace(".lora_A.", "."): Update(
            down=name, up=name.replace(".lora_A.", ".lora_B.")
        )
        for name in downs
    }
    understood = {name for update in updates.values() for name in (update.down, update.up)}
    if strange := sorted(names ^ understood):
        raise ValueError(f"{file} has {strange[0]} without a lora_A/lora_B pair of linear layers: cannot merge")
    if not updates:
        raise ValueError(f"{file} holds no LoRA matrices: train the adapter again")
    return updates


def _copy_companions(base: Path, out: Path) -> None:
    """Copies tokenizer, configs, index and cards: every file but the weights and the manifest."""
    for file in sorted(base.rglob("*")):
        name = file.relative_to(base)
        if file.is_file() and file.suffix not in OTHER_WEIGHTS and name != Path(artifacts.MANIFEST):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out / name)


def _merge_shard(shard: Path, lora: Adapter, out: Path) -> Merged:
    import torch
    from safetensors import safe_open

    shutil.copyfile(shard, out)
    places = _places(shard)
    changed = parameters = 0
    with (
        safe_open(shard, framework="pt") as base,
        safe_open(lora.file, framework="pt") as adapter,
        out.open("r+b") as file,
    ):
        for name, place in places.items():
            tensor = base.get_tensor(name)
            parameters += tensor.numel()
            if update := lora.updates.get(name):
                tensor = merged_tensor(
                    tensor, adapter.get_tensor(update.down), adapter.get_tensor(update.up), lora.scale
                )
                file.seek(place)
                file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
                changed += 1
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{name} is not finite after merging: the base or the adapter is damaged")
    return Merged(tensors_changed=changed, parameters=parameters, bytes=out.stat().st_size)


def _places(shard: Path) -> dict[str, int]:
    """Where in a safetensors file each tensor's bytes begin: after an 8-byte length and a JSON header."""
    with shard.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    return {name: 8 + length + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes the merged model folder."""
    parser = verbs.parser("merge", __doc__, "model folder to write")
    parser.add_argument("--base", type=Path, required=True, help="folder of the model whose weights are changed")
    parser.add_argument("--adapter", type=Path, required=True, help="peft adapter folder")
    options = parser.parse_args(argv)
    verbs.use_threads(options.threads)
    merge(options.base, options.adapter, options.out)


if __name__ == "__main__":
    verbs.run(main)
