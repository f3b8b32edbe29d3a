"""The LoRA adapter on a model: peft's, with its linear layers computed in one go where that gives the same numbers.

peft computes the low-rank part in float32 beside a model in half precision: a copy of every layer's input in four
bytes, kept for the backward pass, and three more passes over every output. Together they take as long as the matrix
products of a small model. Here the masters stay float32 and the low-rank part is computed in the model's own
precision, as it is under autocast and under DeepSpeed; only the input, which the base keeps anyway, is kept.
"""

from __future__ import annotations

import math
import re
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from nift_training.messages import one_line
from nift_training.recipe import Recipe

if TYPE_CHECKING:
    import torch

ADAPTER = "default"


def with_fresh_adapter(model: Any, recipe: Recipe) -> Any:
    """The model with a LoRA that changes nothing yet on every linear layer that a text goes through, except `lm_head`.

    A is uniform (Kaiming, a = √5) from the recipe's seed and B zero, as in peft; both are float32.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=targets(model),
    )
    wanted = {*layers(model)}
    try:
        adapted = get_peft_model(model, lora)
    except ValueError as mistake:
        raise ValueError(
            f"peft puts no adapter on {type(model).__name__} ({one_line(mistake)}): take another model"
        ) from None
    if strange := sorted(wanted.symmetric_difference(adapted.base_model.targeted_module_names)):
        raise ValueError(
            f"peft takes {strange[0]} of {type(model).__name__} for something else: train it with peft itself"
        )
    return adapted.train()


def targets(model: Any) -> list[str] | str:
    """What peft is told of the layers to train: their last names, or a pattern where other parts of the model (a vision
    tower) have layers of the same names, or each layer's own where a module of another kind is called so as well."""
    on, prefix = layers(model), _text_prefix(model)
    names = sorted({name.rpartition(".")[2] for name in on})
    inside = f"{prefix}." if prefix else ""
    alike = (name for name, _ in model.named_modules() if name.startswith(inside) and name.rpartition(".")[2] in names)
    if {*alike} != {*on}:
        return on
    return names if prefix is None else rf"{re.escape(prefix)}\..*\.({'|'.join(names)})"


