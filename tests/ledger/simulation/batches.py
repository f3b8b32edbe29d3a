"""A provider of batches: it creates what it is asked to create, and does not always say so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from nift_assets.protocol.batches import (
    BatchApi,
    BatchProgress,
    ListedBatch,
    ResultLine,
    Unclear,
    json_bytes,
    newest_of,
)
from nift_assets.protocol.request import Request
from nift_assets.providers import chat_completion
from tests.ledger.asking import provider
from tests.ledger.simulation.world import PROCESS, World

EPOCH = 1_790_000_000.0


@dataclass
class Batch:
    """What the provider has made of a chunk."""

    name: str
    created_at: float
    chunk: str
    keys: list[str]
    ends_at: float


@dataclass
class Batches(BatchApi):
    """The batch API in one world. It tells a batch by our name for it, or, where it is not `named`, by its size."""

    world: World
    named: bool
    server: Any = None
    most_requests: int = 4
    most_bytes: int = 10_000
    created: list[Batch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = provider("http://127.0.0.1:8000")

    def clock(self) -> float:
        """The provider's own."""
        return EPOCH + self.world.now()

    def line(self, request: Request) -> bytes:
        return json_bytes({"custom_id": request.key})

    def upload(self, chunk: str, lines: Iterable[bytes]) -> str | None:
        self._call("upload")
        return "file" if self.named else None

    def create(self, chunk: str, file_id: str | None, lines: Iterable[bytes]) -> str:
        world = self.world
        keys = [json.loads(line)["custom_id"] for line in lines]
        self._call("create")
        if twice := {key for batch in self.created for key in batch.keys} & set(keys):
            world.violated(f"{len(twice)} requests are bought by a second batch")
        batch = Batch(
            f"batch_{len(self.created)}", self.clock(), chunk, keys, world.now() + world.chance.uniform(0, 60)
        )
        self.created.append(batch)
        world.counts["batches"] += 1
        world.note("*", f"{batch.name} is created of {len(keys)} requests")
        PROCESS.get().step("a batch is created")
        if world.happens(0.25):
            world.note("*", "and nobody hears of it")
            raise Unclear("no answer")
        return batch.name

    def newest(self) -> list[ListedBatch]:
        self._call("list")
        return newest_of((batch.name, batch.created_at) for batch in self.created)

    def find(self, chunk: str, size: int, since: float) -> list[ListedBatch]:
        self._call("list")
        return [
            ListedBatch(provider_id=batch.name, created_at=batch.created_at, proven=self.named)
            for batch in self.created
            if batch.created_at >= since and (batch.chunk == chunk if self.named else len(batch.keys) == size)
        ]

    def poll(self, provider_id: str) -> BatchProgress:
        self._call("poll")
        batch = self._of(provider_id)
        return BatchProgress(ended=self.world.now() >= batch.ends_at, done=len(batch.keys), sources=[provider_id])

    def download(self, source: str, file: IO[bytes]) -> None:
        self._call("download")
        for key in self._of(source).keys:
            body = chat_completion(model="m", text=key, finish_reason="stop", input_tokens=9, output_tokens=3)
            file.write(json_bytes({"custom_id": key, "body": body}) + b"\n")

    def read_line(self, line: Mapping[str, Any]) -> ResultLine:
        return ResultLine(key=line["custom_id"], kind="answered", body=json_bytes(line["body"]))

    def cancel(self, provider_id: str) -> None:
        raise NotImplementedError

    def _call(self, what: str) -> None:
        PROCESS.get().step(f"batches: {what}")
        if self.world.happens(0.05):
            raise Unclear("cut", reached=False)

    def _of(self, name: str) -> Batch:
        return next(batch for batch in self.created if batch.name == name)
