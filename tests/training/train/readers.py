"""What other trainers read of a training set's folder by their own code, beside what we wrote into it.

    python -m tests.training.train.readers        # LLaMA-Factory, TRL and axolotl, in environments made on demand

Each reads in a process of its environment and gives back the pairs it would train on: the tokens it masks, decoded, and
the tokens it learns. The texts are those the tests write: quotes, control characters, markup, five scripts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[3]
NAME = "echo-filtered"
NOT_LEARNT = -100
TEXTS = [
    "A first half.\n\nWith “quotes”, tabs\t and a \\ backslash,",
    " goes on\u2028and\u0085on\x00\x1f\x7f.",
    "</script><b>markup</b> {{ braces }} $& 'quotes' \"more\"",
    "2020-01-01",
    "שלום 你好 😀\U0001f469\u200d\U0001f680 \ufeff",
]
# The whole chat, of which the assistant's part is learnt, as a template of a model says it to TRL.
CHAT = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{% generation %}{{ message.content }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}{% endfor %}"
)

Pairs = list[tuple[str, str]]


def llama_factory(folder: Path, name: str, model: Path) -> Pairs:
    """One entry of the folder's `dataset_info.json`, through `get_dataset`."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_arguments, data_arguments, training_arguments, _, _ = get_train_args(
        {
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "model_name_or_path": str(model),
            "dataset": name,
            "dataset_dir": str(folder),
            "template": "empty",
            "cutoff_len": 2048,
            "output_dir": tempfile.mkdtemp(),
            "report_to": "none",
            "use_cpu": True,
        }
    )
    loaded = load_tokenizer(model_arguments)
    template = get_template_and_fix_tokenizer(loaded["tokenizer"], data_arguments)
    read = get_dataset(template, model_arguments, data_arguments, training_arguments, stage="sft", **loaded)
    return [_pair(loaded["tokenizer"], row) for row in read["train_dataset"]]


def trl(folder: Path, name: str, model: Path) -> Pairs:
    """The folder's chats, through the preparation of SFTTrainer."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHAT
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), max_length=None, assistant_only_loss=True, report_to="none", use_cpu=True
        ),
        train_dataset=load_dataset(str(folder), name, split="train"),
        processing_class=tokenizer,
    )
    return [_pair(tokenizer, row) for row in trainer.train_dataset]


# As `datasets` of axolotl's configuration. `type: alpaca` would put a preamble before what the paper trained on.
AXOLOTL: dict[str, dict[str, Any]] = {
    "alpaca": {
        "type": {
            "system_prompt": "",
            "field_instruction": "instruction",
            "field_input": "input",
            "field_output": "output",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    },
    "messages": {"type": "chat_template"},
}


def axolotl(folder: Path, name: str, model: Path) -> Pairs:
    """One configuration of the folder, through what `axolotl preprocess` prepares."""
    from axolotl.utils.data import prepare_datasets
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHAT
    configuration = {
        "datasets": [{"path": str(folder), "name": name, "split": "train", **AXOLOTL[name]}],
        "dataset_prepared_path": tempfile.mkdtemp(),
        "dataset_num_proc": 1,
        "shuffle_merged_datasets": False,
        "sequence_len": 2048,
        "val_set_size": 0,
        "num_epochs": 1,
        "batch_size": 1,
        "world_size": 1,
    }
    rows, *_ = prepare_datasets(DictDefault(configuration), tokenizer)
    return [_pair(tokenizer, row) for row in rows]


READERS: dict[str, tuple[str, Callable[[Path, str, Path], Pairs], str]] = {
    "LLaMA-Factory, Alpaca": ("llamafactory", llama_factory, NAME),
    "LLaMA-Factory, messages": ("llamafactory", llama_factory, f"{NAME}-messages"),
    "TRL, messages": ("trl", trl, "messages"),
    "axolotl, Alpaca": ("axolotl", axolotl, "alpaca"),
    "axolotl, messages": ("axolotl", axolotl, "messages"),
}


def _pair(tokenizer: Any, row: Mapping[str, Sequence[int]]) -> tuple[str, str]:
    learnt = [label != NOT_LEARNT for label in row["labels"]]
    parts = (
        [token for token, it in zip(row["input_ids"], learnt, strict=True) if it is kind] for kind in (False, True)
    )
    prompt, response = (tokenizer.decode(part, skip_special_tokens=True) for part in parts)
    return prompt, response


def read(reader: str, folder: Path, model: Path) -> Pairs:
    """The pairs a trainer reads, from a process in its environment."""
    from tests.training.train.bench import environment

    with tempfile.TemporaryDirectory() as cache:
        quiet = {"HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1", "USE_CPU": "1", "AXOLOTL_DO_NOT_TRACK": "1"}
        ran = subprocess.run(
            [environment(READERS[reader][0]), "-m", "tests.training.train.readers", reader, folder, model],
            cwd=PROJECT,
            env={**os.environ, **quiet, "HF_HOME": cache, "TMPDIR": cache, "PYTHONPATH": str(PROJECT)},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise RuntimeError(f"{reader} failed:\n{ran.stderr[-3000:]}")
    return [(prompt, response) for prompt, response in json.loads(ran.stdout.splitlines()[-1])]


def compare() -> None:
    """A line per reader; AssertionError for one that reads another pair than was written."""
    import polars as pl

    from nift_assets.pairs import training_files
    from tests.training.conftest import ARTICLES, write_tiny_model

    texts = [*TEXTS, *ARTICLES]
    written = list(zip(texts, texts[::-1], strict=True))
    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place, "set"), write_tiny_model(Path(place, "model"), seed=0)
        folder.mkdir()
        training_files.write(folder, NAME, pl.DataFrame({"prompt": texts, "response": texts[::-1]}))
        for reader in READERS:
            found = read(reader, folder, model)
            assert found == written, f"{reader} reads {found}, not {written}"
            print(f"{reader}: {len(found)} pairs, each as it was written")


def main() -> None:
    if len(sys.argv) == 1:
        compare()
        return
    reader, folder, model = sys.argv[1:]
    _, function, name = READERS[reader]
    print(json.dumps(function(Path(folder), name, Path(model))))


if __name__ == "__main__":
    main()