def layers(model: Any) -> list[str]:
    """The names of the layers that get an adapter: the linear ones, without those that peft would put on the experts
    instead, whose names older files gave to what is one tensor now. No merge here knows adapters on experts."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import (
        convert_peft_config_for_transformers,
        get_model_conversion_mapping,
    )

    found = linear_layers(model)
    last = {name: name.rpartition(".")[2] for name in found}
    asked = LoraConfig(target_modules=sorted({*last.values()}))
    convert_peft_config_for_transformers(asked, model=model, conversions=get_model_conversion_mapping(model))
    kept: Any = asked.target_modules
    return [name for name in found if last[name] in kept]


def linear_layers(model: Any) -> list[str]:
    """The names of the linear layers of the model's text part, without `lm_head`: q_proj, …, down_proj of each layer of
    a Llama.

    ValueError for a model that has none.
    """
    part, prefix = text_part(model), _text_prefix(model)
    inside = [(name, module) for name, module in part.named_modules() if not _is_head(name, module, model)]
    if not (names := [name for name, module in inside if _is_linear(module)]):
        others = {type(each).__name__ for name, each in part.named_modules() if _multiplies(name, each)}
        raise ValueError(
            f"{type(model).__name__} has no linear layers (nn.Linear) to train an adapter on, but "
            f"{', '.join(sorted(others)) or 'none'}: take a model that has, or train it with peft itself"
        )
    return [f"{prefix}.{name}" if prefix else name for name in names]


def _is_head(name: str, module: Any, model: Any) -> bool:
    return "lm_head" in name or module is model.get_output_embeddings()


def _is_linear(module: Any) -> bool:
    """Whether a module gives x·Wᵀ + bias, to which a low rank can be added: a Linear, or what is made of one and still
    computes that (Falcon's), not a router that chooses experts by it."""
    import torch

    if not isinstance(module, torch.nn.Linear):
        return False
    if type(module).forward is torch.nn.Linear.forward:
        return True
    x = torch.linspace(-1, 1, module.in_features, dtype=module.weight.dtype, device=module.weight.device)[None]
    with _whole(module), torch.no_grad():
        try:
            y = module(x)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False  # it takes something else than rows
        expected = torch.nn.Linear.forward(module, x)
    if not isinstance(y, torch.Tensor) or y.shape != expected.shape:
        return False
    return bool((y - expected).abs().max() <= 1e-2 * expected.abs().max())


def _whole(module: Any) -> AbstractContextManager[Any]:
    """The module with its weights, of which under ZeRO-3 each process has a part."""
    if not hasattr(module.weight, "ds_id"):
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(list(module.parameters()))
    return gathered


def _multiplies(name: str, module: Any) -> bool:
    """Whether a module multiplies what goes through it with a matrix of its own."""
    import torch

    matrix = getattr(module, "weight", None)
    inner = isinstance(matrix, torch.Tensor) and matrix.dim() > 1 and not isinstance(module, torch.nn.Embedding)
    return inner and "lm_head" not in name


def text_part(model: Any) -> Any:
    """The part of a model that a text goes through: all of it, or the decoder of one that sees or hears as well."""
    return model if _text_prefix(model) is None else model.get_decoder()


def _text_prefix(model: Any) -> str | None:
    """What the names of the text part begin with; None where it is the whole model."""
    if model.config.get_text_config() is model.config:
        return None
    decoder = model.get_decoder()
    return next((name for name, module in model.named_modules() if name and module is decoder), None)


def untrained(model: Any) -> tuple[list[str], float]:
    """The weights of the text part that no adapter is on, though they multiply what goes through, by their last names,
    and their share of all its numbers: experts, which transformers keeps as one tensor for all of a layer, and what
    chooses them."""
    import torch

    part, found, numbers = text_part(model), set(), 0
    on, inside = {*layers(model)}, f"{_text_prefix(model)}." if _text_prefix(model) else ""
    for name, module in part.named_modules():
        if isinstance(module, torch.nn.Embedding) or inside + name in on or _is_head(name, module, model):
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if len(_shape(parameter)) > 1:
                found.add(".".join([*name.split(".")[-1:], own]))
                numbers += math.prod(_shape(parameter))
    return sorted(found), numbers / max(sum(math.prod(_shape(parameter)) for parameter in part.parameters()), 1)


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # under ZeRO-3 each process has a part of it


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters by name: all that is learnt."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def fuse(model: Any) -> int:
    """Has the model's plain LoRA layers compute base and adapter in one function; returns how many there were.

    Any other kind of layer (a convolution, a quantised one, dropout) keeps peft's own way.
    """
    import torch
    from peft.tuners.lora.layer import Linear

    fused = 0
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear and not module.lora_variant:
            module.forward = _Fused(module)
            fused += 1
    return fused


class _Fused:
    """The forward of one LoRA layer; it holds the layer, whose weights may be moved or replaced."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        base = layer.base_layer
        rows = x.reshape(-1, x.shape[-1])
        y: torch.Tensor = _function().apply(rows, base.weight, base.bias, down, up, layer.scaling[ADAPTER])
        return y.view(*x.shape[:-1], -1)  # not inside: some models (Llama 4) write over what a layer gives


@cache
def _function() -> Any:
    import torch

    class LoraLinear(torch.autograd.Function):
        """x·Wᵀ + bias + scale·(x·Aᵀ)·Bᵀ with W frozen; x and x·Aᵀ are kept, nothing else."""

        @staticmethod
        def forward(ctx: Any, rows: Any, weight: Any, bias: Any, down: Any, up: Any, scale: float) -> Any:
            a, b = down.to(rows.dtype), (up * scale).to(rows.dtype)
            low = rows @ a.t()
            y = torch.nn.functional.linear(rows, weight, bias).addmm_(low, b.t())
            ctx.save_for_backward(rows, low, weight, a, b)
            ctx.scale, ctx.dtype = scale, down.dtype
            return y

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            rows, low, weight, a, b = ctx.saved_tensors
            gradient = gradients[0]
            lowered = gradient @ b
            up = (gradient.t() @ low).to(ctx.dtype).mul_(ctx.scale)
            down = (lowered.t() @ rows).to(ctx.dtype)
            x = None
            if ctx.needs_input_grad[0]:
                x = (gradient @ weight).addmm_(lowered, a)
            return x, None, None, down, up, None

    return LoraLinear
