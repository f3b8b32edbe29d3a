"""Text from a model: batched greedy or sampled generation through transformers, with a KV cache."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nift_training import artifacts, backbone, json_objects, model_folder, progress
from nift_training.evaluate import padding, serving, stepping
from nift_training.messages import one_line

if TYPE_CHECKING:
    import torch

GENERATION_CONFIG = "generation_config.json"
BATCH = 16  # prompts per forward pass
GREEDY_BELOW = 1e-4  # FastChat samples only from this temperature on


@dataclass(frozen=True)
class Generator:
    """A model on its device, its tokenizer, which pads on the left, and the digest of its folder if it has one.

    The model may be a `serving.ModelServer` that answers instead. `in_batches` says that prompts of several lengths can
    be asked together.
    """

    model: Any
    tokenizer: Any
    digest: str | None = None
    in_batches: bool = True


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What followed one prompt: the token ids with any end token cut off, their text, and why they ended.

    `tokens` counts what the model generated, the end token included. A server sends no ids, but `marked`, the text
    in which special tokens can still be seen.
    """

    ids: tuple[int, ...]
    text: str
    tokens: int
    stopped: Literal["eos", "length"]
    marked: str | None = None


def load(model: str | Path, revision: str | None = None) -> Generator:
    """The generator of a local folder, whose manifest is verified if it has one, or of a Hub repository's revision.

    Code that comes with a model is never run. On a CPU float16 becomes float32, being 90 times slower there.
    """
    import torch

    if revision is None and not (Path(model) / "config.json").is_file():
        raise ValueError(f"{model} is not a model folder: name one, or a Hub repository and its revision")
    digest = artifacts.verified_digest(Path(model))
    tokenizer = _tokenizer(model, revision)
    weights = _from_folder(Path(model)) if revision is None else _from_hub(str(model), revision)
    rows = weights.get_input_embeddings().num_embeddings
    if tokenizer.pad_token_id >= rows:
        # It is masked, but it has to have a row, which an end token that was added has not either.
        end = tokenizer.eos_token_id
        tokenizer.pad_token_id = end if end is not None and end < rows else 0
    if torch.cuda.is_available():
        weights = weights.to("cuda")
    elif weights.dtype == torch.float16:
        weights = weights.to(torch.float32)
    generator = Generator(weights.eval(), tokenizer, digest, _is_masked(weights, model))
    _check_settings(generator, model)
    if not generator.in_batches:
        progress.say(
            f"evaluate: {type(weights).__name__} does not keep what fills up a batch apart: one prompt at a time"
        )
    return generator


def _from_folder(path: Path) -> Any:
    folder = model_folder.read(path)
    if (path / GENERATION_CONFIG).is_file():
        json_objects.of_file(path / GENERATION_CONFIG)  # transformers would go on without one that it cannot read
    if not folder.quantization and all(file.suffix == ".safetensors" for file in folder.files):
        model_folder.weights(folder)
    return model_folder.load(folder, dtype="auto")


def _from_hub(repository: str, revision: str) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils.peft_utils import find_adapter_config_file

    if find_adapter_config_file(repository, revision=revision) is not None:
        raise ValueError(f"{repository} also holds an adapter, which transformers would lay over the model: merge it")
    return AutoModelForCausalLM.from_pretrained(repository, dtype="auto", revision=revision, trust_remote_code=False)


def served(model: str | Path, server: serving.ModelServer, revision: str | None = None) -> Generator:
    """The generator that asks a server; of the model's folder or Hub repository only the tokenizer is read."""
    return Generator(server, _tokenizer(model, revision))


def generate(
    generator: Generator,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop_tokens: Sequence[str] = (),
    batch_size: int = BATCH,
) -> list[Generation]:
    """One generation per prompt, in the order of the prompts.

    Prompts of similar length share a batch, and the seed is set anew for every batch. Other sampling settings
    (top-p, top-k) are those of the model's own generation_config, as in FastChat.
    """
    if isinstance(generator.model, serving.ModelServer):
        completions = serving.complete(
            generator.model,
            prompts,
            max_tokens=max_new_tokens,
            temperature=0.0 if temperature < GREEDY_BELOW else temperature,
            seed=seed,
            stop=stop_tokens,
        )
        return [_from_server(generator, completion) for completion in completions]
    encoded = [encode(generator, prompt) for prompt in prompts]
    most = _check_prompts(generator, prompts, encoded)
    by_length = sorted(range(len(prompts)), key=lambda index: len(encoded[index]))
    ends = end_ids(generator, stop_tokens)
    done: dict[int, Generation] = {}
    batches = [by_length[start : start + batch_size] for start in range(0, len(by_length), batch_size)]
    if not generator.in_batches or (most is not None and any(len(ids) + max_new_tokens > most for ids in encoded)):
        batches = [[index] for index in by_length]  # each goes on as far as it can, whoever else is asked
    for batch in batches:
        longest = len(encoded[batch[-1]])
        limit = max_new_tokens if most is None else min(max_new_tokens, most - longest)
        rows = _generate_batch(generator, [encoded[index] for index in batch], ends, limit, temperature, seed)
        done |= {index: _generation(generator, row, ends) for index, row in zip(batch, rows, strict=True)}
    return [done[index] for index in range(len(prompts))]


