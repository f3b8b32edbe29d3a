"""Which licences let anybody publish, and what the providers of teachers say about their models' words."""

from __future__ import annotations

# As the Hub names them, in lower case. What is not here is published in private, if at all.
OPEN = frozenset(
    {
        "apache-2.0",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "cdla-permissive-2.0",
        "mit",
        "odc-by",
        "odbl",
        "pddl",
        "unlicense",
    }
)

# By the provider of a teacher; what is not here runs on this machine and has no terms but its weights' licence.
TERMS = {
    "openai": (
        "OpenAI's terms of use: what its models write may not be used to develop models that compete with OpenAI, and "
        "may not be passed off as written by people"
    ),
    "anthropic": (
        "Anthropic's commercial terms: what its models write may not be used to build a competing product or service, "
        "or to train competing models, unless Anthropic has agreed"
    ),
}
