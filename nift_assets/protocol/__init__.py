"""What providers and the ledger both know: a request, the answer in a response, and the server between them."""

from __future__ import annotations

from nift_assets.protocol.answer import FINAL, OPEN, Answer, Reading, Status
from nift_assets.protocol.request import Message, Request

__all__ = ["FINAL", "OPEN", "Answer", "Message", "Reading", "Request", "Status"]
