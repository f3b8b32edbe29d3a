"""Templates of task files rendered in a sandbox and within limits: they are somebody else's data, and a text of ten
bytes may ask for ten gigabytes or for ever."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 5.0
MEGABYTES = 500
# Of a number that a template computes. What takes longer than a moment here cannot be interrupted.
MOST_BITS = 100_000
_MEMORY = Path("/proc/self/statm")


class LimitedTemplate(Template):
    """A template that ends with ValueError where it needs more than the limits."""

    source: str = ""

    def render(self, *arguments: Any, **named: Any) -> str:
        with limited(self.source):
            return super().render(*arguments, **named)


class LimitedSandbox(ImmutableSandboxedEnvironment):
    """Renders what a template says of its values and reaches nothing else, neither time nor memory without an end."""

    template_class = LimitedTemplate
    intercepted_binops = frozenset({"*", "**"})

    def from_string(self, source: Any, *arguments: Any, **named: Any) -> Any:
        with limited(str(source)):  # what is constant in it is computed here
            made: Any = super().from_string(source, *arguments, **named)
        made.source = str(source)
        return made

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MOST_BITS:
                raise MemoryError
        return super().call_binop(context, operator, left, right)


@contextmanager
def limited(source: str) -> Iterator[None]:
    """ValueError with the template's beginning for what takes longer, or more memory than there was before."""
    try:
        with _in_time(), _in_memory():
            yield
    except (MemoryError, OverflowError, RecursionError, TimeoutError):
        raise ValueError(
            f"the template {source[:60]!r} of a task needs more than {SECONDS:g} s or {MEGABYTES} MB: mend it or leave "
            "it out"
        ) from None


@contextmanager
def _in_time() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # no other thread can be interrupted
        yield
        return

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _in_memory() -> Iterator[None]:
    if not _MEMORY.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(_MEMORY.read_text().split()[0]) * resource.getpagesize()
    wanted = used + MEGABYTES * 1_000_000
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_AS, (wanted if soft == resource.RLIM_INFINITY else min(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
