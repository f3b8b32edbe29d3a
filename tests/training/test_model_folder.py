"""A folder, an adapter and a text mean here what transformers and peft take them for, or they are refused in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts, backbone, model_folder, transformers_internals
from nift_training.evaluate import generation
from nift_training.merge import recomputation, run
from nift_training.recipe import Recipe
from nift_training.train import lora
from nift_training.train import run as train_run
from tests.training.conftest import RECIPE
from tests.training.families import pairs, peft_adapter, write

Models = Callable[..., Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """A copy of a tiny model of a family, each made once."""
    made: dict[str, Path] = {}

    def model(out: Path, kind: str = "llama", **changes: Any) -> Path:
        key = f"{kind} {changes}"
        if key not in made:
            made[key] = write(tmp_path_factory.mktemp(kind) / "model", kind, **changes)
        return shutil.copytree(made[key], out)

    return model


@pytest.fixture(scope="module")
def plain_adapter(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """peft's adapter on the query projections of the tiny Llama."""
    folder = tmp_path_factory.mktemp("plain")
    adapter = peft_adapter(models(folder / "base"), folder / "adapter", ["q_proj"])
    edit(adapter / "adapter_config.json", base_model_name_or_path="org/base")
    return adapter


def edit(file: Path, *, without: str = "", **changes: object) -> None:
    content = json.loads(file.read_text())
    content.pop(without, None)
    file.write_text(json.dumps(content | changes))


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(3, 20)[None]).logits


def load(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype="float32")


def merges_right(base: Path, adapter: Path, out: Path) -> None:
    """Merged, and to what peft makes of base and adapter together."""
    run.merge(base, adapter, out)
    assert recomputation.check_logits(base, adapter, out) <= 1e-5


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_an_adapter_on_an_embedding_or_head_is_merged_as_peft_saves_it(
    models: Models, tmp_path: Path, module: str
) -> None:
    base = models(tmp_path / "base")
    adapter = peft_adapter(base, tmp_path / "adapter", ["q_proj", module])
    from safetensors.torch import load_file

    assert any(".base_layer." in name for name in load_file(adapter / "adapter_model.safetensors"))
    merges_right(base, adapter, tmp_path / "merged")


