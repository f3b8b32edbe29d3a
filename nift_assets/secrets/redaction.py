"""Taking keys out of whatever is written: log lines, error messages, headers, response bodies."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from nift_assets.secrets import keys

REDACTED = "[redacted]"
SECRET_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "set-cookie",
        "openai-organization",
        "openai-project",
        "anthropic-organization-id",
    }
)


def _shape(prefix: str, body: str) -> re.Pattern[str]:
    """A key that begins with a prefix at the beginning of a word: "sk-…", but not "task-…".

    In an escaped text the letter before it may be the last of a URL's %3D or of an escaped character. The prefix stands
    first in the pattern, and what is before it is looked at afterwards: so the search is for a plain text, and fast.
    """
    escapes = (r"%[0-9A-Fa-f]{2}", r"\\x[0-9A-Fa-f]{2}", r"\\u[0-9A-Fa-f]{4}", r"\\[abfnrtv]")
    before = "|".join([f"(?<![A-Za-z0-9]{prefix})", *(f"(?<={escape}{prefix})" for escape in escapes)])
    return re.compile(f"{prefix}(?:{before}){body}")


SHAPES = (
    (_shape("sk-", "[A-Za-z0-9_-]{16,}"), REDACTED),
    (_shape("hf_", "[A-Za-z0-9]{16,}"), REDACTED),
    (_shape("AKIA", "[A-Z0-9]{16}"), REDACTED),
    (_shape("ASIA", "[A-Z0-9]{16}"), REDACTED),
    # With a digit, as any real token has, so that "bearer responsibilities" stays.
    (re.compile(r"([Bb]earer\s+)(?=[A-Za-z._~+/=-]*[0-9])[A-Za-z0-9._~+/=-]{16,}"), rf"\g<1>{REDACTED}"),
    # The password in the address of a database or a proxy.
    (re.compile(r"(://[^\s/:@?#,&\[\]\"']*:)[^\s/?#,&\[\]\"']+(?=@)"), rf"\g<1>{REDACTED}"),
)


def redact(text: str) -> str:
    """The text with every known key, and everything that has the shape of one, replaced by `[redacted]`."""
    for key in _forms(frozenset(keys.known_keys())):
        if key in text:
            text = text.replace(key, REDACTED)
    for shape, replacement in SHAPES:
        text = shape.sub(replacement, text)
    return text


def safe(error: BaseException) -> str:
    """What an error says, on one line and without keys; the name of its class if it says nothing."""
    return " ".join(redact(str(error)).split()) or type(error).__name__


class RedactionFilter(logging.Filter):
    """A filter that keeps every record and takes the keys out of it, `extra` fields included."""

    def filter(self, record: logging.LogRecord) -> bool:
        _redact_record(record)
        return True


def install() -> None:
    """Has every log record of this process redacted as it is made, before any handler of any library sees it.

    The fields of `extra` are added to a record after that, so the root logger's handlers are given a
    `RedactionFilter` too. Calling this again changes nothing but the handlers that have been added since.
    """
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Factory):
        logging.setLogRecordFactory(_Factory(make))
    for handler in logging.getLogger().handlers:
        if not any(isinstance(present, RedactionFilter) for present in handler.filters):
            handler.addFilter(RedactionFilter())


class _Factory:
    """What makes a log record: what made it before, and then no key is left in it."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._make(*args, **kwargs)
        _redact_record(record)
        return record


# What every record has is looked at by name; anything else on it came from `extra`.
STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime"}


def _redact_record(record: logging.LogRecord) -> None:
    _redact_message(record)
    if record.exc_info and record.exc_info[1] is not None:
        text = "".join(traceback.format_exception(record.exc_info[1])).rstrip("\n")
        if (redacted := redact(text)) != text:
            # A formatter prints the text it finds; without `exc_info` none can make another from the exception.
            record.exc_text, record.exc_info = redacted, None
    if record.exc_text:
        record.exc_text = redact(record.exc_text)
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
    for name, value in vars(record).items():
        if name not in STANDARD and isinstance(value, (str, bytes, dict, list, tuple, BaseException)):
            text = value if isinstance(value, str) else str(value)
            if (redacted := redact(text)) != text:
                setattr(record, name, redacted)


def _redact_message(record: logging.LogRecord) -> None:
    """Redacts the arguments one by one; a message that still tells a key becomes a plain text without arguments.

    Some formatters, that of the web server for one, read the arguments, so these are kept wherever they can be.
    """
    if isinstance(record.args, tuple):
        record.args = tuple(redact(value) if isinstance(value, str) else value for value in record.args)
    elif isinstance(record.args, dict):
        record.args = {name: redact(value) if isinstance(value, str) else value for name, value in record.args.items()}
    try:
        message = record.getMessage()
    except Exception:  # the arguments do not fit: logging will say so itself, and print both
        message = f"{record.msg} {record.args}"
    if (redacted := redact(message)) != message:
        record.msg, record.args = redacted, ()


@lru_cache(maxsize=8)
def _forms(secrets: frozenset[str]) -> tuple[str, ...]:
    """Each secret as it is, and as it stands in a URL or in JSON; the longest first, one may be part of another."""
    forms = {
        form
        for secret in secrets
        if len(secret) >= keys.LEAST_CHARACTERS
        for form in (secret, _quoted(secret, safe="/"), _quoted(secret, safe=""), json.dumps(secret)[1:-1])
    }
    return tuple(sorted(forms, key=len, reverse=True))


def _quoted(secret: str, safe: str) -> str:
    return quote(secret, safe=safe, errors="surrogateescape")


class SecretSnapshot:
    """The keys of this process as they are now, to be found fast in thousands of responses."""

    def __init__(self, *more: str) -> None:
        secrets = frozenset(keys.known_keys() | {key for key in more if key})
        self._forms = tuple(form.encode(errors="surrogateescape") for form in _forms(secrets))

    def body(self, body: bytes) -> bytes:
        """A response's body without these keys; every other byte, whatever it looks like, stays.

        A body is what was paid for and may be about anything, a text that quotes something like a key included.
        """
        for form in self._forms:
            if form in body:
                body = body.replace(form, REDACTED.encode())
        return body

    def headers(self, headers: Mapping[str, str]) -> str:
        """The headers as JSON, without the values of those that say who asks and without these keys."""
        redacted = {name: REDACTED if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}
        return self.body(json.dumps(redacted).encode()).decode()
