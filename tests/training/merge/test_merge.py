import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts
from nift_training.disk import check_room
from nift_training.merge import recomputation, run, streaming
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.hub.server import Hub
from tests.training.conftest import write_tiny_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.eval()(input_ids=torch.arange(3, 40)[None]).logits


def load(path: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, **options)


def copy_adapter(adapter: Path, out: Path, **settings: object) -> Path:
    """The adapter as a download would bring it, without a manifest, with some settings changed."""
    shutil.copytree(adapter, out)
    (out / artifacts.MANIFEST).unlink()
    config = json.loads((out / "adapter_config.json").read_text())
    (out / "adapter_config.json").write_text(json.dumps(config | settings))
    return out


@pytest.mark.fault("M7")
def test_merged_logits_are_those_of_base_and_adapter(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    manifest = run.merge(tiny, adapter, tmp_path / "merged")
    beside = logits(PeftModel.from_pretrained(load(tiny), adapter))
    merged = logits(load(tmp_path / "merged"))
    assert torch.allclose(merged, beside, atol=1e-5)
    assert not torch.allclose(merged, logits(load(tiny)), atol=1e-2)
    assert manifest.facts["tensors_changed"] == 2 * 7
    assert manifest.facts["adapter_base_name"] == "tiny-base"


def test_in_float32_the_weights_are_bit_for_bit_those_of_peft(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    run.merge(tiny, adapter, tmp_path / "merged")
    ours = load(tmp_path / "merged").state_dict()
    theirs = PeftModel.from_pretrained(load(tiny), adapter).merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_bfloat16_shards_keep_names_dtype_and_index(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    base = tmp_path / "base"
    load(tiny, dtype=torch.bfloat16).save_pretrained(base, max_shard_size="20KB")
    (base / "pytorch_model.bin").write_bytes(b"the unmerged weights")
    run.merge(base, copy_adapter(adapter, tmp_path / "copy"), tmp_path / "merged")
    assert (tmp_path / "merged" / run.INDEX).read_bytes() == (base / run.INDEX).read_bytes()
    shards = sorted(file.name for file in base.glob("*.safetensors"))
    assert sorted(file.name for file in (tmp_path / "merged").glob("*.safetensors")) == shards
    assert len(shards) > 1
    assert not (tmp_path / "merged" / "pytorch_model.bin").exists()
    merged = load(tmp_path / "merged", dtype="auto")
    assert merged.dtype == torch.bfloat16
    beside = logits(PeftModel.from_pretrained(load(base, dtype=torch.float32), adapter))
    assert torch.allclose(logits(merged.float()), beside, rtol=2e-2, atol=0.2)


def test_tokenizer_generation_and_chat_are_carried_over_byte_for_byte(
    tiny: Path, adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny, tmp_path / "base")
    (base / "generation_config.json").write_text('{"temperature": 0.6,  "eos_token_id": [1, 2]}')
    (base / "chat_template.jinja").write_text("{{ messages[0].content }}\r\n")
    (base / "LICENSE").write_bytes(b"CC0-1.0")
    (base / "README.md").write_text("the base's own card")
    run.merge(base, adapter, tmp_path / "merged")
    carried = {file.name for file in base.iterdir()} - {run.SINGLE, "README.md"}
    assert {"tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja", "LICENSE"} <= carried
    for name in carried:
        assert (tmp_path / "merged" / name).read_bytes() == (base / name).read_bytes()
    assert (tmp_path / "merged" / run.BASE_CARD).read_text() == "the base's own card"


def test_an_adapter_goes_into_a_sibling_of_its_base(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    sibling = write_tiny_model(tmp_path / "sibling", seed=1)
    run.merge(sibling, adapter, tmp_path / "merged", sibling_of="tiny-base")
    facts = artifacts.verify(tmp_path / "merged").facts
    assert facts["base_digest"] is None
    assert (facts["relation"], facts["added_tokens"]) == ("a sibling of tiny-base", 0)
    assert "a sibling of tiny-base" in (tmp_path / "merged" / "README.md").read_text()


def test_an_adapter_of_other_shapes_is_refused_before_any_write(adapter: Path, tmp_path: Path) -> None:
    wider = write_tiny_model(tmp_path / "wider", seed=0, hidden=32)
    with pytest.raises(ValueError, match=r"do not fit model\.layers\.0"):
        run.merge(wider, adapter, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["wider"]


def test_an_adapter_key_without_a_partner_is_refused_by_name(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = copy_adapter(adapter, tmp_path / "copy")
    file = copy / "adapter_model.safetensors"
    save_file({name.replace("layers.1", "layers.7"): tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ValueError, match=r"layers\.7.*matches no tensor"):
        run.merge(tiny, copy, tmp_path / "merged")
    save_file({name: tensor for name, tensor in load_file(file).items() if "lora_A" in name}, file)
    with pytest.raises(ValueError, match="without a lora_A/lora_B pair"):
        run.merge(tiny, copy, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    "setting",
    [
        {"use_dora": True},
        {"use_qalora": True},
        {"a_setting_of_tomorrow": 1},
        {"init_lora_weights": "pissa"},
        {"bias": "all"},
        {"peft_type": "IA3"},
    ],
    ids=str,
)
def test_more_than_a_plain_lora_is_refused_by_name(
    tiny: Path, adapter: Path, tmp_path: Path, setting: dict[str, object]
) -> None:
    copy = copy_adapter(adapter, tmp_path / "copy", **setting)
    with pytest.raises(ValueError, match=next(iter(setting))):
        run.merge(tiny, copy, tmp_path / "merged")


@pytest.mark.fault("M4")
def test_weights_that_are_not_finite_are_refused_and_leave_nothing(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = copy_adapter(adapter, tmp_path / "copy")
    file = copy / "adapter_model.safetensors"
    save_file({name: tensor * float("inf") for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ValueError, match="not finite"):
        run.merge(tiny, copy, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_an_injured_adapter_is_refused(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors differs"):
        run.merge(tiny, tmp_path / "copy", tmp_path / "merged")


def a_family(name: str) -> Any:
    """A tiny model of random weights: a Llama, one with tied embeddings, or a GPT-2, whose layers are turned around."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=64, **sizes, tie_word_embeddings=name == "tied")  # type: ignore[arg-type]
    return LlamaForCausalLM(config)


TARGETS: dict[str, dict[str, Any]] = {
    "attention": {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]},
    "all layers, patterns and rslora": {
        "llama": "all-linear",
        "gpt2": "all-linear",
        "settings": {
            "use_rslora": True,
            "rank_pattern": {"layers.1.mlp.up_proj": 5, "h.1.mlp.c_fc": 5},
            "alpha_pattern": {"q_proj": 3, "c_proj": 3},
        },
    },
    "embeddings": {"llama": ["embed_tokens", "o_proj"], "gpt2": ["c_proj"], "untied": True},
    "a head that is saved whole": {
        "llama": ["k_proj"],
        "gpt2": ["c_fc"],
        "settings": {"modules_to_save": ["lm_head"]},
        "untied": True,
    },
}


def write_adapter(model: Any, out: Path, targets: Any, **settings: Any) -> Path:
    """A peft adapter of random matrices, as peft itself saves it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=targets, **settings)
    adapted = get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(out, save_embedding_layers=False)
    return out


@pytest.mark.fault("M7")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("family", ["llama", "tied", "gpt2"])
def test_every_family_and_target_merges_as_peft_does(family: str, target: str, dtype: str, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    wanted = TARGETS[target]
    if wanted.get("untied") and family != "llama":
        pytest.skip("changes what this family ties; refused in another test")
    base = tmp_path / "base"
    a_family(family).to(getattr(torch, dtype)).save_pretrained(base, max_shard_size="10KB")
    adapter = write_adapter(
        load(base, dtype=torch.float32),
        tmp_path / "adapter",
        wanted["gpt2" if family == "gpt2" else "llama"],
        **wanted.get("settings", {}),
    )
    run.merge(base, adapter, tmp_path / "merged")
    ours = load(tmp_path / "merged", dtype="auto")
    theirs = PeftModel.from_pretrained(load(base, dtype="auto"), adapter).merge_and_unload()
    # peft's default adds float32 to the base's type and rounds once, as we do; `safe_merge` rounds the product first.
    same = {name: torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items()}
    if target == "embeddings" and dtype == "bfloat16":
        # peft loads the matrices of an embedding in the base's type, and those of every other layer in float32.
        assert not same.pop("model.embed_tokens.weight")
    assert all(same.values()), [name for name, equal in same.items() if not equal]
    assert recomputation.check_logits(base, adapter, tmp_path / "merged") <= (1e-5 if dtype == "float32" else 2e-2)


def test_modules_that_a_file_calls_by_shorter_names_are_found(tmp_path: Path) -> None:
    """GPT-2's own file on the Hub has `h.0.attn…` for what the model, and so the adapter, calls `transformer.h.0…`."""
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    a_family("gpt2").save_pretrained(base)
    tensors = load_file(base / run.SINGLE)
    short = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    assert short.keys() != tensors.keys()
    save_file(short, base / run.SINGLE, metadata={"format": "pt"})
    adapter = write_adapter(load(base), tmp_path / "adapter", "all-linear", fan_in_fan_out=True)
    assert run.merge(base, adapter, tmp_path / "merged").facts["tensors_changed"] == 2 * 4
    assert load_file(tmp_path / "merged" / run.SINGLE).keys() == short.keys()
    assert recomputation.check_logits(base, adapter, tmp_path / "merged") <= 1e-5


def test_what_is_tied_is_not_changed_from_one_end(tmp_path: Path) -> None:
    a_family("tied").save_pretrained(tmp_path / "base")
    adapter = write_adapter(load(tmp_path / "base"), tmp_path / "adapter", ["embed_tokens"])
    with pytest.raises(ValueError, match=r"embed_tokens\.weight, which the base ties"):
        run.merge(tmp_path / "base", adapter, tmp_path / "merged")


@pytest.mark.fault("M5")
def test_five_mismatches_are_refused_before_any_write(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=1)  # as a base whose revision has moved
    wider = write_tiny_model(tmp_path / "wider", seed=0, hidden=32)
    cut = shutil.copytree(tiny, tmp_path / "cut")
    tokenizer = json.loads((cut / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (cut / "tokenizer.json").write_text(json.dumps(tokenizer))
    ranked = copy_adapter(adapter, tmp_path / "ranked", r=3)
    stretched = shutil.copytree(tiny, tmp_path / "stretched")
    config = json.loads((stretched / "config.json").read_text())
    (stretched / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    before = sorted(path.name for path in tmp_path.iterdir())
    for base, what, sibling_of, words in [
        (other, adapter, None, "has another weights"),
        (wider, adapter, None, "do not fit"),
        (cut, adapter, None, "has another tokenizer"),
        (cut, adapter, "tiny-base", "no sibling of tiny-base: it has another tokenizer"),
        (stretched, adapter, None, "has another config"),
        (tiny, ranked, None, "do not belong together"),
        (other, adapter, "some-other-base", "was trained on 'tiny-base'"),
    ]:
        with pytest.raises(ValueError, match=words):
            run.merge(base, what, tmp_path / "merged", sibling_of=sibling_of)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_sibling_may_have_special_tokens_of_its_own(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    sibling = shutil.copytree(tiny, tmp_path / "sibling")
    tokenizer = AutoTokenizer.from_pretrained(sibling)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|one|>", "<|two|>"]})
    tokenizer.save_pretrained(sibling)
    model = load(sibling)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(sibling)
    facts = run.merge(sibling, adapter, tmp_path / "merged", sibling_of="tiny-base").facts
    assert facts["added_tokens"] == 2


def in_shards(tiny: Path, out: Path) -> Path:
    """The tiny model in seven shards, with a manifest as `fetch` writes one."""
    with artifacts.folder(out, "model") as draft:
        shutil.copytree(tiny, draft.path, dirs_exist_ok=True)
        (draft.path / run.SINGLE).unlink()
        load(tiny).save_pretrained(draft.path, max_shard_size="10KB")
    return out


def test_a_flipped_byte_of_a_base_with_a_manifest_is_caught(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    plain = copy_adapter(adapter, tmp_path / "adapter")
    for injured in ("model-00002", "tokenizer.json"):
        base = in_shards(tiny, tmp_path / injured)
        file = next(base.glob(f"{injured}*"))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{injured}.*differs"):
            run.merge(base, plain, tmp_path / "merged")
    assert not [path for path in tmp_path.iterdir() if "merged" in path.name]


@pytest.mark.fault("X7")
@pytest.mark.parametrize("name", ["../up.safetensors", "/etc/up.safetensors", "a/b.safetensors", ".x.safetensors", ""])
def test_an_index_names_files_of_its_folder_only(tiny: Path, adapter: Path, tmp_path: Path, name: str) -> None:
    base = in_shards(tiny, tmp_path / "base")
    index = json.loads((base / run.INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = name
    (base / run.INDEX).write_text(json.dumps(index))
    (base / artifacts.MANIFEST).unlink()
    with pytest.raises(ValueError, match="no plain file name"):
        run.merge(base, copy_adapter(adapter, tmp_path / "adapter"), tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


@pytest.mark.fault("X6")
def test_links_out_of_the_folder_and_code_of_its_own_are_refused(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("not for publication")
    linked = shutil.copytree(tiny, tmp_path / "linked")
    (linked / "LICENSE").symlink_to(secret)
    with pytest.raises(ValueError, match="leads out of the model's folder"):
        run.merge(linked, adapter, tmp_path / "merged")
    trick = shutil.copytree(tiny, tmp_path / "trick")
    (trick / "bomb.py").write_text("raise SystemExit('executed')")
    content = json.loads((trick / "config.json").read_text())
    code = {"auto_map": {"AutoConfig": "bomb.Config", "AutoModelForCausalLM": "bomb.Bomb"}}
    (trick / "config.json").write_text(json.dumps(content | code | {"model_type": "bomb"}))
    with pytest.raises(ValueError, match=r"config\.json asks for code of its own"):
        run.merge(trick, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_header_that_lies_is_refused(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    content = (tiny / run.SINGLE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    lies = {
        "overlap": {"lm_head.weight": header["lm_head.weight"] | {"data_offsets": [0, 8]}},
        "shape": {"lm_head.weight": header["lm_head.weight"] | {"shape": [1, 1]}},
        "negative": {"lm_head.weight": header["lm_head.weight"] | {"shape": [-1, -1]}},
        "type": {"lm_head.weight": header["lm_head.weight"] | {"dtype": "X"}},
    }
    for name, lie in lies.items():
        base = shutil.copytree(tiny, tmp_path / name)
        text = json.dumps(header | lie).encode()
        (base / run.SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
        with pytest.raises(ValueError, match="download it again"):
            run.merge(base, adapter, tmp_path / "merged")
    (base / run.SINGLE).write_bytes((2**62).to_bytes(8, "little") + content[8:])
    with pytest.raises(ValueError, match="download it again"):
        run.merge(base, adapter, tmp_path / "merged")


def test_a_disk_too_small_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs 1000000\.0 GB .* are missing"):
        check_room(tmp_path / "out", 10**15)


def test_what_was_written_is_recomputed_from_its_sources(
    tiny: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_half(weight: Any, left: Any, right: Any, scale: float) -> None:
        weight.add_(0.5 * scale * (left @ right))

    monkeypatch.setattr(streaming, "add_product", add_half)
    with pytest.raises(ValueError, match="not what its sources give"):
        run.merge(tiny, adapter, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def large(out: Path, adapter_out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Shards of 10 to 23 MB and an adapter for them, which take a third of a second to merge."""
    from tests.training.merge import bench as merge_bench

    monkeypatch.setattr(merge_bench, "SHARD_BYTES", 10 * 10**6)
    monkeypatch.setattr(merge_bench, "VOCABULARY", 1000)
    merge_bench.make_base(out, layers=1)
    merge_bench.make_adapter(adapter_out, layers=1)
    return out, adapter_out


@pytest.mark.fault("M6", runs="2 kills; slow: 10")
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_looks_unfinished_and_goes_on(
    kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    """M6: SIGKILL from outside at a moment drawn at random; each run goes on where the killed one before it was."""
    base, adapter = large(tmp_path / "base", tmp_path / "adapter", monkeypatch)
    undisturbed = run.merge(base, adapter, tmp_path / "undisturbed")
    draw = random.Random(kills)
    partial, out = tmp_path / ".merged.partial", tmp_path / "merged"
    killed = kept = 0
    while killed < kills:
        running = os.fork()  # everything is imported in it, and imports are no moments of a merge
        if not running:
            run.merge(base, adapter, out)
            os._exit(0)
        time.sleep(draw.uniform(0, undisturbed.facts["seconds"]))
        os.kill(running, signal.SIGKILL)
        _, status = os.waitpid(running, 0)
        killed += os.WIFSIGNALED(status)
        if out.exists():
            assert artifacts.verify(out).files == undisturbed.files
            shutil.rmtree(out)
        elif partial.exists():
            with pytest.raises(ValueError, match="incomplete"):
                artifacts.read_manifest(partial)
            journal = partial / artifacts.JOURNAL
            kept += journal.exists() and journal.read_text().count("\n") > 1
    assert run.merge(base, adapter, out).files == undisturbed.files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "merged", "undisturbed"]
    counts("M6", f"{killed} kills, {kept} runs left finished shards, no folder that looks whole, equal hashes after")


@pytest.mark.fault("S2", runs="merging: a limit on files")
def test_a_full_disk_leaves_nothing_whichever_write_meets_it(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    plain, base = copy_adapter(adapter, tmp_path / "adapter"), in_shards(tiny, tmp_path / "base")
    run.merge(base, plain, tmp_path / "whole")
    sizes = sorted({file.stat().st_size for file in (tmp_path / "whole").iterdir()})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = sorted(path.name for path in tmp_path.iterdir())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for size in [0, *(size - 1 for size in sizes)]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(OSError, match="too large") as full:
                run.merge(base, plain, tmp_path / "merged")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert full.value.errno == errno.EFBIG
        assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert run.merge(base, plain, tmp_path / "merged").digest == artifacts.verify(tmp_path / "whole").digest


def failing(write: Any, full: int) -> Any:
    """The same function, which finds the disk full when it is called for the n-th time."""
    calls = iter(range(1000))

    def calling(*arguments: Any, **options: Any) -> Any:
        if next(calls) == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*arguments, **options)

    return calling


@pytest.mark.fault("M6", "S1", runs="merging: every write and flush")
def test_a_disk_that_fills_up_at_any_write_leaves_nothing(
    tiny: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    """S1: the n-th write of shards, of texts, of what is carried over, or the n-th flush finds the disk full."""
    plain, base = copy_adapter(adapter, tmp_path / "adapter"), in_shards(tiny, tmp_path / "base")
    whole = run.merge(base, plain, tmp_path / "whole")
    before = sorted(path.name for path in tmp_path.iterdir())
    refused = 0
    for owner, name in [(os, "pwrite"), (os, "fsync"), (Path, "write_text"), (shutil, "copyfile")]:
        for full in range(1000):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, failing(getattr(owner, name), full))
                try:
                    made = run.merge(base, plain, tmp_path / "merged")
                except OSError:
                    refused += 1
                    made = None
            # The last flush, of the name itself, is behind the rename: what stands then is whole.
            if (tmp_path / "merged").exists():
                assert artifacts.verify(tmp_path / "merged").digest == whole.digest
                shutil.rmtree(tmp_path / "merged")
            assert sorted(path.name for path in tmp_path.iterdir()) == before
            if made:
                break
    counts("S1", f"merging: {refused} writes and flushes found the disk full, nothing half-written")


@pytest.mark.fault("S1", runs="merging: 16 sizes of a tmpfs")
@pytest.mark.slow
def test_a_small_disk_leaves_nothing_whatever_it_has_room_for(
    tiny: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counts
) -> None:
    """S1: a file system in memory of 16 sizes up to twice the merge's bytes (it gives whole pages), never asked for its
    room."""
    plain, base = copy_adapter(adapter, tmp_path / "adapter"), in_shards(tiny, tmp_path / "base")
    whole = run.merge(base, plain, tmp_path / "whole")
    needed = sum(file.stat().st_size for file in (tmp_path / "whole").iterdir())
    small = tmp_path / "small"
    small.mkdir()
    monkeypatch.setattr(run, "_check_room", lambda job, out: None)
    refusals = []
    for part in range(1, 17):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={needed * part // 8}", "tmpfs", str(small)]
        if subprocess.run(mount, stderr=subprocess.DEVNULL).returncode:
            pytest.skip("only root may mount a file system")
        try:
            run.merge(base, plain, small / "merged")
        except OSError as refusal:
            refusals.append(refusal.errno)
            assert list(small.iterdir()) == []
        else:
            assert artifacts.verify(small / "merged").digest == whole.digest
        finally:
            subprocess.run(["umount", str(small)], check=True)
    assert set(refusals) == {errno.ENOSPC}
    assert 8 <= len(refusals) < 16
    counts("S1", f"merging: {len(refusals)} disks too small, nothing left on them")


@pytest.mark.slow
def test_a_base_of_the_hub_is_merged_into_from_the_hubs_own_cache(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in tiny.iterdir()}
    plain = copy_adapter(adapter, tmp_path / "adapter")
    command = [sys.executable, "-m", "nift_training.merge", "--base", "nobody/tiny", "--revision", "v1"]
    command += ["--adapter", str(plain), "--out", str(tmp_path / "merged"), "--sibling-of", "tiny-base"]
    with Hub() as hub:
        hub.hold("nobody/tiny", files, kind="model", commit=COMMIT).tags["v1"] = COMMIT
        own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
        subprocess.run(command, check=True, cwd=PROJECT, env=os.environ | own)
    facts = artifacts.verify(tmp_path / "merged").facts
    assert (facts["base"], facts["base_revision"]) == ("nobody/tiny", COMMIT)
    there = tmp_path / "there"
    run.merge(tiny, plain, there, sibling_of="tiny-base")
    assert (there / run.SINGLE).read_bytes() == (tmp_path / "merged" / run.SINGLE).read_bytes()


@pytest.mark.fault("M6")
@pytest.mark.parametrize("injury", ["missing", "truncated", "a tensor in two files"])
def test_an_index_that_does_not_fit_its_shards_is_refused(
    tiny: Path, adapter: Path, tmp_path: Path, injury: str
) -> None:
    """M6: three injuries of a base from elsewhere, which has no manifest."""
    base = in_shards(tiny, tmp_path / "base")
    (base / artifacts.MANIFEST).unlink()
    first, second, *_ = sorted(base.glob("model-*"))
    if injury == "missing":
        second.unlink()
    elif injury == "truncated":
        second.write_bytes(second.read_bytes()[:-8])
    else:
        second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=r"download (it|the model) again"):
        run.merge(base, copy_adapter(adapter, tmp_path / "adapter"), tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


def test_two_processes_do_not_write_one_model(tmp_path: Path) -> None:
    with (
        artifacts.resumed_folder(tmp_path / "out", "model", "job"),
        pytest.raises(ValueError, match="another process is writing"),
        artifacts.resumed_folder(tmp_path / "out", "model", "job"),
    ):
        pass
