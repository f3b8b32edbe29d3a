"""Asking a judge through the ledger."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from nift_assets.ledger import Answer, Request
from nift_assets.providers.echo import Echo
from nift_assets.studies.study import Judge


def ask(context: dg.AssetExecutionContext, judge: Judge, requests: Sequence[Request]) -> list[Answer]:
    """One answer per request, in order; what the ledger already holds is not asked again."""
    if judge.provider != "echo":
        raise ValueError(f"judge {judge.name!r}: the provider {judge.provider!r} cannot be asked yet; use echo")
    answers: list[Answer] = context.resources.ledger.ask(requests, Echo())
    return answers
