"""The pico backbone: a Llama of 2.4 million weights, made on the spot from a folder of articles.

It stands in for Llama-3 where there is no GPU, no network and a quarter of a minute: same architecture, same
special tokens, same files. With `--instruct-from` its Instruct sibling is made instead, from the same articles
turned into questions and answers.
"""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import artifacts, progress, templates, verbs

if TYPE_CHECKING:
    import torch

BEGIN_OF_TEXT, END_OF_TEXT, END_OF_TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
SPECIAL_TOKENS = [BEGIN_OF_TEXT, END_OF_TEXT, "<|start_header_id|>", "<|end_header_id|>", END_OF_TURN]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
VOCABULARY = 4096
POSITIONS = 2048
WARM_UP_STEPS = 4
SAY_EVERY_STEPS = 40
IGNORED = -100  # cross-entropy leaves out targets of this value

REQUESTS = ("Write a short article titled “{}”.", "Tell me about this: {}", "Please write a text called: {}")
ANSWER_WORDS = 90  # how much of an article answers such a request: what fits the instruct blocks


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long, wide and steeply a pico is trained; measured to fit 15 seconds on one thread with all imports."""

    steps: int
    rows: int
    tokens: int
    learning_rate: float


PRETRAINING = Schedule(steps=200, rows=4, tokens=64, learning_rate=5e-3)
INSTRUCTION_TUNING = Schedule(steps=40, rows=4, tokens=200, learning_rate=1e-3)
EMBEDDING_RATE = 4  # times the learning rate of the layers between: a token is seen a few times only


def read_articles(path: Path) -> list[str]:
    """The text of every *.txt file of a folder, in the order of the names."""
    articles = [file.read_text(encoding="utf-8").strip() for file in sorted(path.glob("*.txt"))]
    if not articles:
        raise ValueError(f"{path} holds no *.txt article: name the folder that does")
    return articles


def build(articles: Sequence[str], out: Path, seed: int) -> dict[str, Any]:
    """Writes tokenizer and pre-trained weights into `out`; the facts of the training are returned."""
    import torch

    tokenizer = train_tokenizer(articles)
    tokenizer.save_pretrained(out)
    model = _initialise(len(tokenizer), seed)
    stream = [token for article in articles for token in tokenizer(article + END_OF_TEXT)["input_ids"]]
    losses = _train(model, _blocks(torch.tensor(stream), PRETRAINING, seed), PRETRAINING)
    _save(model, out)
    return _facts(model, losses)


def build_instruct(base: Path, articles: Sequence[str], out: Path, seed: int) -> dict[str, Any]:
    """Writes the base's tokenizer, unchanged, and its weights trained on to answer requests into `out`."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base)
    dialogues = [_dialogue(article, place) for place, article in enumerate(articles)]
    losses = _train(model, _dialogue_blocks(tokenizer, dialogues, seed), INSTRUCTION_TUNING)
    ends = tokenizer.convert_tokens_to_ids([END_OF_TEXT, END_OF_TURN])
    model.config.eos_token_id = model.generation_config.eos_token_id = ends
    _save(model, out)
    for name in TOKENIZER_FILES:
        shutil.copyfile(base / name, out / name)
    return _facts(model, losses)


def _save(model: Any, out: Path) -> None:
    from nift_training.transformers_internals import without_deepspeed

    with without_deepspeed():
        model.save_pretrained(out)


def train_tokenizer(articles: Sequence[str]) -> Any:
    """A byte-level BPE tokenizer with Llama-3's special tokens; every byte is in it, so any text survives."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(articles, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN_OF_TEXT} $A",
        pair=f"{BEGIN_OF_TEXT} $A $B",
        special_tokens=[(BEGIN_OF_TEXT, tokenizer.token_to_id(BEGIN_OF_TEXT))],
    )
    fast: Any = PreTrainedTokenizerFast  # untyped in transformers 5
    return fast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )


def _initialise(vocabulary: int, seed: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=160,
            intermediate_size=432,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            tie_word_embeddings=False,
            bos_token_id=SPECIAL_TOKENS.index(BEGIN_OF_TEXT),
            eos_token_id=SPECIAL_TOKENS.index(END_OF_TEXT),
            dtype="float32",
        )
    )
    # Wide embeddings and a silent head reach a loss of 4.9 in the steps in which Llama's own 0.02 reaches 6.3.
    torch.nn.init.normal_(model.model.embed_tokens.weight)
    torch.nn.init.zeros_(model.lm_head.weight)
    return model


def _blocks(stream: torch.Tensor, schedule: Schedule, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of windows cut from the joined articles at random places; the targets are the inputs."""
    import torch

    if len(stream) <= schedule.tokens:
        raise ValueError(f"the articles have {len(stream)} tokens together: give more than {schedule.tokens}")
    draw = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(stream) - schedule.tokens, (schedule.rows, 1), generator=draw)
        block = stream[starts + torch.arange(schedule.tokens)]
        yield block, block