def test_an_embedding_that_an_adapter_brings_is_laid_over_as_peft_does_but_not_over_a_siblings(
    models: Models, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = models(tmp_path / "base")
    adapter = peft_adapter(base, tmp_path / "adapter", ["q_proj", "lm_head"])
    file = adapter / "adapter_model.safetensors"
    changed = {n: t * 2 if ".base_layer." in n else t for n, t in load_file(file).items()}
    save_file(changed, file)
    merges_right(base, adapter, tmp_path / "merged")
    edit(adapter / "adapter_config.json", base_model_name_or_path="org/base")
    with pytest.raises(ValueError, match="save_embedding_layers=False"):
        run.merge(base, adapter, tmp_path / "sibling", sibling_of="org/base")


BESIDE = "base_model.model.model.layers.0.self_attn."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: {n.removeprefix("base_model.model."): t for n, t in tensors.items()}, "without 'base_model"),
        (lambda tensors: tensors | {f"{BESIDE}q_proj.weight": tensors["other"]}, "called otherwise"),
        (lambda tensors: tensors | {f"{BESIDE}o_proj.base_layer.weight": tensors["other"]}, "called otherwise"),
    ],
)
def test_a_tensor_that_peft_would_leave_out_for_its_name_is_refused(
    models: Models, plain_adapter: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    adapter = shutil.copytree(plain_adapter, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    changed = change(load_file(file) | {"other": torch.full((16, 16), 0.2)})
    save_file({name: tensor.clone() for name, tensor in changed.items() if name != "other"}, file)
    with pytest.raises(ValueError, match=words):
        run.merge(models(tmp_path / "base"), adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_modules_to_save_are_those_whose_names_end_so(models: Models, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    base = models(tmp_path / "base")
    adapter = peft_adapter(base, tmp_path / "adapter", ["q_proj"], modules_to_save=["mlp", "head"])
    merges_right(base, adapter, tmp_path / "merged")
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor for name, tensor in load_file(file).items() if "layers.1.mlp.up" not in name}, file)
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight, which its modules_to_save name"):
        run.merge(base, adapter, tmp_path / "again")


def test_what_is_tied_is_said_by_the_class_and_not_by_a_key(models: Models, tmp_path: Path) -> None:
    base = models(tmp_path / "base", "gemma")
    edit(base / "config.json", without="tie_word_embeddings")
    adapter = peft_adapter(base, tmp_path / "adapter", ["embed_tokens"], save={"save_embedding_layers": False})
    with pytest.raises(ValueError, match="which the base ties"):
        run.merge(base, adapter, tmp_path / "merged")


def test_how_a_layer_keeps_its_weight_is_said_by_its_class(models: Models, plain_adapter: Path, tmp_path: Path) -> None:
    adapter = shutil.copytree(plain_adapter, tmp_path / "adapter")
    edit(adapter / "adapter_config.json", fan_in_fan_out=True)
    merges_right(models(tmp_path / "base"), adapter, tmp_path / "merged")


def test_what_a_configuration_leaves_out_is_what_peft_takes(
    models: Models, plain_adapter: Path, tmp_path: Path
) -> None:
    adapter = shutil.copytree(plain_adapter, tmp_path / "adapter")
    said = {"peft_type": "LORA", "base_model_name_or_path": "base", "target_modules": ["q_proj"], "r": 4}
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    merges_right(models(tmp_path / "base"), adapter, tmp_path / "merged")


@pytest.mark.parametrize(
    ("named", "words"),
    [(["q_proj", "v_proj"], r"nothing for model\.layers\.0\.self_attn\.v_proj and 1 more"), (["v_proj"], "leaves it")],
)
def test_layers_that_peft_would_make_up_or_leave_out_are_refused(
    models: Models, plain_adapter: Path, tmp_path: Path, named: list[str], words: str
) -> None:
    adapter = shutil.copytree(plain_adapter, tmp_path / "adapter")
    edit(adapter / "adapter_config.json", target_modules=named)
    with pytest.raises(ValueError, match=words):
        run.merge(models(tmp_path / "base"), adapter, tmp_path / "merged")


@pytest.mark.parametrize("choice", ["all-linear", "All-Linear", None])
def test_where_the_choice_of_layers_is_left_to_peft_its_own_counts(
    models: Models, plain_adapter: Path, tmp_path: Path, choice: str | None
) -> None:
    base = models(tmp_path / "base")
    whole = peft_adapter(base, tmp_path / "whole", choice)
    edit(whole / "adapter_config.json", target_modules=choice, base_model_name_or_path="org/base")
    merges_right(base, whole, tmp_path / "merged")
    missing, surplus = (shutil.copytree(plain_adapter, tmp_path / name) for name in ("missing", "surplus"))
    edit(missing / "adapter_config.json", target_modules=choice)
    with pytest.raises(ValueError, match=r"nothing for model\.layers\.0"):
        run.merge(base, missing, tmp_path / "out")
    shutil.rmtree(surplus)
    peft_adapter(base, surplus, ["q_proj", "v_proj", "lm_head"], save={"save_embedding_layers": False})
    edit(surplus / "adapter_config.json", target_modules=choice, base_model_name_or_path="org/base")
    with pytest.raises(ValueError, match="which its target_modules do not name"):
        run.merge(base, surplus, tmp_path / "out")


def test_layers_that_peft_knows_none_of_are_asked_for(models: Models, tmp_path: Path) -> None:
    base = models(tmp_path / "base", "olmo2")
    adapter = peft_adapter(base, tmp_path / "adapter", ["q_proj"])
    edit(adapter / "adapter_config.json", target_modules=None, base_model_name_or_path="org/base")
    with pytest.raises(ValueError, match="peft, which knows none for Olmo2ForCausalLM"):
        run.merge(base, adapter, tmp_path / "out")


def test_an_adapter_that_may_hold_code_is_named_as_one(plain_adapter: Path, models: Models, tmp_path: Path) -> None:
    adapter = shutil.copytree(plain_adapter, tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model\.bin may hold code"):
        run.merge(models(tmp_path / "base"), adapter, tmp_path / "merged")


def test_a_path_of_another_machine_says_nothing_about_the_base(
    models: Models, plain_adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = shutil.copytree(plain_adapter, tmp_path / "adapter")
    with artifacts.folder(tmp_path / "base", "model") as draft:
        shutil.copytree(models(tmp_path / "plain"), draft.path, dirs_exist_ok=True)
        draft.facts.update(source="org/some-model", revision="0" * 40)
    edit(adapter / "adapter_config.json", base_model_name_or_path="/home/somebody/models/some-model")
    merges_right(tmp_path / "base", adapter, tmp_path / "merged")
    assert "records of its base only the name" in capsys.readouterr().err
    edit(adapter / "adapter_config.json", base_model_name_or_path="org/another")
    with pytest.raises(ValueError, match="trained on 'org/another'"):
        run.merge(tmp_path / "base", adapter, tmp_path / "again")


def test_an_index_may_list_the_end_of_a_tie_that_no_file_holds(models: Models, tmp_path: Path) -> None:
    base = models(tmp_path / "base", tie_word_embeddings=True, shards="8KB")
    index = json.loads((base / run.INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = max(index["weight_map"].values())
    (base / run.INDEX).write_text(json.dumps(index))
    merges_right(base, peft_adapter(base, tmp_path / "adapter", ["q_proj"]), tmp_path / "merged")


def test_tensors_that_no_index_lists_are_loaded_by_transformers_and_merged(
    models: Models, plain_adapter: Path, tmp_path: Path
) -> None:
    base = models(tmp_path / "base", shards="8KB")
    index = json.loads((base / run.INDEX).read_text())
    del index["weight_map"]["model.layers.1.self_attn.q_proj.weight"]
    (base / run.INDEX).write_text(json.dumps(index))
    merges_right(base, plain_adapter, tmp_path / "merged")


def test_code_beside_an_architecture_that_transformers_has_is_not_asked_for(
    models: Models, plain_adapter: Path, tmp_path: Path
) -> None:
    base = models(tmp_path / "base")
    (base / "modeling_own.py").write_text("raise SystemExit('executed')")
    edit(base / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    merges_right(base, plain_adapter, tmp_path / "merged")
    assert not (tmp_path / "merged" / "modeling_own.py").exists()


READERS: dict[str, Callable[[Path, Path, Path], object]] = {
    "train": lambda base, adapter, out: train_run.train(base, "b", pairs(out / "pairs.jsonl"), RECIPE, out / "a", 1),
    "merge": lambda base, adapter, out: run.merge(base, adapter, out / "merged"),
    "evaluate": lambda base, adapter, out: generation.load(base),
}


def stale_beside_an_index(base: Path) -> None:
    (base / "model-00001-of-00001.safetensors").write_bytes((base / run.SINGLE).read_bytes())
    places = json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00001.safetensors"}})
    (base / run.INDEX).write_text(places)


def with_an_adapter(base: Path) -> None:
    (base / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def without_a_tensor(base: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(base / run.SINGLE)
    del tensors["model.norm.weight"]
    save_file(tensors, base / run.SINGLE, metadata={"format": "pt"})


def of_another_size(base: Path) -> None:
    edit(base / "config.json", intermediate_size=32)


def with_a_kernel(base: Path) -> None:
    edit(base / "config.json", attn_implementation="somebody/attention")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("injury", "words"),
    [
        (with_a_kernel, "asks for the kernel somebody/attention"),
        (stale_beside_an_index, "lists other files"),
        (with_an_adapter, "also holds an adapter"),
        (without_a_tensor, r"lacks model\.norm\.weight"),
        (of_another_size, r"by its config\.json it is"),
    ],
)
def test_a_folder_that_is_not_what_it_looks_is_refused_by_all_that_read_one(
    models: Models, plain_adapter: Path, tmp_path: Path, injury: Callable[[Path], None], words: str, reader: str
) -> None:
    base, out = models(tmp_path / "base"), tmp_path / "out"
    out.mkdir()
    injury(base)
    with pytest.raises(ValueError, match=words):
        READERS[reader](base, plain_adapter, out)
    assert not [file for file in out.rglob("*") if file.name != "pairs.jsonl"]


@pytest.mark.parametrize("reader", ["train", "merge"])
def test_a_quantised_base_is_named_as_one(models: Models, plain_adapter: Path, tmp_path: Path, reader: str) -> None:
    base = models(tmp_path / "base")
    edit(base / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ValueError, match=r"is quantized \(gptq\)"):
        READERS[reader](base, plain_adapter, tmp_path)


def test_what_is_carried_into_a_merged_folder_belongs_to_the_model(
    models: Models, plain_adapter: Path, tmp_path: Path
) -> None:
    base = models(tmp_path / "base")
    leftovers = ["trainer_state.json", "training_args.json", "notes.txt", "checkpoint-10/config.json", "all.json"]
    for name in leftovers:
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("{}")
    (base / "merges.txt").write_text("#version")
    run.merge(base, plain_adapter, tmp_path / "merged")
    carried = {file.relative_to(tmp_path / "merged").as_posix() for file in (tmp_path / "merged").rglob("*")}
    own = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "merges.txt"}
    assert carried == own | {run.SINGLE, "README.md", artifacts.MANIFEST}


def test_the_files_of_tokenizers_are_carried(models: Models, tmp_path: Path) -> None:
    import transformers

    kinds = ("Llama", "GPT2", "Gemma", "Qwen2", "T5", "Bert")
    named = [getattr(transformers, f"{kind}Tokenizer").vocab_files_names for kind in kinds]
    files = {file for names in named for file in names.values()}
    assert {"tokenizer.json", "merges.txt"} <= files
    folder = models(tmp_path / "base")
    for name in files:
        (folder / name).touch()
    assert files <= {name for _, name in model_folder.companions(model_folder.read(folder))}


@pytest.fixture(scope="module")
def said(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, str]]:
    """A family trained for two steps: its manifest and what was printed, or the reason why not."""
    folder = tmp_path_factory.mktemp("trained")
    data = pairs(folder / "pairs.jsonl")

    def train(kind: str) -> tuple[Any, str]:
        base = models(folder / kind / "base", kind)
        return train_run.train(base, kind, data, RECIPE, folder / kind / "adapter", threads=1), str(folder / kind)

    return train


def test_of_a_model_that_sees_the_text_part_is_trained_and_merged(
    said: Callable[[str], tuple[Any, str]], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    _, folder = said("gemma3")
    names = load_file(Path(folder, "adapter", "adapter_model.safetensors")).keys()
    assert names
    assert not any("vision" in name for name in names)
    merges_right(Path(folder, "base"), Path(folder, "adapter"), tmp_path / "merged")


def test_a_model_with_attention_of_its_own_is_trained(said: Callable[[str], tuple[Any, str]]) -> None:
    manifest, _ = said("falcon")
    assert manifest.facts["layout"] == "padded"


@pytest.mark.parametrize(
    ("kind", "without"),
    [
        ("mixtral", "experts.down_proj, experts.gate_up_proj, gate.weight ("),
        # Of its dense layers and shared experts peft takes the names for those of experts.
        (
            "glm4_moe",
            "down_proj.weight, experts.down_proj, experts.gate_up_proj, gate.weight, gate_proj.weight, up_proj",
        ),
    ],
)
def test_experts_get_no_adapter_and_it_is_said_and_the_rest_is_merged(
    said: Callable[[str], tuple[Any, str]], capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str, without: str
) -> None:
    _, folder = said(kind)
    assert without in capsys.readouterr().err
    config = json.loads(Path(folder, "adapter", "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert not config["target_parameters"]
    merges_right(Path(folder, "base"), Path(folder, "adapter"), tmp_path / "merged")


def test_a_model_that_writes_over_what_a_layer_gives_is_trained(
    said: Callable[[str], tuple[Any, str]], tmp_path: Path
) -> None:
    _, folder = said("llama4_text")
    merges_right(Path(folder, "base"), Path(folder, "adapter"), tmp_path / "merged")


def test_a_model_that_peft_adapts_in_part_alone_is_refused(said: Callable[[str], tuple[Any, str]]) -> None:
    with pytest.raises(ValueError, match=r"peft puts no adapter on MambaForCausalLM .*out_proj.*: take another model"):
        said("mamba")


def test_a_model_that_transformers_cannot_run_is_refused(said: Callable[[str], tuple[Any, str]]) -> None:
    with pytest.raises(ValueError, match="transformers cannot run this CodeGenForCausalLM"):
        said("codegen")


def test_an_adapter_on_the_experts_of_older_files_is_merged_into_them(models: Models, tmp_path: Path) -> None:
    """As transformers 4 has named them, and the file still does."""
    import torch
    from safetensors.torch import load_file, save_file

    base = models(tmp_path / "base", "mixtral")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    weight = load_file(base / run.SINGLE)["model.layers.0.block_sparse_moe.experts.1.w1.weight"]
    name = "base_model.model.model.layers.0.block_sparse_moe.experts.1.w1.lora_{}.weight"
    down, up = torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4)
    save_file({name.format("A"): down, name.format("B"): up}, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["w1"], "base_model_name_or_path": "b"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    run.merge(base, adapter, tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / run.SINGLE)["model.layers.0.block_sparse_moe.experts.1.w1.weight"]
    assert torch.allclose(merged, weight + 2 * up @ down, atol=1e-5)


def test_a_model_without_linear_layers_is_refused_with_what_it_has(said: Callable[[str], tuple[Any, str]]) -> None:
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel has no linear layers \(nn\.Linear\).*but Conv1D:"):
        said("gpt2")


def test_a_router_that_is_made_of_a_linear_layer_gets_no_adapter(
    said: Callable[[str], tuple[Any, str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, folder = said("phimoe")
    assert "experts.gate_up_proj, router.weight (" in capsys.readouterr().err
    config = json.loads(Path(folder, "adapter", "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    merges_right(Path(folder, "base"), Path(folder, "adapter"), tmp_path / "merged")


def test_layers_are_named_one_by_one_where_another_module_is_called_so_as_well() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    class Router(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), x

    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=32, num_attention_heads=2, **small))
    assert lora.targets(model) == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    model.model.layers[1].mlp.up_proj = Router(16, 24)
    named = lora.targets(model)
    assert isinstance(named, list)
    assert "model.layers.0.mlp.up_proj" in named
    assert "model.layers.1.mlp.up_proj" not in named
    assert len(named) == 13


def test_a_model_that_sees_what_it_is_to_learn_is_refused(said: Callable[[str], tuple[Any, str]]) -> None:
    with pytest.raises(ValueError, match="XLNetLMHeadModel looks at what comes after a token"):
        said("xlnet")


@pytest.mark.parametrize("kind", ["hrm_text", "deepseek_v4"])
def test_a_folder_is_read_where_transformers_makes_several_tensors_of_one_or_keeps_a_name(
    models: Models, tmp_path: Path, kind: str
) -> None:
    base = models(tmp_path / "base", kind)
    load(base)
    found = model_folder.weights(model_folder.read(base))
    assert found.names.keys() == {tensor.name for shard in found.shards for tensor in shard.tensors}
    merges_right(base, peft_adapter(base, tmp_path / "adapter", r".*o(_b)?_proj"), tmp_path / "merged")


def test_an_adapter_on_what_files_keep_with_other_weights_is_left_to_peft(
    models: Models, tmp_path: Path, said: Callable[[str], tuple[Any, str]]
) -> None:
    with pytest.raises(ValueError, match=r"HrmTextForCausalLM has .*_proj, which its files keep otherwise"):
        said("hrm_text")
    base = models(tmp_path / "base", "hrm_text")
    adapter = peft_adapter(base, tmp_path / "adapter", ["gate_proj", "up_proj"])
    with pytest.raises(ValueError, match="keep otherwise than the model: merge it with peft itself"):
        run.merge(base, adapter, tmp_path / "merged")


def test_data_that_the_model_has_no_vectors_for_is_refused_before_the_first_step(
    models: Models, tmp_path: Path
) -> None:
    base = models(tmp_path / "base")
    tokenizer = backbone.read(base).tokenizer
    tokenizer.add_tokens(["<|new|>"])
    tokenizer.save_pretrained(base)
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a <|new|>", "response": "b"}\n')
    with pytest.raises(ValueError, match=r"row 2 of .*data\.jsonl has the token '<\|new\|>'"):
        train_run.train(base, "b", data, RECIPE, tmp_path / "out", 1)
    learned = models(tmp_path / "opt", "opt", max_position_embeddings=16)
    with pytest.raises(ValueError, match="and the model 16 positions: lower the cutoff"):
        train_run.train(learned, "b", pairs(tmp_path / "pairs.jsonl"), RECIPE, tmp_path / "out", 1)


def test_half_precision_is_checked_in_its_own_where_there_is_no_room_for_float32(
    models: Models, plain_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    plain = models(tmp_path / "plain")
    half = shutil.copytree(plain, tmp_path / "half")
    load(plain).to(torch.bfloat16).save_pretrained(half)
    size = (half / run.SINGLE).stat().st_size
    monkeypatch.setattr(recomputation, "available_bytes", lambda device: 2 * size)
    facts = run.merge(half, plain_adapter, tmp_path / "merged", logits="if-it-fits").facts
    assert 0 < facts["logits_difference"] <= recomputation.HALF_TOLERANCE
    monkeypatch.setattr(recomputation, "available_bytes", lambda device: size)
    assert "logits_difference" not in run.merge(half, plain_adapter, tmp_path / "none", logits="if-it-fits").facts


def test_an_adapter_is_the_same_whether_attention_is_chosen_at_loading(models: Models, tmp_path: Path) -> None:
    import torch

    def attention(kind: str) -> str:
        found = model_folder.weights(model_folder.read(models(tmp_path / kind, kind)))
        model = backbone.weights(found, Recipe(precision="float32"), torch.device("cpu"))
        return str(model.config._attn_implementation)

    assert attention("llama") == "nift_packed"
    assert not attention("falcon").startswith("nift")


def test_a_model_with_attention_sinks_keeps_its_own_attention() -> None:
    """torch's fused function drops them, and with it trained another model than transformers loads."""
    import transformers

    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    sinks = transformers.GptOssConfig(vocab_size=32, **sizes, num_key_value_heads=1, num_local_experts=2)
    plain = transformers.LlamaConfig(vocab_size=32, **sizes, num_key_value_heads=1)
    assert not transformers_internals.takes_attention(transformers.GptOssForCausalLM(sinks))
    assert transformers_internals.takes_attention(transformers.LlamaForCausalLM(plain))
