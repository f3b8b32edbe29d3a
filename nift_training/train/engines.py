"""What turns gradients into a step: plain torch on one device, or DeepSpeed on several.

Both hold the adapter's float32 masters and Adam's two moments, and give them out as whole tensors by name. A
checkpoint therefore fits either of them and any number of devices, and nothing in it is a pickle.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nift_training.machine import Machine, ProcessRank
from nift_training.recipe import Recipe
from nift_training.train import lora
from nift_training.train.micro_batches import MicroBatch

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

CONFIGURATIONS = Path(__file__).parent / "zero"
FIRST_SCALE_POWER, GROW_AFTER, TOLERATED = 16, 1000, 2  # LLaMA-Factory 0.5.2 `README.md:464-491`
_TOO_LOW = (
    "the gradients overflow float16 even at the smallest loss scale {}: lower min_loss_scale or the learning rate, or "
    "train in bfloat16"
)
MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names of Adam's running means


@dataclass(frozen=True)
class TrainingState:
    """All that a step changes: masters and moments by the parameter's name, updates made, and the loss scale."""

    masters: Tensors
    first_moments: Tensors
    second_moments: Tensors
    updates: int
    scale: Scale


@dataclass(frozen=True, kw_only=True)
class Scale:
    """DeepSpeed's dynamic loss scale as a value: halved at the second overflow, doubled after a thousand good steps.

    `stable` are the steps since the last overflow, `tolerated` one more than the overflows that may pass.
    """

    value: float = 2.0**FIRST_SCALE_POWER
    stable: int = 0
    tolerated: int = TOLERATED

    def after(self, overflowed: bool, minimum: float) -> Scale:
        """The scale for the next step; ValueError when it cannot go lower."""
        if not overflowed:
            grows = self.stable > 0 and self.stable % GROW_AFTER == 0
            return Scale(
                value=self.value * (2 if grows else 1),
                stable=self.stable + 1,
                tolerated=TOLERATED if grows else self.tolerated,
            )
        if self.tolerated > 1:
            return Scale(value=self.value, stable=0, tolerated=self.tolerated - 1)
        if self.value <= minimum:
            raise ValueError(_TOO_LOW.format(minimum))
        return Scale(value=max(self.value / 2, minimum), stable=0, tolerated=1)


class Engine(Protocol):
    """What the loop asks of whatever makes the steps; `scaled` says that an overflow is to be expected now and then."""

    scaled: bool

    def loss(self, batch: MicroBatch) -> torch.Tensor:
        """The batch's part of the step's loss, on the device."""
        ...

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Adds the gradient of this part; `last` says that the step's gradient is then whole."""
        ...

    def step(self, rate: float) -> float:
        """Updates the adapter at this learning rate; the norm the gradient had before it was clipped is returned.

        An infinite norm means that float16 overflowed and nothing was updated.
        """
        ...

    def sum_over_processes(self, loss: torch.Tensor) -> float:
        """The sum of a number over all devices."""
        ...

    def state(self) -> TrainingState:
        """All that a step changes, whole, on the CPU; every process takes part."""
        ...

    def load(self, state: TrainingState) -> None:
        """Goes on from a state of either engine."""
        ...


