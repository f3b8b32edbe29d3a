import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts, merge

from .conftest import write_tiny_model


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


def test_merged_logits_are_those_of_base_and_adapter(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    manifest = merge.merge(tiny, adapter, tmp_path / "merged")
    beside = logits(PeftModel.from_pretrained(load(tiny), adapter))
    merged = logits(load(tmp_path / "merged"))
    assert torch.allclose(merged, beside, atol=1e-5)
    assert not torch.allclose(merged, logits(load(tiny)), atol=1e-2)
    assert manifest.facts["tensors_changed"] == 2 * 7
    assert manifest.facts["adapter_base_name"] == "tiny-base"


def test_in_float32_the_weights_are_bit_for_bit_those_of_peft(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    merge.merge(tiny, adapter, tmp_path / "merged")
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
    merge.merge(base, adapter, tmp_path / "merged")
    assert (tmp_path / "merged" / merge.INDEX).read_bytes() == (base / merge.INDEX).read_bytes()
    shards = sorted(file.name for file in base.glob("*.safetensors"))
    assert sorted(file.name for file in (tmp_path / "merged").glob("*.safetensors")) == shards
    assert len(shards) > 1
    assert not (tmp_path / "merged" / "pytorch_model.bin").exists()
    merged = load(tmp_path / "merged", dtype="auto")
    assert merged.dtype == torch.bfloat16
    beside = logits(PeftModel.from_pretrained(load(base, dtype=torch.float32), adapter))
    assert torch.allclose(logits(merged.float()), beside, rtol=2e-2, atol=0.2)


def test_an_adapter_goes_into_a_sibling_of_its_base(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    sibling = write_tiny_model(tmp_path / "sibling", seed=1)
    merge.merge(sibling, adapter, tmp_path / "merged")
    assert artifacts.verify(tmp_path / "merged").facts["base_digest"] is None


def test_an_adapter_of_other_shapes_is_refused_before_any_write(adapter: Path, tmp_path: Path) -> None:
    wider = write_tiny_model(tmp_path / "wider", seed=0, hidden=32)
    with pytest.raises(ValueError, match=r"do not fit model\.layers\.0"):
        merge.merge(wider, adapter, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["wider"]


def test_an_adapter_key_without_a_partner_is_refused_by_name(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = copy_adapter(adapter, tmp_path / "copy")
    file = copy / "adapter_model.safetensors"
    save_file({name.replace("layers.1", "layers.7"): tensor for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ValueError, match=r"layers\.7.*matches no tensor"):
        merge.merge(tiny, copy, tmp_path / "merged")
    save_file({name: tensor for name, tensor in load_file(file).items() if "lora_A" in name}, file)
    with pytest.raises(ValueError, match="without a lora_A/lora_B pair"):
        merge.merge(tiny, copy, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize(
    "setting",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}},
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
        merge.merge(tiny, copy, tmp_path / "merged")


def test_weights_that_are_not_finite_are_refused_and_leave_nothing(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = copy_adapter(adapter, tmp_path / "copy")
    file = copy / "adapter_model.safetensors"
    save_file({name: tensor * float("inf") for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ValueError, match="not finite"):
        merge.merge(tiny, copy, tmp_path / "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_an_injured_adapter_is_refused(tiny: Path, adapter: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter, tmp_path / "copy")
    file = tmp_path / "copy" / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors differs"):
        merge.merge(tiny, tmp_path / "copy", tmp_path / "merged")
