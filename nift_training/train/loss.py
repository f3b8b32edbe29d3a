"""The loss of a micro-batch: hidden states of the model, and the head on those that predict a response token.

Logits of the prompt are never computed, and those of the response a chunk at a time, with the gradient formed in
place: of a 60M-parameter model with 32,000 tokens a full set of logits in float32 takes more memory than all else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from nift_training import attention
from nift_training.messages import one_line
from nift_training.train import devices, lora
from nift_training.train.micro_batches import Layout, MicroBatch

if TYPE_CHECKING:
    import torch

CHUNK = 256  # positions whose logits are there at a time: 32 MB in float32 for 32,000 tokens
PROBES = ((5, 17, 3, 11, 8, 2, 13), (7, 19, 4))
TOLERANCE = {4: 1e-4, 2: 2e-2}  # of the largest logit, by the bytes of a number; bfloat16 keeps 8 bits
# What some models do to their logits after the head (Gemma 2, Granite, Cohere), too little for a probe in bfloat16.
AFTER_THE_HEAD = ("final_logit_softcapping", "logits_scaling", "logit_scale")


def objective(model: Any) -> Any:
    """A module whose forward is the weighed loss of a batch, for plain torch and for DeepSpeed alike."""
    import torch

    class Objective(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            head = model.get_base_model().get_output_embeddings()
            if hasattr(head.weight, "ds_id"):
                import deepspeed

                # Under ZeRO-3 a weight is whole while its module is called, and the head itself never is.
                for parameter in head.parameters():
                    deepspeed.zero.register_external_parameter(self, parameter)

        def forward(self, batch: MicroBatch) -> Any:
            head = model.get_base_model().get_output_embeddings()
            hidden = hidden_states(model, batch).flatten(0, 1)
            chosen = hidden.index_select(0, batch.places)
            return _function().apply(chosen, head.weight, head.bias, batch.targets, batch.weights)

    return Objective()


def hidden_states(model: Any, batch: MicroBatch) -> torch.Tensor:
    """The last hidden states [rows, tokens, width] of a batch, packed or padded."""
    inside = (
        {"attention_mask": batch.mask}
        if batch.mask is not None
        else attention.arguments(batch.lengths, batch.ids.device)
    )
    causal = model.get_base_model()
    states: torch.Tensor = _without_head(causal)(
        input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **inside
    ).last_hidden_state
    return states


def _without_head(causal: Any) -> Any:
    """The part of a model that gives the hidden states of a text."""
    from transformers import PreTrainedModel

    part = lora.text_part(causal)
    if part is not causal or causal.base_model is not causal:
        return part if part is not causal else causal.base_model
    # Llama 4's text model is not under the name that its class has for it.
    inner = next((child for child in causal.children() if isinstance(child, PreTrainedModel)), None)
    if inner is None:
        raise ValueError(f"{type(causal).__name__} has its layers and its head in one: use transformers' Trainer")
    return inner


def choose_layout(model: Any, cutoff: int) -> Layout:
    """`packed` where the model, fed sequences end to end, gives the logits of each alone; else `padded`.

    A model may look back over a window shorter than a pair, or not hand down what keeps sequences apart. Refused is one
    that sees the tokens it is to learn (XLNet), and one whose logits are more than its head applied to its hidden
    states: its loss would be another one.
    """
    import numpy as np
    import torch

    from nift_training.train import micro_batches
    from nift_training.train.pairs import TrainingExample

    causal = model.get_base_model()
    head, device = causal.get_output_embeddings(), next(model.parameters()).device
    rows = [
        micro_batches.WeightedExample(
            TrainingExample(np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=bool)), 1.0
        )
        for ids in PROBES
    ]
    with torch.no_grad(), _without_dropout(model):
        own = _of_probes(causal)
        if not all(bool(logits.isfinite().all()) for logits in own):
            raise ValueError(
                "the base's logits are not finite: its weights hold NaN or infinity, or are too large for "
                f"{str(model.dtype).removeprefix('torch.')}; fetch it again, or choose another --precision"
            )

        seen, later = PROBES[0][:4], PROBES[0][4:]
        otherwise = _logits(causal, (*seen, *(token + 1 for token in later)))
        if not _close([otherwise[: len(seen)]], [own[0][: len(seen)]], head.weight.dtype.itemsize):
            raise ValueError(
                f"{type(causal).__name__} looks at what comes after a token, and could copy what it is to learn: it "
                "cannot be trained here; take a causal model"
            )

        def logits(layout: Layout) -> list[torch.Tensor]:
            batch = micro_batches.lay_out(rows, layout, device)
            hidden = hidden_states(model, batch)
            parts = torch.split(hidden[0], list(batch.lengths)) if layout == "packed" else list(hidden)
            return [head(part[: len(ids)]).float() for part, ids in zip(parts, PROBES, strict=True)]

        settings = causal.config.get_text_config()
        changed = [name for name in AFTER_THE_HEAD if getattr(settings, name, None) not in (None, 1.0)]
        if changed or not _close(logits("padded"), own, head.weight.dtype.itemsize):
            raise ValueError(
                f"the logits of {type(causal).__name__} are not its head applied to its hidden states: it cannot be "
                "trained here; use transformers' Trainer"
            )
        window = getattr(settings, "sliding_window", None)
        if window is not None and window < cutoff:
            return "padded"
        try:
            return "packed" if _close(logits("packed"), own, head.weight.dtype.itemsize) else "padded"
        except (TypeError, RuntimeError, ValueError):
            return "padded"  # the model knows nothing of the arguments, or of a mask of that shape


def _of_probes(causal: Any) -> list[torch.Tensor]:
    """The logits of each probe alone; ValueError for a model that transformers cannot run."""
    try:
        return [_logits(causal, ids) for ids in PROBES]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as mistake:
        if devices.is_of_memory(mistake):
            raise
        raise ValueError(
            f"transformers cannot run this {type(causal).__name__} ({one_line(mistake, 160)}): download it again, or "
            "another transformers"
        ) from None


def _logits(causal: Any, ids: Sequence[int]) -> torch.Tensor:
    """The logits [tokens, words] of one sequence, as the model itself gives them."""
    import torch

    logits: torch.Tensor = causal(input_ids=torch.tensor([ids], device=causal.device), use_cache=False).logits[0]
    return logits.float()


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()


def _close(ours: list[torch.Tensor], own: list[torch.Tensor], bytes_per_number: int) -> bool:
    return all(
        bool((ours_ - other).abs().max() <= TOLERANCE[bytes_per_number] * other.abs().max().clamp(min=1e-6))
        for ours_, other in zip(ours, own, strict=True)
    )


@cache
def _function() -> Any:
    import torch

    class ChunkedCrossEntropy(torch.autograd.Function):
        """Σ weight·(−log softmax(h·Wᵀ + bias)[target]); the gradient of h is made on the way, W is frozen."""

        @staticmethod
        def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, weights: Any) -> Any:
            loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
            gradient = torch.empty_like(hidden)
            # A token's share of a step of 256 rows is about 1e-5, which times a probability float16 cannot hold.
            largest = weights.max()
            for start in range(0, len(hidden), CHUNK):
                part = slice(start, start + CHUNK)
                logits = torch.nn.functional.linear(hidden[part], weight, bias).float()
                chosen, share = targets[part, None], weights[part, None]
                logits -= logits.amax(dim=1, keepdim=True)
                picked = logits.gather(1, chosen)
                total = logits.exp_().sum(dim=1, keepdim=True)
                loss += ((total.log() - picked) * share).sum()
                # softmax − one-hot, weighed
                logits *= share / largest / total
                logits.scatter_add_(1, chosen, -share / largest)
                gradient[part] = logits.to(hidden.dtype) @ weight
            ctx.save_for_backward(gradient, largest)
            return loss

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            gradient, largest = ctx.saved_tensors
            return gradient * (gradients[0] * largest), None, None, None, None

    return ChunkedCrossEntropy
