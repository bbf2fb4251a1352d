"""The simulated plant's lines behind a TCP port: Modbus TCP or RTU frames over TCP, for as many masters as come."""

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Mapping

from tidegate.ext.bus.rtu_view import crc

ANSWER_S = 2.0  # a request without an answer by then never gets one
HEADER = 6


class Line:
    """One line of the plant from its master's end: one request at a time."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._lock = threading.Lock()

    def ask(self, request: bytes) -> bytes | None:
        """The reply (unit, function, data) to a request in the same form; None for silence."""
        with self._lock:
            while select.select([self.fd], [], [], 0)[0]:
                os.read(self.fd, 4096)  # what came too late for the request before
            os.write(self.fd, request + struct.pack("<H", crc(request)))
            held = b""
            while select.select([self.fd], [], [], ANSWER_S)[0]:
                held += os.read(self.fd, 4096)
                if len(held) >= _whole(held):
                    return held[:-2]
            return None


def _whole(reply: bytes) -> int:
    """Bytes of a reply that begins like this; more than there are while it does not say."""
    if len(reply) < 3:
        return 5
    if reply[1] & 0x80:
        return 5
    if reply[1] in (1, 2, 3, 4, 23):
        return 5 + reply[2]
    return 10 if reply[1] == 22 else 8


class TcpSide:
    """Accepts masters on a listening socket and passes their requests to the plant's lines.

    lines: unit id -> the line that it is on. framed: Modbus TCP, else RTU frames, for which the first line is the one.
    """

    def __init__(self, listener: socket.socket, lines: Mapping[int, Line], framed: bool) -> None:
        self.listener, self.lines, self.framed = listener, dict(lines), framed
        self._over = False
        threading.Thread(target=self._accept, name="tcp", daemon=True).start()

    def _accept(self) -> None:
        while not self._over:
            try:
                master, _ = self.listener.accept()
            except OSError:
                return
            master.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve = self._framed if self.framed else self._plain
            threading.Thread(target=serve, args=(master,), name="tcp master", daemon=True).start()

    def _framed(self, master: socket.socket) -> None:
        held, lock = b"", threading.Lock()
        with contextlib.suppress(OSError), master:
            while got := master.recv(4096):
                held += got
                while len(held) >= HEADER and len(held) >= HEADER + int.from_bytes(held[4:6]):
                    length = int.from_bytes(held[4:6])
                    head, request, held = held[:4], held[HEADER : HEADER + length], held[HEADER + length :]
                    # Several in flight: each line answers by itself.
                    threading.Thread(target=self._answer, args=(master, lock, head, request), daemon=True).start()

    def _answer(self, master: socket.socket, lock: threading.Lock, head: bytes, request: bytes) -> None:
        line = self.lines.get(request[0])
        reply = line.ask(request) if line is not None else None
        if reply is None:  # as a gateway says it
            reply = bytes([request[0], request[1] | 0x80, 10 if line is None else 11])
        with contextlib.suppress(OSError), lock:
            master.sendall(head + struct.pack(">H", len(reply)) + reply)

    def _plain(self, master: socket.socket) -> None:
        (line, *_) = self.lines.values()
        with contextlib.suppress(OSError), master:
            while True:
                for ready in select.select([master.fileno(), line.fd], [], [])[0]:
                    if ready == master.fileno():
                        if not (got := master.recv(4096)):
                            return
                        os.write(line.fd, got)
                    else:
                        master.sendall(os.read(line.fd, 4096))

    def stop(self) -> None:
        """No new masters; those that are there stay until the process ends."""
        self._over = True
        self.listener.close()
