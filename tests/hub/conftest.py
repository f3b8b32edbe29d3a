"""A Hub on this machine for a test, and huggingface_hub turned to it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars

from tests.hub.pushing import TOKEN
from tests.hub.server import Hub, person


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Nobody knows the Hub but by these settings, which a person makes in the environment."""
    with Hub({TOKEN: person("me", orgs={"ours": "write"})}) as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # The large files go the way of git LFS; xet's own protocol is spoken by nobody here.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        disable_progress_bars()
        yield server


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between tries, which are not."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited
