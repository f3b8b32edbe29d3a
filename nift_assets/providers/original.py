"""The teacher that is no model: it answers with the document's own second half (the "undistilled" rows of Table 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nift_assets.ledger import Request
from nift_assets.providers import chat_completion


@dataclass(frozen=True)
class Original:
    """Answers from the second halves by document id; a request names its document in its parameters."""

    second_halves: Mapping[str, str]

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[Request, dict[str, Any]]]:
        for request in requests:
            text = self.second_halves[request.parameters["document"]]
            yield request, chat_completion(model="original", text=text, finish_reason="stop")
