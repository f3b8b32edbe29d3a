"""Redaction: no key of any shape gets through wherever it stands, and a text without one is not touched."""

from __future__ import annotations

import io
import json
import logging
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nift_assets import DEMO_FILES
from nift_assets.secrets import keys, redaction
from nift_assets.secrets.redaction import REDACTED, SecretSnapshot, redact, safe
from tests.conftest import PROJECT

ALPHANUMERIC = string.ascii_letters + string.digits


def letters(alphabet: str, least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=least, max_size=most)


# The five shapes that keys of teachers, of the Hub and of the storage have.
SHAPED = st.one_of(
    letters(ALPHANUMERIC, 32, 48).map("sk-{}".format),
    letters(ALPHANUMERIC + "_-", 40, 160).map("sk-proj-{}".format),
    letters(ALPHANUMERIC + "_-", 40, 100).map("sk-ant-api03-{}".format),
    letters(ALPHANUMERIC, 34, 34).map("hf_{}".format),
    letters(string.ascii_uppercase + string.digits, 16, 16).map("AKIA{}".format),
)
PLACES = {
    "alone": str,
    "in a sentence": "Incorrect API key provided: {}. You can find it at https://platform.example/keys".format,
    "in JSON": lambda key: json.dumps({"error": {"message": f"Bad key\n{key}", "key": key, "é": [f"é{key}"]}}),
    "in JSON in JSON": lambda key: json.dumps(json.dumps({"message": f"\n{key}"})),
    "in a URL": lambda key: "https://host.example/v1?" + urlencode({"key": key, "next": f"x={key}&y"}),
    "in a header": lambda key: f"{{'Authorization': 'Bearer {key}'}}",
    "in the repr of bytes": lambda key: repr(f"\x00\n{key}\r\n".encode()),
    "in a path": "/tmp/{}/log".format,
    "quoted": lambda key: quote(f"'{key}'"),
}


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in keys.known_names():
        monkeypatch.delenv(name)


@pytest.mark.fault("X1")
@pytest.mark.parametrize("place", PLACES)
@given(key=SHAPED)
def test_a_key_of_any_shape_is_found_wherever_it_stands(place: str, key: str) -> None:
    text = PLACES[place](key)
    assert key in text
    redacted = redact(text)
    assert key not in redacted
    assert REDACTED in redacted
    assert redact(redacted) == redacted


