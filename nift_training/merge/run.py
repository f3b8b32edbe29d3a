"""Merges a LoRA adapter into the weights of a base model, or of the base's Instruct sibling.

No model is built. Shapes and types stay, so a merged shard is its base's shard with the changed tensors written over:
W + scale·B·A in float32, rounded once to the base's type. A few MiB are in memory at a time. Everything that can be
refused is refused before a byte is written, and what was written is recomputed in places before it gets its name.
"""

from __future__ import annotations

import gc
import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from nift_training import artifacts, disk, lineage, model_folder, progress
from nift_training.lineage import Lineage
from nift_training.memory import peak_rss_mb
from nift_training.merge import adapters, recomputation, streaming
from nift_training.merge.adapters import AdapterWeights, LowRankUpdate, ReplacementTensor
from nift_training.model_folder import ModelFolder
from nift_training.shards import INDEX, SINGLE, Shard

__all__ = ["INDEX", "SINGLE", "MergeJob", "Origin", "merge", "plan"]

ARITHMETIC = 1  # to be raised when the same inputs give other bytes, so that no half of an older merge is gone on with
SMALL_BYTES = 64 * 2**20
Logits = Literal["never", "if-it-fits", "always"]
REPOSITORY = re.compile(r"([\w-][\w.-]*/)?[\w-][\w.-]*")
CARD, BASE_CARD = "README.md", "BASE_README.md"