def _dialogue(article: str, place: int) -> tuple[str, str]:
    """A request made of the article's title and the paragraphs, up to a limit, that answer it."""
    title, _, text = article.partition("\n")
    answer: list[str] = []
    for paragraph in text.strip().split("\n\n"):
        if answer and len(" ".join([*answer, paragraph]).split()) > ANSWER_WORDS:
            break
        answer.append(paragraph)
    return REQUESTS[place % len(REQUESTS)].format(title.strip()), "\n\n".join(answer)


def _dialogue_blocks(
    tokenizer: Any, dialogues: Sequence[tuple[str, str]], seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of dialogues in Llama-3's chat template, padded to one length; only the answer is a target."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    pairs = [
        (
            tokenizer(templates.render("llama-3", [request]), add_special_tokens=False)["input_ids"],
            tokenizer(answer + END_OF_TURN, add_special_tokens=False)["input_ids"],
        )
        for request, answer in dialogues
    ]
    while True:
        drawn = [pairs[place] for place in torch.randint(len(pairs), (INSTRUCTION_TUNING.rows,), generator=draw)]
        width = min(max(len(request) + len(answer) for request, answer in drawn), INSTRUCTION_TUNING.tokens)
        inputs = torch.full((len(drawn), width), tokenizer.eos_token_id)
        targets = torch.full((len(drawn), width), IGNORED)
        for row, (request, answer) in enumerate(drawn):
            ids = torch.tensor((request + answer)[:width])
            inputs[row, : len(ids)] = ids
            targets[row, len(request) : len(ids)] = ids[len(request) :]
        yield inputs, targets


def _train(model: Any, batches: Iterator[tuple[torch.Tensor, torch.Tensor]], schedule: Schedule) -> list[float]:
    """Trains the model in place, the learning rate fading linearly to zero; one loss per step is returned."""
    import torch

    embeddings = [model.model.embed_tokens.weight, model.lm_head.weight]
    between = [weight for name, weight in model.model.named_parameters() if name != "embed_tokens.weight"]
    groups = [
        {"params": between, "lr": schedule.learning_rate},
        {"params": embeddings, "lr": schedule.learning_rate * EMBEDDING_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    fade = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARM_UP_STEPS, 1 - step / schedule.steps)
    )
    losses = []
    model.train()
    for step, (inputs, targets) in enumerate(itertools.islice(batches, schedule.steps), start=1):
        loss = model(input_ids=inputs, labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        fade.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if step % SAY_EVERY_STEPS == 0:
            progress.say(f"pico: step {step}/{schedule.steps}, loss {losses[-1]:.3f}")
    return losses


def _facts(model: Any, losses: Sequence[float]) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": model.config.vocab_size,
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes the model folder."""
    started = time.monotonic()
    parser = verbs.parser("pico", __doc__, "model folder to write")
    parser.add_argument("--articles", type=Path, required=True, help="folder of *.txt articles, title in line one")
    parser.add_argument("--instruct-from", type=Path, help="pico folder to make the Instruct sibling of")
    parser.add_argument("--seed", type=int, default=42, help="seed of weights and batches")
    options = parser.parse_args(argv)

    articles = read_articles(options.articles)
    base: Path | None = options.instruct_from
    facts = {"base_digest": artifacts.verify(base).digest} if base else {}
    verbs.use_threads(options.threads)
    with artifacts.folder(options.out, "model") as draft:
        trained = (
            build_instruct(base, articles, draft.path, options.seed)
            if base
            else build(articles, draft.path, options.seed)
        )
        draft.facts.update(
            facts,
            **trained,
            articles=len(articles),
            seed=options.seed,
            threads=options.threads,
            seconds=round(time.monotonic() - started, 2),
            versions=artifacts.versions("torch", "transformers", "tokenizers"),
        )


if __name__ == "__main__":
    verbs.run(main)
