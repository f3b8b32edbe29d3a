"""Training: gradients as the reference's, whatever the layout; what is written; what is refused."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nift_training import artifacts, model_folder, verbs
from nift_training.machine import Machine, ProcessRank
from nift_training.recipe import MODERN, Recipe
from nift_training.train import __main__ as command_line
from nift_training.train import devices, kernels, layouts, loop, lora, loss, micro_batches, pairs, run
from nift_training.train.micro_batches import WeightedExample
from tests.conftest import PROJECT
from tests.counting import Counts
from tests.training.conftest import RECIPE, verb_here

ALONE = ProcessRank(0, 1, 0)


def weights(model: Path) -> model_folder.Weights:
    return model_folder.weights(model_folder.read(model))


def prepared(model: Path, recipe: Recipe = RECIPE, **machine: Any) -> run.PreparedTraining:
    import torch

    return run.prepare(weights(model), recipe, Machine(**machine), torch.device("cpu"), ALONE)


def window(tokenizer: Any, data: Path, recipe: Recipe) -> list[WeightedExample]:
    examples = pairs.examples(tokenizer, layouts.read(data), recipe)
    return micro_batches.weigh(examples, next(micro_batches.windows(len(examples), recipe)))


def gradients(ready: run.PreparedTraining, rows: list[WeightedExample], layout: Any, at_once: int) -> dict[str, Any]:
    """The gradient of one step by the parameter's name, before it is clipped."""
    import torch

    for micro in micro_batches.split_over_processes(rows, 1, at_once, layout)[0]:
        part = ready.engine.loss(micro_batches.lay_out(micro, layout, torch.device("cpu")))
        ready.engine.backward(part, last=True)
    found = {name: parameter.grad.clone() for name, parameter in lora.trained(ready.model).items()}
    ready.model.zero_grad()
    return found


def shake(model: Any) -> Any:
    """B starts at zero, and with it the gradient of A: other values show more."""
    import torch

    torch.manual_seed(7)
    with torch.no_grad():
        for name, parameter in lora.trained(model).items():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model


def trainers_gradients(folder: Path, rows: Any, recipe: Recipe, mean_of_means: bool, out: Path) -> dict[str, Any]:
    """The same from a plain transformers Trainer on peft's own layers: padded rows, all logits, its own order."""
    import torch
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    model = shake(lora.with_fresh_adapter(AutoModelForCausalLM.from_pretrained(folder), recipe))
    kept: dict[str, Any] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            kept.update({name: parameter.grad.clone() for name, parameter in lora.trained(model).items()})

    def collate(several: list[Any]) -> dict[str, Any]:
        width = max(map(len, several))
        ids, labels = torch.zeros((2, len(several), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels -= 100
        for place, row in enumerate(several):
            ids[place, : len(row)] = torch.tensor(row.ids)
            mask[place, : len(row)] = 1
            labels[place, : len(row)][torch.tensor(row.trained)] = torch.tensor(row.ids[row.trained]).long()
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_steps=1,
        max_grad_norm=1e9,
        seed=recipe.seed,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=list(rows), data_collator=collate, callbacks=[Keep()])
    if mean_of_means:
        trainer.model_accepts_loss_kwargs = False  # each micro-batch's own mean, as before transformers 4.46
    trainer.train()
    return kept


@pytest.mark.parametrize("mean_rows", [2, None])
def test_the_gradient_is_a_plain_trainers(
    tiny: Path, tokenizer: Any, pairs_file: Path, tmp_path: Path, mean_rows: int | None
) -> None:
    recipe = replace(RECIPE, batch_size=8, rounds=4, mean_rows=mean_rows)
    examples = pairs.examples(tokenizer, layouts.read(pairs_file)[:8], recipe)
    rows = micro_batches.weigh(examples, next(micro_batches.windows(8, recipe)))
    theirs = trainers_gradients(tiny, examples, recipe, mean_rows is not None, tmp_path)
    ready = prepared(tiny, recipe)
    shake(ready.model)
    assert ready.layout == "packed"
    for layout, at_once in (("packed", 100), ("packed", 4000), ("padded", 150)):
        ours = gradients(ready, rows, layout, at_once)
        assert ours.keys() == theirs.keys()
        for name, expected in theirs.items():
            scale = expected.abs().max()
            assert (ours[name] - expected).abs().max() <= 2e-5 * scale, (name, layout)


def test_checkpointing_changes_no_gradient(tiny: Path, tokenizer: Any, pairs_file: Path) -> None:
    rows = window(tokenizer, pairs_file, RECIPE)
    usual, recomputed = (
        gradients(prepared(tiny, gradient_checkpointing=how), rows, "packed", 4000) for how in ("off", "on")
    )
    assert all((usual[name] - recomputed[name]).abs().max() <= 1e-6 for name in usual)


def test_in_half_precision_the_fused_layers_stay_with_pefts(tiny: Path, tokenizer: Any, pairs_file: Path) -> None:
    import torch

    recipe = replace(MODERN, rank=2, alpha=4, batch_size=4, rounds=1, cutoff=64)
    rows = window(tokenizer, pairs_file, recipe)
    ready = prepared(tiny, recipe)
    shake(ready.model)
    assert ready.model.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in lora.trained(ready.model).values()} == {torch.float32}
    fused = gradients(ready, rows, "packed", 4000)
    for module in ready.model.modules():
        module.__dict__.pop("forward", None)
    pefts = gradients(ready, rows, "packed", 4000)
    for name in fused:
        assert (fused[name] - pefts[name]).norm() <= 0.05 * pefts[name].norm(), name