@dataclass(frozen=True, kw_only=True)
class MergeJob:
    """A merge that nothing speaks against: what is merged into what, and how it is known that they belong together."""

    base: Path
    folder: ModelFolder
    base_shards: tuple[Shard, ...]
    adapter: AdapterWeights
    changes: Mapping[str, LowRankUpdate | ReplacementTensor]
    base_lineage: Lineage
    relation: str
    added_tokens: int
    manifest: artifacts.Manifest | None
    adapter_digest: str | None

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.base_shards)

    @property
    def key(self) -> str:
        """Equal for merges of equal bytes by equal arithmetic."""
        parts = [ARITHMETIC, self.base_lineage.weights, self.manifest and self.manifest.digest, self.adapter.digest]
        return hashlib.sha256(json.dumps([*parts, artifacts.versions("torch")]).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What only the caller knows of a base: what it calls it, and where on the Hub it is from."""

    name: str
    source: str | None = None
    revision: str | None = None


def merge(
    base: Path,
    adapter: Path,
    out: Path,
    *,
    sibling_of: str | None = None,
    origin: Origin | None = None,
    logits: Logits = "never",
) -> artifacts.Manifest:
    """The manifest of the merged model folder `out`: the base's own files with the adapted tensors changed.

    The base is the model the adapter was trained on, or with `sibling_of` that model's Instruct sibling. With `logits`
    the model is also built, and what it says held against base and adapter in peft, before it gets its name.
    """
    artifacts.check_free(out)
    started = time.monotonic()
    with _without_garbage_collection():
        job = plan(base, adapter, sibling_of=sibling_of, origin=origin)
    _check_room(job, out)
    with artifacts.resumed_folder(out, "model", job.key) as draft:
        if draft.hashed_files:
            progress.say(f"merge: {len(draft.hashed_files)} of {len(job.base_shards)} shards are there from before")
        checked = _merge_shards(job, draft, started)
        _carry_over(job, draft.path)
        draft.facts.update(_facts(job))
        draft.facts.update(
            tensors_recomputed=checked,
            seconds=round(time.monotonic() - started, 2),
            peak_rss_mb=round(peak_rss_mb()),
            versions=artifacts.versions("torch", "safetensors"),
        )
        computed = None if logits == "never" else recomputation.precision(job.base_shards)
        if computed or logits == "always":
            draft.facts["logits_difference"] = recomputation.check_logits(
                base, adapter, draft.path, computed or "float32"
            )
        elif logits == "if-it-fits":
            progress.say("merge: no memory to build the model and hold what it says against base and adapter")
    progress.say(f"merge: {len(job.changes)} tensors changed in {len(job.base_shards)} shards, {checked} recomputed")
    return artifacts.read_manifest(out)


def plan(base: Path, adapter: Path, *, sibling_of: str | None = None, origin: Origin | None = None) -> MergeJob:
    """The merge of an adapter into a base, without writing anything. ValueError for two that do not belong together."""
    adapter_digest = artifacts.verified_digest(adapter)
    lora_ = adapters.read(adapter)
    if not (base / "config.json").is_file():
        raise ValueError(f"{base} has no config.json: name a model folder, or a Hub repository with --revision")
    manifest = artifacts.read_manifest(base) if (base / artifacts.MANIFEST).is_file() else None
    if manifest:
        artifacts.check_digest(base, manifest)
        for file in manifest.files:  # the weights are hashed while they are read
            if file.bytes < SMALL_BYTES and artifacts.sha256(base / file.name) != file.sha256:
                raise artifacts.differs(base, file.name)
    folder = model_folder.read(base)
    weights = model_folder.weights(folder)
    base_lineage = lineage.of(base, shards_of_model=weights.shards)
    if origin:
        base_lineage = replace(base_lineage, **{key: value for key, value in asdict(origin).items() if value})
    changes = adapters.match(lora_, weights, sibling=sibling_of is not None)
    relation, added = _relation(base, base_lineage, lora_, sibling_of)
    return MergeJob(
        base=base,
        folder=folder,
        base_shards=weights.shards,
        adapter=lora_,
        changes=changes,
        base_lineage=base_lineage,
        relation=relation,
        added_tokens=added,
        manifest=manifest,
        adapter_digest=adapter_digest,
    )


def _relation(base: Path, base_lineage: Lineage, lora_: AdapterWeights, sibling_of: str | None) -> tuple[str, int]:
    """How base and adapter belong together, and how many tokens the base has more than what was trained on."""
    trained_on = lineage.recorded(lora_.path)
    here = lora_.base_name and (Path(lora_.base_name) / "config.json").is_file()
    if trained_on is None and here:
        trained_on = lineage.of(Path(lora_.base_name), lora_.base_name)
    if trained_on is None:
        return _unrecorded(base, base_lineage, lora_, sibling_of), 0
    if sibling_of is None:
        lineage.check_same(trained_on, base, base_lineage)
        return "the base it was trained on", 0
    return f"a sibling of {sibling_of}", lineage.check_sibling(trained_on, sibling_of, base, base_lineage)


def _unrecorded(base: Path, base_lineage: Lineage, lora_: AdapterWeights, sibling_of: str | None) -> str:
    """All that can be held against an adapter from elsewhere: peft records the base's name, at best a revision."""
    revision = lora_.config.get("revision")
    # A path of another machine says nothing about the base.
    named = _is_repository(lora_.base_name)
    if sibling_of is not None and named and sibling_of != lora_.base_name:
        raise ValueError(
            f"{base} is declared a sibling of {sibling_of!r}, and the adapter was trained on {lora_.base_name!r}: give "
            "it to that model's sibling"
        )
    if sibling_of is None and named and base_lineage.source and base_lineage.source != lora_.base_name:
        raise ValueError(
            f"the adapter was trained on {lora_.base_name!r}, and {base} is {base_lineage.source!r}: give --base that "
            "model, or name it with --sibling-of if this is its Instruct sibling"
        )
    if sibling_of is None and revision and base_lineage.revision and revision != base_lineage.revision:
        raise ValueError(f"the adapter was trained on revision {revision}, and {base} is {base_lineage.revision}")
    progress.say(f"merge: the adapter records of its base only the name {lora_.base_name!r}; shapes fit")
    return "unrecorded: only names and shapes agree"


def _is_repository(name: str) -> bool:
    """Whether a name can be that of a repository on the Hub: no path, as peft writes where a model was a folder."""
    return REPOSITORY.fullmatch(name) is not None and not Path(name).is_dir()


def _check_room(job: MergeJob, out: Path) -> None:
    """Refuses to begin what would not fit beside the shards that are there from before."""
    partial = out.absolute().parent / f".{out.name}.partial"
    kept = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file()) if partial.exists() else 0
    disk.check_room(
        out, max(job.bytes + sum(path.stat().st_size for path, _ in model_folder.companions(job.folder)) - kept, 0)
    )


