"""Keys: where they are read from, and what is said when there is none or what is given is none."""

from pathlib import Path

import pytest

from nift_assets.secrets import keys

KEY = "sk-proj-canary0123456789abcdef"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in keys.known_names():
        monkeypatch.delenv(name)


def test_a_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert keys.read("OPENAI_API_KEY") is None
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert keys.read("OPENAI_API_KEY") == KEY
    assert keys.require("OPENAI_API_KEY", "the teacher 'gpt'") == KEY


def test_a_key_is_read_from_the_file_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    assert keys.read("OPENAI_API_KEY") == KEY
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert keys.read("OPENAI_API_KEY") == KEY


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("another")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert keys.read("OPENAI_API_KEY") == KEY


def test_a_missing_key_is_asked_for_by_the_names_it_can_be_given_under() -> None:
    with pytest.raises(
        ValueError, match="the teacher 'gpt' needs an API key: set OPENAI_API_KEY in the environment or"
    ):
        keys.require("OPENAI_API_KEY", "the teacher 'gpt'")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        (b" \n", "is empty"),
        (f"key: {KEY}".encode(), "more than one word"),
        (b"\xff\xfe" + KEY.encode(), "not a text"),
    ],
)
def test_a_file_that_holds_no_key_is_refused_without_saying_what_is_in_it(
    content: bytes | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(ValueError, match=rf"OPENAI_API_KEY_FILE is '.*key', which .*{problem}.*; set") as refused:
        keys.read("OPENAI_API_KEY")
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("sk-1234", "fewer than 8 characters"),
        ("sk-proj-canary\n0123456789", "more than one word"),
        ("sk-proj-canary 0123456789", "more than one word"),
        ("sk-proj-canäry0123456789", "characters that no key has"),
        ("sk-proj-canary\x1b0123456789", "characters that no key has"),
        ("sk-proj-canary\x850123456789", "more than one word"),
    ],
)
@pytest.mark.parametrize("is_file", [False, True])
def test_what_no_header_could_carry_or_no_log_could_hide_is_refused(
    value: str, problem: str, is_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_file:
        (tmp_path / "key").write_text(value)
        monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    else:
        monkeypatch.setenv("OPENAI_API_KEY", value)
    with pytest.raises(ValueError, match=rf"OPENAI_API_KEY(_FILE is '.*key', which)? holds {problem}[;,]") as refused:
        keys.read("OPENAI_API_KEY")
    assert value not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_secrets_of_the_environment_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("from-a-file\n")
    secrets = {
        "OPENAI_API_KEY": "one",
        "HF_TOKEN": "two",
        "AWS_SECRET_ACCESS_KEY": "three",
        "AWS_ACCESS_KEY_ID": "four",
        "CLIENT_SECRET": "five",
        "PGPASSWORD": "six",
        "NIFT_FAILURE_WEBHOOK": "seven",
    }
    ordinary = {"TOKENIZERS_PARALLELISM": "false", "NIFT_STUDY": "demo", "MONKEY": "banana", "EMPTY_KEY": ""}
    for name, value in (secrets | ordinary).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(file))
    monkeypatch.setenv("ABSENT_KEY_FILE", str(tmp_path / "absent"))
    assert keys.known_keys() == {*secrets.values(), "from-a-file"}
    file.write_text("another-key-in-the-file\n")
    assert keys.known_keys() == {*secrets.values(), "another-key-in-the-file"}