class TorchEngine:
    """One device, torch alone."""

    def __init__(self, objective: Any, recipe: Recipe) -> None:
        import torch

        self.objective = objective
        self.recipe = recipe
        self.trained = lora.trained(objective.model)
        self.optimizer = torch.optim.AdamW(list(self.trained.values()), **_adam(recipe), fused=True)
        # Half precision on a CPU is bfloat16, which needs no scale, and so does float32.
        self.scaled = objective.model.dtype == torch.float16
        self.scale = Scale()
        self.updates = 0

    def loss(self, batch: MicroBatch) -> torch.Tensor:
        loss: torch.Tensor = self.objective(batch)
        return loss

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        scaled: Any = loss * self.scale.value if self.scaled else loss
        scaled.backward()

    def step(self, rate: float) -> float:
        import torch

        parameters = list(self.trained.values())
        if self.scaled:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1 / self.scale.value)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.recipe.max_gradient_norm))
        if self.scaled:
            self.scale = self.scale.after(not math.isfinite(norm), self.recipe.min_loss_scale)
        if math.isfinite(norm):
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.step()
            self.updates += 1
        self.optimizer.zero_grad(set_to_none=True)
        # An overflow on the way back is as often NaN (infinity less infinity, or times zero) as it is infinity.
        return math.inf if self.scaled and math.isnan(norm) else norm

    def sum_over_processes(self, loss: torch.Tensor) -> float:
        return float(loss)

    def state(self) -> TrainingState:
        import torch

        # What no token has gone through, an expert for one, has had no gradient and has no moments.
        first, second = (
            {
                name: self.optimizer.state[parameter].get(moment, torch.zeros_like(parameter)).detach().cpu()
                for name, parameter in self.trained.items()
            }
            for moment in MOMENTS
        )
        masters = {name: parameter.detach().cpu() for name, parameter in self.trained.items()}
        return TrainingState(masters, first, second, self.updates, self.scale)

    def load(self, state: TrainingState) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state.masters[name])
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(state.updates), device=parameter.device),
                    "exp_avg": state.first_moments[name].to(parameter.device),
                    "exp_avg_sq": state.second_moments[name].to(parameter.device),
                }
        self.updates = state.updates
        self.scale = state.scale


class DeepSpeedEngine:
    """Several devices or shared weights, through DeepSpeed's engine."""

    def __init__(self, objective: Any, recipe: Recipe, machine: Machine, process: ProcessRank) -> None:
        import deepspeed
        import torch

        self.recipe, self.world = recipe, process.world
        self.scaled = objective.model.dtype == torch.float16
        self.trained = lora.trained(objective.model)
        # DeepSpeed makes its masters of parameters already rounded to half precision.
        masters = {name: parameter.detach().float().cpu().clone() for name, parameter in self.trained.items()}
        parameters = list(self.trained.values())
        self.engine, *_ = deepspeed.initialize(
            model=objective,
            model_parameters=parameters,
            optimizer=torch.optim.AdamW(parameters, **_adam(recipe)),
            config=configuration(recipe, machine, process.world, str(objective.model.dtype).removeprefix("torch.")),
        )
        self.zero = self.engine.optimizer
        lower_minimum(getattr(self.zero, "loss_scaler", None), recipe)
        self.updates = 0
        nothing = {name: torch.zeros_like(master) for name, master in masters.items()}
        self.load(TrainingState(masters, nothing, nothing, 0, Scale()))

    def loss(self, batch: MicroBatch) -> torch.Tensor:
        loss: torch.Tensor = self.engine(batch)
        return loss

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed takes the mean over devices, and the parts of a loss are to be added.
        self.engine.backward(loss * self.world, scale_wrt_gas=False)

    def step(self, rate: float) -> float:
        for group in self.zero.param_groups:
            group["lr"] = rate
        try:
            self.engine.step()
        except Exception as error:
            if "already at minimum" not in str(error):
                raise
            raise ValueError(_TOO_LOW.format(self.recipe.min_loss_scale)) from None
        if self.zero.overflow:
            return math.inf
        self.updates += 1
        return float(self.engine.get_global_grad_norm() or 0.0)

    def sum_over_processes(self, loss: torch.Tensor) -> float:
        import torch

        summed = loss.detach().clone()
        torch.distributed.all_reduce(summed)
        return float(summed)

    def state(self) -> TrainingState:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        masters = {name: safe_get_full_fp32_param(p).cpu().clone() for name, p in self.trained.items()}
        first, second = (
            {name: safe_get_full_optimizer_state(p, moment).cpu().clone() for name, p in self.trained.items()}
            for moment in MOMENTS
        )
        return TrainingState(masters, first, second, self.updates, self._scale())

    def load(self, state: TrainingState) -> None:
        import deepspeed
        import torch
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        shared = hasattr(self.zero, "fp32_partitioned_groups_flat")
        for part in self.zero.fp32_partitioned_groups_flat if shared else self.zero.single_partition_of_fp32_groups:
            # Made once: ZeRO-2 keeps views of the moments.
            moments = self.zero.optimizer.state[part]
            moments.update({name: torch.zeros_like(part) for name in MOMENTS if name not in moments})
            moments["step"] = torch.tensor(float(state.updates))
        if not shared:
            # ZeRO-2 finds the moments of a parameter where they are now; otherwise it would after the first step.
            self.zero._lazy_init_hp_params_optimizer_state()
        values = (state.first_moments, state.second_moments)
        for name, parameter in self.trained.items():
            device = self.engine.device
            safe_set_full_fp32_param(parameter, state.masters[name].to(device))
            for moment, value in zip(MOMENTS, values, strict=True):
                safe_set_full_optimizer_state(parameter, value[name].to(device), moment)
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0, enabled=shared), torch.no_grad():
                if not shared or torch.distributed.get_rank() == 0:
                    parameter.copy_(state.masters[name])
        self.updates = state.updates
        scaler: Any = getattr(self.zero, "loss_scaler", None)
        if _is_dynamic(scaler):
            scaler.cur_scale, scaler.cur_hysteresis = state.scale.value, state.scale.tolerated
            scaler.last_overflow_iter = scaler.cur_iter - 1 - state.scale.stable

    def _scale(self) -> Scale:
        scaler: Any = getattr(self.zero, "loss_scaler", None)
        if not _is_dynamic(scaler):
            return Scale()
        stable = scaler.cur_iter - 1 - scaler.last_overflow_iter
        return Scale(value=scaler.cur_scale, stable=stable, tolerated=scaler.cur_hysteresis)


