"""What training an adapter costs beside the tools people use: the same model, the same pairs, in one run.

    python -m tests.training.train.bench                        # beside transformers' Trainer with peft
    python -m tests.training.train.bench --peers                # TRL and LLaMA-Factory too, each in an environment
    python -m tests.training.train.bench --shape llama-3-8b     # on a GPU: tokens/s, memory, share of the peak

A Llama of 60 million random weights in bfloat16, LoRA of rank 8 on every linear layer, pairs of 200 to 800 tokens.
Every trainer is a process of its own; the clock runs from the first step to the last, the peak memory is the
process's. Threads wait without spinning in all of them: on a busy machine spinning is counted as work.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from nift_training.memory import peak_rss_mb

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parents[3]
ENVIRONMENTS = PROJECT / ".bench"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes."""

    hidden: int
    inner: int
    layers: int
    heads: int
    groups: int
    vocabulary: int

    @property
    def body(self) -> int:
        """The weights of all linear layers but the head: each is multiplied twice per token, forward and back."""
        attention = 2 * self.hidden**2 + 2 * self.hidden * self.hidden * self.groups // self.heads
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def head(self) -> int:
        return self.hidden * self.vocabulary


SHAPES = {
    "tiny": Shape(64, 128, 2, 4, 2, 1000),
    "60m": Shape(512, 1376, 8, 8, 8, 32000),
    "llama-3-8b": Shape(4096, 14336, 32, 32, 8, 128256),
}
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}  # dense bfloat16, NVIDIA's


@dataclass(frozen=True)
class Load:
    """So many pairs, the share of the prompt between `low` and `high`, in steps of `batch` rows."""

    shape: str = "60m"
    rows: int = 64
    batch: int = 32
    shortest: int = 200
    longest: int = 800
    low: float = 0.25
    high: float = 0.75

    def pairs(self) -> list[tuple[list[int], list[int]]]:
        """The token ids of every prompt and response, the same ones each time."""
        chance = random.Random(1)
        made = []
        for _ in range(self.rows):
            length = chance.randint(self.shortest, self.longest)
            prompt = int(length * chance.uniform(self.low, self.high))
            ids = [chance.randrange(10, SHAPES[self.shape].vocabulary) for _ in range(length)]
            made.append((ids[:prompt], ids[prompt:]))
        return made

    @property
    def tokens(self) -> int:
        return sum(len(prompt) + len(response) for prompt, response in self.pairs())

    @property
    def responses(self) -> int:
        return sum(len(response) for _, response in self.pairs())


@dataclass(frozen=True)
class Result:
    trainer: str
    seconds: float
    cpu: float
    peak_mb: float
    device_mb: float | None = None


