"""Records that somebody has decided on the versions of the code as it is now: `make versions`."""

from __future__ import annotations

import sys

from nift_assets import benchmarks, graph, providers, studies
from nift_assets.steps import versions
from nift_assets.steps.versions import NumberedCode


def numbered() -> list[NumberedCode]:
    """All code that carries a number: every step that is expensive, and every plug-in of such a step."""
    built = graph.build(studies.load("demo"))  # what is expensive is the same in every study
    steps = [own for step in built.steps if (own := step.own_number())]
    answering = [versions.of_plugin(providers.module(name)) for name in providers.names()]
    measuring = [versions.of_plugin(plugin) for name in benchmarks.names() for plugin in benchmarks.expensive(name)]
    return [*steps, *answering, *measuring]


def main() -> None:
    """Writes `versions.json` and says what was not decided before."""
    decided = versions.decide(numbered())
    print("\n".join(decided) or "every version was recorded already", file=sys.stderr)


if __name__ == "__main__":
    main()