def configuration(recipe: Recipe, machine: Machine, world: int, precision: str) -> dict[str, Any]:
    """DeepSpeed's configuration: the file of the ZeRO stage, and what the recipe says of the rest.

    The micro-batches are ours and of varying length, so DeepSpeed is told of rows: one at a time, until it has its
    share of the batch.
    """
    if recipe.batch_size % world:
        raise ValueError(
            f"{world} devices cannot reach a batch of {recipe.batch_size}: use a number of devices that divides it"
        )
    # More than one device without a stage named is LLaMA-Factory's template, ZeRO-2.
    stage = machine.zero or 2
    loaded: dict[str, Any] = json.loads((CONFIGURATIONS / f"zero{stage}.json").read_text(encoding="utf-8"))
    loaded |= {
        "train_batch_size": recipe.batch_size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": recipe.batch_size // world,
        "gradient_clipping": recipe.max_gradient_norm,
        "steps_per_print": 10**9,  # the loop says how far it is
    }
    if precision == "bfloat16":
        loaded["bf16"] = {"enabled": True}
    if precision == "float16":
        loaded["fp16"] = {
            "enabled": True,
            "loss_scale": 0,  # dynamic
            "initial_scale_power": FIRST_SCALE_POWER,
            "loss_scale_window": GROW_AFTER,
            "hysteresis": TOLERATED,
            "min_loss_scale": 1,  # a whole number in today's DeepSpeed; `lower_minimum` goes below it
        }
    return loaded


def lower_minimum(scaler: Any, recipe: Recipe) -> None:
    """Lets a DeepSpeed loss scaler fall as far as the recipe says; its configuration takes whole numbers only."""
    if _is_dynamic(scaler):
        scaler.min_scale = recipe.min_loss_scale


def _is_dynamic(scaler: Any) -> bool:
    return bool(getattr(scaler, "dynamic", False))


def _adam(recipe: Recipe) -> dict[str, Any]:
    return {
        "lr": recipe.learning_rate,
        "betas": recipe.betas,
        "eps": recipe.epsilon,
        "weight_decay": recipe.weight_decay,
    }
