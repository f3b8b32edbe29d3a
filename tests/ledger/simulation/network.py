"""A network and the server behind it: it bills what reaches it whole, and may do anything else besides."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from nift_assets.providers import chat_completion
from tests.ledger.asking import PRICE
from tests.ledger.simulation.world import PROCESS, Attempt, Bill, Process, World

# How likely each behaviour is, in all; the rest is an answer.
FATES = {
    "reset": 0.03,
    "billed and cut": 0.03,
    "billed and silent": 0.02,
    "half a body": 0.02,
    "no answer": 0.02,
    "429": 0.04,
    "503": 0.03,
}


class Wire(asyncio.Transport):
    """The client's end of one connection."""

    def __init__(self, process: Process, protocol: Any) -> None:
        super().__init__()
        self.process, self._protocol = process, protocol
        self._sent, self._closing = b"", False

    def write(self, data: Any) -> None:
        self.process.step("write")
        self._sent += bytes(data)
        head, end, body = self._sent.partition(b"\r\n\r\n")
        if not end or self._closing:
            return
        headers = dict(line.split(": ", 1) for line in head.decode().lower().split("\r\n")[1:])
        self.process.world.server.leaves(headers)
        if len(body) >= int(headers["content-length"]):
            self._sent = b""
            self.process.world.server.takes(self, headers, json.loads(body))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def deliver(self, data: bytes) -> bool:
        """Whether the client takes it."""
        if self._closing or self.process.dead:
            return False
        self._protocol.data_received(data)
        return True

    def cut(self) -> None:
        if not self._closing and not self.process.dead:
            self._closing = True
            self._protocol.connection_lost(ConnectionResetError("reset by peer"))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.process.world.loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 8000) if name == "peername" else default

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_reading(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...


class Server:
    """The server. `bills` is the truth of what was paid; `left` is what any byte of has left a client."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.bills: dict[Attempt, Bill] = {}
        self.left: set[Attempt] = set()
        # (attempt, the process it came to, when) of answers that have come whole.
        self.arrived: dict[Attempt, tuple[Process, float]] = {}

    async def connects(self) -> None:
        world = self._world
        PROCESS.get().step("connect to the server")
        await asyncio.sleep(world.chance.uniform(0, 0.1))
        if world.happens(0.03):
            raise ConnectionRefusedError("refused")

    def leaves(self, headers: dict[str, str]) -> None:
        self.left.add(_attempt(headers))

    def takes(self, wire: Wire, headers: dict[str, str], asked: dict[str, Any]) -> None:
        """A request has come whole."""
        world, attempt = self._world, _attempt(headers)
        text = asked["messages"][-1]["content"]
        fate = self._fate()
        latency = world.chance.uniform(0.05, 2.0) if not world.happens(0.05) else world.chance.uniform(5, 40)
        world.note(wire.process.name, f"{attempt} asks {text!r}: {fate} in {latency:.1f} s")
        if fate in ("429", "503"):
            self._later(latency, wire, _response(int(fate), b'{"error": {"message": "not now"}}'))
        elif fate == "reset":
            world.loop.call_later(latency, wire.cut)
        elif text.startswith("refused"):
            self._later(latency, wire, _response(400, json.dumps({"error": {"message": f"no {text}"}}).encode()))
        else:
            self._bills(wire, attempt, text, fate, latency)

    def _bills(self, wire: Wire, attempt: Attempt, text: str, fate: str, latency: float) -> None:
        world = self._world
        if attempt in self.bills:
            world.violated(f"{attempt} was sent twice")
        world.checks.at_a_bill(attempt)
        bill = self.bills[attempt] = Bill(text, world.now())
        tokens = world.chance.randint(1, 88)
        body = json.dumps(
            chat_completion(
                model="m", text=f"{text}, {attempt}", finish_reason="stop", input_tokens=9, output_tokens=tokens
            )
        ).encode()
        if fate == "ok":
            bill.body, bill.cost = body, PRICE.cost(9, tokens)
            half = world.chance.randint(1, len(body))
            response = _response(200, body)
            self._later(0.9 * latency, wire, response[:-half])
            world.loop.call_later(latency, self._arrives, wire, attempt, response[-half:])
        elif fate == "half a body":
            self._later(latency, wire, _response(200, body)[:-5], cut=True)
        elif fate == "no answer":
            self._later(latency, wire, _response(200, body[:-9]))
        elif fate == "billed and cut":
            world.loop.call_later(latency, wire.cut)

    def _fate(self) -> str:
        if self._world.healthy:
            return "ok"
        at = self._world.chance.random() / self._world.rough
        for fate, share in FATES.items():
            at -= share
            if at < 0:
                return fate
        return "ok"

    def _later(self, seconds: float, wire: Wire, data: bytes, *, cut: bool = False) -> None:
        self._world.loop.call_later(seconds, wire.deliver, data)
        if cut:
            self._world.loop.call_later(seconds, wire.cut)

    def _arrives(self, wire: Wire, attempt: Attempt, data: bytes) -> None:
        if wire.deliver(data):
            self.arrived[attempt] = (wire.process, self._world.awake())


def _attempt(headers: dict[str, str]) -> Attempt:
    _, session, number = headers["x-client-request-id"].split("-")
    return int(session), int(number)


def _response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