def stream(
    generator: Generator,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    stop_tokens: Sequence[str] = (),
) -> abc.Generator[Generation, None, None]:
    """What follows one prompt, token by token, each time all of it so far: the last is what `generate` gives for the
    prompt alone. Nothing more is generated while nobody asks for the next.
    """
    temperature = 0.0 if temperature < GREEDY_BELOW else temperature
    if isinstance(generator.model, serving.ModelServer):
        completions = serving.stream(
            generator.model, prompt, max_tokens=max_new_tokens, temperature=temperature, seed=seed, stop=stop_tokens
        )
        yield from (_from_server(generator, completion) for completion in completions)
        return
    ids = encode(generator, prompt)
    most = _check_prompts(generator, [prompt], [ids])
    limit = max_new_tokens if most is None else min(max_new_tokens, most - len(ids))
    ends = end_ids(generator, stop_tokens)
    if (generator.model.generation_config.num_beams or 1) > 1:  # which answer it is shows at its end
        yield _generation(generator, _generate_batch(generator, [ids], ends, limit, temperature, seed)[0], ends)
        return
    row: list[int] = []
    for token in stepping.steps(
        lambda came: _generate_batch(generator, [ids], ends, limit, temperature, seed, came=came)
    ):
        row.append(token)
        yield _generation(generator, row, ends)


def encode(generator: Generator, prompt: str) -> list[int]:
    """The token ids of a prompt, begun as its tokenizer begins a text, and not ended: it is to be gone on with."""
    ids: list[int] = generator.tokenizer(prompt)["input_ids"]
    begin, end = _around(generator.tokenizer)
    return ids[: len(ids) - len(end)] if end and ids[-len(end) :] == end and len(ids) > len(begin) + len(end) else ids


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What a tokenizer puts before and behind every text by itself."""
    whole: list[int] = tokenizer("a")["input_ids"]
    text: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    for start in range(len(whole) - len(text) + 1):
        if whole[start : start + len(text)] == text:
            return whole[:start], whole[start + len(text) :]
    return whole[:1], []  # it reads a text otherwise behind its beginning


def _check_prompts(generator: Generator, prompts: Sequence[str], encoded: Sequence[Sequence[int]]) -> int | None:
    """The model's learned positions, None for any number. ValueError names a prompt that the model cannot read: one
    that is empty, leaves no position for an answer, or has a token the model has no vector of."""
    model, tokenizer = generator.model, generator.tokenizer
    most, words = model_folder.positions(model), model.get_input_embeddings().num_embeddings
    for prompt, ids in zip(prompts, encoded, strict=True):
        if not ids:
            raise ValueError(
                f"the prompt {prompt!r} has no token, and the tokenizer begins no text with one: leave it out"
            )
        if most is not None and len(ids) >= most:
            raise ValueError(
                f"the prompt {prompt[:40]!r}… has {len(ids)} tokens, and the model {most} positions, for the answer as "
                "well: leave it out, or ask a model of more"
            )
        if strange := next((token for token in ids if token >= words), None):
            raise ValueError(
                f"the prompt {prompt[:40]!r}… has the token {tokenizer.convert_ids_to_tokens(strange)!r} ({strange}), "
                f"and the model has vectors of {words} tokens: give it its own tokenizer"
            )
    return most


def end_ids(generator: Generator, stop_tokens: Sequence[str] = ()) -> frozenset[int]:
    """The token ids that end a generation: the model's own and those stop tokens its vocabulary has."""
    configured = generator.model.generation_config.eos_token_id
    own = configured if isinstance(configured, list) else [] if configured is None else [configured]
    vocabulary = generator.tokenizer.get_vocab()
    named = [vocabulary[token] for token in stop_tokens if token in vocabulary]
    return frozenset([generator.tokenizer.eos_token_id, *own, *named])


