"""One training run: from pairs and a base to an adapter folder with its log, recipe, card and manifest."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import artifacts, backbone, file_locks, lineage, machine, model_folder, progress
from nift_training.machine import Machine, ProcessRank
from nift_training.memory import peak_rss_mb
from nift_training.model_folder import Weights
from nift_training.recipe import Recipe
from nift_training.tracking import trackers
from nift_training.tracking.follower import Follower
from nift_training.tracking.measurements import Opening, run_name
from nift_training.train import (
    card,
    checkpoints,
    devices,
    engines,
    kernels,
    loop,
    lora,
    loss,
    micro_batches,
    pairs,
)
from nift_training.train.engines import Engine, TrainingState
from nift_training.train.loop import TrainStep
from nift_training.train.micro_batches import Layout
from nift_training.train.pairs import Examples

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "transformers", "peft")
# What a tracker is told of a step.
TOLD = ("loss", "learning_rate", "gradient_norm", "epoch")


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """Where a run reads, writes and keeps what it needs to go on: `work` holds its checkpoints, `cache` its tokens.

    A `tracker` is told of each step, of a run that is `tracked_as`; nothing that is learnt depends on it.
    """

    base: Path
    base_name: str
    data: Path
    out: Path
    work: Path
    cache: Path
    threads: int
    data_version: str | None = None
    device: str = "auto"
    save_steps: int = loop.SAVE_EVERY_STEPS
    start_over: bool = False
    tracker: str | None = None
    tracked_as: str | None = None


def train(
    base: Path, base_name: str, data: Path, recipe: Recipe, out: Path, threads: int, **options: Any
) -> artifacts.Manifest:
    """The manifest of the adapter folder `out`: the same inputs and threads give the same bytes on a CPU.

    Here, on one device; `options` are further fields of `TrainingRun`.
    """
    work: Path = options.pop("work", work_beside(out))
    cache: Path = options.pop("cache", work)
    run = TrainingRun(
        base=base, base_name=base_name, data=data, out=out, work=work, cache=cache, threads=threads, **options
    )
    carry_out(run, recipe, machine.ONE_DEVICE)
    return artifacts.read_manifest(out)


def carry_out(run: TrainingRun, recipe: Recipe, wanted: Machine) -> None:
    """The run, in each of the processes that share it; the first of them writes the adapter."""
    artifacts.check_free(run.out)
    if run.tracker is not None:
        trackers.parse(run.tracker)
    if not run.data.is_file():
        raise ValueError(f"{run.data} is not there: name a .json, .jsonl or .parquet file of pairs")
    with devices.memory_errors(wanted), _alone(run.work):
        _train(run, recipe, wanted)


def _train(run: TrainingRun, recipe: Recipe, wanted: Machine) -> None:
    started, place = time.monotonic(), machine.this_process()
    device = devices.choose(run.device, place)
    kernels.check(wanted, device)
    if wanted.distributed:
        devices.join(device, place, wanted)
    base = backbone.read(run.base, verified=place.first)
    # Before anything is learnt: a base that no merge would take is refused now and not after days of training.
    weights = model_folder.weights(model_folder.read(run.base))
    trained_on = lineage.of(run.base, run.base_name, weights.shards)
    with devices.first_goes_first(place):
        examples = pairs.cached(base.tokenizer, run.data, recipe, run.cache)
    identity = {
        "base": base.identity,
        "data": artifacts.sha256(run.data),
        "rows": len(examples),
        "recipe": asdict(recipe),
    }
    with devices.first_goes_first(place):
        begun = checkpoints.latest(run.work, identity, start_over=run.start_over and place.first)
    log = [TrainStep(**row) for row in begun.log] if begun else []
    devices.check_agreement(place, len(log), f"the steps done in {run.work}")
    _check_rows(run, weights.model, base.tokenizer, examples)
    prepared = prepare(weights, recipe, wanted, device, place)
    engine = prepared.engine
    if begun:
        engine.load(begun.state)

    def save(done: int, log: Sequence[TrainStep]) -> None:
        state = engine.state()
        if place.first:
            checkpoints.write(run.work, done, state, [asdict(step) for step in log], identity)

    with _followed(run, identity, first_step=len(log) + 1, place=place) as tell:
        steps = loop.optimise(
            engine,
            examples,
            recipe,
            layout=prepared.layout,
            at_once=prepared.at_once,
            device=device,
            process=place,
            log=log,
            save=save,
            save_steps=run.save_steps,
            tell=tell,
        )
    state = engine.state()
    if place.first:
        facts = {
            "base": run.base_name,
            "base_digest": base.digest,
            "lineage": asdict(trained_on),
            "data_version": run.data_version or identity["data"],
            "threads": run.threads,
            "recipe": asdict(recipe),
            "resumed_from_step": len(log),
            **_what_was_done(steps, examples, recipe),
            **_how(prepared, wanted, device, place),
        }
        _publish(run, prepared.model, state, recipe, steps, facts, started)


@contextmanager
def _followed(
    run: TrainingRun, identity: Mapping[str, Any], *, first_step: int, place: ProcessRank
) -> Iterator[Callable[[TrainStep], None] | None]:
    """What tells the run's tracker of a step, in the first of the processes that share the run; None for nobody."""
    if run.tracker is None or not place.first:
        yield None
        return
    opening = Opening(
        run=run_name(run.tracked_as or f"{run.out.name}/{artifacts.digest_of(identity)[:8]}"),
        settings={"base": run.base_name, "rows": identity["rows"], **identity["recipe"]},
        seconds=time.time(),
        first_step=first_step,
    )
    with Follower(run.tracker) as follower:
        follower.begin(opening)
        yield lambda step: follower.tell(step.step, {f"train/{name}": getattr(step, name) for name in TOLD})


