"""Places in Dagster's pools: how many runs ask one vendor at a time, whichever tables they make."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import dagster as dg

from nift_assets.rows import LanguageModel
from nift_assets.steps.dagster_internals import InstanceConcurrencyContext

SECONDS_BETWEEN_LOOKS = 0.5


def name(model: LanguageModel) -> str:
    """The pool of a model: its vendor, which is the provider, or the machine of its server."""
    return (urlsplit(model.base_url).hostname or model.provider) if model.base_url else model.provider


@contextmanager
def slot_of_pool(context: dg.AssetExecutionContext, model: LanguageModel) -> Iterator[None]:
    """A place in the pool of a model's vendor, once there is one.

    Not the `pool` of an asset: `completions` has teachers of several vendors, and which it is depends on the partition.
    """
    pool = name(model)
    step = f"{context.op_execution_context.op.name}.{pool}"
    with InstanceConcurrencyContext(context.instance, context.run) as claims:
        waits = False
        while not claims.claim(pool, step):
            if not waits:
                context.log.info(
                    f"waiting for a place in the pool {pool!r}; its limit is under Deployment, Concurrency"
                )
            waits = True
            time.sleep(SECONDS_BETWEEN_LOOKS)
        try:
            yield
        finally:
            claims.free_step(step)
