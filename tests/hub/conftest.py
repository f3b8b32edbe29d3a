"""A Hub on this machine for a test, and huggingface_hub turned to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from nift_assets.hub.huggingface_internals import abort_uploads
from tests.hub.pushing import TOKEN
from tests.hub.server import Hub, person

WAYS = ("xet", "lfs")


def turn_to(url: str, patch: pytest.MonkeyPatch) -> None:
    """Has huggingface_hub, which has read its environment as it was imported, ask this Hub."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """Nobody knows the Hub but by these settings, which a person makes in the environment."""
    # What xet remembers of earlier uploads is this test's own, and it does not wait long between tries.
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "10ms")
    abort_uploads()
    with Hub({TOKEN: person("me", orgs={"ours": "write"})}) as server:
        turn_to(server.url, monkeypatch)
        disable_progress_bars()
        yield server
    abort_uploads()


@pytest.fixture
def way(request: pytest.FixtureRequest, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    """How large files travel: by xet, as they do unless somebody has switched it off, or by git LFS."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between tries, which are not."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited
