"""Trains a LoRA adapter on prompt/response pairs and writes it with its log, recipe and manifest."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import artifacts, generation, pairs, progress, verbs
from nift_training.memory import peak_rss_mb
from nift_training.pairs import Example
from nift_training.recipe import Recipe

if TYPE_CHECKING:
    import torch

IGNORED = -100  # cross-entropy leaves out targets of this value
SAY_EVERY_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Step:
    """One optimiser step: its mean loss over response tokens, its learning rate, and the tokens it read."""

    step: int
    loss: float
    learning_rate: float
    tokens: int


def train(base: Path, base_name: str, data: Path, recipe: Recipe, out: Path, threads: int) -> artifacts.Manifest:
    """The manifest of the adapter folder `out`: the same inputs and threads give the same bytes on a CPU."""
    artifacts.check_free(out)
    started = time.monotonic()
    rows = pairs.read(data)
    loaded = generation.load(base)
    examples = [pairs.encode(loaded.tokenizer, row, recipe.cutoff) for row in rows]
    with artifacts.folder(out, "adapter") as draft:
        model = with_fresh_adapter(loaded.model, recipe)
        steps = optimise(model, examples, recipe, loaded.tokenizer.eos_token_id)
        save(model, base_name, recipe, steps, draft.path)
        seconds = time.monotonic() - started
        tokens = sum(step.tokens for step in steps)
        draft.facts.update(
            base=base_name,
            base_digest=loaded.digest,
            rows=len(rows),
            steps=len(steps),
            tokens=tokens,
            first_loss=steps[0].loss,
            last_loss=steps[-1].loss,
            seconds=round(seconds, 2),
            tokens_per_second=round(tokens / seconds, 1),
            peak_rss_mb=round(peak_rss_mb()),
            threads=threads,
            recipe=asdict(recipe),
            versions=artifacts.versions("torch", "transformers", "peft"),
        )
    return artifacts.read_manifest(out)


def with_fresh_adapter(model: Any, recipe: Recipe) -> Any:
    """The model with a LoRA that changes nothing yet on every linear layer except `lm_head`.

    A float16 model becomes float32: without loss scaling its gradients would vanish.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    if model.dtype == torch.float16:
        model = model.to(torch.float32)
    torch.manual_seed(recipe.seed)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=linear_layers(model),
    )
    return get_peft_model(model, lora).train()


def linear_layers(model: Any) -> list[str]:
    """The last names of the model's linear layers, without `lm_head`: q_proj, k_proj, …, down_proj in a Llama."""
    import torch

    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return sorted({name.rpartition(".")[2] for name in linear if "lm_head" not in name})


def optimise(model: Any, examples: Sequence[Example], recipe: Recipe, padding: int) -> list[Step]:
    """Trains the adapter in place; one row per optimiser step is returned."""
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.epsilon, weight_decay=0.0
    )
    total = recipe.steps(len(examples))
    steps: list[Step] = []
    started = said = time.monotonic()
    for step, window in enumerate(windows(len(examples), recipe), start=1):
        rate = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - 1) / total))
        optimizer.param_groups[0]["lr"] = rate
        batch = [examples[place] for place in window]
        loss = _accumulate(model, batch, recipe.micro_batch, padding)
        norm = torch.nn.utils.clip_grad_norm_(trained, recipe.max_gradient_norm)
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            raise ValueError(f"loss {loss} at step {step}: lower --learning-rate, or look for a broken base or row")
        optimizer.step()
        optimizer.zero_grad()
        steps.append(Step(step=step, loss=loss, learning_rate=rate, tokens=sum(map(len, batch))))
        if step in (1, total) or time.monotonic() - said > SAY_EVERY_SECONDS:
            said = time.monotonic()
            speed = sum(each.tokens for each in steps) / (said - started)
            progress.say(f"train: step {step}/{total}, loss {loss:.4f}, {speed:.0f} tokens/s")
    return steps


def windows(rows: int, recipe: Recipe) -> Iterator[list[int]]:
    """The row numbers of each optimiser step.

    Every epoch is shuffled anew and follows the one before without a break, as the accumulation counter of
    transformers 4.37 does: rows left over at an epoch's end open the next step.
    """
    import torch

    shuffle = torch.Generator().manual_seed(recipe.seed)
    stream: list[int] = []
    for _ in range(recipe.epochs):
        stream += torch.randperm(rows, generator=shuffle).tolist()
    size = recipe.window(rows)
    for step in range(recipe.steps(rows)):
        yield stream[step * size : (step + 1) * size]


