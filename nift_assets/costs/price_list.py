"""What models cost and when they end: a row per model, each with its source and the day it was read.

A row names a living substitute for a model that has ended, for a person to read: nothing is ever substituted by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from nift_assets import environment, providers
from nift_assets.rows import LanguageModel, Price
from nift_assets.study import Study

SOON = timedelta(days=90)


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """A model on its provider's own server: what it costs, how much it reads, and the first day it is not served.

    `aliases` are other names the provider has for it. `encoding` is its tokenizer as tiktoken names it.
    """

    provider: str
    model: str
    aliases: tuple[str, ...] = ()
    price: Price
    context: int
    ends: date | None = None
    substitute: str | None = None
    encoding: str | None = None
    source: str
    as_of: date

    def retired(self, today: date) -> bool:
        return self.ends is not None and self.ends <= today


def listed(provider: str, model: str) -> ListedModel | None:
    """The row of a model by its name or an alias, or None if the list has none."""
    for row in MODELS:
        if row.provider == provider and model in (row.model, *row.aliases):
            return row
    return None


def substitute(row: ListedModel, today: date) -> str | None:
    """The first model along the named substitutes that is still served on that day, or None if the list knows none."""
    following = listed(row.provider, row.substitute) if row.substitute else None
    while following and following.retired(today):
        following = listed(following.provider, following.substitute) if following.substitute else None
    return following.model if following else None


def is_free(model: LanguageModel) -> bool:
    """Whether asking costs nothing: it answers in this process, or from one's own server, and its row has no price.

    One's own is a server on this machine, or one that is asked without a key: who wants a key mostly wants money too.
    """
    if providers.load(model.provider).IN_PROCESS:
        return True
    if model.base_url is None or model.price is not None:
        return False
    return model.key_variable is None or providers.endpoint(model.base_url) == "local"


def last_price(model: LanguageModel) -> Price | None:
    """What a row costs, or cost when it was still served; None if it is free or nobody knows."""
    if is_free(model):
        return None
    # The list says what a provider's own server asks; another server has prices of its own.
    row = listed(model.provider, model.model) if model.base_url is None else None
    return model.price or (row.price if row else None)


def price(model: LanguageModel, today: date) -> Price | None:
    """What a row costs on that day, None if it is free.

    Raises ValueError for a model that is not served any more, and for one without a price: what it costs would be a
    guess, and so would be the cap.
    """
    if is_free(model):
        return None
    row = listed(model.provider, model.model) if model.base_url is None else None
    if row and row.retired(today):
        raise ValueError(f"{model.name!r}: {_was_shut_down(row, model.model, today)}")
    if model.price:
        return model.price
    if model.base_url is not None:
        raise ValueError(
            f"{model.name!r}: what {model.base_url} costs is not known, and it is asked with a key; add price=Price(…) "
            "to the study's row, with 0 for input and output if it costs nothing"
        )
    if row is None:
        raise ValueError(
            f"{model.name!r}: the price list does not know {model.provider}'s {model.model!r}; add a row to "
            "nift_assets/costs/price_list.py, or price=Price(…) to the study's row"
        )
    return row.price


def ending_soon(model: LanguageModel, today: date) -> str | None:
    """One line if a row's model ends within 90 days of that day, else None."""
    row = listed(model.provider, model.model) if model.base_url is None else None
    if row is None or row.ends is None or not today < row.ends <= today + SOON:
        return None
    living = substitute(row, row.ends)
    instead = f"; {living} is served longer" if living else ""
    return f"{model.name!r} ends on {row.ends}, {(row.ends - today).days} days from now{instead}"


def budget(study: Study) -> float | None:
    """The cap of a study in US dollars: `NIFT_BUDGET_USD`, else the study's own, None if neither caps it."""
    from_environment = environment.budget_usd()
    return study.budget_usd if from_environment is None else from_environment


def _was_shut_down(row: ListedModel, model: str, today: date) -> str:
    living = substitute(row, today)
    remedy = (
        f"a row with {living!r} asks a living model (nothing is substituted by itself)"
        if living
        else "name a model that is still served in a row of its own"
    )
    return f"{model} was shut down on {row.ends}; {remedy}"


READ = date(2026, 11, 21)
LITELLM = "LiteLLM 1.109.1 price list"
HALF = f"{LITELLM} and 1.59.7; batch at half the price, as OpenAI's batch guide says"
OLD_CLAUDE = "LiteLLM 1.59.7 price list; batch at half the price"
CL100K, O200K = "cl100k_base", "o200k_base"
# Which Claude refuses a temperature is `supports_sampling_params` in the same price list; those listed here accept one.
GPT_3, GPT_4 = "gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"


def _openai(
    model: str,
    prices: Sequence[float],
    context: int,
    max_output: int,
    *aliases: str,
    ends: date | None = None,
    substitute: str | None = None,
    encoding: str = O200K,
    source: str = LITELLM,
) -> ListedModel:
    """A row of OpenAI's; `prices` are input and output, then the same by batch where a batch is sold."""
    return ListedModel(
        provider="openai",
        model=model,
        aliases=aliases,
        price=_price(prices, max_output),
        context=context,
        ends=ends,
        substitute=substitute,
        encoding=encoding,
        source=source,
        as_of=READ,
    )


def _anthropic(
    model: str,
    prices: Sequence[float],
    context: int,
    max_output: int,
    *aliases: str,
    ends: date | None = None,
    substitute: str | None = None,
    source: str = LITELLM,
) -> ListedModel:
    """A row of Anthropic's, who publish no tokenizer."""
    return ListedModel(
        provider="anthropic",
        model=model,
        aliases=aliases,
        price=_price(prices, max_output),
        context=context,
        ends=ends,
        substitute=substitute,
        source=source,
        as_of=READ,
    )


