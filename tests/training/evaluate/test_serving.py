"""Answers through a server that speaks like vLLM: a real HTTP server, its text from a real tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nift_training.evaluate import __main__ as evaluate
from nift_training.evaluate import conversations, generation, serving
from nift_training.evaluate.serving import ModelServer
from tests.training.vllm import Vllm


def test_a_server_gives_the_answers_the_weights_give(vllm: Vllm, tiny: Path) -> None:
    questions = [
        conversations.BenchmarkQuestion(id=n, temperature=0.0, turns=(f"What is {n}?", "Why?")) for n in range(3)
    ]
    options: dict[str, Any] = {"runs": 1, "max_new_tokens": 8, "seed": 0}
    vllm.busy = 2
    server = ModelServer(url=vllm.url, model="base", first_wait=0.01)
    through = generation.served(tiny, server)
    rows = conversations.answers(through, conversations.MT_BENCH, "zephyr", questions, **options)
    assert rows == conversations.answers(generation.load(tiny), conversations.MT_BENCH, "zephyr", questions, **options)
    assert len(vllm.asked) == 6
    assert {body["model"] for body in vllm.asked} == {"base"}


def test_a_server_is_asked_to_lay_the_adapter_over_its_base(vllm: Vllm, adapter: Path) -> None:
    with pytest.raises(ValueError, match="does not serve 'tuned' but base"):
        serving.connect(ModelServer(url=vllm.url, model="tuned"))
    serving.connect(ModelServer(url=vllm.url, model="tuned"), adapter)
    assert vllm.loaded == {"tuned": str(adapter)}


def test_evaluate_answers_through_the_server(vllm: Vllm, tiny: Path, tmp_path: Path) -> None:
    questions = tmp_path / "question.jsonl"
    questions.write_text(json.dumps({"question_id": 1, "category": "math", "turns": ["1+1?", "Sure?"]}) + "\n")
    named = ["--mt-bench", str(questions), "--mt-bench-tokens", "4", "--server", vllm.url, "--threads", "2"]
    evaluate.main(
        ["--model", str(tiny), "--template", "zephyr", "--out", str(tmp_path / "out"), *named, "--server-model", "base"]
    )
    assert len((tmp_path / "out" / "mt_bench.jsonl").read_text().splitlines()) == 1
    assert len(vllm.asked) == 2


def test_a_key_goes_to_no_other_machine_in_the_clear(vllm: Vllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret-of-the-server")
    with pytest.raises(ValueError, match="in the clear"):
        serving.connect(ModelServer(url="http://gpu.example.org/v1", model="base", key_variable="A_KEY"))
    server = ModelServer(url=vllm.url, model="base", key_variable="A_KEY")
    serving.complete(server, ["a"], max_tokens=2, temperature=0.0, seed=0)
    assert vllm.keys == ["Bearer secret-of-the-server"]
    monkeypatch.delenv("A_KEY")
    with pytest.raises(ValueError, match="export A_KEY"):
        serving.connect(server)


@pytest.mark.parametrize("secret", ["secret of the server", "secret\nof-the-server", "sécret-of-the-server"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(
    secret: str, vllm: Vllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", secret)
    with pytest.raises(ValueError, match="A_KEY holds spaces or characters that no key has") as refused:
        serving.connect(ModelServer(url=vllm.url, model="base", key_variable="A_KEY"))
    assert "of" not in str(refused.value).split()
    with pytest.raises(ValueError, match="a name or a password") as refused:
        serving.connect(ModelServer(url="http://me:canary@localhost:8000/v1", model="base"))
    assert "canary" not in str(refused.value)
    assert vllm.asked == []


def test_what_no_try_can_mend_is_said_at_once(vllm: Vllm) -> None:
    vllm.busy = serving.TRIES
    with pytest.raises(ValueError, match="refuses with 503: loading"):
        serving.complete(
            ModelServer(url=vllm.url, model="base", first_wait=0.001), ["a"], max_tokens=2, temperature=0.0, seed=0
        )
    with pytest.raises(ValueError, match="is no address"):
        serving.connect(ModelServer(url="file:///etc/passwd", model="base"))