def _check_rows(run: TrainingRun, model: Any, tokenizer: Any, examples: Examples) -> None:
    """Refuses data of which the model cannot read a row: a token it has no vector of, more tokens than positions."""
    words, most = model.get_input_embeddings().num_embeddings, model_folder.positions(model)
    if (largest := int(examples.ids.max())) >= words:
        row = next(number for number, example in enumerate(examples, start=1) if largest in example.ids)
        raise ValueError(
            f"row {row} of {run.data} has the token {tokenizer.convert_ids_to_tokens(largest)!r} ({largest}), and the "
            f"model has vectors of {words} tokens: give it its own tokenizer, or resize its embeddings"
        )
    longest = int((examples.starts[1:] - examples.starts[:-1]).max())
    if most is not None and longest > most:
        raise ValueError(f"a row of {run.data} has {longest} tokens, and the model {most} positions: lower the cutoff")


def _what_was_done(steps: Sequence[TrainStep], examples: Examples, recipe: Recipe) -> dict[str, Any]:
    return {
        "rows": len(examples),
        "steps": len(steps),
        "tokens": sum(step.tokens for step in steps),
        "trained_tokens": _trained_tokens(examples, recipe),
        "first_loss": steps[0].loss,
        "last_loss": steps[-1].loss,
    }


def _how(prepared: PreparedTraining, wanted: Machine, device: torch.device, place: ProcessRank) -> dict[str, Any]:
    return {
        "precision": str(prepared.model.dtype).removeprefix("torch."),
        "layout": prepared.layout,
        "tokens_at_once": prepared.at_once,
        "gradient_checkpointing": prepared.checkpointing,
        "kernels": wanted.kernels,
        "devices": place.world,
        "zero": (wanted.zero or 2) if wanted.distributed else 0,
        "hardware": devices.hardware(device, place),
        "versions": artifacts.versions(*PACKAGES, *(["deepspeed"] if wanted.distributed else [])),
    }


