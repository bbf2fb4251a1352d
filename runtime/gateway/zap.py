"""Who may connect from outside: CURVE keys, checked in the gateway's own thread by a handler that cannot raise.

CURVE alone encrypts and lets every key in; so the domain is named, its enforcement is on, and without an answer of this
handler nobody gets through.
"""

import ipaddress
import time
from collections.abc import Callable

import zmq
from zmq.utils import z85

from tidegate.runtime.api.curve_keys import Roles

DOMAIN = b"tidegate"
ENDPOINT = "inproc://zeromq.zap.01"


class Zap:
    """Answers libzmq's questions (RFC 27). `on_refusal` gets refusals for the audit trail: (name, detail)."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], roles: Roles, on_refusal: Callable[[str, str], None]
    ) -> None:
        self.roles = roles
        self.accepted = self.refused = 0
        self.banned: dict[str, int] = {}  # name -> until when, CLOCK_MONOTONIC ns
        self._refused = on_refusal
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ENDPOINT)

    def serve(self) -> None:
        """Answer what waits, at most 64 at a time."""
        for _ in range(64):
            try:
                frames = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.ZMQError:
                return
            try:
                answer = self._judge(frames[2:])
            except Exception as why:
                answer = [b"500", f"{type(why).__name__}".encode(), b"", b""]
                self.refused += 1
            try:
                self.socket.send_multipart(
                    [*frames[:2], b"1.0", frames[3] if len(frames) > 3 else b"", *answer], zmq.DONTWAIT
                )
            except zmq.ZMQError:
                continue

    def _judge(self, frames: list[bytes]) -> list[bytes]:
        version, _, domain, address, _, mechanism, *credentials = frames
        if version == b"1.0" and domain == DOMAIN and mechanism == b"CURVE" and len(credentials) == 1:
            public = z85.encode(credentials[0]).decode()
            granted = self.roles.role(public)
            if granted is not None and self.banned.get(granted.name, 0) > time.monotonic_ns():
                self.refused += 1
                return [b"300", b"this key asked for too much; try again in a minute", b"", b""]
            if granted is not None:
                self.accepted += 1
                return [b"200", b"OK", granted.name.encode(), b""]
            self.refused += 1
            self._refused(
                "refused", f"key {public} from {address.decode(errors='replace')[:64]} is not granted anything"
            )
            # 300 and not 400: after a 400 libzmq's client never tries again, and a key that is granted later stays out.
            return [b"300", b"this key is not granted anything", b"", b""]
        self.refused += 1
        self._refused(
            "refused", f"{mechanism.decode(errors='replace')[:16]} from {address.decode(errors='replace')[:64]}"
        )
        return [b"400", b"CURVE with a granted key is needed", b"", b""]

    def close(self) -> None:
        self.socket.close(0)


def curve(public: str, secret: str) -> Callable[[zmq.Socket[bytes]], None]:
    """Make a socket a CURVE server whose clients the handler judges."""

    def prepare(socket: zmq.Socket[bytes]) -> None:
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.curve_server = True
        socket.curve_publickey = public.encode()
        socket.curve_secretkey = secret.encode()

    return prepare


def loopback(endpoint: str) -> bool:
    """Tell whether a tcp endpoint can be reached from this machine only."""
    host = endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
