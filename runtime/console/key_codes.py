"""From bytes of a line to keys. Every byte string is taken; what is no key is counted as noise and dropped."""

import re
from typing import NamedTuple

PRINTABLE = re.compile(rb"[\x20-\x7e]+")
ESCAPE_BYTES_MAX = 16  # a sequence longer than that is no key

CONTROLS = {
    0x01: "home", 0x02: "left", 0x03: "interrupt", 0x04: "eof", 0x05: "end", 0x06: "right", 0x08: "backspace",
    0x09: "tab", 0x0A: "enter", 0x0B: "kill-right", 0x0C: "redraw", 0x0D: "enter", 0x0E: "down", 0x10: "up",
    0x15: "kill-line", 0x17: "kill-word", 0x7F: "backspace",
}  # fmt: skip
QUIET = {0x00, 0x11, 0x13}  # padding, and flow control that a terminal may send by itself
FINALS = {"A": "up", "B": "down", "C": "right", "D": "left", "H": "home", "F": "end"}
TILDES = {"1": "home", "3": "delete", "4": "end", "7": "home", "8": "end"}


class Key(NamedTuple):
    """One event. kind: `text` (a run of printable characters), `key` (a named one), `alive` (the terminal answered
    that it is there), `cursor` (the terminal says where its cursor is), `noise` (a byte that no keyboard sends)."""

    kind: str
    text: str = ""
    row: int = 0
    column: int = 0


class Keys:
    """The decoder; keeps what is left of a sequence that has not ended yet."""

    def __init__(self) -> None:
        self._escape: bytearray | None = None
        self._after_cr = False

    def reset(self) -> None:
        """Forget a half sequence."""
        self._escape = None
        self._after_cr = False

    def feed(self, data: bytes) -> list[Key]:
        """Give the keys in these bytes."""
        found: list[Key] = []
        at, size = 0, len(data)
        while at < size:
            if self._escape is not None:
                at = self._sequence(data, at, found)
                continue
            run = PRINTABLE.match(data, at)
            if run:
                found.append(Key("text", run.group().decode("ascii")))
                self._after_cr = False
                at = run.end()
                continue
            byte = data[at]
            at += 1
            # CR LF is one Enter, however the terminal sends it.
            if byte == 0x0A and self._after_cr:
                self._after_cr = False
                continue
            self._after_cr = byte == 0x0D
            if byte == 0x1B:
                self._escape = bytearray()
            elif byte in CONTROLS:
                found.append(Key("key", CONTROLS[byte]))
            elif byte not in QUIET:
                found.append(Key("noise"))
        return found

    def _sequence(self, data: bytes, at: int, found: list[Key]) -> int:
        """Take one byte of an escape sequence; gives where to go on."""
        assert self._escape is not None
        byte = data[at]
        held = self._escape
        if byte < 0x20 or byte > 0x7E or len(held) >= ESCAPE_BYTES_MAX:
            self._escape = None  # not a sequence after all: the byte stands for itself
            found.append(Key("noise"))
            return at
        held.append(byte)
        if len(held) == 1 and byte in b"[O":
            return at + 1
        if len(held) > 1 and not 0x40 <= byte <= 0x7E:
            return at + 1
        self._escape = None
        key = _meaning(held.decode("ascii"))
        if key is not None:
            found.append(key)
        return at + 1


def _meaning(sequence: str) -> Key | None:
    """What a whole sequence behind ESC says; None for one that means nothing here."""
    if len(sequence) < 2:
        return None
    middle, final = sequence[1:-1], sequence[-1]
    if final in FINALS and (not middle or ";" in middle):
        return Key("key", FINALS[final])
    if final == "~" and middle in TILDES:
        return Key("key", TILDES[middle])
    if final == "n" and middle in ("0", "3"):
        return Key("alive")
    if final == "R":
        row, _, column = middle.partition(";")
        if row.isdigit() and column.isdigit() and len(middle) <= 9:
            return Key("cursor", row=int(row), column=int(column))
    return None
