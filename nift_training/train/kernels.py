"""Liger's kernels in the place of a model's own norms, rotations and activations, on a GPU where they are asked for.

They compute the same in one pass over memory instead of several; what is learnt changes by rounding at most. Liger's
fused loss is left out: ours computes no logits of prompts at all.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from nift_training.machine import Machine

if TYPE_CHECKING:
    import torch


def check(wanted: Machine, device: torch.device) -> None:
    """Refuses kernels that cannot run here, before any weights are loaded."""
    if wanted.kernels == "torch":
        return
    if device.type != "cuda":
        raise ValueError(f"--kernels {wanted.kernels} needs a GPU, and this runs on {device.type}: leave it out")
    if find_spec("liger_kernel") is None:
        raise ValueError("Liger's kernels are not installed: pip install liger-kernel, or leave --kernels out")


def apply(model: Any, wanted: Machine) -> None:
    """Has a loaded model compute with the kernels that are asked for; ValueError where there are none for its kind."""
    if wanted.kernels == "torch":
        return
    from liger_kernel.transformers import monkey_patch

    kind = model.config.model_type
    if kind not in monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ValueError(f"Liger has no kernels for a {kind}: leave --kernels out")
    # transformers' Trainer calls the same function; there is no public one for a model that is loaded already.
    monkey_patch._apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