def write_model(shape: Shape, out: Path) -> None:
    """A model folder with a tokenizer of one token per word, so that every trainer makes the same ids of a text."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = {f"w{number}": number for number in range(2, shape.vocabulary)}
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1} | words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>")
    fast.save_pretrained(out)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM._from_config(
            LlamaConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.hidden,
                intermediate_size=shape.inner,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.groups,
                max_position_embeddings=2048,
                bos_token_id=None,
                eos_token_id=1,
                tie_word_embeddings=False,
            ),
            dtype=torch.bfloat16,
        )
    model.save_pretrained(out)


def write_pairs(load: Load, out: Path) -> None:
    """The pairs as text: prompt and response, and the same as Alpaca rows."""
    rows = [[" ".join(f"w{token}" for token in part) for part in pair] for pair in load.pairs()]
    pairs = [{"prompt": prompt, "response": response} for prompt, response in rows]
    alpaca = [{"instruction": prompt, "input": "", "output": response} for prompt, response in rows]
    (out / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (out / "alpaca.json").write_text(json.dumps(alpaca))
    (out / "dataset_info.json").write_text(json.dumps({"pairs": {"file_name": "alpaca.json"}}))


class Clock:
    """CPU and wall seconds between the first step and the last."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        began, before = time.monotonic(), _cpu()
        yield
        _wait_for_device()
        self.seconds, self.cpu = time.monotonic() - began, _cpu() - before

    def callback(self) -> Any:
        """For whatever trains by transformers' Trainer."""
        from transformers import TrainerCallback

        clock = self

        class Timed(TrainerCallback):
            def on_train_begin(self, *_: Any, **__: Any) -> None:
                clock.began, clock.before = time.monotonic(), _cpu()  # type: ignore[attr-defined]

            def on_train_end(self, *_: Any, **__: Any) -> None:
                _wait_for_device()
                clock.seconds = time.monotonic() - clock.began  # type: ignore[attr-defined]
                clock.cpu = _cpu() - clock.before  # type: ignore[attr-defined]

        return Timed()


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def nift(load: Load, folder: Path, clock: Clock, *, profiled: bool = False) -> None:
    import torch

    from nift_training import backbone, model_folder
    from nift_training.machine import Machine, ProcessRank
    from nift_training.recipe import Recipe
    from nift_training.train import layouts, loop, pairs
    from nift_training.train import run as train

    recipe = Recipe(epochs=1, batch_size=load.batch, rounds=1, mean_rows=None, precision="bfloat16")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    examples = pairs.examples(backbone.read(folder / "model").tokenizer, layouts.read(folder / "pairs.jsonl"), recipe)
    weights = model_folder.weights(model_folder.read(folder / "model"))
    ready = train.prepare(weights, recipe, Machine(), device, ProcessRank(0, 1, 0))

    def optimise() -> None:
        loop.optimise(ready.engine, examples, recipe, layout=ready.layout, at_once=ready.at_once, device=device)

    if profiled:
        with torch.profiler.profile() as profile:
            optimise()
        print(_shares(profile.key_averages()))
        return
    with clock.running():
        optimise()


def trainer(load: Load, folder: Path, clock: Clock, **settings: Any) -> None:
    """transformers' Trainer with peft as one would write it down."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Trainer,
        TrainingArguments,
    )

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=TARGETS))
    rows = [
        {"input_ids": prompt + response, "labels": [-100] * len(prompt) + response} for prompt, response in load.pairs()
    ]
    arguments = TrainingArguments(output_dir=tempfile.mkdtemp(dir=folder), **_arguments(load), **settings)
    Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(folder / "model")),
        callbacks=[clock.callback()],
    ).train()


def grouped(load: Load, folder: Path, clock: Clock) -> None:
    trainer(load, folder, clock, train_sampling_strategy="group_by_length")


def trl(load: Load, folder: Path, clock: Clock, **settings: Any) -> None:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    data = Dataset.from_list([{"prompt": row["prompt"], "completion": " " + row["response"]} for row in rows])
    SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16),
        args=SFTConfig(output_dir=tempfile.mkdtemp(dir=folder), max_length=1024, **_arguments(load), **settings),
        train_dataset=data,
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=TARGETS),
        callbacks=[clock.callback()],
    ).train()


def llamafactory(load: Load, folder: Path, clock: Clock, **settings: Any) -> None:
    from llamafactory.train.tuner import run_exp

    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_target": "all",
            "lora_rank": 8,
            "lora_alpha": 16,
            "model_name_or_path": str(folder / "model"),
            "infer_dtype": "bfloat16",
            "pure_bf16": False,
            "bf16": True,
            "dataset": "pairs",
            "dataset_dir": str(folder),
            "template": "empty",
            "cutoff_len": 1024,
            "preprocessing_num_workers": None,
            "output_dir": tempfile.mkdtemp(dir=folder),
            **{name: value for name, value in _arguments(load).items() if name != "bf16"},
            **settings,
        },
        callbacks=[clock.callback()],
    )


def llamafactory_packed(load: Load, folder: Path, clock: Clock) -> None:
    llamafactory(load, folder, clock, packing=True, neat_packing=True)


def _arguments(load: Load) -> dict[str, Any]:
    import torch

    held = 8
    return {
        "per_device_train_batch_size": held,
        "gradient_accumulation_steps": max(1, load.batch // held),
        "num_train_epochs": 1,
        "learning_rate": 5e-5,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1000,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": True,
    }


TRAINERS: dict[str, Callable[..., None]] = {
    "nift": nift,
    "transformers Trainer": trainer,
    "Trainer, grouped by length": grouped,
    "TRL 1.16": trl,
    "LLaMA-Factory 0.9.5": llamafactory,
    "LLaMA-Factory, neat packing": llamafactory_packed,
}
OWN = ("nift", "transformers Trainer", "Trainer, grouped by length")
# What each peer's environment is installed from, an installation at a time: torch first, as by far the largest.
PINNED = {
    "trl": [["torch==2.13.0"], ["transformers==5.23.0", "peft==0.21.2", "trl==1.16.0"]],
    # It imports torchaudio, whose last version is made for this torch.
    "llamafactory": [["torch==2.11.0"], ["torchvision==0.26.0", "torchaudio==2.11.0", "llamafactory==0.9.5"]],
    # The last one for Python 3.11; of the seventy packages it asks for, many of them for GPUs, those its reading needs.
    "axolotl": [
        ["torch==2.13.0"],
        ["transformers==5.16.1", "datasets==4.8.4", "trl==1.9.0", "accelerate==1.13.0", "peft==0.20.0"],
        ["addict", "colorama", "numba", "nvidia-ml-py", "posthog==6.7.11", "pydantic==2.12.5", "sentencepiece"],
        ["--no-deps", "axolotl==0.19.0"],
    ],
}


def environment(name: str) -> Path:
    """The interpreter of a peer's own environment, made anew where it is not there whole and as it is pinned."""
    place, pinned = ENVIRONMENTS / name, json.dumps(PINNED[name])
    python, installed = place / "bin" / "python", place / "installed.json"
    if not installed.exists() or installed.read_text() != pinned:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        for requirements in PINNED[name]:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        installed.write_text(pinned)
    return python


