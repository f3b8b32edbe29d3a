"""Tiny real models: a Llama of 20 thousand random weights with a byte-level tokenizer, made once per session."""

from __future__ import annotations

import json
import os
import runpy
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nift_training import pico
from nift_training.evaluate import generation
from nift_training.recipe import Recipe
from nift_training.train import run
from tests.conftest import set_environment
from tests.training.vllm import Vllm, serve

ARTICLES = [
    "The bridge\n\nThe old bridge over the river was closed last night. Nobody was hurt, the mayor said.\n\n"
    "It will open again in spring, when the stones have been looked at one by one.",
    "A garden in winter\n\nWhat grows in a garden in winter? Kale does, and so do leeks.\n\nCover the soil with straw.",
    "Slow trains\n\nHe took the slow train because it stops everywhere.\n\nThe coffee was cold and the view was long.",
    "Bread\n\nFlour, water, salt and time: more of the last and less of the first make a better loaf.",
]
RECIPE = Recipe(
    epochs=2,
    batch_size=4,
    rounds=1,
    mean_rows=None,
    learning_rate=1e-2,
    cutoff=64,
    rank=2,
    alpha=4,
    precision="float32",
)


def verb_here(module: str, *arguments: str) -> int:
    """The exit status of `python -m MODULE ARGUMENTS` without a process of its own, whose imports take seconds."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), set_environment(dict(os.environ)):
        warnings.simplefilter("ignore", RuntimeWarning)  # the module may be imported already
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(bool(end.code))
    return 0


def write_tiny_tokenizer(out: Path) -> Any:
    """pico's tokenizer of the articles, in a folder."""
    tokenizer = pico.train_tokenizer(ARTICLES)
    tokenizer.save_pretrained(out)
    return tokenizer


def write_tiny_model(out: Path, seed: int, hidden: int = 16) -> Path:
    """A model folder as pico writes it, but with random weights and far fewer of them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = write_tiny_tokenizer(out)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # answers differ between questions, yet rounding stays below 1e-5
    )
    LlamaForCausalLM(config).save_pretrained(out)
    return out


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model", seed=0)


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"prompt": text[:60], "response": text[60:]} for text in ARTICLES * 3]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def adapter(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter") / "adapter"
    run.train(tiny, "tiny-base", pairs_file, RECIPE, out, threads=1)
    return out


@pytest.fixture
def vllm(tiny: Path) -> Iterator[Vllm]:
    with serve(generation.load(tiny)) as server:
        yield server


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)
