"""What the commands share that ask a teacher without a run of Dagster: which, of what weights, at which server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from nift_assets.store import Store
from nift_training import gpus

if TYPE_CHECKING:
    from nift_assets.ledger.progress import Stop
    from nift_assets.protocol.server import InProcess, Remote
    from nift_assets.providers import ProviderInputs
    from nift_assets.rows import Teacher
    from nift_assets.study import Study

# How such a command ends when it was stopped: at a cap, or by the provider (quota, key, model). As `nift run` does.
EXIT_BUDGET, EXIT_STOPPED = 4, 5


def chosen(study: Study, name: str | None) -> Teacher:
    """The teacher of that name; without a name the only one that is asked anything."""
    if name is not None:
        return study.teacher(name)
    if len(study.teachers) == 1:
        return study.teachers[0]
    raise ValueError(f"the study has several teachers; name one of {', '.join(row.name for row in study.teachers)}")


def connected(stack: ExitStack, study: Study, teacher: Teacher, inputs: ProviderInputs) -> InProcess | Remote:
    """The provider ready to be asked; one that computes here has a GPU of its own until the stack ends. A run waits for
    a server that is away, for an hour; who only looks is told."""
    from nift_assets import providers
    from nift_assets.new_study import server
    from nift_assets.steps import asking

    if providers.runs_backbone(teacher):
        stack.enter_context(gpus.of_this_process())
    provider = providers.load(teacher.provider).connect(teacher, inputs)
    if teacher.base_url is not None and not (found := server.look(teacher.base_url)).is_there:
        raise ValueError(f"{teacher.name!r} is asked at {found.url}: {found.problem}; start the server")
    asking.refuse_twin(study, teacher)
    asking.refuse_other_engine(teacher, provider)
    return provider


def provider_inputs(
    study: Study,
    teacher: Teacher,
    store: Store,
    weights: Mapping[str, Any] | None,
    second_half: Callable[[str], str],
) -> ProviderInputs:
    """What a provider in this process may need; `weights` is the row of its backbone, if it runs one."""
    from nift_assets.providers import ProviderInputs

    return ProviderInputs(
        second_half=second_half,
        weights=lambda: store.folder(str(weights["folder"]) if weights else ""),
        threads=study.backbone(teacher.model).threads if weights else None,
    )


def weights(study: Study, teacher: Teacher, store: Store) -> Mapping[str, Any] | None:
    """The row of the backbone that a teacher runs, None for another; ValueError while it is not there."""
    from nift_assets import providers

    if not providers.runs_backbone(teacher):
        return None
    stored = store.find("backbones", teacher.model)
    if stored is None:
        raise ValueError(
            f"{teacher.name!r} runs the backbone {teacher.model!r}, which is not here yet: nift run backbones "
            f"--partition {teacher.model}"
        )
    return stored.row(0, named=True)


def exit_status(stop: Stop) -> int:
    """The exit status of a command that was stopped."""
    return EXIT_BUDGET if stop.cause == "budget" else EXIT_STOPPED
