"""What a process is told of the environment it is started from: what is named here, and nothing else of it.

A list of what is left out would have to know every secret of every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

# What shapes a run and is the same on every machine.
SHAPING = re.compile(
    r"(ATEN|CUBLAS|CUDA|CUDNN|DS|GLOO|GOMP|HIP|KMP|MKL|NCCL|NUMEXPR|OMP|OPENBLAS|PYTORCH|RAYON|ROCR|TOKENIZERS|TORCH"
    r"|TORCHINDUCTOR|TRANSFORMERS|TRITON|UCX|VECLIB)_\w+"
    r"|HF_(HOME|ENDPOINT|\w*CACHE|\w*OFFLINE|HUB_DISABLE_\w+|HUB_\w+_TIMEOUT|XET_\w+)"
    r"|DO_NOT_TRACK|HUGGINGFACE_HUB_CACHE|NLTK_DATA|TQDM_DISABLE"
)
# What a program needs to run on this machine.
MACHINE = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|TMP|TEMP|XDG_\w+|VIRTUAL_ENV"
    r"|(CONDA|DYLD|HSA|LD|MALLOC|NVIDIA|ROCM)_\w+|PYTHON\w*|CC|CXX|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
)
# Where a step reports to.
PIPES = re.compile(r"DAGSTER_PIPES_\w+")
SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)|PASSWORD", re.IGNORECASE)

# What a shell takes as it is: without quotes, and in double quotes.
WORDS = re.compile(r"[\w@%+=:,./ -]*")
IN_QUOTES = re.compile(r"[^\"$`\\!\x00-\x1f\x7f]*")

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")
HUB = ("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN")
# What a verb is told besides, because it reaches the network.
VERBS: Mapping[str, Sequence[str]] = {
    "nift_training.fetch": (*HUB, *PROXIES),
    "nift_training.evaluate": PROXIES,
}
# What the client of a tracker is told besides, by the tracker's name: who it is there, and how it is reached. The
# processes on the nodes of a hostfile are not told who.
TRACKERS: Mapping[str, Sequence[str]] = {
    "mlflow": (
        "MLFLOW_EXPERIMENT_NAME",
        "MLFLOW_ALLOW_FILE_STORE",
        "MLFLOW_DISABLE_TELEMETRY",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "MLFLOW_HTTP_REQUEST_TIMEOUT",
        "MLFLOW_TRACKING_CLIENT_CERT_PATH",
        "MLFLOW_TRACKING_INSECURE_TLS",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_USERNAME",
        *PROXIES,
    ),
    "tensorboard": (),
    "wandb": (
        "WANDB_API_KEY",
        "WANDB_BASE_URL",
        "WANDB_CACHE_DIR",
        "WANDB_CONFIG_DIR",
        "WANDB_DATA_DIR",
        "WANDB_DIR",
        "WANDB_ENTITY",
        "WANDB_ERROR_REPORTING",
        "WANDB_MODE",
        "WANDB_PROJECT",
        "WANDB_RUN_GROUP",
        "WANDB_TAGS",
        *PROXIES,
    ),
}
TRACKER_OPTION = "--tracker"
KEY_OPTION = "--server-key-variable"  # the name of the variable with the key of a server that evaluate asks
NODES_OPTION = "--hostfile"
# How this machine signs in on the nodes of a hostfile.
SIGNING_IN = ("SSH_AUTH_SOCK", "KRB5CCNAME", "PDSH_SSH_ARGS", "PDSH_SSH_ARGS_APPEND")


def told(command: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of `python -m verb …`: what shapes it, what this machine needs, and what the verb asks for."""
    asked = {name for argument in command for name in VERBS.get(argument, ())}
    asked |= {value for option, value in pairwise(command) if option == KEY_OPTION}
    asked |= {
        name
        for option, setting in pairwise(command)
        if option == TRACKER_OPTION
        for name in TRACKERS.get(setting.partition(":")[0], ())
    }
    asked |= {*SIGNING_IN} if NODES_OPTION in command else set()
    return {name: value for name, value in environment.items() if name in asked or _is_plain(name)}


def of_nodes(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What the processes on other nodes are told, beside where to import from.

    DeepSpeed's launcher writes it into a command line of a shell on every node, where everybody can read it, and puts
    it in double quotes at most. ValueError for a value that a shell would not take as it is.
    """
    found = {
        name: value
        for name, value in environment.items()
        if (SHAPING.fullmatch(name) or PIPES.fullmatch(name)) and not SECRET.search(name)
    }
    # The launcher does so too, and would do it for each other variable whose name begins like that.
    paths = [str(folder), *filter(None, [environment.get("PYTHONPATH")])]
    found["PYTHONPATH"] = ":".join(paths)
    for name, value in found.items():
        refuse_for_shell(value, name, IN_QUOTES)
    return found


def refuse_for_shell(text: str, what: str, harmless: re.Pattern[str] = WORDS) -> None:
    """ValueError for a text that a shell on another node would read as more than itself."""
    if not harmless.fullmatch(text):
        raise ValueError(
            f"{what} is {text!r}, and a shell on every node of the hostfile would run a part of that: use letters, "
            "digits and . , _ - / only, or unset it"
        )


def _is_plain(name: str) -> bool:
    return any(names.fullmatch(name) for names in (SHAPING, MACHINE, PIPES)) and not SECRET.search(name)