@pytest.mark.parametrize("place", PLACES)
def test_a_key_of_no_shape_is_found_because_it_is_known(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "no/shape+at~all=="
    monkeypatch.setenv("SOMEBODY_API_KEY", key)
    redacted = redact(PLACES[place](key))
    assert "shape" not in redacted, redacted
    assert REDACTED in redacted


def test_a_key_in_a_file_is_known_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("opaque-key-of-a-file\n")
    monkeypatch.setenv("SOMEBODY_API_KEY_FILE", str(tmp_path / "key"))
    assert redact("says opaque-key-of-a-file.") == "says [redacted]."


def test_of_two_keys_the_longer_goes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONE_API_KEY", "abcdefgh")
    monkeypatch.setenv("OTHER_API_KEY", "abcdefgh-and-more")
    assert redact("abcdefgh-and-more, abcdefgh") == "[redacted], [redacted]"


@given(text=st.text(max_size=300))
def test_a_text_without_keys_is_not_touched(text: str) -> None:
    assert redact(text) == text
    assert SecretSnapshot().body(text.encode(errors="surrogatepass")) == text.encode(errors="surrogatepass")


@pytest.mark.parametrize(
    "text",
    [
        "a sk-ate board",
        "the task-force-for-very-important-matters",
        "risk-assessment-in-practice-2024",
        "hf_hub_download(repo_id)",
        "AKIAKI",
        "the bearer responsibilities of 2024",
        "Bearer of bad news",
        "see https://host.example:8080/a?mail=somebody@host.example",
        "sqlite:////warehouse/ledger.sqlite",
        "postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
        "it costs 5%, or%20so",
    ],
)
def test_what_only_looks_a_little_like_a_key_stays(text: str) -> None:
    assert redact(text) == text


def test_every_bundled_article_stays_as_it_is() -> None:
    articles = list((DEMO_FILES / "articles").glob("*.txt"))
    assert articles
    assert [path.name for path in articles if redact(path.read_text()) != path.read_text()] == []


def test_the_password_of_an_address_goes() -> None:
    assert redact("postgresql+psycopg://nift:p@ss@db/nift") == "postgresql+psycopg://nift:[redacted]@db/nift"


def test_a_body_loses_the_keys_of_this_process_and_keeps_every_other_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, anybodys = "sk-proj-ours0123456789abcdef", "sk-proj-anybodys0123456789abcdef"
    monkeypatch.setenv("OPENAI_API_KEY", ours)
    body = b'\xff\x00{"text": "' + f"{anybodys} {ours}".encode() + b'\xe9"}\r\n'
    assert SecretSnapshot().body(body) == body.replace(ours.encode(), REDACTED.encode())


def test_headers_that_say_who_asks_are_redacted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-proj-canary0123456789abcdef")
    headers = {
        "Authorization": "Basic dXNlcjpwYXNz",
        "X-Api-Key": "anything",
        "Set-Cookie": "session=1",
        "OpenAI-Organization": "org-1",
        "X-Echo": "sk-proj-canary0123456789abcdef",
        "Retry-After": "3",
    }
    assert json.loads(SecretSnapshot().headers(headers)) == dict.fromkeys(headers, REDACTED) | {"Retry-After": "3"}


@given(key=SHAPED)
def test_an_error_is_told_on_one_line_without_keys(key: str) -> None:
    assert safe(ValueError(f"401 from host:\n  {key} is\tnot valid")) == "401 from host: [redacted] is not valid"
    assert key not in safe(RuntimeError({"headers": {"authorization": key}}, [key]))
    assert safe(TimeoutError()) == "TimeoutError"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What a handler that knows nothing of redaction writes, on a logger of its own, after `install`."""
    before = logging.getLogRecordFactory()
    filters = {handler: list(handler.filters) for handler in logging.getLogger().handlers}
    redaction.install()
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger = logging.getLogger("somebody.else")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield output
    logger.removeHandler(handler)
    logging.setLogRecordFactory(before)
    for known, kept in filters.items():
        known.filters[:] = kept


KEY = "sk-ant-api03-canary0123456789abcdef"
LOG = logging.getLogger("somebody.else")


def fail() -> None:
    try:
        raise KeyError(KEY)
    except KeyError as cause:
        error = RuntimeError("the request failed", {"authorization": KEY})
        error.add_note(f"sent with {KEY}")
        raise ExceptionGroup("several", [error, OSError(KEY)]) from cause


@pytest.mark.fault("X1")
def test_whatever_a_library_logs_is_redacted_before_a_handler_sees_it(logged: io.StringIO) -> None:
    LOG.info("plain %s", "text")
    LOG.info(KEY)
    LOG.info("template with " + KEY + " and %s", "an argument")
    LOG.info("argument %s and %d", KEY, 5)
    LOG.info("named %(key)s", {"key": KEY})
    LOG.info("object %s", {"headers": [KEY]})
    LOG.info("exception %r", ValueError(KEY))
    LOG.info(ValueError(KEY))
    LOG.info("database %s", "postgresql://nift:secret-word@db/nift")
    LOG.info("database postgresql://nift:%s@db/nift", "secret-word")
    LOG.info("in the stack", stack_info=True)
    try:
        fail()
    except ExceptionGroup:
        LOG.exception("it failed")
    written = logged.getvalue()
    assert "canary" not in written
    assert "secret-word" not in written
    assert "INFO plain text\n" in written
    assert f"INFO argument {REDACTED} and 5\n" in written
    assert "Traceback (most recent call last)" in written
    assert f"KeyError: '{REDACTED}'" in written
    assert f"sent with {REDACTED}" in written


def test_a_record_keeps_its_arguments_and_its_exception_for_formatters_that_read_them(logged: io.StringIO) -> None:
    make = logging.getLogRecordFactory()
    error = ValueError("nothing secret")
    record = make("a", logging.INFO, "f", 1, "%s %s", ("GET", f"/?key={KEY}"), (ValueError, error, None))
    assert record.args == ("GET", f"/?key={REDACTED}")
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert record.exc_text is None


@pytest.mark.parametrize(
    ("template", "arguments"),
    [("two %s %s", ({"key": KEY},)), ("one %d", (KEY,)), ("two %s %s", ([KEY],)), ("none", (ValueError(KEY),))],
)
def test_arguments_that_do_not_fit_are_redacted_since_logging_prints_them(
    template: str, arguments: tuple[object, ...], logged: io.StringIO
) -> None:
    record = logging.getLogRecordFactory()("a", logging.INFO, "f", 1, template, arguments, None)
    assert "canary" not in f"{record.msg!r} {record.args!r}"


def test_a_filter_redacts_the_fields_a_caller_adds(logged: io.StringIO) -> None:
    record = LOG.makeRecord("a", logging.INFO, "f", 1, "text", (), None, extra={"sent": KEY, "more": {"k": [KEY]}})
    assert redaction.RedactionFilter().filter(record) is True
    assert "canary" not in str(vars(record))


def test_installing_twice_redacts_once(logged: io.StringIO) -> None:
    make = logging.getLogRecordFactory()
    redaction.install()
    assert logging.getLogRecordFactory() is make
    for handler in logging.getLogger().handlers:
        assert sum(isinstance(there, redaction.RedactionFilter) for there in handler.filters) == 1


def test_a_process_that_loads_the_code_location_logs_no_key() -> None:
    script = f"import logging, dagster_project.definitions; logging.getLogger('any').error('%s', {KEY!r})"
    logs = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert logs.stderr.splitlines()[-1] == REDACTED
