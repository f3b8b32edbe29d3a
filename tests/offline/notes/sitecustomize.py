"""Loaded by each Python process that has this folder in PYTHONPATH: notes whoever asks for another machine."""

import os
import sys

EVENTS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0}  # and where the address stands
LOOPBACK = ("127.", "::1", "localhost")
FOLDER = os.environ["PYTHON_NETWORK_NOTES"]


def note(event: str, arguments: tuple[object, ...]) -> None:
    if event not in EVENTS:
        return
    address = arguments[EVENTS[event]]
    host = address[0] if isinstance(address, tuple) else address
    text = host.decode() if isinstance(host, bytes) else str(host or "")
    # A path is a socket of this machine, and no host at all is this one.
    if text and not text.startswith(("/", "\0", *LOOPBACK)):
        with open(os.path.join(FOLDER, str(os.getpid())), "a") as notes:
            print(event, text, sys.argv, file=notes)


sys.addaudithook(note)
