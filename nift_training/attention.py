"""Attention over sequences that lie end to end in one row: no padding, no mask, and none sees another.

It is an attention function of transformers like its own (`attn_implementation="nift_packed"`), so any model that asks
its attention through transformers' interface can use it. Without packed sequences it is transformers' `sdpa`.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKED = "nift_packed"
VARLEN_CAPABILITY = (8, 0)  # torch's varlen_attn is FlashAttention 2, which begins with the A100


@cache
def register() -> str:
    """The name under which transformers knows the packed attention from now on."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(PACKED, packed)
    AttentionMaskInterface.register(PACKED, sdpa_mask)
    return PACKED


def arguments(lengths: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    """What a model's inner forward is given beside a packed row, to be handed down to `packed`.

    A mask of four dimensions is taken as it is, so transformers does not build one of tokens × tokens.
    """
    import torch

    unused = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=device)
    return {"attention_mask": unused, "packed_lengths": lengths}


def packed(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packed_lengths: tuple[int, ...] | None = None,
    scaling: float | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sequence of [1, heads, tokens, width]; the result is [1, tokens, heads, width]."""
    import torch
    from torch.nn import functional
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packed_lengths is None:
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **settings
        )
        return attended
    grouped = query.shape[1] != key.shape[1]
    if _has_varlen(query):
        return _varlen(query, key, value, packed_lengths, scaling, grouped), None
    parts = zip(*(torch.split(states, list(packed_lengths), dim=2) for states in (query, key, value)), strict=True)
    seen = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in parts
    ]
    return torch.cat([part.transpose(1, 2) for part in seen], dim=1), None


def _has_varlen(query: torch.Tensor) -> bool:
    import torch

    if not query.is_cuda or query.dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(query.device) >= VARLEN_CAPABILITY


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: tuple[int, ...],
    scaling: float | None,
    grouped: bool,
) -> torch.Tensor:
    """One kernel for all sequences."""
    from torch.nn.attention.varlen import varlen_attn

    ends = _ends(lengths, query.device)
    query, key, value = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    longest = max(lengths)
    seen: Any = varlen_attn(
        query, key, value, ends, ends, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped
    )
    return seen[None]  # type: ignore[no-any-return]


@lru_cache(maxsize=1)  # every layer asks for the same
def _ends(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    import torch

    return torch.tensor([0, *lengths]).cumsum(0).to(device=device, dtype=torch.int32)
