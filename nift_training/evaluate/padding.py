"""Whether prompts of several lengths can be asked of a model together, or what fills up the shorter reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PROBES = ((5, 17, 3, 11, 8, 2, 13, 9, 4, 12, 6), (7, 19, 4))
TOLERANCE = {4: 1e-4, 2: 5e-2}  # of the largest logit, by the bytes of a number; bfloat16 keeps 8 bits


def left(prompts: Sequence[Sequence[int]], token: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The prompts as one tensor [prompts, tokens] that ends where each of them ends, and the mask of what is theirs."""
    import torch

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), token)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def is_masked(model: Any) -> bool:
    """Whether the model says the same after a prompt alone and beside a longer one, whatever fills it up.

    Some take no mask (RWKV, XLNet), or do not count their positions by it.
    """
    words = model.get_input_embeddings().num_embeddings
    probes = [[token % words for token in ids] for ids in PROBES]
    try:
        together = [_says(model, left(probes, token, model.device)) for token in (0, words - 1)]
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False  # it takes one prompt at a time
    alone = [_says(model, left([ids], 0, model.device))[0] for ids in probes]
    return all(_agree(said, other) for rows in together for said, other in zip(rows, alone, strict=True))


def _says(model: Any, prompts: dict[str, torch.Tensor]) -> list[list[torch.Tensor]]:
    """The logits of the next token and of that after it, for each prompt: the second are by the model's cache."""
    import torch
    from transformers import GenerationConfig

    settings: Any = GenerationConfig
    how = settings(
        max_new_tokens=2,
        min_new_tokens=2,
        do_sample=False,
        num_beams=1,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    with torch.inference_mode():
        steps = model.generate(**prompts, generation_config=how).logits
    return [list(row) for row in zip(*steps, strict=True)]


def _agree(ours: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether two rows of logits are equal but for rounding, the later as long as the same token came before."""
    for said, other in zip(ours, others, strict=True):
        most = TOLERANCE[min(said.dtype.itemsize, 4)] * other.abs().max()
        if not bool((said - other).abs().max() <= most):
            return False
        if said.argmax() != other.argmax():
            break
    return True
