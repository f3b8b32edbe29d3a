"""Whether the fields of a study's rows hold what `rows.py` says that they do, told in one line where one does not.

A row is written by hand: a number may have become a text, a tuple a list. Without this it would be found out later,
elsewhere, by somebody who knows nothing of the row.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nift_training import json_objects

# What a number is at least, by the name of its field.
LEAST: Mapping[str, int] = {
    **dict.fromkeys(("documents", "rows", "runs", "threads", "devices", "in_flight", "tokens_per_document"), 1),
    "needs_review": 1,
    **dict.fromkeys(("max_tokens", "max_new_tokens", "max_output", "tokens_at_once"), 1),
    **dict.fromkeys(("input", "output", "batch_input", "batch_output", "budget_usd"), 0),
    **dict.fromkeys(("temperature", "shots", "patience_seconds", "backoff_seconds"), 0),
}
ABOVE_ZERO = ("requests_per_minute", "tokens_per_minute", "seconds_per_request")
# Money is counted in billionths of a dollar and tables hold 63 bits: dearer tokens and more of them would not fit.
MOST = 10**9
MOST_OF: Mapping[str, int] = {
    "seed": 2**63 - 1,
    **dict.fromkeys(("input", "output", "batch_input", "batch_output"), 10**6),
}
CALLED = {str: "a text", bool: "True or False", int: "a whole number", float: "a number", type(None): "None"}


def check(row: Any, who: str, *, inside: bool = True) -> None:
    """ValueError for the first field of a row that holds something else than is declared, and unless told otherwise for
    that of a row `inside` it. A list where a tuple is declared becomes one: it has always been taken."""
    for name, kind in _kinds(row.__class__).items():
        value = _with_tuples(getattr(row, name), kind)
        if value is not getattr(row, name):
            object.__setattr__(row, name, value)
        if not _is(value, kind) or not _is_in_range(name, value):
            raise ValueError(f"{who}: {name} is {_shown(value)}; give {_wanted(name, kind)}")
        if not _is_writable(value):
            raise ValueError(
                f"{who}: {name} is {_shown(value)}, which has characters that no table can hold; leave them out"
            )
        for place, below in enumerate(value if isinstance(value, tuple) else (value,), start=1):
            if inside and is_dataclass(below):
                check(below, f"{who}, {name}" + (f" {place}" if isinstance(value, tuple) else ""))


@cache
def _kinds(row: type) -> dict[str, Any]:
    hints = get_type_hints(row)
    return {field.name: hints[field.name] for field in fields(row)}


def _with_tuples(value: Any, kind: Any) -> Any:
    """The value, a list as a tuple where the declared kind has one."""
    parts = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        kind = next((part for part in parts if get_origin(part) is tuple), None)
        parts = get_args(kind)
    if not isinstance(value, list | tuple) or get_origin(kind) is not tuple:
        return value
    inner = parts[:1] * len(value) if parts[-1:] == (...,) else parts
    if len(inner) != len(value):
        return tuple(value)
    within = tuple(map(_with_tuples, value, inner))
    unchanged = isinstance(value, tuple) and all(one is other for one, other in zip(within, value, strict=True))
    return value if unchanged else within


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a declared kind; True is no number."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is(value, each) for each in parts)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in parts)
    if origin is tuple:
        wanted = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is ... else parts
        return isinstance(value, tuple) and len(value) == len(wanted) and all(map(_is, value, wanted))
    if origin is not None:
        return isinstance(value, origin) and all(isinstance(key, str) for key in value)
    if kind is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return type(value) is kind if kind in CALLED else isinstance(value, kind)


def _is_in_range(name: str, value: Any) -> bool:
    if type(value) not in (int, float):
        return True
    most = MOST_OF.get(name, MOST)
    return LEAST.get(name, -most) <= value <= most and (value > 0 or name not in ABOVE_ZERO)


def _is_writable(value: Any) -> bool:
    """Whether a text is whole characters, and a mapping what JSON can say: by these rows are known."""
    if isinstance(value, str):
        return json_objects.is_text(value) and "\0" not in value
    if isinstance(value, tuple):
        return all(map(_is_writable, value))
    try:
        return not isinstance(value, Mapping) or _is_writable(json.dumps(value, default=asdict, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return False


def _wanted(name: str, kind: Any) -> str:
    """What a field takes, in words."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return ", or ".join(_wanted(name, each) for each in parts)
    if origin is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if origin is tuple:
        each = (
            "texts, such as ('a', 'b')" if parts[0] is str else "numbers" if parts[0] in CALLED else parts[0].__name__
        )
        return f"a tuple of {each}"
    if kind in (int, float):
        least = "above 0" if name in ABOVE_ZERO else f"of at least {LEAST[name]}" if name in LEAST else "of at most"
        return f"{CALLED[kind]} {least}" + ("" if least != "of at most" else f" {MOST_OF.get(name, MOST):,}")
    return CALLED.get(kind) or f"a {getattr(origin or kind, '__name__', kind)}"


def _shown(value: Any) -> str:
    try:
        said = ascii(value) if isinstance(value, str) else repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        said = "a number of thousands of digits"
    return said if len(said) <= 100 else f"{said[:97]}…"
