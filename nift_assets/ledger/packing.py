"""How answers lie in the ledger: compressed by zlib, which begins with what most answers have in common.

What is packed is read by every program of its version and later: `COMMON` is part of the format, and is never changed.
"""

from __future__ import annotations

import zlib
from typing import Any

import sqlalchemy as sa

# The first byte says how the rest is coded.
PLAIN, DEFLATED = b"\0", b"\1"
# Level 1 takes three quarters of the time, for a tenth more bytes that are kept for good.
LEVEL = 6
# zlib looks back into it as if it stood before every answer. What is likeliest stands last.
COMMON = (
    b'{"type":"error","error":{"type":"invalid_request_error","message":"","param":null,"code":null}}'
    b'{"id":"msg_01","type":"message","role":"assistant","model":"claude-","content":[{"type":"text","text":""}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":,"cache_creation_input_tokens":0,'
    b'"cache_read_input_tokens":0,"output_tokens":}}'
    b'{"Date": "Mon, 01 Jan 2026 00:00:00 GMT", "Content-Type": "application/json; charset=utf-8", '
    b'"Transfer-Encoding": "chunked", "Connection": "keep-alive", "Content-Length": "", "Server": "cloudflare", '
    b'"CF-RAY": "-FRA", '
    b'"cf-cache-status": "DYNAMIC", "Set-Cookie": "(redacted)", "X-Content-Type-Options": "nosniff", '
    b'"Strict-Transport-Security": "max-age=31536000; includeSubDomains; preload", "Content-Encoding": "gzip", '
    b'"alt-svc": "h3=\\":443\\"; ma=86400", "Vary": "Accept-Encoding", "access-control-expose-headers": '
    b'"X-Request-ID", "openai-organization": "", "openai-processing-ms": "", "openai-project": "proj_", '
    b'"openai-version": '
    b'"2020-10-01", "x-envoy-upstream-service-time": "", "x-ratelimit-limit-requests": "10000", '
    b'"x-ratelimit-limit-tokens": "2000000", "x-ratelimit-remaining-requests": "9999", '
    b'"x-ratelimit-remaining-tokens": "1999", "x-ratelimit-reset-requests": "6ms", "x-ratelimit-reset-tokens": "0s", '
    b'"x-request-id": "req_", "request-id": "req_", "anthropic-ratelimit-requests-limit": "", '
    b'"anthropic-ratelimit-requests-remaining": "", "anthropic-ratelimit-tokens-limit": ""}'
    b'{\n  "id": "chatcmpl-",\n  "object": "chat.completion",\n  "created": 17,\n  "model": "gpt-",\n  "choices": [\n'
    b'    {\n      "index": 0,\n      "message": {\n        "role": "assistant",\n        "content": "",\n        '
    b'"refusal": null,\n        "annotations": []\n      },\n      "logprobs": null,\n      "finish_reason": "stop"\n'
    b'    }\n  ],\n  "usage": {\n    "prompt_tokens": ,\n    "completion_tokens": ,\n    "total_tokens": ,\n    '
    b'"prompt_tokens_details": {\n      "cached_tokens": 0,\n      "audio_tokens": 0\n    },\n    '
    b'"completion_tokens_details": {\n      "reasoning_tokens": 0,\n      "audio_tokens": 0,\n      '
    b'"accepted_prediction_tokens": 0,\n      "rejected_prediction_tokens": 0\n    }\n  },\n  "service_tier": '
    b'"default",\n  "system_fingerprint": "fp_"\n}'
    b'{"id":"chatcmpl-","object":"chat.completion","created":17,"model":"","choices":[{"index":0,"message":{"role":'
    b'"assistant","content":"","refusal":null,"tool_calls":[]},"logprobs":null,"finish_reason":"stop","stop_reason":'
    b'null}],"usage":{"prompt_tokens":,"total_tokens":,"completion_tokens":,"prompt_tokens_details":null},'
    b'"prompt_logprobs":null}'
    b'{"model": "", "choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}], "usage": '
    b'{"prompt_tokens": , "completion_tokens": }}'
)


def packed(content: bytes) -> bytes:
    """Bytes as they are stored: never more than one longer than they are."""
    coder = zlib.compressobj(LEVEL, zdict=COMMON)
    deflated = coder.compress(content) + coder.flush()
    return DEFLATED + deflated if len(deflated) < len(content) else PLAIN + content


def unpacked(stored: bytes) -> bytes:
    """The bytes that were packed. ValueError or zlib.error for what `packed` has not made."""
    if stored[:1] == DEFLATED:
        return zlib.decompressobj(zdict=COMMON).decompress(memoryview(stored)[1:])
    if stored[:1] == PLAIN:
        return stored[1:]
    raise ValueError(f"nothing is packed as {stored[:1]!r}")


class Packed(sa.TypeDecorator[bytes]):
    """Bytes that are packed in the database and plain to whoever asks SQLAlchemy for them."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: bytes | str | None, dialect: sa.Dialect) -> bytes | None:
        if value is None:
            return None
        return packed(value.encode() if isinstance(value, str) else value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bytes | None:
        return None if value is None else unpacked(bytes(value))
