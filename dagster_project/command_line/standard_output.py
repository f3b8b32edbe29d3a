"""The standard output that a command writes to, and what becomes of a command that cannot write to it any more."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

import click


class OutputLost(Exception):
    """What was printed went nowhere. No OSError, which commands take for a file of theirs."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the standard output cannot be written to ({error.strerror or error}); it is not complete")
        self.is_closed = error.errno == errno.EPIPE


class _Output(TextIOWrapper):
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise OutputLost(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise OutputLost(error) from None


@contextmanager
def checked() -> Iterator[None]:
    """While a command runs: a pipe that nobody reads ends it without a word, a full disk with one line."""
    _fill_descriptors()
    before, output = sys.stdout, None
    if isinstance(before, TextIOWrapper):
        before.flush()
        sys.stdout = output = _Output(
            before.buffer, before.encoding, before.errors, None, before.line_buffering, before.write_through
        )
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputLost as lost:
        # What is still in the buffer is written as the process ends, which must not fail a second time.
        os.dup2(os.open(os.devnull, os.O_WRONLY), before.fileno())
        if not lost.is_closed:
            click.echo(f"error: {lost}", err=True)
        sys.exit(1)
    finally:
        if output is not None:
            output.detach()
            sys.stdout = before


def _fill_descriptors() -> None:
    """Opens what the caller has closed of input, output and error, or a table's file would come to stand there."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(opened)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8")
