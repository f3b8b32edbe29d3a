"""What it costs to ask a teacher: our door, every answer on the disk, beside the openai SDK, which keeps nothing.

    python -m tests.ledger.bench

Each client is a process of its own and asks the fault server, which is another one, for 2,000 continuations of 400
words at 50 ms latency with 200 in flight. CPU seconds and peak memory are the client's; the clock starts before the
first question is made and stops when the last answer can be used.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nift_training.memory import peak_rss_mb
from tests.ledger.fault_server import WORDS, FaultServer, expected_text

PROJECT = Path(__file__).parent.parent.parent
MODEL = "gpt-3.5-turbo-0125"


@dataclass(frozen=True)
class Load:
    requests: int = 2_000
    words: int = 400
    in_flight: int = 200
    latency: float = 0.05


@dataclass(frozen=True)
class Result:
    client: str
    seconds: float
    per_second: float
    cpu_ms_per_request: float
    peak_mb: float
    right: int
    kept: int


def prompts(load: Load) -> list[str]:
    """Made-up texts of so many words, the same ones each time."""
    chance = random.Random(1)
    return [" ".join([str(i), *chance.choices(WORDS, k=load.words - 1)]) for i in range(load.requests)]


def through_the_door(url: str, load: Load, texts: Sequence[str], folder: Path) -> tuple[list[str], int]:
    from nift_assets.ledger import door
    from nift_assets.ledger.book import Asker, Book
    from nift_assets.protocol import Message, Request
    from nift_assets.providers.openai import OpenAI
    from nift_assets.rows import Limits, Price

    questions = [
        Request(
            provider="openai",
            model=MODEL,
            messages=(Message(role="user", content=prompt),),
            parameters={"temperature": 0.0},
        )
        for prompt in texts
    ]
    book = Book(f"sqlite:///{folder}/ledger.sqlite")
    asked = door.ask(
        book,
        Asker(study="bench", who="teacher", writer="bench", study_cap=100 * 10**9),
        questions,
        OpenAI(name="openai", model=MODEL, url=f"{url}/v1/chat/completions", key="sk-bench-0000000000000000"),
        limits=Limits(in_flight=load.in_flight),
        price=Price(input=0.5, output=1.5, max_output=4096),
    )
    return [answer.text for answer in asked.answers], len(book.answered([question.key for question in questions]))


def through_the_sdk(url: str, load: Load, texts: Sequence[str], folder: Path) -> tuple[list[str], int]:
    import openai

    async def ask_all() -> list[str]:
        client = openai.AsyncOpenAI(
            api_key="sk-bench-0000000000000000", base_url=f"{url}/v1", max_retries=0, timeout=600
        )
        slots = asyncio.Semaphore(load.in_flight)

        async def ask(prompt: str) -> str:
            async with slots:
                done = await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": prompt}], temperature=0.0
                )
            return done.choices[0].message.content or ""

        return await asyncio.gather(*(ask(prompt) for prompt in texts))

    return asyncio.run(ask_all()), 0


CLIENTS = {"nift": through_the_door, "openai SDK": through_the_sdk}
# What each client imports, once per process: no part of what a request costs.
MODULES = {
    "nift": ("aiohttp", "nift_assets.ledger.door", "nift_assets.providers.openai"),
    "openai SDK": ("openai", "openai.resources.chat.completions"),
}


def measured(client: str, url: str, load: Load) -> Result:
    """One client's run, measured from inside its process."""
    for module in MODULES[client]:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory(prefix="nift-bench-") as folder:
        asked = prompts(load)
        before, began = _cpu(), time.monotonic()
        texts, kept = CLIENTS[client](url, load, asked, Path(folder))
        seconds, cpu = time.monotonic() - began, _cpu() - before
    right = sum(text == expected_text(prompt, MODEL) for text, prompt in zip(texts, asked, strict=True))
    return Result(
        client=client,
        seconds=seconds,
        per_second=load.requests / seconds,
        cpu_ms_per_request=1000 * cpu / load.requests,
        peak_mb=peak_rss_mb(),
        right=right,
        kept=kept,
    )


def run(client: str, load: Load) -> Result:
    """One client in a process of its own against a server of its own."""
    with FaultServer(latency=load.latency) as server:
        command = [
            sys.executable,
            "-m",
            "tests.ledger.bench",
            "--client",
            client,
            "--url",
            server.url,
            "--load",
            json.dumps(asdict(load)),
        ]
        ran = subprocess.run(command, cwd=PROJECT, env=_environment(), capture_output=True, text=True, check=True)
    return Result(**json.loads(ran.stdout.splitlines()[-1]))


def table(results: list[Result]) -> str:
    """The results as a Markdown table."""
    lines = ["| client | run s | requests/s | CPU ms per request | peak RSS MB | on disk |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [
        f"| {r.client} | {r.seconds:.2f} | {r.per_second:,.0f} | {r.cpu_ms_per_request:.2f} | {r.peak_mb:.0f} "
        f"| {r.kept:,} |"
        for r in results
    ]
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--client", choices=list(CLIENTS))
    arguments.add_argument("--url")
    arguments.add_argument("--load")
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    if options.client:
        print(json.dumps(asdict(measured(options.client, options.url, Load(**json.loads(options.load))))))
        return
    load = Load()
    # The clients take turns, and the middle one of each one's runs counts: these machines are noisy.
    rounds = [run(client, load) for _ in range(options.rounds) for client in CLIENTS]
    assert all(result.right == load.requests for result in rounds), "an answer was not the server's"
    print(table([_middle([r for r in rounds if r.client == client]) for client in CLIENTS]))


def _middle(results: list[Result]) -> Result:
    return sorted(results, key=lambda result: result.seconds)[len(results) // 2]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _environment() -> dict[str, str]:
    """Without a proxy of this machine, which the SDK would use."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


if __name__ == "__main__":
    main()
