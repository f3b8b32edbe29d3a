"""A process that has imported what the verbs need and runs each as a fork of itself, so that none imports it again.

Torch, transformers and lm-eval take six seconds to import, which is most of what a tiny model costs. Jobs come as lines
of JSON on stdin, one at a time: `{"module": …, "arguments": […], "environment": {…}}`. The exit status of each goes to
stdout as a line. It ends with its stdin.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from typing import Any

from nift_training.verbs import end_with_parent


def main() -> None:
    """Serves until stdin ends, or until the process that started it is gone."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the verb, which cleans up; this one waits for it
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a verb prints is for the log
    _import_what_is_heavy()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            answers.close()
            _run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers)


def _import_what_is_heavy() -> None:
    # Read when they are imported. Tasks bring their data, and a log is no place for progress bars.
    # Threads that spin while they wait take the core of whoever works.
    os.environ |= {"HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    import lm_eval.models.huggingface
    import lm_eval.tasks
    import nltk
    import peft
    import torch
    import transformers.models.llama.modeling_llama

    del lm_eval, nltk, peft, torch, transformers


def _run(job: Mapping[str, Any]) -> None:
    """What `python -m <module> <arguments>` does, in this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = [job["module"], *job["arguments"]]
    runpy.run_module(job["module"], run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    main()
