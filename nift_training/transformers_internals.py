"""The names that transformers keeps to itself and we need: which files it loads, what a class of model can do, and what
it imports to save one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def weight_files(folder: Path, config: Any) -> tuple[list[Path], bool]:
    """The files that transformers loads a folder's weights from, and whether an index has named them."""
    from transformers.modeling_utils import _get_resolved_checkpoint_files

    files, metadata = _get_resolved_checkpoint_files(
        pretrained_model_name_or_path=str(folder),
        variant=None,
        gguf_file=None,
        use_safetensors=None,
        user_agent=None,
        is_remote_code=False,
        transformers_explicit_filename=getattr(config, "transformers_weights", None),
        download_kwargs={"local_files_only": True},
    )
    return [Path(file) for file in files or ()], metadata is not None


def takes_attention(model: Any) -> bool:
    """Whether the model asks its attention through transformers' interface, which another function can be put into.

    Not where it refuses torch's own fused function, as those with attention sinks do: what we put in rests on that.
    """
    return bool(model._can_set_attn_implementation() and model._supports_sdpa)


def not_needed(model: Any, names: Iterable[str]) -> set[str]:
    """Those of a model's tensors that may be missing from its files: the model makes them itself."""
    patterns = model._keys_to_ignore_on_load_missing or ()
    return {name for name in names if any(re.search(pattern, name) for pattern in patterns)}


@contextmanager
def without_deepspeed() -> Iterator[None]:
    """DeepSpeed is not installed meanwhile, unless it has been imported.

    Whoever saves a model has it imported, which takes longer than a tiny model's training step, only to see whether the
    model is wrapped in it.
    """
    if "deepspeed" in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules["deepspeed"] = None
    try:
        yield
    finally:
        del modules["deepspeed"]