def _merge_shards(job: MergeJob, draft: artifacts.Draft, started: float) -> int:
    """Writes the shards that are not there yet; the number of their tensors of which rows were recomputed.

    One is flushed to the disk and held against its sources while the next is merged.
    """

    def finish(shard: Shard, written: artifacts.ManifestFile) -> int:
        artifacts.sync(draft.path / written.name)
        checked = recomputation.check(shard, job.changes, job.adapter.file, draft.path / written.name)
        artifacts.finish(draft, written)
        return checked

    with _one_torch_thread(), ThreadPoolExecutor(1) as finisher:
        finishing: list[Future[int]] = []
        for number, shard in enumerate(job.base_shards, start=1):
            if (name := shard.path.name) in draft.hashed_files:
                continue
            for finished in (future for future in finishing if future.done()):
                finished.result()  # one that failed ends the merge here and not after the last shard
            written = streaming.rewrite(
                shard, job.changes, job.adapter.file, draft.path / name, hash_source=job.manifest is not None
            )
            if job.manifest and written.source_sha256 != _listed(job.manifest, name):
                raise artifacts.differs(job.base, name)
            done = artifacts.ManifestFile(name=name, bytes=written.bytes, sha256=written.sha256)
            finishing.append(finisher.submit(finish, shard, done))
            seconds = time.monotonic() - started
            progress.say(
                f"merge: shard {number}/{len(job.base_shards)}, {disk.format_bytes(shard.bytes)}, after {seconds:.0f} s"
            )
        return sum(finished.result() for finished in finishing)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """What is imported stays: to look through it for garbage again and again is a fifth of the imports' time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """The threads beside the arithmetic have work of their own, and the same bytes come on any machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _carry_over(job: MergeJob, out: Path) -> None:
    """Copies tokenizer, configurations, index and licence, and writes a card that says what was merged into what."""
    for file, name in model_folder.companions(job.folder):
        target = out / (BASE_CARD if name == CARD else name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        if job.manifest and artifacts.sha256(target) != _listed(job.manifest, name):
            raise artifacts.differs(job.base, name)
    (out / CARD).write_text(_card(job), encoding="utf-8")


def _listed(manifest: artifacts.Manifest, name: str) -> str | None:
    return next((file.sha256 for file in manifest.files if file.name == name), None)


def _facts(job: MergeJob) -> dict[str, object]:
    return {
        "base": job.base_lineage.name,
        "base_revision": job.base_lineage.revision,
        "base_digest": job.manifest.digest if job.manifest else None,
        "adapter_digest": job.adapter_digest,
        "adapter_base_name": job.adapter.base_name,
        "relation": job.relation,
        "added_tokens": job.added_tokens,
        "tensors_changed": len(job.changes),
        "parameters": sum(tensor.numbers for shard in job.base_shards for tensor in shard.tensors),
        "bytes": job.bytes,
    }


def _card(job: MergeJob) -> str:
    base = (
        f"{job.base_lineage.name} at {job.base_lineage.revision}"
        if job.base_lineage.revision
        else job.base_lineage.name
    )
    hub = f"base_model: {job.base_lineage.source}\n" if job.base_lineage.source else ""
    return (
        f"---\n{hub}library_name: transformers\ntags: [merged, lora]\n---\n\n"
        f"# {job.base_lineage.name} with an adapter merged in\n\n"
        f"- base: {base}\n- the base is {job.relation}\n- adapter: trained on {job.adapter.base_name}, "
        f"sha256 `{job.adapter_digest or job.adapter.digest}`\n"
        f"- {len(job.changes)} tensors changed: W + scale·B·A in float32, rounded once to the base's type\n\n"
        f"Tokenizer, configuration and licence are the base's own; its card, if it had one, is `{BASE_CARD}`.\n"
    )