def _publish(
    run: TrainingRun,
    model: Any,
    state: TrainingState,
    recipe: Recipe,
    steps: Sequence[TrainStep],
    facts: dict[str, Any],
    started: float,
) -> None:
    """Writes the adapter folder and, when it stands, removes what an interrupted run would have gone on from."""
    artifacts.remove_partials(run.out)
    with artifacts.folder(run.out, "adapter") as draft:
        save_adapter(model, state, run.base_name, recipe, steps, facts, draft.path)
        seconds = time.monotonic() - started
        read_here = sum(step.tokens for step in steps[facts["resumed_from_step"] :])
        draft.facts.update(
            facts,
            seconds=round(seconds, 2),
            tokens_per_second=round(read_here / seconds, 1),
            peak_rss_mb=round(peak_rss_mb()),
            peak_device_mb=devices.peak_mb(model.device),
        )
    for leftover in (*run.work.glob(f"{checkpoints.PREFIX}*"), *run.work.glob("tokens-*")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    progress.say(
        f"train: {len(steps)} steps, {facts['tokens']:,} tokens in {loop.duration(seconds)}, adapter in {run.out.name}"
    )


@dataclass(frozen=True, kw_only=True)
class PreparedTraining:
    """A model with its fresh adapter, ready to be trained, and how its steps are computed."""

    model: Any
    engine: Engine
    layout: Layout
    at_once: int
    checkpointing: bool


def prepare(
    base: Weights, recipe: Recipe, wanted: Machine, device: torch.device, place: ProcessRank
) -> PreparedTraining:
    """The model of a folder with a fresh adapter, in the engine that the machine asks for."""
    shares_weights = wanted.zero == 3
    live_configuration: Any = None
    if shares_weights:
        from transformers.integrations.deepspeed import HfDeepSpeedConfig

        # As long as this lives transformers hands each process its part of the weights, and peft knows of it.
        precision = str(backbone.precision(base.folder.path, recipe, device)).removeprefix("torch.")
        kind: Any = HfDeepSpeedConfig
        live_configuration = kind(engines.configuration(recipe, wanted, place.world, precision))
    model = backbone.weights(base, recipe, device, shared=shares_weights)
    kernels.apply(model, wanted)
    without, share = lora.untrained(model)
    if without and place.first:
        progress.say(
            f"train: {', '.join(without)} ({share:.0%} of the weights) get no adapter: they are no plain linear layers"
        )
    model = lora.with_fresh_adapter(model, recipe)
    _check_mergeable(base, model)
    at_once = wanted.tokens_at_once or devices.TOKENS_AT_ONCE[device.type]
    checkpointing = devices.needs_checkpointing(model, wanted, at_once, device)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if not shares_weights:
        lora.fuse(model)  # under ZeRO-3 a layer's weights are there only while the layer itself is called
    objective = loss.objective(model)
    engine: Engine = (
        engines.DeepSpeedEngine(objective, recipe, wanted, place)
        if wanted.distributed
        else engines.TorchEngine(objective, recipe)
    )
    del live_configuration
    layout = loss.choose_layout(model, recipe.cutoff)
    return PreparedTraining(model=model, engine=engine, layout=layout, at_once=at_once, checkpointing=checkpointing)


def _check_mergeable(base: Weights, model: Any) -> None:
    """Refuses an adapter that could not be merged when it is trained: on what the files keep with other weights."""
    on, kind = model.base_model.targeted_module_names, type(model.get_base_model()).__name__
    if lost := [name for name in on if base.find(f"{name}.weight") is None]:
        raise ValueError(
            f"{kind} has {lost[0]}, which its files keep otherwise, so that no merge here could change it: "
            "train it with peft itself"
        )


def save_adapter(
    model: Any,
    state: TrainingState,
    base_name: str,
    recipe: Recipe,
    steps: Sequence[TrainStep],
    facts: dict[str, Any],
    out: Path,
) -> None:
    """Writes the adapter as peft does, naming its base and no path, with log, recipe and card."""
    model.peft_config[lora.ADAPTER].base_model_name_or_path = base_name
    # Left to itself peft asks the Hub whether the base's embeddings changed.
    model.save_pretrained(out, state_dict=state.masters, save_embedding_layers=False)
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # a set inside peft, in another order in every process
    _write_json(out / "adapter_config.json", config)
    _write_json(out / "recipe.json", asdict(recipe))
    (out / "train_log.jsonl").write_text("".join(artifacts.line(asdict(step)) for step in steps), encoding="utf-8")
    (out / "README.md").write_text(card.card(base_name, recipe, facts), encoding="utf-8")


def work_beside(out: Path) -> Path:
    return out.absolute().parent / f"{out.name}.work"


def _trained_tokens(examples: Examples, recipe: Recipe) -> int:
    """The response tokens that all steps together learnt from."""
    import numpy as np

    learnt = [micro_batches.targets(example) for example in examples]
    seen = np.bincount(
        [row for window in micro_batches.windows(len(examples), recipe) for group in window for row in group],
        minlength=len(examples),
    )
    return int(np.dot(seen, learnt))


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Keeps two runs out of one work folder; the processes of one run are let in by the first of them."""
    if not machine.this_process().first:
        yield
        return
    work.mkdir(parents=True, exist_ok=True)
    refusal = f"another run works in {work}: wait until it ends, or name another --work"
    with file_locks.locked(work / ".lock", refusal):
        try:
            yield
        finally:
            if {file.name for file in work.iterdir()} == {".lock"}:  # nothing to go on from
                shutil.rmtree(work)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
