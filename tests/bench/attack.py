"""One attacker or listener, as a process of its own: see bench_gateway.py.

attack.py malformed ENDPOINT COUNT SECONDS | valid ENDPOINT RATE SECONDS | listen FOLDER SECONDS
"""

import contextlib
import json
import random
import sys
import time
from typing import Any

import msgpack
import zmq

BOMBS = [b"\x91" * 4000, b"\xdd\xff\xff\xff\xff", b"\x81\xa1v\xcb\x7f\xf8\0\0\0\0\0\0", b"x" * 8000]


def connect(endpoint: str) -> Any:
    found = zmq.Context.instance().socket(zmq.DEALER)
    found.setsockopt(zmq.LINGER, 0)
    found.connect(endpoint)
    return found


def malformed(endpoint: str, count: str, seconds: str) -> None:
    """As many messages that are not requests as the gateway takes."""
    api, dice, sent, end = connect(endpoint), random.Random(1), 0, time.monotonic() + float(seconds)
    bombs = [dice.randbytes(n % 60) for n in range(500)] + BOMBS
    while sent < int(count) and time.monotonic() < end:
        try:
            api.send(bombs[sent % len(bombs)], zmq.DONTWAIT)
            sent += 1
        except zmq.Again:
            time.sleep(0.001)
        while api.poll(0):
            api.recv()
    print(json.dumps({"sent": sent}))


def valid(endpoint: str, rate: str, seconds: str) -> None:
    """Valid commands at a rate, whether they are taken or not."""
    api, sent, tried, answered, began = connect(endpoint), 0, 0, 0, time.monotonic()
    body = {"v": 1, "op": "limit", "import_w_max": 1e8, "for_ms": 1000}
    while (now := time.monotonic()) < began + float(seconds):
        while tried < (now - began) * float(rate):
            tried += 1
            with contextlib.suppress(zmq.Again):
                api.send(msgpack.packb({**body, "id": f"v{tried}"}), zmq.DONTWAIT)
                sent += 1
        while api.poll(0):
            api.recv()
            answered += 1
        time.sleep(0.001)
    print(json.dumps({"tried": tried, "sent": sent, "answered": answered}))


def listen(endpoint: str, seconds: str) -> None:
    """Count snapshots and those that are missing."""
    from tidegate.runtime.api.blocking_client import Client

    got, end = 0, time.monotonic() + float(seconds)
    with Client(endpoint, timeout_s=20) as client:
        heard = client.subscribe("snapshot")
        while (left := end - time.monotonic()) > 0:
            got += heard.receive(left) is not None
        print(json.dumps({"got": got, "lost": heard.snapshots_lost}))


if __name__ == "__main__":
    {"malformed": malformed, "valid": valid, "listen": listen}[sys.argv[1]](*sys.argv[2:])