def _price(prices: Sequence[float], max_output: int) -> Price:
    names = ("input", "output", "batch_input", "batch_output")
    return Price(**dict(zip(names, prices, strict=False)), max_output=max_output)


SHUT = "OpenAI deprecations page"
AUTUMN, SPRING, WINTER = date(2026, 10, 23), date(2026, 3, 26), date(2027, 1, 14)

# One model, one row: the formatter would make ten lines of each.
# fmt: off
MODELS: tuple[ListedModel, ...] = (
    _openai("gpt-3.5-turbo-0125", (0.5, 1.5, 0.25, 0.75), 16_385, 4_096, "gpt-3.5-turbo",
            ends=AUTUMN, substitute=GPT_3, encoding=CL100K, source=f"{LITELLM}; {SHUT}"),
    _openai("gpt-4-0125-preview", (10, 30, 5, 15), 128_000, 4_096, "gpt-4-turbo-preview",
            ends=SPRING, substitute=GPT_4, encoding=CL100K, source=f"LiteLLM 1.59.7 price list, batch at half; {SHUT}"),
    # Announced for 2026-03-26 at first, then moved.
    _openai("gpt-4-1106-preview", (10, 30, 5, 15), 128_000, 4_096,
            ends=AUTUMN, substitute=GPT_4, encoding=CL100K, source=f"{HALF}; {SHUT}"),
    _openai("gpt-4-turbo-2024-04-09", (10, 30, 5, 15), 128_000, 4_096, "gpt-4-turbo",
            ends=AUTUMN, substitute=GPT_4, encoding=CL100K, source=f"{LITELLM}; {SHUT}"),
    # The price list says 4,096 tokens of output; 8,192, its whole context, is the safer reservation.
    _openai("gpt-4-0613", (30, 60, 15, 30), 8_192, 8_192, "gpt-4",
            ends=AUTUMN, substitute=GPT_4, encoding=CL100K, source=f"{LITELLM}; {SHUT}"),
    _openai("gpt-4-0314", (30, 60), 8_192, 8_192,
            ends=SPRING, substitute=GPT_4, encoding=CL100K, source=f"LiteLLM 1.59.7 price list; {SHUT}"),
    _openai("gpt-4o-2024-05-13", (5, 15, 2.5, 7.5), 128_000, 4_096,
            ends=AUTUMN, substitute=GPT_4, source=f"{LITELLM}; {SHUT}"),
    _openai("gpt-4o-2024-08-06", (2.5, 10, 1.25, 5), 128_000, 16_384, ends=WINTER, substitute="gpt-5.4-2026-03-05"),
    _openai("gpt-4o-2024-11-20", (2.5, 10, 1.25, 5), 128_000, 16_384, ends=WINTER, substitute="gpt-5.4-2026-03-05"),
    # The name without a date moves on when the snapshot ends, so it is a row of its own, without an end.
    _openai("gpt-4o", (2.5, 10, 1.25, 5), 128_000, 16_384),
    _openai("gpt-4o-mini-2024-07-18", (0.15, 0.6, 0.075, 0.3), 128_000, 16_384,
            ends=WINTER, substitute="gpt-5.4-mini-2026-03-17"),
    _openai("gpt-4o-mini", (0.15, 0.6, 0.075, 0.3), 128_000, 16_384),
    _openai("gpt-4.1-2025-04-14", (2, 8, 1, 4), 1_047_576, 32_768, ends=WINTER, substitute="gpt-5.4-2026-03-05"),
    _openai("gpt-4.1-mini-2025-04-14", (0.4, 1.6, 0.2, 0.8), 1_047_576, 32_768,
            ends=WINTER, substitute="gpt-5.4-mini-2026-03-17"),
    # These two refuse a temperature: their rows need supports_temperature=False.
    _openai("gpt-5.4-2026-03-05", (2.5, 15, 1.25, 7.5), 272_000, 128_000, "gpt-5.4"),
    _openai("gpt-5.4-mini-2026-03-17", (0.75, 4.5, 0.375, 2.25), 272_000, 128_000, "gpt-5.4-mini"),
    _anthropic("claude-3-haiku-20240307", (0.25, 1.25, 0.125, 0.625), 200_000, 4_096,
               ends=date(2026, 4, 20), substitute="claude-haiku-4-5-20251001",
               source=f"{OLD_CLAUDE}; end from third parties' lists"),
    _anthropic("claude-3-sonnet-20240229", (3, 15, 1.5, 7.5), 200_000, 4_096,
               ends=date(2025, 7, 21), substitute="claude-sonnet-4-6", source=f"{OLD_CLAUDE}; anthropic SDK 2.11.0"),
    _anthropic("claude-3-opus-20240229", (15, 75, 7.5, 37.5), 200_000, 4_096,
               ends=date(2026, 1, 5), substitute="claude-opus-4-6", source=f"{OLD_CLAUDE}; anthropic SDK 2.11.0"),
    _anthropic("claude-haiku-4-5-20251001", (1, 5, 0.5, 2.5), 200_000, 64_000, "claude-haiku-4-5"),
    _anthropic("claude-sonnet-4-5-20250929", (3, 15, 1.5, 7.5), 200_000, 64_000, "claude-sonnet-4-5",
               ends=date(2026, 11, 30), substitute="claude-sonnet-4-6", source=f"{LITELLM}; anthropic SDK 2.11.0"),
    _anthropic("claude-sonnet-4-6", (3, 15, 1.5, 7.5), 1_000_000, 128_000),
    _anthropic("claude-opus-4-6", (5, 25, 2.5, 12.5), 1_000_000, 128_000),
)
# fmt: on
