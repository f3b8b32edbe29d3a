"""How a run is spread over devices: nothing here changes what is learnt, only where and how fast."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

Checkpointing = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The devices of a run and what each of them holds.

    - `devices` per node; more than one, or `zero` above 0, runs through DeepSpeed. `zero` 2 shares optimiser state
      and gradients, which lets 7-8B models into 32 GB each; 3 shares the weights as well, for 70B.
    - `hostfile` names the nodes of a run over several, one `host slots=8` per line, which DeepSpeed's launcher reads.
    - `tokens_at_once` is how much of a step a device computes at a time; None chooses by the kind of device.
    - `kernels` are torch's own, or on a GPU Liger's for norms, rotations and activations.
    - `gradient_checkpointing` recomputes activations in the backward pass, a third more work for far less memory. The
      paper had it on; since it changes no number, `auto` switches it on only where the activations would not fit.
    """

    devices: int = 1
    zero: Literal[0, 2, 3] = 0
    hostfile: str | None = None
    tokens_at_once: int | None = None
    gradient_checkpointing: Checkpointing = "auto"
    kernels: Literal["torch", "liger"] = "torch"

    def __post_init__(self) -> None:
        """Refuses what no machine is like."""
        if type(self.devices) is not int or self.devices < 1:
            raise ValueError(f"devices is {self.devices!r:.60}: give at least 1")
        if self.zero not in (0, 2, 3):
            raise ValueError(f"zero is {self.zero!r:.60}: give 0, 2 or 3")

    @property
    def distributed(self) -> bool:
        """Whether DeepSpeed runs it."""
        return self.devices > 1 or self.zero > 0 or self.hostfile is not None


ONE_DEVICE = Machine()


@dataclass(frozen=True)
class ProcessRank:
    """Which of how many processes this is, as torchrun and DeepSpeed's launcher say it in the environment."""

    rank: int
    world: int
    local_rank: int

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0


def this_process() -> ProcessRank:
    """This process's place; a process that nobody launched is the first and only one."""
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    return ProcessRank(rank, world, local)


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