def save(model: Any, base_name: str, recipe: Recipe, steps: Sequence[Step], out: Path) -> None:
    """Writes the adapter as peft does, naming its base and no path, with log, recipe and model card."""
    model.peft_config["default"].base_model_name_or_path = base_name
    # Left to itself peft asks the Hub whether the base's embeddings changed.
    model.save_pretrained(out, save_embedding_layers=False)
    config = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
    config["target_modules"].sort()  # a set inside peft, in another order in every process
    _write_json(out / "adapter_config.json", config)
    _write_json(out / "recipe.json", {"base": base_name, **asdict(recipe)})
    (out / "train_log.jsonl").write_text("".join(artifacts.line(asdict(step)) for step in steps), encoding="utf-8")
    (out / "README.md").write_text(_card(base_name, recipe), encoding="utf-8")


def batch_tensors(examples: Sequence[Example], padding: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and labels of a batch, padded on the right; a label is the id itself or ignored."""
    import torch

    width = max(map(len, examples))
    ids = torch.full((len(examples), width), padding)
    labels = torch.full((len(examples), width), IGNORED)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = torch.tensor(example.prompt + example.response)
        labels[row, len(example.prompt) : len(example)] = torch.tensor(example.response)
        mask[row, : len(example)] = 1
    return ids, mask, labels


def _accumulate(model: Any, window: Sequence[Example], micro_batch: int, padding: int) -> float:
    """Adds the window's gradient and returns its loss, the mean over all response tokens of the window."""
    import torch

    # The mean does not depend on the order, and rows of one length need little padding.
    rows = sorted(window, key=len)
    # The first id of a sequence has nothing before it that could predict it.
    targets = sum(len(row.response) - (not row.prompt) for row in rows)
    # The head is asked about response positions only: with all logits a pico takes twice the time and memory.
    causal = model.get_base_model()
    loss = 0.0
    for start in range(0, len(rows), micro_batch):
        micro = batch_tensors(rows[start : start + micro_batch], padding)
        ids, mask, labels = (tensor.to(model.device) for tensor in micro)
        predicted = labels[:, 1:] != IGNORED
        hidden = causal.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        logits = causal.get_output_embeddings()(hidden[:, :-1][predicted])
        share: Any = torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][predicted], reduction="sum")
        share = share / max(targets, 1)
        share.backward()
        loss += share.item()
    return loss


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _card(base_name: str, recipe: Recipe) -> str:
    return (
        f"---\nbase_model: {base_name}\nlibrary_name: peft\n---\n\n"
        f"# LoRA adapter for {base_name}\n\n"
        "Trained to continue text: prompt and response follow each other without a template, and only the\n"
        "response gives loss (non-instructional fine-tuning, arXiv 2409.00096).\n\n"
        f"Rank {recipe.rank}, alpha {recipe.alpha}, {recipe.epochs} epochs, batch {recipe.batch_size}, learning rate\n"
        f"{recipe.learning_rate}; every number is in `recipe.json`, every step in `train_log.jsonl`.\n"
    )


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes the adapter folder."""
    paper = Recipe()
    parser = verbs.parser("train", __doc__, "adapter folder to write")
    parser.add_argument("--base", type=Path, required=True, help="folder of the model to train on")
    parser.add_argument("--base-name", required=True, help="the base's name, recorded in the adapter")
    parser.add_argument("--data", type=Path, required=True, help=".jsonl or .parquet with prompt and response")
    parser.add_argument("--epochs", type=int, default=paper.epochs, help="passes over the data")
    parser.add_argument("--batch-size", type=int, default=paper.batch_size, help="rows per optimiser step")
    parser.add_argument("--micro-batch", type=int, default=paper.micro_batch, help="rows in memory at once")
    parser.add_argument("--learning-rate", type=float, default=paper.learning_rate, help="at the first step")
    parser.add_argument("--cutoff", type=int, default=paper.cutoff, help="tokens kept of a pair")
    parser.add_argument("--rank", type=int, default=paper.rank, help="rank of the LoRA matrices")
    parser.add_argument("--alpha", type=int, default=paper.alpha, help="LoRA scale, applied as alpha/rank")
    parser.add_argument("--seed", type=int, default=paper.seed, help="seed of the LoRA matrices and the shuffling")
    options = parser.parse_args(argv)
    recipe = Recipe(
        epochs=options.epochs,
        batch_size=options.batch_size,
        micro_batch=options.micro_batch,
        learning_rate=options.learning_rate,
        cutoff=options.cutoff,
        rank=options.rank,
        alpha=options.alpha,
        seed=options.seed,
    )
    verbs.use_threads(options.threads)
    train(options.base, options.base_name, options.data, recipe, options.out, options.threads)


if __name__ == "__main__":
    verbs.run(main)
