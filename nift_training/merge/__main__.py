"""Merges a LoRA adapter into the weights of a base model, or of the base's Instruct sibling.

No model is built. Shapes and types stay, so a merged shard is its base's shard with the changed tensors written over:
W + scale·B·A in float32, rounded once to the base's type. A few MiB are in memory at a time. Everything that can be
refused is refused before a byte is written, and what was written is recomputed in places before it gets its name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from nift_training import artifacts, fetch, verbs
from nift_training.merge import adapters
from nift_training.merge.run import Logits, Origin, merge


def main(argv: Sequence[str]) -> None:
    """Reads the command line and writes the merged model folder."""
    parser = verbs.parser("merge", __doc__, "model folder to write")
    parser.add_argument("--base", required=True, help="folder of the model whose weights are changed, or Hub id")
    parser.add_argument("--revision", help="commit of a Hub id")
    parser.add_argument("--base-name", help="what the card calls the base")
    parser.add_argument("--adapter", type=Path, required=True, help="peft adapter folder")
    parser.add_argument("--sibling-of", help="name of the model the adapter was trained on, if base is its sibling")
    parser.add_argument(
        "--check-logits",
        choices=get_args(Logits),
        default="if-it-fits",
        help="hold what the model says against base and adapter in peft; builds it in float32 or its own precision",
    )
    options = parser.parse_args(argv)
    artifacts.check_free(options.out)
    base, origin = Path(options.base), Origin(name=options.base_name) if options.base_name else None
    if options.revision:
        adapters.read(options.adapter)  # what is wrong with it is said before 140 GB have been fetched
        base, commit = fetch.snapshot(options.base, options.revision)
        origin = Origin(name=options.base_name or options.base, source=options.base, revision=commit)
    verbs.use_threads(options.threads)
    merge(
        base,
        options.adapter,
        options.out,
        sibling_of=options.sibling_of,
        origin=origin,
        logits=options.check_logits,
    )


if __name__ == "__main__":
    # transformers and accelerate import these where they are installed, and no merge needs them: without them it has
    # 45 MB less and begins 0.3 s earlier.
    for package in ("scipy", "boto3"):
        sys.modules.setdefault(package, None)  # type: ignore[arg-type]
    verbs.run(main)
