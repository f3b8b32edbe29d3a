"""How every verb starts and fails: one parser, one thread setting, one line per mistake."""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from nift_training import progress

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, what a user may have of it, what one file may
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def parser(verb: str, purpose: str | None, out: str) -> argparse.ArgumentParser:
    """The command line of one verb, with the two options all of them share: `--out` and `--threads`."""
    command_line = argparse.ArgumentParser(
        prog=f"python -m nift_training.{verb}",
        description=purpose,
        formatter_class=_Help,
    )
    command_line.add_argument("--out", type=Path, required=True, help=out)
    command_line.add_argument("--threads", type=positive, default=os.cpu_count(), help="CPU threads")
    return command_line


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that keeps the lines of the purpose, and shows a default only where there is one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def positive(text: str) -> int:
    """A whole number of at least one, read from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a whole number of at least 1")
    return number


def use_threads(threads: int) -> None:
    """Holds torch and the tokenizers to so many threads, the same number giving the same bytes."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # the tokenizers read it when their first batch starts
    import torch

    torch.set_num_threads(threads)


def run(main: Callable[[Sequence[str]], None], argv: Sequence[str] | None = None) -> None:
    """Runs a verb; what a person can put right becomes one line on stderr and exit code 2.

    Under Pipes the same line reaches the event log, and any other exception reaches it with its traceback.
    """
    # The libraries' progress bars; a log is no place for them, and each verb says its own lines.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if "DAGSTER_PIPES_CONTEXT" in os.environ or "RANK" in os.environ:
        end_with_parent()
    with _pipes_session():
        try:
            main(sys.argv[1:] if argv is None else argv)
            # The process ends now, and looking through all that torch has made for garbage would take 0.7 s of it.
            gc.freeze()
        except Exception as error:
            if _is_full_disk(error):
                _refuse(f"the disk is full ({error}): free some space and run again; nothing half-written is left")
            if not isinstance(error, (ValueError, OSError)):
                raise
            _refuse(str(error) or type(error).__name__)


def _is_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(f"os error {number}" in str(error) for number in FULL)  # safetensors' error is no OSError


def end_with_parent() -> None:
    """Has the system end this process when the one that started it is gone, however it went; Linux only.

    An orphan would go on working, and perhaps paying, beside the retry that replaces it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _pipes_session() -> AbstractContextManager[Any]:
    if not progress.under_pipes():
        return nullcontext()
    from dagster_pipes import open_dagster_pipes

    return open_dagster_pipes()


def _refuse(message: str) -> NoReturn:
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr, flush=True)
    if progress.under_pipes():
        from dagster_pipes import PipesContext

        PipesContext.get().log.error(line)
    sys.exit(2)
