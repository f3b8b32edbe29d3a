"""Holding a merged model against its sources by other means than those that made it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nift_training import model_folder, progress, shards
from nift_training.memory import available_bytes
from nift_training.merge.adapters import LowRankUpdate, ReplacementTensor
from nift_training.messages import one_line
from nift_training.shards import Shard, Tensor

ROWS = 4
# Half a unit in the last place of the type, and what the order of float32 sums leaves.
TOLERANCE = {"F64": 1e-12, "F32": 1e-5, "F16": 6e-4, "BF16": 4e-3}
LOGITS_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-2}
HALF_TOLERANCE = 5e-2  # where the sums are in half precision as well
TOKENS = 32


def check(shard: Shard, changes: Mapping[str, LowRankUpdate | ReplacementTensor], adapter: Path, merged: Path) -> int:
    """The number of tensors of which rows drawn at random were recomputed in float64 from the sources and agree.

    Every floating tensor of the shard is looked at, in the merged file as it lies on the disk. ValueError names the
    first that differs.
    """
    written = {tensor.name: tensor for tensor in shards.read(merged).tensors}
    if written != {tensor.name: tensor for tensor in shard.tensors}:
        raise ValueError(f"{merged} has another header than its base: run the merge again")
    draw = random.Random(merged.name)
    checked = 0
    for tensor in shard.tensors:
        if tensor.dtype in shards.FLOATS and tensor.shape and tensor.numbers:
            first = draw.randrange(max(tensor.shape[0] - ROWS, 0) + 1)
            count = min(ROWS, tensor.shape[0])
            _check_rows(shard.path, merged, tensor, changes.get(tensor.name), adapter, first, count)
            checked += 1
    return checked


def precision(found: Sequence[Shard]) -> str | None:
    """In what a model of these shards can be built here, with memory to spare: float32, where its sums say most, else
    the model's own type; None where there is no memory for either."""
    import torch

    left = available_bytes(torch.device("cpu"))
    stored = sum(shard.bytes for shard in found)
    float32 = 4 * sum(tensor.numbers for shard in found for tensor in shard.tensors)
    if 1.25 * (stored + float32) < left:
        return "float32"
    return "auto" if 1.25 * stored < left else None


def check_logits(base: Path, adapter: Path, merged: Path, computed: str = "float32") -> float:
    """How far the merged model's logits are from those of peft's base with the adapter beside it, relatively at most.

    Both models are built, one after the other, and computed in float32 or in their own type ("auto"). ValueError beyond
    rounding.
    """
    import torch
    from peft import PeftModel
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits_: torch.Tensor = model.eval()(input_ids=ids, use_cache=False).logits
        return logits_.float()

    own: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    ours: Any = AutoModelForCausalLM.from_pretrained(merged, dtype="auto", **own)
    kind = str(ours.dtype).removeprefix("torch.")
    # On a CPU float16 is 90 times slower than bfloat16, which takes as much memory.
    kind_computed = "float32" if computed == "float32" else {"float16": "bfloat16"}.get(kind, kind)
    many = min(TOKENS, model_folder.positions(ours) or TOKENS)
    ids = torch.arange(3, 3 + many)[None] % ours.get_input_embeddings().num_embeddings
    after = logits(ours.to(getattr(torch, kind_computed)), ids)
    del ours
    try:
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=kind_computed, **own)
        beside = logits(PeftModel.from_pretrained(plain, adapter), ids)
    except (KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as unable:
        reason = one_line(unable, 160)
        raise ValueError(f"peft cannot load {adapter} beside {base} ({reason}): do not merge it") from None
    difference = float((after - beside).abs().max() / beside.abs().max())
    most = LOGITS_TOLERANCE[kind] if kind_computed == "float32" else HALF_TOLERANCE
    if not difference <= most:
        raise ValueError(f"{merged} answers otherwise than base and adapter, by {difference:.1e}: do not use it")
    progress.say(f"merge: logits differ from base and adapter by {difference:.1e} of their size at most")
    return difference


def _check_rows(
    base: Path,
    merged: Path,
    tensor: Tensor,
    change: LowRankUpdate | ReplacementTensor | None,
    adapter: Path,
    first: int,
    count: int,
) -> None:
    import torch

    after = shards.rows(merged, tensor, first, count).double()
    saved = change.tensor if isinstance(change, ReplacementTensor) else change.onto if change else None
    place, source = (base, tensor) if saved is None else (adapter, saved)
    expected = shards.rows(place, source, first, count).double()
    if isinstance(change, LowRankUpdate):
        left, right = (shards.rows(adapter, matrix).double() for matrix in (change.left, change.right))
        left, right = (left.T, right.T) if change.flipped else (left, right)
        expected = expected + change.scale * (left[first : first + count] @ right)
    tolerance = TOLERANCE[tensor.dtype]
    if not torch.allclose(after, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())):
        raise ValueError(f"{tensor.name} in {merged} is not what its sources give: run the merge again")
