"""Keys: where they are read from, what is said when there is none, and which processes never see them."""

import os
import sys
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.processes import Processes
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
    }
    ordinary = {"TOKENIZERS_PARALLELISM": "false", "NIFT_STUDY": "demo", "MONKEY": "banana", "EMPTY_KEY": ""}
    for name, value in (secrets | ordinary).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(file))
    monkeypatch.setenv("ABSENT_KEY_FILE", str(tmp_path / "absent"))
    assert keys.known_keys() == {*secrets.values(), "from-a-file"}
    file.write_text("another-key-in-the-file\n")
    assert keys.known_keys() == {*secrets.values(), "another-key-in-the-file"}


def test_an_environment_without_keys_still_fetches_models() -> None:
    kept = {"HF_TOKEN": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ACCESS_KEY_ID": "c", "PATH": "/bin"}
    dropped = {"OPENAI_API_KEY": "d", "ANTHROPIC_API_KEY_FILE": "e", "SOMEBODY_API_KEY": "f"}
    assert keys.without_keys(kept | dropped) == kept


def test_a_training_process_never_sees_a_teachers_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in its environment nor in its arguments, under the resource that starts every process of training."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("HF_TOKEN", "hf_canary0123456789abcdef")
    seen = tmp_path / "seen"
    code = f"""
import os, pathlib
own = [pathlib.Path("/proc/self", name) for name in ("environ", "cmdline")]
read = [path.read_bytes() for path in own if path.exists()]
pathlib.Path({str(seen)!r}).write_text(repr([dict(os.environ), *read]))
"""

    @dg.asset
    def weights(context: dg.AssetExecutionContext, pipes: dg.ResourceParam[Processes]) -> dg.MaterializeResult:
        return pipes.run(command=[sys.executable, "-c", code], context=context).get_materialize_result()

    assert dg.materialize([weights], resources={"pipes": Processes()}).success
    text = seen.read_text()
    assert "canary0123456789abcdef" in text
    assert KEY not in text
    assert str(tmp_path / "key") not in text
    assert os.environ["OPENAI_API_KEY"] == KEY
