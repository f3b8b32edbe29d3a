"""Puts NLTK's sentence tokenizer for English, which IFEval's checker needs, where NLTK finds it.

Its home is a download that NLTK starts by itself. Here it comes from the package index like everything else, out of one
wheel that has a copy, once, when the environment is set up: nothing is fetched while a model is evaluated.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from nift_training import artifacts, progress, verbs

WHEEL = "llama-index-core==0.14.25"
SHA256 = "caa7d9c5ac9b13dc33400cf8d5e92e689b6d1e4497eb9bfa50d6f52ca2eb22a1"
INSIDE = "llama_index/core/_static/nltk_cache/"
PUNKT = "tokenizers/punkt_tab/english/"


def fetch(out: Path) -> list[Path]:
    """The tokenizer's files in the folder `out`; ValueError if the package index has no such wheel, or another one."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        ran = subprocess.run([*command, "--dest", folder, WHEEL], capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if ran.returncode or not wheels:
            raise ValueError(f"pip cannot download {WHEEL}: {ran.stderr.strip()[-300:]}")
        return take(wheels[0], out)


def take(wheel: Path, out: Path, sha256: str = SHA256) -> list[Path]:
    """The tokenizer's files from a wheel, which must be the one that is known, in the folder `out`."""
    digest = artifacts.sha256(wheel)
    if digest != sha256:
        raise ValueError(f"{wheel.name} is another one than {WHEEL}: its sha256 is {digest[:16]}…, not {sha256[:16]}…")
    paths = []
    with zipfile.ZipFile(wheel) as content:
        for name in content.namelist():
            if name.startswith(INSIDE + PUNKT) and not name.endswith("/"):
                path = out / PUNKT / Path(name).name
                with artifacts.replacing(path) as temporary:
                    temporary.write_bytes(content.read(name))
                paths.append(path)
    return paths


def main(argv: Sequence[str]) -> None:
    parser = verbs.parser("sentences", __doc__, "folder that NLTK looks into, such as ~/nltk_data or .venv/nltk_data")
    paths = fetch(parser.parse_args(argv).out)
    progress.say(f"{len(paths)} files of NLTK's sentence tokenizer are in {paths[0].parent}")


if __name__ == "__main__":
    verbs.run(main)
