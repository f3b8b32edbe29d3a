"""lm-eval's private names, all that this project uses. An upgrade may take them away; a test says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def definition(file: str) -> dict[str, Any]:
    """A task as lm-eval's own file defines it, with the functions that it names; `file` is below its tasks."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    return dict(load_yaml(Path(lm_eval.tasks.__path__[0], file), resolve_func=True))


def run_nothing_from_data() -> None:
    """From now on lm-eval renders a task's templates in a sandbox and within limits, and keeps responses as JSON
    instead of pickles."""
    import lm_eval.api.model
    from lm_eval import utils

    from nift_training.evaluate.template_limits import LimitedSandbox

    if isinstance(utils.env, LimitedSandbox):
        return
    sandbox = LimitedSandbox(undefined=utils.env.undefined, keep_trailing_newline=utils.env.keep_trailing_newline)
    sandbox.filters.update(utils.env.filters)
    utils.env = sandbox

    class JsonCache(lm_eval.api.model.CachingLM):  # type: ignore[misc]
        def __init__(self, lm: Any, cache_db: str) -> None:
            super().__init__(lm, cache_db)
            self.dbdict.encode, self.dbdict.decode = json.dumps, _response

    lm_eval.api.model.CachingLM = JsonCache


def describe_no_machine() -> None:
    """From now on lm-eval asks pip and the system for nothing: it adds to each result what is installed, which nobody
    reads here and which takes it seconds."""
    from lm_eval import evaluator

    evaluator.add_env_info = lambda storage: None


def _response(stored: str) -> Any:
    """A text, or a log-likelihood with whether it is the greedy one."""
    value = json.loads(stored)
    return tuple(value) if isinstance(value, list) else value
