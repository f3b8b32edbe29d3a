"""The price list: the published numbers, who is refused and with which one line, and the cap of a study."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import pytest

from nift_assets import providers, studies
from nift_assets.costs import price_list
from nift_assets.rows import Judge, Price, Teacher

TODAY = date(2026, 11, 21)
IN_PROCESS = ("echo", "local", "original")

# Input, output, batch input, batch output, longest answer, first day without it: read off the published lists anew, so
# that a slip of the pen in one place shows in the other.
PUBLISHED: dict[str, tuple[float, float, float | None, float | None, int, str | None]] = {
    "gpt-3.5-turbo-0125": (0.50, 1.50, 0.25, 0.75, 4096, "2026-10-23"),
    "gpt-4-0125-preview": (10.0, 30.0, 5.0, 15.0, 4096, "2026-03-26"),
    "gpt-4-1106-preview": (10.0, 30.0, 5.0, 15.0, 4096, "2026-10-23"),
    "gpt-4-turbo-2024-04-09": (10.0, 30.0, 5.0, 15.0, 4096, "2026-10-23"),
    "gpt-4": (30.0, 60.0, 15.0, 30.0, 8192, "2026-10-23"),
    "gpt-4-0314": (30.0, 60.0, None, None, 8192, "2026-03-26"),
    "gpt-4o-2024-05-13": (5.0, 15.0, 2.5, 7.5, 4096, "2026-10-23"),
    "gpt-4o-2024-08-06": (2.5, 10.0, 1.25, 5.0, 16384, "2027-01-14"),
    "gpt-4o-mini-2024-07-18": (0.15, 0.60, 0.075, 0.30, 16384, "2027-01-14"),
    "claude-3-haiku-20240307": (0.25, 1.25, 0.125, 0.625, 4096, "2026-04-20"),
    "claude-3-sonnet-20240229": (3.0, 15.0, 1.5, 7.5, 4096, "2025-07-21"),
    "claude-3-opus-20240229": (15.0, 75.0, 7.5, 37.5, 4096, "2026-01-05"),
    "claude-haiku-4-5-20251001": (1.0, 5.0, 0.5, 2.5, 64000, None),
    "claude-sonnet-4-6": (3.0, 15.0, 1.5, 7.5, 128000, None),
}


def provider_of(model: str) -> str:
    return "anthropic" if model.startswith("claude") else "openai"


def row(model: str, **values: object) -> Teacher:
    usual = {"name": "t", "provider": provider_of(model), "model": model, "max_tokens": 4096}
    return Teacher(**(usual | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", PUBLISHED)
def test_a_row_has_the_published_price_and_end(model: str) -> None:
    listed = price_list.listed(provider_of(model), model)
    assert listed is not None
    price = listed.price
    ends = listed.ends.isoformat() if listed.ends else None
    assert (price.input, price.output, price.batch_input, price.batch_output, price.max_output, ends) == PUBLISHED[
        model
    ]


def test_no_name_stands_for_two_rows_and_each_says_where_it_is_from() -> None:
    names = [(row.provider, name) for row in price_list.MODELS for name in (row.model, *row.aliases)]
    assert len(names) == len(set(names))
    assert {row.provider for row in price_list.MODELS} <= set(providers.names())
    assert all(row.source and row.as_of <= date(2026, 11, 21) for row in price_list.MODELS)


@pytest.mark.parametrize("listed", price_list.MODELS, ids=lambda listed: listed.model)
def test_a_model_that_ends_has_a_substitute_that_lives_on_its_last_day_and_today(
    listed: price_list.ListedModel,
) -> None:
    if listed.ends is None:
        assert listed.substitute is None
        return
    for day in (listed.ends, max(TODAY, listed.ends)):
        living = price_list.substitute(listed, day)
        assert living is not None
        found = price_list.listed(listed.provider, living)
        assert found is not None
        assert not found.retired(day)


def test_a_retired_model_is_refused_with_the_day_and_a_living_one_that_is_not_taken_instead() -> None:
    with pytest.raises(ValueError, match="gpt-4-0125-preview was shut down on 2026-03-26") as refused:
        price_list.price(row("gpt-4-0125-preview"), TODAY)
    assert str(refused.value) == (
        "'t': gpt-4-0125-preview was shut down on 2026-03-26; a row with 'gpt-4o-2024-08-06' asks a living model "
        "(nothing is substituted by itself)"
    )


def test_a_model_is_served_until_the_day_before_its_end() -> None:
    mini = row("gpt-4o-mini-2024-07-18")
    last = date(2027, 1, 13)
    assert price_list.price(mini, last) == Price(
        input=0.15, output=0.6, batch_input=0.075, batch_output=0.3, max_output=16384
    )
    with pytest.raises(ValueError, match=r"shut down on 2027-01-14; a row with 'gpt-5.4-mini-2026-03-17'"):
        price_list.price(mini, last + timedelta(days=1))


def test_an_alias_ends_with_its_model() -> None:
    with pytest.raises(ValueError, match="'t': gpt-4 was shut down on 2026-10-23"):
        price_list.price(row("gpt-4"), TODAY)


def test_a_price_in_the_row_does_not_bring_a_retired_model_back() -> None:
    with pytest.raises(ValueError, match="was shut down"):
        price_list.price(row("gpt-4", price=Price(input=1, output=1, max_output=10)), TODAY)


def test_a_price_in_the_row_goes_before_the_list() -> None:
    own = Price(input=1, output=2, max_output=10)
    assert price_list.price(row("gpt-4o-mini", price=own), TODAY) == own
    assert price_list.price(row("something-new", price=own), TODAY) == own
    assert price_list.last_price(row("gpt-4", price=own)) == own


def test_an_unknown_model_is_refused_with_both_remedies() -> None:
    with pytest.raises(ValueError, match="does not know openai's 'gpt-17'") as refused:
        price_list.price(row("gpt-17"), TODAY)
    assert "nift_assets/costs/price_list.py" in str(refused.value)
    assert "price=Price(" in str(refused.value)


@pytest.mark.parametrize("provider", IN_PROCESS)
def test_what_answers_in_this_process_is_free(provider: str) -> None:
    assert price_list.price(row("m", provider=provider), TODAY) is None


def test_ones_own_server_is_free_even_under_a_retired_models_name() -> None:
    assert price_list.price(row("gpt-4", base_url="http://localhost:8000/v1"), TODAY) is None
    own = Price(input=1, output=2, max_output=10)
    assert price_list.price(row("gpt-4", base_url="https://gpu.example/v1", price=own), TODAY) == own


@pytest.mark.parametrize("server", ["https://openrouter.ai/api/v1", "https://api.openai.com/v1"])
def test_a_server_that_wants_a_key_is_not_free_unless_its_row_says_so(server: str) -> None:
    theirs = row("gpt-4o", base_url=server, key_variable="THEIR_API_KEY")
    assert not price_list.is_free(theirs)
    assert price_list.last_price(theirs) is None  # the list says what the provider's own server asks
    with pytest.raises(ValueError, match="not known, and it is asked with a key; add price=Price"):
        price_list.price(theirs, TODAY)
    nothing = Price(input=0, output=0, max_output=10)
    assert price_list.price(dataclasses.replace(theirs, price=nothing), TODAY) == nothing


@pytest.mark.parametrize(
    ("server", "variable"), [("http://127.0.0.1:8000/v1", "THEIR_API_KEY"), ("https://gpu.example/v1", None)]
)
def test_a_server_on_this_machine_or_without_a_key_is_free(server: str, variable: str | None) -> None:
    assert price_list.is_free(row("m", base_url=server, key_variable=variable))


def test_a_provider_has_a_server_or_answers_in_this_process() -> None:
    assert {name for name in providers.names() if providers.load(name).IN_PROCESS} == set(IN_PROCESS)


@pytest.mark.parametrize(("days", "warned"), [(0, False), (1, True), (90, True), (91, False)])
def test_a_model_that_ends_within_90_days_is_warned_of(days: int, warned: bool) -> None:
    mini = row("gpt-4o-mini-2024-07-18")
    said = price_list.ending_soon(mini, date(2027, 1, 14) - timedelta(days=days))
    assert (said is not None) == warned
    if said:
        assert "2027-01-14" in said
        assert f"{days} days" in said


@pytest.mark.parametrize("study", ["paper", "today"])
def test_everyone_a_study_pays_is_on_the_list(study: str) -> None:
    loaded = studies.load(study)
    for asked in (*loaded.teachers, *loaded.judges):
        assert price_list.is_free(asked) or price_list.last_price(asked) is not None


def test_the_study_of_today_names_living_models_only() -> None:
    for asked in (*studies.load("today").teachers, *studies.load("today").judges):
        price_list.price(asked, TODAY)


def test_a_temperature_is_sent_to_no_listed_model_that_refuses_it() -> None:
    judge = Judge(name="j", provider="openai", model="gpt-5.4-2026-03-05", supports_temperature=False)
    assert "temperature" not in providers.request(judge, "text").parameters


def test_the_cap_is_the_studys_unless_the_environment_sets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    study = dataclasses.replace(studies.load("demo"), budget_usd=3.5)
    monkeypatch.delenv("NIFT_BUDGET_USD", raising=False)
    assert price_list.budget(study) == 3.5
    for given, dollars in (("12.50", 12.5), (" 7 ", 7.0), ("0", 0.0), ("", 3.5)):
        monkeypatch.setenv("NIFT_BUDGET_USD", given)
        assert price_list.budget(study) == dollars
    monkeypatch.delenv("NIFT_BUDGET_USD")
    assert price_list.budget(studies.load("demo")) is None


@pytest.mark.parametrize("given", ["ten", "$10", "-1", "nan", "inf", "1,000"])
def test_a_cap_that_is_no_amount_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIFT_BUDGET_USD", given)
    with pytest.raises(ValueError, match=r"NIFT_BUDGET_USD is .*; give the most the study may cost in US dollars"):
        price_list.budget(studies.load("demo"))
