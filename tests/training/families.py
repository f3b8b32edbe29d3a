"""Which families of models are trained, merged into and asked here: each as a tiny model of random weights.

    python -m tests.training.families

makes the table in dagster_project/guides/training.md. Where a family cannot be trained here, the reason stands there,
and an adapter that peft has made is merged.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nift_training.evaluate import generation
from nift_training.merge import run as merge_run
from nift_training.train import run as train_run
from tests.training.conftest import ARTICLES, RECIPE, write_tiny_tokenizer

GUIDE = Path("dagster_project/guides/training.md")
BEGIN, END = "<!-- families: make families -->", "<!-- /families -->"
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "initializer_range": 0.2,
    "pad_token_id": None,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
UNSAID = object()
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
# What each model type has besides, or calls otherwise.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "phi": {"num_key_value_heads": 2},
    "phi3": {},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "gemma3": {"vision_config": VISION, "mm_tokens_per_image": 4},
    "olmo2": {},
    "stablelm": {},
    "starcoder2": {},
    "granite": {},
    "cohere": {},
    "mixtral": {"num_local_experts": 2},
    "qwen2_moe": {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8},
    "gpt_neox": {},
    "falcon": {"head_dim": UNSAID},
    "bloom": {"n_layer": 2, "n_head": 2},
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "phimoe": {"num_local_experts": 2},
    "olmoe": EXPERTS,
    "glm4_moe": {**EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1},
    "llama4_text": {"num_local_experts": 2, "intermediate_size_mlp": 24},
    "deepseek_v4": {
        **EXPERTS,
        **{"n_routed_experts": 4, "head_dim": 16, "q_lora_rank": 8, "o_groups": 2, "o_lora_rank": 8, "hc_mult": 2},
        **{"index_n_heads": 2, "index_head_dim": 16, "index_topk": 4},
    },
    "hrm_text": {"num_key_value_heads": UNSAID},
    "rwkv": {"attention_hidden_size": 16},
    "xlnet": {"d_model": 16, "d_head": 8, "d_inner": 24, "n_layer": 2, "n_head": 2},
    "cpmant": {"dim_head": 8, "dim_ff": 24, "prompt_length": 4},
    "trocr": {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24},
}
NESTED = {"gemma3"}  # the settings of its text part are in a configuration of their own


def write(out: Path, kind: str, **changes: Any) -> Path:
    """The folder of a tiny model of random weights, with a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = write_tiny_tokenizer(out)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shards = changes.pop("shards", None)
    said: dict[str, Any] = {**SMALL, "vocab_size": len(tokenizer), **ends}
    more = {**FAMILIES.get(kind, {}), **changes}
    whole = {"text_config": said, **more} if kind in NESTED else said | more
    whole = {name: value for name, value in whole.items() if value is not UNSAID}
    torch.manual_seed(0)
    make: Any = AutoModelForCausalLM
    model = make.from_config(AutoConfig.for_model(kind, **whole))
    model.save_pretrained(out, **({"max_shard_size": shards} if shards else {}))
    return out


def pairs(out: Path) -> Path:
    """A file of pairs for a few steps."""
    rows = [{"prompt": text[:60], "response": text[60:]} for text in ARTICLES * 2]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return out


def peft_adapter(base: Path, out: Path, targets: Any, *, save: dict[str, Any] | None = None, **settings: Any) -> Path:
    """An adapter of random matrices, made and saved by peft."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    make: Any = AutoModelForCausalLM
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=targets, **settings)
    adapted = get_peft_model(make.from_pretrained(base, dtype=torch.float32), lora)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(out, **(save or {}))
    return out


def row(kind: str, folder: Path) -> tuple[str, str, str, str]:
    """A family's class, how it was trained, how far its merge is from peft's base and adapter, and what it answered."""
    base = write(folder / "base", kind)
    architecture = json.loads((base / "config.json").read_text())["architectures"][0]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            made = train_run.train(base, "tiny", pairs(folder / "pairs.jsonl"), RECIPE, folder / "adapter", threads=1)
        trained = f"{made.facts['steps']} steps, {made.facts['layout']}"
        if without := re.search(r"train: (.+?) \(\d+% of the weights\) get no adapter", said.getvalue()):
            trained += f"; without {without[1]}"
    except ValueError as reason:
        trained = f"no: {str(reason).partition(':')[0]}"
        peft_adapter(base, folder / "adapter", "all-linear")
    asked = folder / "merged"
    try:
        facts = merge_run.merge(base, folder / "adapter", asked, logits="always").facts
        merged = f"{facts['tensors_changed']} tensors, {facts['logits_difference']:.0e}"
    except ValueError as reason:
        merged, asked = f"no: {str(reason).partition(':')[0]}", base
    generator = generation.load(asked)
    answers = generation.generate(generator, ["The old bridge", "Kale"], max_new_tokens=8)
    tokens = f"{sum(answer.tokens for answer in answers)} tokens"
    return architecture, trained, merged, tokens if generator.in_batches else f"{tokens}, one prompt at a time"


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """The rows as Markdown."""
    head = ("class", "trained", "merged: tensors changed, difference to peft's base and adapter", "answered")
    lines = [" | ".join(each) for each in (head, ("---",) * 4, *rows)]
    return "\n".join(f"| {line} |" for line in lines)


def main() -> None:
    """Makes the table and writes it into the guide."""
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    rows = []
    for kind in FAMILIES:
        with TemporaryDirectory() as folder:
            rows.append(row(kind, Path(folder)))
        print(*rows[-1], sep=" | ", flush=True)
    before, _, rest = GUIDE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    GUIDE.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