def test_the_fused_layers_are_all_and_keep_the_forward_pass(tiny: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = shake(lora.with_fresh_adapter(AutoModelForCausalLM.from_pretrained(tiny), RECIPE))
    ids = torch.tensor([[3, 9, 4, 17, 5]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        assert lora.fuse(model) == 2 * 7
        assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)


def test_packed_sequences_do_not_see_each_other(tiny: Path) -> None:
    import numpy as np
    import torch

    ready = prepared(tiny)

    def last_state(*sequences: list[int]) -> Any:
        rows = [
            WeightedExample(pairs.TrainingExample(np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=bool)), 1.0)
            for ids in sequences
        ]
        with torch.no_grad():
            return loss.hidden_states(ready.model, micro_batches.lay_out(rows, "packed", torch.device("cpu")))[0, -1]

    alone = last_state([5, 6, 7, 8])
    assert torch.allclose(last_state([9, 3, 11], [5, 6, 7, 8]), alone, atol=1e-6)
    assert not torch.allclose(last_state([9, 3, 11, 5, 6, 7, 8]), alone, atol=1e-3)


def test_a_window_shorter_than_a_pair_is_not_packed(tiny: Path, tmp_path: Path) -> None:
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MistralConfig(vocab_size=64, num_key_value_heads=1, sliding_window=32, **sizes)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    layouts = [
        run.prepare(weights(tmp_path), replace(RECIPE, cutoff=cutoff), Machine(), torch.device("cpu"), ALONE).layout
        for cutoff in (32, 64)
    ]
    assert layouts == ["packed", "padded"]


def test_a_model_whose_logits_are_more_than_its_head_is_refused(tmp_path: Path) -> None:
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    Gemma2ForCausalLM(Gemma2Config(vocab_size=64, num_key_value_heads=1, head_dim=8, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not its head applied to its hidden states"):
        run.prepare(weights(tmp_path), RECIPE, Machine(), torch.device("cpu"), ALONE)


@pytest.mark.fault("M4")
def test_a_base_whose_logits_are_not_finite_is_named_as_that(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny, tmp_path / "base")
    weights = load_file(tiny / "model.safetensors")
    weights["lm_head.weight"][3, 0] = float("nan")
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the base's logits are not finite: its weights hold NaN or infinity"):
        prepared(tmp_path / "base")


@pytest.mark.parametrize("overflow", [float("inf"), float("nan")])
def test_a_gradient_that_overflows_float16_costs_a_step_and_not_the_run(
    overflow: float, tiny: Path, tokenizer: Any, pairs_file: Path
) -> None:
    """The loss scale is used as on a GPU; float32 itself would not overflow, so the second step's gradient is set."""
    ready = prepared(tiny)
    engine: Any = ready.engine
    engine.scaled, backward, calls = True, engine.backward, iter(range(100))

    def overflowing(part: Any, *, last: bool) -> None:
        backward(part, last=last)
        if next(calls) == 1:
            next(iter(engine.trained.values())).grad.view(-1)[0] = overflow

    engine.backward = overflowing
    examples = pairs.examples(tokenizer, layouts.read(pairs_file)[:4], RECIPE)
    steps = loop.optimise(
        engine, examples, replace(RECIPE, epochs=4), layout="packed", at_once=4000, device=ready.model.device
    )
    assert [step.gradient_norm is None for step in steps] == [False, True, False, False]
    assert (engine.updates, engine.scale.tolerated) == (3, 1)


def test_two_processes_make_the_same_adapter(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """This one, and one in which sets of texts have another order."""
    import torch

    options = ["--base", str(tiny), "--base-name", "tiny-base", "--data", str(pairs_file), "--batch-size", "4"]
    options += ["--threads", "1", "--out"]
    threads = torch.get_num_threads()
    try:
        assert verb_here("nift_training.train", *options, str(tmp_path / "first")) == 0
    finally:
        torch.set_num_threads(threads)
    command = [sys.executable, "-m", "nift_training.train", *options, str(tmp_path / "second")]
    environment = os.environ | {"PYTHONHASHSEED": "2"}
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert artifacts.verify(tmp_path / "first").digest == artifacts.verify(tmp_path / "second").digest
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


def test_the_adapter_names_its_base_and_no_path(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-base"
    texts = [file.read_text() for file in adapter.iterdir() if file.suffix != ".safetensors"]
    assert not any(str(adapter.parent.parent) in text for text in texts)


def test_training_lowers_the_loss_and_logs_every_step(adapter: Path) -> None:
    log = artifacts.read_rows(adapter / "train_log.jsonl")
    facts = artifacts.read_manifest(adapter).facts
    assert [row["step"] for row in log] == list(range(1, facts["steps"] + 1))
    assert log[-1]["loss"] == facts["last_loss"] < facts["first_loss"]
    assert log[0]["learning_rate"] == RECIPE.learning_rate > log[-1]["learning_rate"] > 0
    assert log[-1]["epoch"] == RECIPE.epochs
    assert all(row["gradient_norm"] > 0 and row["tokens"] > 0 for row in log)


def test_recipe_and_card_lie_beside_the_weights(adapter: Path) -> None:
    from nift_training import recipe

    facts = artifacts.read_manifest(adapter).facts
    assert recipe.named(str(adapter / "recipe.json")) == RECIPE
    card = (adapter / "README.md").read_text()
    for expected in (facts["data_version"], facts["hardware"], f"{facts['versions']['torch']}", "tiny-base", "6 of 4"):
        assert expected in card


def test_peft_loads_the_adapter_whole(adapter: Path, tiny: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), adapter)
    learnt = [parameter for name, parameter in loaded.named_parameters() if "lora_B" in name]
    assert len(learnt) == 14
    assert all(parameter.abs().max() > 0 for parameter in learnt)


def test_the_papers_half_cosine(adapter: Path) -> None:
    """transformers' `get_cosine_schedule_with_warmup` without warm-up, at the same steps."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    log = artifacts.read_rows(adapter / "train_log.jsonl")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=RECIPE.learning_rate)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, len(log))
    for row in log:
        assert row["learning_rate"] == pytest.approx(schedule.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.fault("M4")
def test_a_loss_that_is_not_finite_stops_with_its_step_and_keeps_the_last_checkpoint(
    tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """The base's embedding of one token is damaged, which only the third step reads."""
    from safetensors.torch import load_file, save_file

    base, data = tmp_path / "base", tmp_path / "data.jsonl"
    shutil.copytree(tiny, base)
    rows = [{"prompt": "the bridge", "response": "the river and the garden"}] * 12
    recipe = replace(RECIPE, epochs=1, add_eos=False)
    third = next(micro_batches.windows(12, recipe, done=2))[0][0]
    rows[third] = {"prompt": "the bridge", "response": "Ω"}
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    weights = load_file(base / "model.safetensors")
    (poison,) = {int(each) for each in _ids(tiny, "Ω")} - {int(each) for each in _ids(tiny, rows[0]["response"])} or {0}
    weights["model.embed_tokens.weight"][poison] = float("nan")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="loss nan at step 3: lower --learning-rate"):
        run.train(base, "tiny", data, recipe, tmp_path / "out", 1, save_steps=1)
    assert {path.name for path in (tmp_path / "out.work").glob("checkpoint-*")} == {
        "checkpoint-000001",
        "checkpoint-000002",
    }
    assert not (tmp_path / "out").exists()


def _ids(folder: Path, text: str) -> list[int]:
    from nift_training import backbone

    ids: list[int] = backbone.read(folder).tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[:1]


BOMBED = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")


@pytest.mark.fault("X6")
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", {"model_type": "bomb", "auto_map": dict.fromkeys(BOMBED, "bomb.Bomb")}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Bomb", "auto_map": {"AutoTokenizer": ["bomb.Bomb", "bomb.Bomb"]}},
        ),
    ],
)
def test_code_that_comes_with_a_model_is_never_run(
    file: str, said: dict[str, Any], tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    base, trace = tmp_path / "base", tmp_path / "ran"
    shutil.copytree(tiny, base)
    (base / "bomb.py").write_text(f"from pathlib import Path\nPath({str(trace)!r}).write_text('ran')\n")
    (base / file).write_text(json.dumps(json.loads((base / file).read_text()) | said))
    refused = pytest.raises((ValueError, OSError)) if file == "config.json" else nullcontext()
    with refused:
        run.train(base, "bomb", pairs_file, RECIPE, tmp_path / "out", 1)
    assert not trace.exists()
    assert (tmp_path / "out").exists() == (file != "config.json")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--recipe", "fast"], "there is no recipe 'fast'"),
        (["--devices", "2", "--hostfile", "no-hosts"], "no-hosts is not there"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(
    tiny: Path, pairs_file: Path, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    command = [sys.executable, "-m", "nift_training.train", "--base", str(tiny), "--data", str(pairs_file)]
    command += ["--out", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("M8")
def test_a_gpu_or_a_model_that_is_not_there_is_named(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="1 GPUs are asked for and torch sees 0"):
            run.train(tiny, "tiny", pairs_file, RECIPE, tmp_path / "out", 1, device="cuda")
    with pytest.raises(ValueError, match="is not a model folder"):
        run.train(tmp_path / "nowhere", "tiny", pairs_file, RECIPE, tmp_path / "out", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("M8")
def test_memory_that_does_not_suffice_is_one_error_with_what_to_try() -> None:
    import torch

    with (
        pytest.raises(ValueError, match=r"try a smaller --tokens-at-once, --gradient-checkpointing on"),
        devices.memory_errors(Machine()),
    ):
        torch.empty(2**60)


def test_kernels_that_cannot_run_here_are_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    wanted = Machine(kernels="liger")
    with pytest.raises(ValueError, match="needs a GPU, and this runs on cpu"):
        kernels.check(wanted, torch.device("cpu"))
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(ValueError, match="pip install liger-kernel"):
        kernels.check(wanted, torch.device("cuda"))
    kernels.check(Machine(), torch.device("cpu"))


def test_ligers_kernels_change_the_loss_by_rounding_at_most(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    pytest.importorskip("liger_kernel")
    losses = []
    for kind in ("torch", "liger"):
        out = tmp_path / kind
        options = ["--base", tiny, "--data", pairs_file, "--epochs", "1", "--batch-size", "4", "--kernels", kind]
        command_line.main([*map(str, options), "--out", str(out), "--precision", "float32"])
        losses.append([row["loss"] for row in artifacts.read_rows(out / "train_log.jsonl")])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.fault("M8")
def test_deepspeed_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ValueError, match="DeepSpeed is not installed"):
        devices.join(torch.device("cpu"), ALONE, Machine(zero=2))


def exit_code(argv: list[str]) -> object:
    try:
        verbs.run(command_line.main, argv)
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.fault("S1", runs="training: every text that is written")
def test_a_full_disk_is_one_line_whichever_write_meets_it(
    tiny: Path,
    pairs_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    counts: Counts,
) -> None:
    """S1: the n-th of all texts that are written (checkpoint, configuration, log, card, manifest) finds the disk full
    after half of it; then safetensors' own file does."""
    argv = ["--base", str(tiny), "--data", str(pairs_file), "--out", str(tmp_path / "adapter"), "--threads", "1"]
    argv += ["--epochs", "2", "--batch-size", "12", "--cutoff", "64", "--save-steps", "1"]
    write_text, writes = Path.write_text, iter(range(100))
    full = -1

    def write(path: Path, text: str, **options: Any) -> int:
        if next(writes) != full:
            return write_text(path, text, **options)
        write_text(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_text", write)
    whole = None
    while whole is None:
        full, writes = full + 1, iter(range(100))
        if not exit_code(argv):
            whole = artifacts.verify(tmp_path / "adapter")
            continue
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: the disk is full")
        assert {path.name for path in tmp_path.iterdir()} <= {"adapter.work"}
        shutil.rmtree(tmp_path / "adapter.work", ignore_errors=True)  # or the next run would write less
    monkeypatch.undo()
    assert full >= 9
    counts("S1", f"training: {full} texts found the disk full, each one line and nothing half-written")

    other = [text.replace(str(tmp_path / "adapter"), str(tmp_path / "again")) for text in argv]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert exit_code(other) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the disk is full")
    assert exit_code(other) == 0
    assert artifacts.verify(tmp_path / "again").digest == whole.digest


@pytest.mark.slow
def test_the_measurement_beside_a_plain_trainer_runs_without_a_gpu() -> None:
    """`make bench-train`, which on a GPU measures a Llama-3-8B by the same lines, on a model of a thousand words."""
    command = [sys.executable, "-m", "tests.training.train.bench", "--shape", "tiny", "--rows", "4", "--rounds", "1"]
    done = subprocess.run([*command, "--loads", "1"], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines() if line.startswith("| ")][1:] == [
        "| nift",
        "| transformers Trainer",
        "| Trainer, grouped by length",
    ]
    assert "matrix products alone would take" in done.stdout or "TFLOP/s" in done.stdout
