"""How a model's answer ended: what each server's reason to stop means, in one table for all who read answers.

The names are those that servers document: OpenAI's, Anthropic's, Bedrock's, Cohere's, DeepSeek's, Gemini's, Mistral's,
Together's, xAI's and Zhipu's, and those of llama.cpp, SGLang, TGI and vLLM. Many speak OpenAI's protocol and keep
their own words for this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

# `whole`: it ended by itself; `cut`: at a limit of tokens; `refused`: by the model or a filter; `other`: it wants
# something that nobody here gives it, a tool's result for one; `failed`: the server could not go on, and may be asked
# again.
Ending = Literal["whole", "cut", "refused", "other", "failed"]

ENDINGS: Mapping[str, Ending] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos_token", "eos", "complete", "completed"), "whole"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "model_length"), "cut"),
    **dict.fromkeys(("model_context_window_exceeded", "limit"), "cut"),
    **dict.fromkeys(("content_filter", "content_filtered", "refusal", "safety", "sensitive", "recitation"), "refused"),
    **dict.fromkeys(("blocklist", "prohibited_content", "spii", "guardrail_intervened", "error_toxic"), "refused"),
    **dict.fromkeys(("tool_calls", "function_call", "tool_use", "tool_call", "pause_turn", "compaction"), "other"),
    **dict.fromkeys(
        ("insufficient_system_resource", "network_error", "error", "abort", "aborted", "timeout"), "failed"
    ),
}


def ending(reason: str) -> Ending | None:
    """What a reason to stop means, whatever its case; None for one that nobody knows."""
    return ENDINGS.get(reason.strip().lower())
