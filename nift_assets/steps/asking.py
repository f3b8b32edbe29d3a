"""How an asset asks a model: through the door, under the study's caps, and with one line for whatever stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg
import polars as pl

from nift_assets import providers
from nift_assets.costs import price_list
from nift_assets.protocol import OPEN, Answer, Request
from nift_assets.providers import ProviderInputs
from nift_assets.rows import LanguageModel, Price
from nift_assets.steps import pools
from nift_assets.steps.context import Context
from nift_assets.steps.lineage import Partition
from nift_assets.steps.portion_checks import PortionChecks
from nift_assets.study import Study
from nift_training import gpus

if TYPE_CHECKING:
    from nift_assets.ledger.book import Asker
    from nift_assets.ledger.door import AskResult, Outcome, Portions, Totals
    from nift_assets.ledger.progress import Counts, Stop
    from nift_assets.protocol.server import InProcess, Remote

# The metadata a failed step tells by what stopped it: quota, authentication, budget, …
STOPPED = "stopped_by"


def ask(
    context: Context,
    model: LanguageModel,
    requests: Sequence[Request],
    inputs: ProviderInputs | None = None,
) -> AskResult:
    """One answer per request of a teacher or judge; the rest is as of `bring_in`."""
    # Imported here: the database library would slow down every load of the definitions.
    from nift_assets.ledger import door

    outcome = bring_in(context, model, door.OnePortion(requests), inputs)
    answers = door.stored(context.book, requests)
    return door.AskResult.of(outcome, answers)


def bring_in(
    context: Context,
    model: LanguageModel,
    portions: Portions,
    inputs: ProviderInputs | None = None,
    *,
    shared: bool = False,
    rows: Callable[[int], pl.DataFrame] | None = None,
) -> Outcome:
    """Sees to it that each request of a teacher or judge has its answer in the ledger, from where `answers` reads them;
    Dagster's Failure, which is not retried, if dispatch was stopped. Of portions that are `shared` other processes may
    ask some, see `nift ask`.

    `rows` gives what the table is going to hold of a portion: where too many of them fail a test that refuses the
    table, the rest is not asked.

    Nothing is lost then: what was answered is in the ledger, and the next run asks only the rest. Where nothing is left
    to ask, no price, cap or key is needed.
    """
    from nift_assets.ledger import door

    with ExitStack() as stack:

        def connect() -> InProcess | Remote:
            stack.enter_context(pools.slot_of_pool(context.dagster, model))
            if providers.runs_backbone(model):
                stack.enter_context(gpus.of_this_process())
            connected = providers.load(model.provider).connect(model, inputs)
            refuse_twin(context.study, model)
            refuse_other_engine(model, connected)
            return connected

        outcome = door.bring_in(
            context.book,
            asker(context.study, model, context.partition, shared=shared),
            portions,
            connect,
            limits=model.limits,
            price=lambda: price(context.study, model),
            report=_reporter(context),
            look=looker(model, context.partition, portions, rows),
            release=stack.close,
        )
    if outcome.stopped:
        totals = door.Totals()
        for portion in portions:
            totals.add(door.stored(context.book, portion))
        wanted = sum(totals.counts.values())
        done = wanted - sum(totals.counts.get(state, 0) for state in OPEN)
        raise dg.Failure(
            description=f"{outcome.stopped} ({done:,} of {wanted:,} are answered and kept)",
            metadata={**summary(outcome, totals), STOPPED: outcome.stopped.cause},
            allow_retries=False,
        )
    return outcome


def refuse_twin(study: Study, model: LanguageModel) -> None:
    """ValueError where another row of the study asks for the same model at another server of the same host, and nothing
    tells their answers apart: one's would be taken for the other's."""
    if model.base_url is None or model.engine is not None:
        return
    place = providers.endpoint(model.base_url)
    for other in study.language_models:
        asks_alike = (other.provider, other.model, other.engine) == (model.provider, model.model, None)
        if not asks_alike or other.base_url is None or providers.endpoint(other.base_url) != place:
            continue
        if _server(other.base_url) != _server(model.base_url):
            raise ValueError(
                f"{model.name!r} and {other.name!r} ask for {model.model!r} at {model.base_url} and {other.base_url}, "
                "and nothing tells the answers of the two servers apart; give each row an engine, such as "
                f"engine='vllm 0.10.1', or the same one if both answer alike; formerly={place!r} keeps what was "
                "answered so far"
            )


def _server(base_url: str) -> tuple[int | None, str]:
    """Which server of a host it is."""
    parts = urlsplit(base_url)
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme), parts.path.rstrip("/")


def refuse_other_engine(model: LanguageModel, connected: InProcess | Remote) -> None:
    """ValueError where a row says what engine answers, and the server says that it is another or of another version."""
    from nift_assets.protocol import engines

    if model.engine is None or model.base_url is None:
        return
    found = engines.said(model.base_url, model.model, getattr(connected, "key", None) or None)
    if found is not None and engines.differs(model.engine, found):
        raise ValueError(
            f"{model.name!r}: {model.base_url} says that {found} answers, and the row has engine={model.engine!r}; "
            f"write engine={found!r} to ask all of it, and formerly={model.engine!r} as well to keep what was answered"
        )


def totals() -> Totals:
    """What answers come to, from nothing on."""
    from nift_assets.ledger import door

    return door.Totals()


def answers(context: Context, requests: Sequence[Request]) -> list[Answer]:
    """What the ledger has to each request, in order."""
    from nift_assets.ledger import door

    return door.stored(context.book, requests)


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


def looker(
    model: LanguageModel, partition: Partition, portions: Portions, rows: Callable[[int], pl.DataFrame] | None
) -> Callable[[int], Stop | None] | None:
    """What looks at the rows of portions that were asked, where there are several, and says why to ask no more. It
    looks at fewer the longer it goes well: the first, the second, the third, the fifth, the ninth, and so on."""
    from nift_assets.ledger.progress import Stop

    if rows is None or len(portions) < 2:
        return None
    checks, seen, waiting = PortionChecks(partition.table), set[int](), list[int]()

    def look(number: int) -> Stop | None:
        if number & (number - 1) == 0 and number not in seen:  # 0 or a power of two
            seen.add(number)
            waiting.append(number)
        why: str | None = None
        for place in list(waiting):
            found = rows(place)
            if (found["status"] != "pending").all():
                waiting.remove(place)
                why = why or checks.add(found)
        if why is None:
            return None
        remedy = "see their `detail` by `nift preview`, mend the row or its server, and run it again"
        return Stop(reason=f"{model.name}: {why}; the rest is not asked", remedy=remedy, cause="checks")

    return look


def asker(study: Study, model: LanguageModel, partition: Partition, *, shared: bool = False) -> Asker:
    """Who pays for what is asked for one partition of a table, which is asked from one place at a time, or is shared by
    several processes."""
    from nift_assets.ledger.book import Asker

    return Asker(
        study=study.name,
        who=model.name,
        writer=f"{study.name}/{partition}",
        shared=shared,
        reuse_below_limit=model.reuse_below_limit,
        study_cap=_billionths(price_list.budget(study)),
        who_cap=_billionths(model.budget_usd),
    )


def metadata(asked: AskResult) -> dict[str, Any]:
    """What Dagster plots of a call whose answers are all there."""
    return summary(asked, asked.totals)


def summary(outcome: Outcome, totals: Totals) -> dict[str, Any]:
    """What Dagster plots of a call: the states, the tokens, their price and the speed."""
    return {
        **{f"status_{status}": count for status, count in sorted(totals.counts.items())},
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "requests_sent": outcome.sent,
        "cost_usd": outcome.spent / 1e9,
        "output_tokens_per_second": outcome.written / outcome.seconds if outcome.seconds else 0.0,
    }


def combined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The metadata of two calls as one: all are sums, but for the speed, which is the first's."""
    speed = {"output_tokens_per_second": first["output_tokens_per_second"]}
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}} | speed


def _reporter(context: Context) -> Callable[[Counts], None]:
    def report(counts: Counts) -> None:
        if counts.news:
            context.warn(counts.news)
        context.log(progress(counts))

    return report


def progress(counts: Counts) -> str:
    """How far asking is, in a line."""
    done = f"{counts.settled:,} of {counts.wanted:,} answered"
    if counts.portions > 1:
        done += f", portion {counts.portion} of {counts.portions}"
    return f"{done}, {counts.output_tokens:,} tokens written, ${counts.spent / 1e9:,.2f} spent"


def _billionths(dollars: float | None) -> int | None:
    return None if dollars is None else round(dollars * 1e9)
