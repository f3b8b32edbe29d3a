"""Templates of task files that ask for all memory, or for ever, end soon in one line; others are rendered as before."""

from __future__ import annotations

import resource
import time

import jinja2
import pytest

from nift_training.evaluate import lm_eval_internals, template_limits
from nift_training.evaluate.template_limits import LimitedSandbox

BOMBS = (
    "{{ 'a' * 10**10 }}",
    "{{ [0] * 10**10 }}",
    "{{ text * 10**10 }}",
    "{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(99999) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x=9) %}{% for i in range(99999) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'a' | center(10**10) }}",
    "{{ '%10000000000d' | format(1) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ ('a' * 10**5) | replace('a', 'a' * 10**5) }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "SECONDS", 1.0)
    monkeypatch.setattr(template_limits, "MEGABYTES", 100)


@pytest.mark.fault("X14")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_that_would_not_end_or_fit_ends_in_a_line(bomb: str) -> None:
    limits, began = resource.getrlimit(resource.RLIMIT_AS), time.monotonic()
    with pytest.raises(ValueError, match="the template") as refusal:
        LimitedSandbox().from_string(bomb).render(text="a")
    assert time.monotonic() - began < 20
    assert str(refusal.value).endswith(
        f"{bomb[:60]!r} of a task needs more than 1 s or 100 MB: mend it or leave it out"
    )
    assert resource.getrlimit(resource.RLIMIT_AS) == limits
    assert len("a" * 200_000_000) == 200_000_000, "it is a limit of templates alone"


@pytest.mark.parametrize(
    "template",
    [
        "Q: {{question}}\nA:{% for choice in choices %} {{ loop.index }}. {{ choice | trim }}{% endfor %}",
        "{{ 2 * 3 }} {{ 2 ** 10 }} {{ '-' * 3 }}{{ question | upper }}",
        "{{ ['a', 'b'] | join(', ') }}{{ choices | length }}\n",
    ],
)
def test_others_are_rendered_as_they_were(template: str) -> None:
    values = {"question": "why?", "choices": [" one ", "two"]}
    assert LimitedSandbox().from_string(template).render(values) == jinja2.Template(template).render(values)


def test_lm_eval_renders_within_the_limits() -> None:
    pytest.importorskip("lm_eval")
    lm_eval_internals.run_nothing_from_data()
    from lm_eval import utils

    assert utils.apply_template("{{ a }}!", {"a": "yes"}) == "yes!"
    with pytest.raises(ValueError, match="of a task needs more than"):
        utils.apply_template("{{ 'a' * 10**10 }}", {})