def measured(name: str, load: Load, folder: Path) -> Result:
    """One trainer's run, measured from inside its process."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    clock = Clock()
    TRAINERS[name](load, folder, clock)
    device = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    return Result(name, clock.seconds, clock.cpu, peak_rss_mb(), device)


def run(name: str, load: Load, folder: Path) -> Result:
    """One trainer in a process, and where it has one in an environment, of its own."""
    peer = {"TRL": "trl", "LLaMA-Factory": "llamafactory"}.get(name.split()[0].rstrip(","))
    python = str(environment(peer)) if peer else sys.executable
    command = [python, "-m", "tests.training.train.bench", "--trainer", name, "--load", json.dumps(asdict(load))]
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1", "USE_CPU": "1"}
    done = subprocess.run(
        [*command, "--folder", str(folder)],
        cwd=PROJECT,
        env={**os.environ, **quiet, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def compared(load: Load, names: Sequence[str], rounds: int) -> list[Result]:
    """The trainers by turns, so many times; of each the run with the median CPU time counts."""
    with tempfile.TemporaryDirectory(prefix="nift-bench-") as name:
        folder = Path(name)
        write_model(SHAPES[load.shape], folder / "model")
        write_pairs(load, folder)
        results = [run(each, load, folder) for _ in range(rounds) for each in names]
    return [_middle([result for result in results if result.trainer == each]) for each in names]


def _middle(results: list[Result]) -> Result:
    cost = median(result.cpu for result in results)
    return min(results, key=lambda result: abs(result.cpu - cost))


def table(load: Load, results: Sequence[Result]) -> str:
    """The results as Markdown, and how far the first is from what the matrix products alone would take."""
    lines = ["| trainer | tokens/s | tokens per CPU s | peak RSS GB | beside nift |", "|---|---|---|---|---|"]
    best = load.tokens / results[0].cpu
    lines += [
        f"| {r.trainer} | {load.tokens / r.seconds:,.0f} | {load.tokens / r.cpu:,.0f} | {r.peak_mb / 1024:.1f} "
        f"| {best / (load.tokens / r.cpu):.2f} × the CPU time |"
        for r in results
    ]
    return "\n".join(lines)


def needed_flops(load: Load) -> float:
    """What one pass over the load has to multiply: forward and back to the activations, the head for responses only."""
    shape = SHAPES[load.shape]
    lengths = [len(prompt) + len(response) for prompt, response in load.pairs()]
    # Scores and values of causal attention, forward, and twice that and the recomputed scores backward.
    attention = sum(3.5 * 2 * length**2 * shape.hidden * shape.layers for length in lengths)
    return 4 * shape.body * load.tokens + 4 * shape.head * load.responses + attention


def product_rate(shape: Shape) -> float:
    """Floating-point operations per CPU second in products of the model's own shapes, 2,048 tokens at a time."""
    import torch

    tokens = torch.randn(2048, shape.hidden, dtype=torch.bfloat16)
    weight = torch.randn(shape.inner, shape.hidden, dtype=torch.bfloat16)
    tokens @ weight.t()
    before, times = _cpu(), 40
    for _ in range(times):
        tokens @ weight.t()
    return 2 * 2048 * shape.hidden * shape.inner * times / (_cpu() - before)


