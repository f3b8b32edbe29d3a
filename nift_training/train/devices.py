"""The devices of this process: which it takes, how it meets the others, what they hold and what they have left."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training.machine import Machine, ProcessRank
from nift_training.memory import available_bytes
from nift_training.train import launch

if TYPE_CHECKING:
    import torch

# How much is computed at a time: on a CPU more tokens take more memory and no less time (measured 2,048 against 4,096).
TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}


def choose(asked: str, process: ProcessRank) -> torch.device:
    """The device of a process: a GPU where there is one, unless a CPU is asked for."""
    import torch

    gpus = torch.cuda.device_count()
    if asked == "cpu" or (asked == "auto" and not gpus):
        return torch.device("cpu")
    if process.local_rank >= gpus:
        raise ValueError(
            f"{process.local_rank + 1} GPUs are asked for and torch sees {gpus}: use --device cpu, or fewer"
        )
    torch.cuda.set_device(process.local_rank)
    return torch.device("cuda", process.local_rank)


def join(device: torch.device, process: ProcessRank, wanted: Machine) -> None:
    """Meets the other processes through DeepSpeed; the launcher has told where."""
    if not launch.launched():
        raise ValueError(
            f"{wanted.devices} devices with ZeRO {wanted.zero} need a launcher: run python -m nift_training.train"
        )
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        import deepspeed
    except ImportError:
        raise ValueError("DeepSpeed is not installed, which runs several devices: pip install '.[train]'") from None
    import logging

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device.type == "cpu":
        # Between the processes of one CPU it would compile an extension first, for a minute; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo")
    if process.world < wanted.devices:
        raise ValueError(f"{wanted.devices} devices are asked for and {process.world} processes run: start it anew")


def needs_checkpointing(model: Any, wanted: Machine, at_once: int, device: torch.device) -> bool:
    """Whether activations are recomputed: as asked, or if they would take more than half of the memory left."""
    if wanted.gradient_checkpointing != "auto":
        return wanted.gradient_checkpointing == "on"
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    # In a Llama layer about 14 activations of the hidden width are kept and 4 of the inner one.
    numbers = at_once * config.num_hidden_layers * (14 * config.hidden_size + 4 * inner)
    return bool(numbers * model.dtype.itemsize > available_bytes(device) / 2)


def hardware(device: torch.device, process: ProcessRank) -> str:
    """What was computed on, by its maker's name."""
    import torch

    if device.type == "cuda":
        return f"{process.world} × {torch.cuda.get_device_name(device)}"
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def peak_mb(device: torch.device) -> float | None:
    """The most memory a GPU has held, in MiB; none of a CPU, whose process says it."""
    import torch

    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def is_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory did not suffice."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower() or "allocate" in str(error)


@contextmanager
def memory_errors(wanted: Machine) -> Iterator[None]:
    """Says what can be done about memory that did not suffice."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_of_memory(error):
            raise
        tried = " --gradient-checkpointing on," if wanted.gradient_checkpointing != "on" else ""
        raise ValueError(
            f"the memory did not suffice ({' '.join(str(error).split())[:160]}): try a smaller --tokens-at-once,"
            f"{tried} or --zero 3 over more devices; the last checkpoint is kept"
        ) from None


@contextmanager
def first_goes_first(process: ProcessRank) -> Iterator[None]:
    """Lets the first of several processes do something before the others, who then find it done."""
    import torch

    if process.world > 1 and not process.first:
        torch.distributed.barrier()
    yield
    if process.world > 1 and process.first:
        torch.distributed.barrier()


def check_agreement(process: ProcessRank, number: int, what: str) -> None:
    """Refuses to go on when the processes see different numbers: nodes that share no folder, for one."""
    import torch

    if process.world == 1:
        return
    backend = torch.distributed.get_backend()
    mine = torch.tensor([number, -number], device="cuda" if backend == "nccl" else "cpu")
    torch.distributed.all_reduce(mine, op=torch.distributed.ReduceOp.MAX)
    most, least = mine[0].item(), -mine[1].item()
    if most != least:
        raise ValueError(
            f"the processes do not agree on {what} ({least} to {most}): --work must be a folder that all nodes share"
        )
