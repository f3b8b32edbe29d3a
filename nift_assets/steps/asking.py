"""How an asset asks a model: through the door, under the study's caps, and with one line for whatever stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from nift_assets import providers
from nift_assets.costs import price_list
from nift_assets.protocol import OPEN, Request
from nift_assets.providers import ProviderInputs
from nift_assets.rows import LanguageModel, Price
from nift_assets.steps import pools
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Partition
from nift_assets.study import Study

if TYPE_CHECKING:
    from nift_assets.ledger.book import Asker
    from nift_assets.ledger.door import AskResult
    from nift_assets.ledger.progress import Counts
    from nift_assets.protocol.server import InProcess, Remote

# The metadata a failed step tells by what stopped it: quota, authentication, budget, …
STOPPED = "stopped_by"


def ask(
    context: Context,
    model: LanguageModel,
    requests: Sequence[Request],
    inputs: ProviderInputs | None = None,
) -> AskResult:
    """One answer per request of a teacher or judge; Dagster's Failure, which is not retried, if dispatch was stopped.

    Nothing is lost then: what was answered is in the ledger, and the next run asks only the rest. Where nothing is left
    to ask, no price, cap or key is needed.
    """
    # Imported here: the database library would slow down every load of the definitions.
    from nift_assets.ledger import door

    with ExitStack() as stack:

        def connect() -> InProcess | Remote:
            stack.enter_context(pools.slot_of_pool(context.dagster, model))
            return providers.load(model.provider).connect(model, inputs)

        asked = door.ask(
            context.book,
            asker(context.study, model, context.partition),
            requests,
            connect,
            limits=model.limits,
            price=lambda: price(context.study, model),
            report=_reporter(context, len(requests)),
        )
    if asked.stopped:
        done = len(requests) - sum(asked.counts.get(state, 0) for state in OPEN)
        raise dg.Failure(
            description=f"{asked.stopped} ({done:,} of {len(requests):,} are answered and kept)",
            metadata={**metadata(asked), STOPPED: asked.stopped.cause},
            allow_retries=False,
        )
    return asked


def price(study: Study, model: LanguageModel) -> Price | None:
    """What a model costs, None if nothing. Raises ValueError for one that has ended, that has no price, or that costs
    something while nobody has said how much may be spent."""
    known_price = price_list.price(model, datetime.now(UTC).date())
    costs = known_price is not None and (known_price.input or known_price.output)
    if costs and model.budget_usd is None and price_list.budget(study) is None:
        raise ValueError(
            f"{model.name!r} costs money and nothing caps it: see `nift plan`, then set NIFT_BUDGET_USD, or budget_usd "
            "in its row or the study"
        )
    return known_price


def asker(study: Study, model: LanguageModel, partition: Partition) -> Asker:
    """Who pays for what is asked for one partition of a table, which is asked from one place at a time."""
    from nift_assets.ledger.book import Asker

    return Asker(
        study=study.name,
        who=model.name,
        writer=f"{study.name}/{partition}",
        reuse_below_limit=model.reuse_below_limit,
        study_cap=_billionths(price_list.budget(study)),
        who_cap=_billionths(model.budget_usd),
    )


def metadata(asked: AskResult) -> dict[str, Any]:
    """What Dagster plots of a call: the states, the tokens, their price and the speed."""
    tokens = sum(answer.output_tokens or 0 for answer in asked.answers)
    return {
        **{f"status_{status}": count for status, count in sorted(asked.counts.items())},
        "input_tokens": sum(answer.input_tokens or 0 for answer in asked.answers),
        "output_tokens": tokens,
        "requests_sent": asked.sent,
        "cost_usd": asked.spent / 1e9,
        "output_tokens_per_second": asked.written / asked.seconds if asked.seconds else 0.0,
    }


def combined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The metadata of two calls as one: all are sums, but for the speed, which is the first's."""
    speed = {"output_tokens_per_second": first["output_tokens_per_second"]}
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}} | speed


def _reporter(context: Context, wanted: int) -> Callable[[Counts], None]:
    def report(counts: Counts) -> None:
        done = f"{counts.settled:,} of {counts.wanted:,} answered"
        context.log(f"{done}, {counts.output_tokens:,} tokens written, ${counts.spent / 1e9:,.2f} spent")

    return report


def _billionths(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * 1e9)
