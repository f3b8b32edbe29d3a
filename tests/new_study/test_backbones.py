"""A model of one's own as a backbone: what is found in its folder, and that it is known by what is in it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from nift_assets import graph
from nift_assets.benchmarks import ifeval
from nift_assets.new_study import backbone
from nift_assets.rows import Backbone, without_places
from nift_assets.steps.lineage import Partition
from nift_assets.store import Store
from nift_assets.studies.demo import STUDY
from nift_assets.study import Study
from nift_training import artifacts, fetch
from tests.conftest import nift_here
from tests.studies.test_data_alone import bare

LLAMA_3 = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def weights(folder: Path, value: float) -> None:
    """Sixteen parameters as safetensors."""
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"weight": np.full((4, 4), value, dtype=np.float32)}, folder / "model.safetensors")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as save_pretrained leaves one, with a training run's rests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    weights(folder, 0.0)
    for rest in ("trainer_state.json", "optimizer.pt", "training_args.bin"):
        (folder / rest).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("template", "ours", "says"),
    [
        (LLAMA_3, "llama-3", "is ours called llama-3"),
        (MISTRAL, "mistral", "is ours called mistral"),
        (f"{MISTRAL}!", "mistral", "resembles mistral"),
        (CHATML, "zephyr", "none of ours"),
        ("{% for %}", "zephyr", "none of ours"),
        (None, "zephyr", "no chat template: a base model"),
    ],
)
def test_a_tokenizers_own_template_is_told_by_what_it_renders(
    template: str | None, ours: str, says: str, folder: Path
) -> None:
    if template:
        (folder / "chat_template.jinja").write_text(template)
    found = backbone.look(str(folder))
    assert (found.template, found.licence, found.architecture) == (ours, "mit", "LlamaForCausalLM")
    assert says in found.own_template


def study_on(source: str) -> Study:
    return dataclasses.replace(bare(), backbones=(Backbone(name="mine", source=source, template="zephyr"),))


def version(source: str, store: Store) -> str:
    return graph.build(study_on(source)).inputs_version(store, Partition("backbones", "mine"))


def test_a_folder_is_known_by_what_is_in_it_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "warehouse"), "bare")
    first = version(str(folder), store)
    assert version(str(shutil.move(folder, tmp_path / "moved")), store) == first
    assert version(str(folder), store) == first  # gone from there, and what was made of it is not stale
    moved = tmp_path / "moved"
    (moved / "optimizer.pt").write_text("another run's")
    assert version(str(moved), store) == first
    weights(moved, 1.0)
    assert version(str(moved), store) != first
    with pytest.raises(ValueError, match="absent is no folder: name a model's folder"):
        version(str(tmp_path / "absent"), store)


def test_no_table_or_page_knows_where_the_folder_lies(folder: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "warehouse"), "bare")
    study = dataclasses.replace(study_on(str(folder)), corpus=STUDY.corpus)
    built = graph.build(study)
    for name, step in built.tables.items():
        for key in built.keys(name):
            assert str(tmp_path) not in json.dumps(step.rows(key, name), default=repr), name
    assert study.without_places().backbone("mine").source == without_places(study.backbone("mine")).source == "./mine"
    assert str(store.folder()) not in built.inputs_version(store, Partition("backbones", "mine"))


def test_what_a_model_is_loaded_from_is_copied_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    fetch.main(["--folder", str(folder), "--out", str(tmp_path / "copy")])
    manifest = artifacts.verify(tmp_path / "copy")
    names = [file.name for file in manifest.files]
    assert names == ["README.md", "config.json", "model.safetensors", "tokenizer_config.json"]
    assert manifest.facts["source"] == "./mine"
    assert manifest.facts["revision"] == fetch.content_digest(folder)
    assert manifest.facts["parameters"] == 16
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="has no safetensors weights"):
        fetch.copy(folder, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_a_new_study_names_the_benchmarks_whose_files_are_missing_before_anything_is_trained(
    folder: Path, tmp_path: Path
) -> None:
    articles, place, file = tmp_path / "articles", tmp_path / "benchmarks" / "ifeval", tmp_path / "mine.py"
    articles.mkdir()
    (articles / "one.txt").write_text("The ferry left the harbour late, and the harbour was empty. " * 30)
    place.mkdir(parents=True)
    environment = os.environ | {"NIFT_WAREHOUSE": str(tmp_path / "warehouse"), "NIFT_BENCHMARKS": str(place.parent)}
    command = ("new", "mine", "--corpus", str(articles), "--teacher", "original", "--backbone", str(folder), "--force")
    command = (*command, "--benchmarks", "ifeval", "--out", str(file))
    fetching = "The benchmarks' files:      nift benchmarks --only ifeval"
    training = f"Train and measure:          NIFT_STUDY={file} nift run benchmark_scores"
    assert nift_here(*command, environment=environment).stdout.splitlines()[-2:] == [fetching, training]
    for published in ifeval.PUBLISHED:
        (place / published.path).write_text("{}")
    said = nift_here(*command, environment=environment).stdout.splitlines()
    assert (said[-1], fetching in said) == (training, False)


def test_a_folder_with_a_revision_is_refused(folder: Path) -> None:
    row = Backbone(name="mine", source=str(folder), revision="main", template="zephyr")
    with pytest.raises(ValueError, match="a folder is known by what is in it; leave the revision out"):
        dataclasses.replace(bare(), backbones=(row,))
