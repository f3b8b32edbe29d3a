"""What merging costs: ours beside `cp` of the same folder, and beside peft's `merge_and_unload` + `save_pretrained`.

    python -m tests.training.merge.bench

A sharded bfloat16 Llama with random weights and a rank-8 adapter on all its linear layers are made, used and deleted:
twice the model's size must be free. Each contender is a process of its own; what came before is flushed to the disk
first, and the base lies in the page cache for all. Ours verifies the base's sha256, hashes and flushes what it writes
and recomputes rows of every tensor. `cp` does none of that, and leaves its copy in memory for the system to write
later; `cp+sync` is the copy that is on the disk as ours is. Two more lines are what no such merge can do without: the
sha256 of as many bytes as are read and written, on two cores (`2 x sha256`), and writing and flushing those bytes and
nothing else (`write`). A model of half the size shows whether memory grows. The comparison of logits is left out, which
builds base and adapter as peft does, in as much time and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from nift_training import artifacts, disk, shards
from nift_training.memory import peak_rss_mb

PROJECT = Path(__file__).parents[3]
HIDDEN, INNER, HEADS, KEY_HEADS, VOCABULARY = 2048, 5632, 32, 4, 32_000
LAYERS_PER_GB = 46 / 4.3
SHARD_BYTES = 10**9
RANK, ALPHA = 8, 16
LINEAR = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN * KEY_HEADS // HEADS, HIDDEN),
    "self_attn.v_proj": (HIDDEN * KEY_HEADS // HEADS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float
    peak_mb: float


def make_base(out: Path, layers: int) -> artifacts.Manifest:
    """A model folder of so many layers with its index and manifest, written without building the model."""
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(layers):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in LINEAR.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (HIDDEN,)
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
    with artifacts.folder(out, "model") as draft:
        groups = list(_groups(shapes))
        places: dict[str, str] = {}
        for number, group in enumerate(groups, start=1):
            name = f"model-{number:05}-of-{len(groups):05}.safetensors"
            _write_shard(draft.path / name, {tensor: shapes[tensor] for tensor in group})
            places |= dict.fromkeys(group, name)
        (draft.path / shards.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
        (draft.path / "config.json").write_text(json.dumps(_config(layers)))
    return artifacts.read_manifest(out)


def make_adapter(out: Path, layers: int) -> None:
    """A peft adapter of random matrices on every linear layer."""
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    tensors = {}
    for layer in range(layers):
        for name, (rows, columns) in LINEAR.items():
            place = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{place}.lora_A.weight"] = torch.randn(RANK, columns) / 64
            tensors[f"{place}.lora_B.weight"] = torch.randn(rows, RANK) / 64
    out.mkdir()
    save_file(tensors, out / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "bench",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": sorted(name.rpartition(".")[2] for name in LINEAR),
    }
    (out / "adapter_config.json").write_text(json.dumps(config))


def ours(base: Path, adapter: Path, out: Path) -> None:
    """The command line, as a person gives it."""
    options = ["--base", str(base), "--adapter", str(adapter), "--out", str(out), "--check-logits", "never"]
    sys.argv = ["nift_training.merge", *options]
    runpy.run_module("nift_training.merge", run_name="__main__")


def peft(base: Path, adapter: Path, out: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out, max_shard_size="1GB")


def cp(base: Path, adapter: Path, out: Path) -> None:
    subprocess.run(["cp", "-r", str(base), str(out)], check=True)


def cp_flushed(base: Path, adapter: Path, out: Path) -> None:
    cp(base, adapter, out)
    subprocess.run(["sync", "-f", str(out)], check=True)


def hash_twice(base: Path, adapter: Path, out: Path) -> None:
    with ThreadPoolExecutor(2) as cores:
        list(cores.map(artifacts.sha256, 2 * list(base.iterdir())))


def write(base: Path, adapter: Path, out: Path) -> None:
    """Each file past the page cache and flushed, two at a time as ours writes."""

    def copy(file: Path) -> None:
        command = ["dd", f"if={file}", f"of={out / file.name}", "bs=8M", "oflag=direct", "conv=fsync", "status=none"]
        subprocess.run(command, check=True)

    out.mkdir()
    with ThreadPoolExecutor(2) as writers:
        list(writers.map(copy, base.iterdir()))


CONTENDERS = {
    "cp": cp,
    "cp+sync": cp_flushed,
    "ours": ours,
    "peft": peft,
    "2 x sha256": hash_twice,
    "write": write,
}


def cost(contender: str, base: Path, adapter: Path, out: Path) -> Cost:
    """What a contender costs as a process of its own, imports included, all that came before being on the disk."""
    os.sync()
    command = [sys.executable, "-m", "tests.training.merge.bench", "--contender", contender]
    command += [str(base), str(adapter), str(out)]
    before, started = _cpu_of_children(), time.monotonic()
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    whole = Cost(wall=time.monotonic() - started, cpu=_cpu_of_children() - before, peak_mb=0.0)
    return replace(whole, **json.loads(done.stdout.splitlines()[-1]))


def run(contender: str, base: Path, adapter: Path, out: Path) -> None:
    """Runs a contender in this process and prints what can only be seen from within."""
    began = time.monotonic()
    CONTENDERS[contender](base, adapter, out)
    if contender in ("ours", "peft"):
        print(json.dumps({"peak_mb": peak_rss_mb()}))
    else:  # without the interpreter that started it
        print(json.dumps({"wall": time.monotonic() - began}))


def measure(folder: Path, layers: int, order: list[str]) -> dict[str, list[Cost]]:
    """The costs of each contender, in the given order of turns, on one model made for it."""
    base, adapter, out = folder / "base", folder / "adapter", folder / "out"
    make_base(base, layers)
    make_adapter(adapter, layers)
    seen: dict[str, list[Cost]] = {}
    for contender in order:
        for file in base.iterdir():
            artifacts.sha256(file)  # into the page cache
        seen.setdefault(contender, []).append(cost(contender, base, adapter, out))
        print(f"  {contender}: {seen[contender][-1]}", file=sys.stderr, flush=True)
        shutil.rmtree(out, ignore_errors=True)
    size = sum(file.stat().st_size for file in base.iterdir())
    _print(size, seen)
    shutil.rmtree(base)
    shutil.rmtree(adapter)
    return seen


def _print(size: int, seen: dict[str, list[Cost]]) -> None:
    walls = {name: statistics.median(each.wall for each in costs) for name, costs in seen.items()}
    print(f"\n{disk.format_bytes(size)}, medians; in brackets the quickest and the slowest turn")
    print(f"{'':12}{'wall s':>8}{'':14}{'CPU s':>7}{'peak MB':>9}{'MB/s':>7}{'x cp':>7}{'x cp+sync':>11}")
    for name, costs in seen.items():
        turns = sorted(each.wall for each in costs)
        cpu, peak = statistics.median(each.cpu for each in costs), max(each.peak_mb for each in costs)
        print(
            f"{name:12}{walls[name]:8.1f}{f' [{turns[0]:.1f}, {turns[-1]:.1f}]':14}{cpu:7.1f}"
            f"{f'{peak:.0f}' if peak else '-':>9}{size / walls[name] / 1e6:7.0f}"
            + "".join(f"{walls[name] / walls[copy]:{width}.2f}" for copy, width in (("cp", 7), ("cp+sync", 11)))
        )
    if "peft" in walls:
        print(f"ours is {walls['peft'] / walls['ours']:.1f} times as fast as peft")


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _groups(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name, shape in shapes.items():
        bytes_ = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        if group and size + bytes_ > SHARD_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += bytes_
    yield group


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    import torch

    torch.manual_seed(0)
    pool = (torch.randn(16 * 2**20) / 50).bfloat16().view(torch.uint8).numpy().data
    draw = random.Random(path.name)
    header, place = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in header.values():
            begin, end = entry["data_offsets"]
            left = int(end) - int(begin)
            while left:
                start = draw.randrange(len(pool) // 4) * 2
                file.write(pool[start : start + left])
                left -= min(left, len(pool) - start)


def _config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS,
        "num_hidden_layers": layers,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=4.3, help="size of the larger model")
    parser.add_argument("--turns", type=int, default=3, help="which take turns; peft has one")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run(options.contender, *options.paths)
        return
    with tempfile.TemporaryDirectory(prefix="nift-merge-") as folder:
        disk.check_room(Path(folder, "out"), int(options.gb * 2e9))
        layers = round(options.gb * LAYERS_PER_GB)
        turn = ["cp", "ours", "cp+sync", "2 x sha256", "write"]
        measure(Path(folder), layers, turn * options.turns + ["peft"])
        measure(Path(folder), layers // 2, turn)


if __name__ == "__main__":
    main()
