"""Holding a merged model against its sources by other means than those that made it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from nift_training import progress, shards
from nift_training.memory import available_bytes
from nift_training.merge.adapters import Low, Whole
from nift_training.shards import Shard, Tensor

ROWS = 4
# Half a unit in the last place of the type, and what the order of float32 sums leaves.
TOLERANCE = {"F64": 1e-12, "F32": 1e-5, "F16": 6e-4, "BF16": 4e-3}
LOGITS_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-2}


def check(shard: Shard, changes: Mapping[str, Low | Whole], adapter: Path, merged: Path) -> int:
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


def fits(found: Sequence[Shard]) -> bool:
    """Whether there is memory for a model of these shards in their own type and in float32, with some to spare."""
    import torch

    stored = sum(shard.bytes for shard in found)
    float32 = 4 * sum(tensor.numbers for shard in found for tensor in shard.tensors)
    return 1.25 * (stored + float32) < available_bytes(torch.device("cpu"))


def check_logits(base: Path, adapter: Path, merged: Path) -> float:
    """How far the merged model's logits are from those of peft's base with the adapter beside it, relatively at most.

    Both models are built, so this is for what fits into memory. ValueError beyond rounding of the base's type.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def logits(model: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model.eval()(input_ids=torch.arange(3, 35)[None]).logits
        return found

    own = {"trust_remote_code": False}
    ours: torch.nn.Module = AutoModelForCausalLM.from_pretrained(merged, dtype="auto", **own)
    kind = str(ours.dtype).removeprefix("torch.")
    after = logits(ours.to(torch.float32))
    del ours
    beside = logits(
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="float32", **own), adapter)
    )
    difference = float((after - beside).abs().max() / beside.abs().max())
    if not difference <= LOGITS_TOLERANCE[kind]:
        raise ValueError(f"{merged} answers otherwise than base and adapter, by {difference:.1e}: do not use it")
    progress.say(f"merge: logits differ from base and adapter by {difference:.1e} of their size at most")
    return difference


def _check_rows(
    base: Path, merged: Path, tensor: Tensor, change: Low | Whole | None, adapter: Path, first: int, count: int
) -> None:
    import torch

    after = shards.rows(merged, tensor, first, count).double()
    if isinstance(change, Whole):
        expected = shards.rows(adapter, change.tensor, first, count).double()
    else:
        expected = shards.rows(base, tensor, first, count).double()
    if isinstance(change, Low):
        left, right = (shards.rows(adapter, matrix).double() for matrix in (change.left, change.right))
        left, right = (left.T, right.T) if change.flipped else (left, right)
        expected = expected + change.scale * (left[first : first + count] @ right)
    tolerance = TOLERANCE[tensor.dtype]
    if not torch.allclose(after, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max())):
        raise ValueError(f"{tensor.name} in {merged} is not what its sources give: run the merge again")