def _is_masked(weights: Any, model: str | Path) -> bool:
    """`padding.is_masked`; ValueError for a model that cannot even be asked something alone."""
    import torch

    try:
        return padding.is_masked(weights)
    except torch.OutOfMemoryError:
        raise
    except Exception as mistake:  # whatever a class of transformers makes of values that its configuration let pass
        raise ValueError(
            f"transformers {version('transformers')} cannot run {model} ({one_line(mistake, 160)}): download the model "
            "again, or another transformers"
        ) from None


def _check_settings(generator: Generator, model: str | Path) -> None:
    """Refuses a model whose own settings of generation it cannot be asked with, sampled or not."""
    import torch

    said = generator.model.generation_config.eos_token_id
    listed = said if isinstance(said, list) else [] if said is None else [said]
    strange: list[object] = [end for end in listed if not isinstance(end, int) or isinstance(end, bool)]
    try:
        # Two lengths: a setting may fit one of them alone.
        for length, temperature in () if strange else ((1, 0.0), (1, 1.0), (5, 0.0)):
            _generate_batch(generator, [[0] * length], end_ids(generator), 1, temperature, seed=0)
    except torch.OutOfMemoryError:
        raise
    except Exception as mistake:  # whatever transformers makes of settings and a model that do not go together
        strange = [one_line(mistake, 160)]
    if strange:
        raise ValueError(
            f"{model} cannot be asked with the settings of its {GENERATION_CONFIG} ({strange[0]!r}): repair it, or "
            "remove it"
        )


def with_one_bos(generator: Generator, prompt: str) -> str:
    """The prompt without the begin-of-text that the tokenizer is going to add itself.

    Servers apply a chat template without adding a second one; MT-Bench's own script has two.
    """
    bos = generator.tokenizer.bos_token
    adds_it = bos is not None and _around(generator.tokenizer)[0][-1:] == [generator.tokenizer.bos_token_id]
    return prompt.removeprefix(bos) if adds_it else prompt


def _tokenizer(model: str | Path, revision: str | None) -> Any:
    tokenizer = backbone.read_tokenizer(model, revision=revision, padding_side="left")
    backbone.check_end(model, tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _from_server(generator: Generator, completion: serving.Completion) -> Generation:
    text = completion.text
    for token in generator.tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return Generation(ids=(), text=text, marked=completion.text, tokens=completion.tokens, stopped=completion.stopped)


def _generate_batch(
    generator: Generator,
    prompts: Sequence[Sequence[int]],
    ends: frozenset[int],
    max_new_tokens: int,
    temperature: float,
    seed: int,
    came: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """The ids that follow each prompt; those of a single prompt are handed to `came` one by one as well."""
    import torch

    pad: int = generator.tokenizer.pad_token_id
    padded = padding.left(prompts, pad, generator.model.device)
    torch.manual_seed(seed)
    with torch.inference_mode():
        output: torch.Tensor = generator.model.generate(
            **padded,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
            num_return_sequences=1,
            return_dict_in_generate=False,
            **_sampling(temperature),
            **({"streamer": _TokenStreamer(came)} if came else {}),
        )
    rows: list[list[int]] = output[:, padded["input_ids"].shape[1] :].tolist()
    return rows


class _TokenStreamer:
    """What transformers hands the tokens of a single prompt to, the prompt's own first and all at once."""

    def __init__(self, came: Callable[[int], None]) -> None:
        self._came, self._past_prompt = came, False

    def put(self, tokens: torch.Tensor) -> None:
        if self._past_prompt:
            self._came(int(tokens.reshape(-1)[0]))
        self._past_prompt = True

    def end(self) -> None:
        """The last token has come."""


def _sampling(temperature: float) -> dict[str, Any]:
    if temperature < GREEDY_BELOW:
        # The rest of a checkpoint's sampling settings would only raise a warning that they go unused.
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": temperature}


def _generation(generator: Generator, row: Sequence[int], ends: frozenset[int]) -> Generation:
    length = next((place for place, token in enumerate(row) if token in ends), None)
    ids = tuple(row[:length])  # what follows the end token is padding
    text: str = generator.tokenizer.decode(ids, skip_special_tokens=True)
    return Generation(
        ids=ids,
        text=text,
        tokens=len(ids) + (length is not None),
        stopped="length" if length is None else "eos",
    )