def _shares(averages: Any) -> str:
    """Which kinds of work the CPU time goes to."""
    kinds = {
        "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::linear"),
        "attention": ("flash_attention",),
        "copies and casts": ("aten::copy_", "aten::_to_copy", "aten::cat", "aten::index_select"),
    }
    spent = dict.fromkeys([*kinds, "elementwise and the rest"], 0.0)
    for event in averages:
        kind = next(
            (kind for kind, names in kinds.items() if any(name in event.key for name in names)),
            "elementwise and the rest",
        )
        spent[kind] += event.self_cpu_time_total
    whole = sum(spent.values())
    return ", ".join(f"{kind} {100 * part / whole:.0f}%" for kind, part in spent.items())


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _limit(load: Load, result: Result) -> str:
    import torch

    needed = needed_flops(load)
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        peak = next((value for key, value in PEAKS.items() if key in name), None)
        share = f", {100 * needed / result.seconds / peak:.0f}% of the peak of {name}" if peak else ""
        return f"{needed / result.seconds / 1e12:,.1f} TFLOP/s{share}, {(result.device_mb or 0) / 1024:.1f} GB"
    rate = product_rate(SHAPES[load.shape])
    return (
        f"matrix products alone would take {needed / rate:.1f} of the {result.cpu:.1f} CPU seconds "
        f"({100 * needed / rate / result.cpu:.0f}%, at {rate / 1e9:.0f} GFLOP per CPU second)"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trainer", choices=list(TRAINERS))
    arguments.add_argument("--load", help="of one trainer's run, as JSON")
    arguments.add_argument("--folder", type=Path, help="where its model and pairs lie")
    arguments.add_argument("--peers", action="store_true", help="TRL and LLaMA-Factory too")
    arguments.add_argument("--only", nargs="*", help="these trainers")
    arguments.add_argument("--shape", choices=list(SHAPES), default="60m")
    arguments.add_argument("--rows", type=int, default=64)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--loads", type=int, choices=(1, 2), default=2, help="1 leaves out the long prompts")
    options = arguments.parse_args()
    if options.trainer:
        print(json.dumps(asdict(measured(options.trainer, Load(**json.loads(options.load)), options.folder))))
        return
    names = options.only or (list(TRAINERS) if options.peers else list(OWN))
    big = options.shape == "llama-3-8b"
    usual = Load(shape=options.shape, rows=options.rows, batch=min(options.rows, 32))
    loads = {
        "Responses about as long as prompts": Load(
            **asdict(usual) | ({"shortest": 1023, "longest": 1023} if big else {})
        ),
        "Prompts three times as long as responses": Load(**asdict(usual) | {"low": 0.75, "high": 0.75}),
    }
    for title, load in list(loads.items())[: options.loads]:
        results = compared(load, names, options.rounds)
        print(f"{title} ({load.rows} pairs, {load.tokens:,} tokens, {load.responses:,} of them learnt)\n")
        print(table(load, results))
        print(f"\n{results[0].trainer}: {_limit(load, results[0])}\n", flush=True)
    _profile(next(iter(loads.values())))


def _profile(load: Load) -> None:
    with tempfile.TemporaryDirectory(prefix="nift-bench-") as name:
        write_model(SHAPES[load.shape], Path(name) / "model")
        write_pairs(load, Path(name))
        nift(load, Path(name), Clock(), profiled=True)


if __name__ == "__main__":
    main()
