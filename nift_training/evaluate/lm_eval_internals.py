"""lm-eval's private names, all that this project uses. An upgrade may take them away; a test says which."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def definition(file: str) -> dict[str, Any]:
    """A task as lm-eval's own file defines it, with the functions that it names; `file` is below its tasks."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    return dict(load_yaml(Path(lm_eval.tasks.__path__[0], file), resolve_func=True))
