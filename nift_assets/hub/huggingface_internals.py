"""huggingface_hub's private names, all that this project uses. An upgrade may take them away; a test says which."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2


def default_client() -> httpx2.Client:
    """A client as huggingface_hub makes its own."""
    from huggingface_hub.utils._http import default_client_factory

    return default_client_factory()


def abort_uploads() -> None:
    """Ends the uploads by xet that are under way, which raise RuntimeError."""
    from huggingface_hub.utils._xet import abort_xet_session

    abort_xet_session()  # type: ignore[no-untyped-call]
