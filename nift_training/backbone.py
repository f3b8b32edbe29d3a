"""The model an adapter is trained on, and its tokenizer, read from a folder in the precision of the recipe."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nift_training import artifacts, attention, json_objects, model_folder, transformers_internals
from nift_training.messages import one_line
from nift_training.model_folder import Weights
from nift_training.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BackboneFolder:
    """A folder that holds a model: its tokenizer, and what identifies it.

    `digest` is its manifest's where it has one; for another download `identity` is made of its configuration and of
    the names and sizes of its files, which is enough to see that a resumed run has another base.
    """

    folder: Path
    tokenizer: Any
    digest: str | None
    identity: str


def read(folder: Path, *, verified: bool = True) -> BackboneFolder:
    """The folder's tokenizer, after its manifest was held against its files if it has one.

    Of several processes one does that for all; the others take the manifest as it is. Code that comes with a model is
    never run.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is not a model folder: name one, or fetch it with python -m nift_training.fetch")
    manifest = (folder / artifacts.MANIFEST).is_file()
    digest = artifacts.verified_digest(folder) if verified or not manifest else artifacts.read_manifest(folder).digest
    tokenizer = read_tokenizer(folder, local_files_only=True)
    check_end(folder, tokenizer)
    return BackboneFolder(folder, tokenizer, digest, digest or _identity(folder))


def weights(model: Weights | Path, recipe: Recipe, device: torch.device, *, shared: bool = False) -> Any:
    """The model of a folder, or of what was found in one, on the device, its attention able to keep packed sequences
    apart.

    With `shared` DeepSpeed has been told that weights are shared, and transformers hands each process its part.
    """
    found = model_folder.weights(model_folder.read(model)) if isinstance(model, Path) else model
    # Soft-capped logits (Gemma 2) and attention sinks (gpt-oss) have no fused kernel, and some models only their own.
    takes_ours = transformers_internals.takes_attention(found.model)
    chosen = {"attn_implementation": attention.register()} if takes_ours else {}
    loaded = model_folder.load(found.folder, dtype=precision(found.folder.path, recipe, device), **chosen)
    return loaded if shared else loaded.to(device)


def precision(folder: Path, recipe: Recipe, device: torch.device) -> torch.dtype:
    """The precision the model is held and computed in.

    On a CPU float16 is 90 times slower than float32: there a recipe in float16 keeps the checkpoint's own precision,
    or takes float32 if that is float16.
    """
    import torch

    wanted: torch.dtype = getattr(torch, recipe.precision)
    if device.type == "cuda":
        if wanted == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ValueError("this GPU does not compute in bfloat16: choose --precision float16")
        return wanted
    if wanted != torch.float16:
        return wanted
    config = json_objects.of_file(folder / "config.json")
    kept = str(config.get("dtype", config.get("torch_dtype")))
    return torch.bfloat16 if kept == "bfloat16" else torch.float32


def read_tokenizer(model: str | Path, **own: Any) -> Any:
    """The tokenizer of a folder, or of a Hub repository at a `revision`, as its own tokenizer.json has it.

    transformers 5 makes Llama's anew from its vocabulary, and then a text that begins with a space, or goes on behind a
    special token, has no dummy prefix any more: " next" is [2446] there, and [29871, 2446] in SentencePiece, which the
    paper's trainer used, in tokenizer.json, and in the transformers 4 that FastChat ran on.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind: Any = PreTrainedTokenizerFast if _has_tokenizer_json(model, own.get("revision")) else AutoTokenizer
    try:
        tokenizer = kind.from_pretrained(model, trust_remote_code=False, **own)
        tokenizer(["a", ""])  # some settings are looked at only now, a length that is a text for one
    except Exception as mistake:  # whatever transformers and tokenizers make of files that they do not expect
        if isinstance(mistake, OSError) and not Path(model).is_dir():
            raise
        raise ValueError(
            f"the tokenizer of {model} cannot be read ({one_line(mistake, 200)}): fetch its files again, or one with a "
            "tokenizer.json"
        ) from None
    if Path(model).is_dir():
        _refuse_empty(Path(model), tokenizer)
    return tokenizer


def check_end(model: str | Path, tokenizer: Any) -> None:
    """Refuses a tokenizer that ends no sequence: its end token is not set, or is none of its words."""
    end = tokenizer.eos_token_id
    if end is None or (end == tokenizer.unk_token_id and tokenizer.eos_token != tokenizer.unk_token):
        raise ValueError(
            f"the tokenizer of {model} has no end-of-sequence token but {tokenizer.eos_token!r}: set eos_token in its "
            "config"
        )


def _refuse_empty(folder: Path, tokenizer: Any) -> None:
    """Refuses a folder without the files of its tokenizer: transformers makes one that knows no words of it."""
    files = dict(tokenizer.vocab_files_names)
    whole = files.pop("tokenizer_file", None)
    if whole and (folder / whole).is_file():
        return
    if lost := [name for name in files.values() if not (folder / name).is_file()] or ([whole] if not files else []):
        raise ValueError(
            f"{folder} has no {whole or lost[0]}, and no {lost[0]} that it could be made of: its tokenizer would know "
            f"{len(tokenizer)} tokens; fetch its files"
        )


def _has_tokenizer_json(model: str | Path, revision: str | None) -> bool:
    from transformers.utils.hub import cached_file

    if Path(model).is_dir():
        return Path(model, "tokenizer.json").is_file()
    try:
        return cached_file(str(model), "tokenizer.json", revision=revision) is not None
    except OSError:
        return False


def _identity(folder: Path) -> str:
    files = sorted((file.name, file.stat().st_size) for file in folder.iterdir() if file.is_file())
    content = json.dumps([files, (folder / "config.json").read_text(encoding="utf-8")])
    return hashlib.sha256(content.encode()).hexdigest()
