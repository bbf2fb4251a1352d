"""Simulated packs that answer in Pylontech's RS-485 protocol, from the registers of the plant behind them.

Written apart from `ext/bus/pylon.pyx`, which reads what is said here. A pack has 15 cells, of which the first is the
highest and the others the lowest, and five sensors, likewise.
"""

import contextlib
import os
import select
import threading

from tidegate.hal.sim.modbus_tcp import Line

CELLS, SENSORS = 15, 5
ANALOG, ALARMS, VERSION, LIMITS = 0x42, 0x44, 0x4F, 0x92
WORDS = {ANALOG: 14, ALARMS: 6, LIMITS: 5}
NO_SUCH_COMMAND, NO_SUCH_PACK = 0x04, 0x90


def frame(address: int, result: int, content: bytes) -> bytes:
    """A frame: the command of a question, or the result of an answer, with its content in plain bytes."""
    text = content.hex().upper()
    length = len(text)
    check = -sum(int(digit, 16) for digit in f"{length:03X}") % 16
    body = f"20{address:02X}46{result:02X}{check:X}{length:03X}{text}"
    return f"~{body}{-sum(body.encode()) % 65536:04X}\r".encode()


def content_of(pack: int, command: int, words: list[int]) -> bytes:
    """What a pack says to a command, of the registers that the plant has at it."""

    def two(*numbers: int) -> bytes:
        return b"".join(number.to_bytes(2) for number in numbers)

    if command == LIMITS:
        return bytes([pack]) + two(*words[:4]) + bytes([words[4] & 0xFF])
    if command == ALARMS:
        states = bytes([words[2] & 0xFF, words[3] & 0xFF, words[4] & 0xFF, words[5] & 0xFF, words[5] >> 8])
        return bytes([0, pack, CELLS]) + bytes(CELLS) + bytes([SENSORS]) + bytes(SENSORS) + bytes(3) + states
    cells = two(words[1], *[words[2]] * (CELLS - 1))
    sensors = two(words[4], *[words[5]] * (SENSORS - 1))
    whole = 50_000  # the plant says a share
    left = min(whole * words[12] // 10_000, 0xFFFF)
    rest = two(words[6], words[7], left) + bytes([2]) + two(whole, words[13])
    return bytes([0, pack, CELLS]) + cells + bytes([SENSORS]) + sensors + rest


class PylonSide:
    """Answers questions that come on `fd` from the plant's line."""

    def __init__(self, fd: int, line: Line) -> None:
        self.fd, self.line = fd, line
        threading.Thread(target=self._serve, name="pylontech", daemon=True).start()

    def _serve(self) -> None:
        held = b""
        while True:
            select.select([self.fd], [], [])
            try:
                held += os.read(self.fd, 512)
            except BlockingIOError:
                continue
            except OSError:
                return
            *whole, held = held.split(b"\r")
            for text in whole:
                answer = self.answer(text[text.rfind(b"~") :])
                if answer:
                    with contextlib.suppress(OSError):
                        os.write(self.fd, answer)

    def answer(self, question: bytes) -> bytes:
        """The answer to a question without its carriage return; nothing to one that is none or not of our packs."""
        if len(question) < 17 or question[:1] != b"~" or question[-4:] != b"%04X" % (-sum(question[1:-4]) % 65536):
            return b""
        pack, command = int(question[3:5], 16), int(question[7:9], 16)
        if command == VERSION:
            return frame(pack, 0, b"")
        if command not in WORDS:
            return frame(pack, NO_SUCH_COMMAND, b"")
        reply = self.line.ask(bytes([pack, 3, command, 0, 0, WORDS[command]]))
        if reply is None:
            return b""
        if reply[1] != 3:
            return frame(pack, NO_SUCH_PACK, b"")
        words = [int.from_bytes(reply[at : at + 2]) for at in range(3, 3 + 2 * WORDS[command], 2)]
        return frame(pack, 0, content_of(pack, command, words))
