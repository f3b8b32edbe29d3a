"""The trackers there are, and a setting such as `mlflow:http://127.0.0.1:5000` as the one that it names."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

# By its name, which is that of its module here and of the extra that installs it: the package of its client.
CLIENTS = {"mlflow": "mlflow", "tensorboard": "tensorboard", "wandb": "wandb"}
# Where runs stand together, unless the setting or the client's own variables name another place.
TOGETHER = "nift"


@dataclass(frozen=True)
class Tracker:
    """Who is told, and where: a server's address or a database for mlflow, a project for wandb, a folder for
    tensorboard; empty for what the client takes by itself."""

    name: str
    place: str = ""


def parse(setting: str) -> Tracker:
    """The tracker that `name` or `name:place` names.

    ValueError for one that there is not, one whose client is not installed, and for a password in an address.
    """
    name, _, place = setting.partition(":")
    if name not in CLIENTS:
        raise ValueError(f"there is no tracker {name!r}; use one of {', '.join(CLIENTS)}")
    if find_spec(CLIENTS[name]) is None:
        raise ValueError(f"the client of {name} is not installed; run pip install '.[{name}]'")
    # A password may have a slash in it, behind which an address has a path; a database in a file has no host.
    if place.partition("://")[2][:1] not in ("", "/") and "@" in place:
        raise ValueError(
            f"the address for {name} has a password in it, which every account of this machine could read in a list of "
            "processes; leave it out and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if name == "tensorboard" and "://" in place:
        raise ValueError(f"tensorboard writes into a folder of this machine and not to {place}; name a folder")
    return Tracker(name, place)
